"""A new configuration is in force as a whole, after it is on record; or nothing has changed, and it says why."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

import pytest
from tests.supervisor.scene import Stage, until

from gatebook.ledger import keys
from gatebook.ledger.entry import Policy, parse
from gatebook.ledger.read import Reader
from gatebook.recorder import submit
from gatebook.supervisor import reload
from gatebook.supervisor.service import Supervisor


def policies(stage: Stage) -> list[str]:
    """What the ledger says was put in force, in order."""
    reader = Reader(stage.paths.ledger, "acme/node-1", stage.paths.deks, keys.load_reader(stage.paths.keys))
    found = []
    index = 0
    while (data := reader.entry(index)) is not None:
        index += 1
        entry = parse(data)
        if isinstance(entry, Policy):
            found.append(entry.digest.hex())
    return found


def changed(stage: Stage) -> None:
    """One more route, to a new upstream."""
    stage.configuration["upstreams"]["more"] = dict(stage.configuration["upstreams"]["orders"])
    stage.configuration["routes"].append(stage.route("second", "/second", "more"))
    stage.write()


def nginx_conf(stage: Stage) -> bytes:
    return (stage.paths.nginx / "nginx.conf").read_bytes()


def test_new_route_to_a_new_upstream_is_there_when_reload_returns(stage: Stage) -> None:
    async def scene(supervisor: Supervisor) -> None:
        old = stage.digest()
        assert await stage.status_of("/second") == 404
        changed(stage)
        told = await stage.ask("reload")
        assert told == {"configuration": stage.digest(), "changed": True}
        assert await stage.status_of("/second") == 200
        assert supervisor.configuration.digest().hex() == stage.digest()
        assert stage.applied() == [{"from": old, "to": stage.digest()}]
        assert policies(stage)[-2:] == [old, stage.digest()]

    stage.play(scene)


def test_same_configuration_reloads_the_gateway_and_leaves_no_record(stage: Stage) -> None:
    """A certificate may be new under its old name."""

    async def scene(supervisor: Supervisor) -> None:
        before = supervisor.gateway.offspring()
        told = await stage.ask("reload")
        assert told == {"configuration": stage.digest(), "changed": False}
        assert supervisor.gateway.offspring() - before
        assert stage.applied() == []

    stage.play(scene)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"routes": []}, "routes"),
        ({"name": "other"}, "a restart of `gatebook run`"),
        ({"guard": {"processes": 2}}, "a restart of `gatebook run`"),
        ({"listn": []}, "listn"),
    ],
)
def test_what_is_wrong_changes_nothing(stage: Stage, change: dict[str, Any], said: str) -> None:
    async def scene(supervisor: Supervisor) -> None:
        before = stage.digest(), nginx_conf(stage), policies(stage)
        stage.configuration |= change
        stage.write()
        told = await stage.ask("reload")
        assert said in told["error"]
        assert told["problems"]
        assert all(problem["line"] > 0 for problem in told["problems"])
        assert (stage.digest(), nginx_conf(stage), policies(stage)) == before
        assert await stage.status_of("/public") == 200

    stage.play(scene)


def test_recorder_that_hangs_leaves_the_old_configuration_in_force(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is not on record is not in force; and it does not come into force when the recorder goes on."""
    monkeypatch.setattr(submit.ask, "__defaults__", (1.0,))

    async def scene(supervisor: Supervisor) -> None:
        before = stage.digest(), nginx_conf(stage)
        pid = supervisor.recorder.pid
        assert pid is not None
        changed(stage)
        os.kill(pid, signal.SIGSTOP)
        try:
            told = await stage.ask("reload")
        finally:
            os.kill(pid, signal.SIGCONT)
        assert "did not answer" in told["error"]
        assert (stage.digest(), nginx_conf(stage)) == before
        await until(lambda: _stands(supervisor), "the recorder")
        assert policies(stage) == [before[0]]
        assert stage.applied() == []

        async def passes() -> bool:
            return await stage.status_of("/public") == 200

        await until(passes, "the guard to find the recorder again")
        assert await stage.status_of("/second") == 404
        assert (await stage.ask("reload"))["changed"]
        assert await stage.status_of("/second") == 200

    stage.play(scene)


async def _stands(supervisor: Supervisor) -> bool:
    return await supervisor.stands() is not None


def test_guard_that_hangs_is_replaced_by_one_that_judges_by_the_new_rules(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reload, "SWITCH_S", 1.0)

    async def scene(supervisor: Supervisor) -> None:
        (guard,) = supervisor.guards
        pid = guard.pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        changed(stage)
        assert (await stage.ask("reload"))["changed"]
        await until(lambda: guard.pid not in (None, pid), "another guard")

        async def passes() -> bool:
            return await stage.status_of("/second") == 200

        await until(passes, "the new rules")

    stage.play(scene)
    assert stage.events("has not switched in time, and is restarted") == ["guard 0"]


def test_two_at_once_happen_one_after_the_other(stage: Stage) -> None:
    async def scene(supervisor: Supervisor) -> None:
        changed(stage)
        told = await asyncio.gather(*(stage.ask("reload") for _ in range(3)))
        assert sorted(each["changed"] for each in told) == [False, False, True]
        assert len(stage.applied()) == 1

    stage.play(scene)


def test_reload_before_it_is_ready_is_refused(stage: Stage) -> None:
    async def scene(supervisor: Supervisor) -> None:
        await until(lambda: stage.paths.control_socket.exists(), "the control socket")
        changed(stage)
        assert "still starting" in (await stage.ask("reload"))["error"]

    stage.play(scene, ready=False)


def test_reload_while_it_stops_is_refused_and_leaves_nobody_behind(stage: Stage) -> None:
    async def scene(supervisor: Supervisor) -> None:
        await supervisor._reload.stop()
        changed(stage)
        assert "stopping" in (await stage.ask("reload"))["error"]
        assert stage.applied() == []

    stage.play(scene)


def test_hang_up_reloads(stage: Stage) -> None:
    async def scene(supervisor: Supervisor) -> None:
        changed(stage)
        os.kill(os.getpid(), signal.SIGHUP)

        async def passes() -> bool:
            return await stage.status_of("/second") == 200

        await until(passes, "the new route")

    stage.play(scene)
