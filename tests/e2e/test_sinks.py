"""Sinks of a whole deployment: what is asked by HTTP arrives as the ledger has it, whoever is killed or dead."""

from __future__ import annotations

import base64
import json
import os
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks import Webhook
from tests.e2e.deployment import Deployment, until
from tests.e2e.load import Load
from tests.sinks.receiver import Receiver

from gatebook.config.load import load
from gatebook.ledger import keys
from gatebook.ledger.read import Reader
from gatebook.sinks.cursor import Book

SECRET = "whsec_" + base64.b64encode(b"k" * 32).decode()


class Sinks:
    """A deployment with a file, a webhook and a sink that nobody listens at."""

    def __init__(self, deployment: Deployment, receiver: Receiver) -> None:
        self.deployment, self.receiver = deployment, receiver
        self.file = deployment.folder / "access.jsonl"
        secret = deployment.folder / "hook.key"
        secret.touch(0o600)
        secret.write_text(SECRET)
        hook = {"type": "webhook", "secret": {"file": "hook.key"}}
        self.settings: dict[str, Any] = {
            "file": {"type": "file", "path": str(self.file)},
            "hook": {**hook, "url": receiver.url},
            "dead": {**hook, "url": f"http://127.0.0.1:{deployment._unused.getsockname()[1]}"},
        }
        self.use(*self.settings)

    def use(self, *names: str) -> None:
        self.deployment.configuration["sinks"] = {name: self.settings[name] for name in names}
        self.deployment.write()

    def reload(self) -> None:
        done = self.deployment.reload()
        assert done.returncode == 0, done.stderr

    def follower(self) -> dict[str, Any]:
        (found,) = [each for each in self.deployment.status()["processes"] if each["role"] == "follower"]
        return dict(found)

    @property
    def origin(self) -> str:
        return load(self.deployment.config).origin

    def records(self) -> dict[int, bytes]:
        """All that the ledger holds, by its own reader."""
        paths = self.deployment.paths
        reader = Reader(paths.ledger, self.origin, paths.deks, keys.load_reader(paths.keys))
        found = dict(reader.forwards())
        assert not reader.gaps
        return found

    def come(self, *names: str) -> dict[int, bytes]:
        """Wait until these have sent everything that is in the ledger by now; that."""
        until(lambda: self.deployment.status()["open_decisions"] == 0, "the outcomes")
        found = self.records()

        def there() -> bool:
            cursors = [Book(self.deployment.paths.sinks, name).cursor(self.origin) for name in names]
            return all(one is not None and one.place.next > max(found) and not one.place.open for one in cursors)

        until(there, f"{names} to have come to {max(found)}")
        return found

    def lines(self, path: Path | None = None) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (path or self.file).read_bytes().splitlines()]

    def posted(self) -> list[dict[str, Any]]:
        """What the webhook got; each message is one that a library of others verifies."""
        return [
            item
            for request in list(self.receiver.requests)
            for item in Webhook(SECRET).verify(request.body, request.headers)
        ]

    def cli(self, *arguments: str, code: int = 0) -> Any:
        done = self.deployment.cli("sinks", *arguments, "--json", "-c", str(self.deployment.config), check=False)
        assert done.returncode == code, done.stderr + done.stdout
        return json.loads(done.stdout)


def parts(items: list[dict[str, Any]]) -> dict[int, bytes]:
    """The exact records within items, by index."""
    return {part["index"]: part["record"].encode() for item in items for part in item["ledger"]}


def since(found: dict[int, bytes], sent: dict[int, bytes]) -> dict[int, bytes]:
    """Of what was sent the part that is in `found`: the log may have gone on since."""
    return {index: data for index, data in sent.items() if index <= max(found)}


@pytest.fixture
def sinks(stopped: Deployment) -> Iterator[Sinks]:
    receiver = Receiver()
    yield Sinks(stopped, receiver)
    receiver.close()


