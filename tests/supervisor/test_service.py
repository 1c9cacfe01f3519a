"""All processes in the right order, up and down; ready only when they are; nobody left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from pathlib import Path

import pytest
from tests.supervisor.scene import Stage, alive, until

from gatebook import record
from gatebook.errors import ConfigError, EnvironmentFault
from gatebook.supervisor.service import Supervisor, checked, only_one


def test_scribe_comes_first_and_goes_last(stage: Stage) -> None:
    pids: list[int] = []

    async def scene(supervisor: Supervisor) -> None:
        assert await stage.status_of("/public") == 200
        status = await stage.ask("status")
        assert status["ready"]
        assert status["listen"] == [f"http://127.0.0.1:{stage.port}"]
        pids.extend(process["pid"] for process in status["processes"])

    stage.play(scene)
    assert stage.events("started") == ["recorder", "guard 0", "gateway"]
    assert not any(map(alive, pids))
    assert not stage.paths.control_socket.exists()
    kinds = [type(each) for each in stage.records()]
    assert kinds[-3:] == [record.Decision, record.Outcome, record.System]


def test_configuration_with_a_problem_starts_nothing_and_writes_nothing(stage: Stage) -> None:
    stage.configuration["routes"][0]["upstream"] = "nobody"
    stage.write()
    with pytest.raises(ConfigError, match="nobody"):
        checked(stage.config)
    assert not stage.paths.effective.exists()
    assert not stage.paths.nginx.exists()


def test_second_one_on_the_same_state_is_refused(stage: Stage) -> None:
    refused = pytest.raises(EnvironmentFault, match="another `gatebook run`")
    with only_one(stage.paths), refused, only_one(stage.paths):
        pass
    with only_one(stage.paths):
        pass  # and it is free again


def test_recorder_that_cannot_start_lets_nobody_else_start(stage: Stage) -> None:
    """Without a ledger nothing could be let through; so nothing listens."""
    (stage.paths.keys / "pseudonym.key").write_bytes(b"short")

    async def scene(supervisor: Supervisor) -> None:
        await until(lambda: supervisor.recorder.restarts >= 2, "it to be tried again")
        status = await stage.ask("status")
        assert (status["ready"], status["entries"]) == (False, None)
        with pytest.raises(ConnectionError):
            await stage.status_of("/public")

    stage.play(scene, ready=False)
    assert set(stage.events("started")) == {"recorder"}
    assert set(stage.events("died")) == {"recorder"}


def test_stranger_on_our_port_is_not_taken_for_our_gateway(stage: Stage) -> None:
    """It accepts, and nginx tries for a while to get the port before it gives up."""
    with socket.socket() as stranger:

        async def scene(supervisor: Supervisor) -> None:
            await until(lambda: "gateway" in stage.events("started"), "the gateway's start")
            for _ in range(100):
                assert not supervisor.started
                await asyncio.sleep(0.02)
            assert not (await stage.ask("status"))["ready"]

        real = checked

        def then_taken(config: Path) -> object:
            found = real(config)
            stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            stranger.bind(("127.0.0.1", stage.port))
            stranger.listen()
            return found

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("tests.supervisor.scene.checked", then_taken)
            stage.play(scene, ready=False)
    assert "ready" not in [event["event"] for event in stage.said]


def test_stop_while_it_starts_ends_all_there_is(stage: Stage) -> None:
    pids: list[int] = []

    async def scene(supervisor: Supervisor) -> None:
        await until(lambda: supervisor.recorder.pid, "the recorder")
        assert supervisor.recorder.pid is not None
        pids.append(supervisor.recorder.pid)

    stage.play(scene, ready=False)
    assert not any(map(alive, pids))
    assert not stage.paths.control_socket.exists()


@pytest.mark.parametrize("role", ["recorder", "guard 0", "gateway"])
def test_one_that_dies_is_replaced_and_readiness_says_so_meanwhile(stage: Stage, role: str) -> None:
    async def scene(supervisor: Supervisor) -> None:
        (child,) = [child for child in supervisor.children if child.role == role]
        before, workers = child.pid, supervisor.gateway.offspring()
        assert before is not None
        os.kill(before, signal.SIGKILL)
        await until(lambda: child.pid not in (None, before), "another")

        async def ready() -> bool:
            return bool((await stage.ask("status"))["ready"])

        await until(ready, "readiness")
        assert await stage.status_of("/public") == 200
        if role == "gateway":
            assert not any(map(alive, workers))  # they would keep its ports

    stage.play(scene)
    assert stage.events("died") == [role]


def test_program_that_is_not_there_is_said_and_ends_it(stage: Stage) -> None:
    async def scene(supervisor: Supervisor) -> None:
        pass

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.executable", "/nowhere/python")
        with pytest.raises(EnvironmentFault, match="cannot be started"):
            stage.play(scene)
    assert not stage.paths.control_socket.exists()


def test_unknown_command_is_answered(stage: Stage) -> None:
    async def scene(supervisor: Supervisor) -> None:
        await until(lambda: stage.paths.control_socket.exists(), "the control socket")
        assert "no such command" in (await stage.ask("dance"))["error"]

    stage.play(scene, ready=False)