def test_records_arrive_as_the_ledger_has_them_and_a_dead_sink_changes_no_verdict(sinks: Sinks) -> None:
    running = sinks.deployment
    running.start()
    token = running.reader()
    asked = {
        running.ask("/orders/1", token): 200,
        running.ask("/orders/1"): 401,
        running.ask("/orders/1", running.issuer.token("eve", roles=["visitor"])): 403,
        running.ask("/nowhere", token): 404,
        running.ask("/down", token): 502,
        running.ask("/items/secret?a=1"): 403,
        running.ask("/items/1", headers={"User-Agent": "curl/\x7f"}): 400,
    }
    assert [answer.status_code for answer in asked] == list(asked.values())
    running.configuration["audit"] = {"address": "drop"}
    running.write()
    sinks.reload()  # an admin record
    found = sinks.come("file", "hook")
    file, posted = sinks.lines(), sinks.posted()
    assert since(found, parts(file)) == found
    assert since(found, parts(posted)) == found
    assert {"access", "admin", "system"} <= {line["kind"] for line in file}
    assert [count for count in Counter(line["id"] for line in file).values() if count > 1] == []
    shown = {record.get("decision_index", record.get("outcome_index")): record for record in running.log()}
    told = {line["ledger"][0]["index"]: line for line in file if line["kind"] == "access" and not line.get("open")}
    for index, access in shown.items():
        assert {**told[index], **access} == told[index] | {
            "id": access["id"]
        }  # nothing differs, nothing is missing
    statuses = {line["request_id"]: line["response"]["status"] for line in told.values()}
    assert {answer.headers["X-Request-ID"]: status for answer, status in asked.items()}.items() <= statuses.items()

    states = {each["sink"]: each for each in sinks.cli("list")["sinks"]}
    assert [states[name]["state"] for name in ("file", "hook", "dead")] == ["sending", "sending", "waiting"]
    assert states["dead"]["behind"] > 0
    assert states["dead"]["sent"] == 0
    assert states["hook"]["refused"] == 0
    status = running.cli("status", "-c", str(running.config)).stdout
    assert "follower" in status

    assert sinks.cli("test", "hook")["stored"] is True
    marked = sinks.posted()[-1]
    assert (marked["event"], marked["ledger"][0]["index"]) == ("sink.test", -1)
    assert sinks.cli("test", "dead", code=1)["stored"] is False

    before = len(sinks.receiver.requests)
    sinks.cli("replay", "hook", "--from", "0")
    again = [item for item in sinks.posted()[-1000:] if item["ledger"][0]["index"] >= 0]
    assert len(sinks.receiver.requests) > before
    counted = Counter(item["id"] for item in again)
    assert [item["id"] for item in posted if counted[item["id"]] < 2] == []
    assert since(found, parts(again)) == found
    found = sinks.come("file")
    (replayed,) = [line for line in sinks.lines() if line.get("action") == "sink.replay"]
    assert replayed["detail"]["sink"] == "hook"
    running.verify()


def test_reload_starts_changes_and_ends_sinks_each_at_its_cursor(sinks: Sinks) -> None:
    running = sinks.deployment
    sinks.use()
    running.start()
    roles = [process["role"] for process in running.status()["processes"]]
    assert "follower" not in roles
    assert running.ask("/healthz").status_code == 200
    sinks.use("file")
    sinks.reload()
    first = sinks.come("file")
    assert since(first, parts(sinks.lines())) == first
    moved = running.folder / "moved.jsonl"
    sinks.settings["file"] = {"type": "file", "path": str(moved)}
    sinks.use("file", "hook")
    follower = running.pid("follower")
    sinks.reload()
    assert running.ask("/healthz").status_code == 200
    all_of_it = sinks.come("file", "hook")
    assert running.pid("follower") == follower
    old, new = parts(sinks.lines()), parts(sinks.lines(moved))
    assert not old.keys() & new.keys()
    assert since(all_of_it, old | new) == all_of_it
    assert since(all_of_it, parts(sinks.posted())) == all_of_it
    sinks.use()
    sinks.reload()
    assert "follower" not in [process["role"] for process in running.status()["processes"]]
    gone = len(sinks.lines(moved))
    assert running.ask("/healthz").status_code == 200
    sinks.use("file")
    sinks.reload()
    all_of_it = sinks.come("file")
    assert len(sinks.lines(moved)) > gone
    found = Counter(line["id"] for path in (sinks.file, moved) for line in sinks.lines(path))
    assert set(found.values()) == {1}
    assert since(all_of_it, old | parts(sinks.lines(moved))) == all_of_it


def test_follower_killed_under_load_is_back_and_neither_loses_nor_repeats_a_line(sinks: Sinks) -> None:
    running = sinks.deployment
    running.start()
    clients = Load(running)
    with clients.running():
        for _ in range(3):
            clients.goes_on(60)
            os.kill(until(lambda: sinks.follower()["pid"], "the follower"), signal.SIGKILL)
    assert set(clients.statuses) == {200}, clients.statuses
    found = sinks.come("file", "hook")
    assert sinks.follower()["restarts"] == 3
    lines = sinks.lines()
    assert set(Counter(line["id"] for line in lines).values()) == {1}
    assert since(found, parts(lines)) == found
    assert since(found, parts(sinks.posted())) == found
    running.verify()
