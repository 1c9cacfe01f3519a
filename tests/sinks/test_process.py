"""The follower as a process: on a real recorder's ledger, killed at any moment, told of new settings."""

from __future__ import annotations

import itertools
import json
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.recorder.deployed import ORIGIN, State, until
from tests.recorder.place import decision, item

from gatebook import record, wire
from gatebook.config import effective
from gatebook.paths import make_private
from gatebook.sinks.cursor import Book
from gatebook.sinks.destination import Answer, Piece
from gatebook.sinks.file import FileDestination
from gatebook.sinks.process import Follower


class Deployed(State):
    """A recorder, and a follower beside it that a test starts."""

    def __init__(self, folder: Path, **sinks: dict[str, Any]) -> None:
        super().__init__(folder, sinks=sinks)
        self.followers: list[subprocess.Popen[bytes]] = []

    def follow(self) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-m", "gatebook.sinks", str(self.paths.state)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self.followers.append(process)
        return process

    def place(self, name: str) -> int:
        cursor = Book(self.paths.sinks, name).cursor(ORIGIN)
        return cursor.place.next if cursor is not None else 0

    def has_come_to(self, name: str, index: int) -> None:
        until(lambda: self.place(name) >= index, f"sink {name} to come to {index}")

    def close(self) -> None:
        for process in self.followers:
            if process.poll() is None:
                process.kill()
            process.communicate()
        super().close()


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Deployed]:
    made = Deployed(
        tmp_path,
        file={"type": "file", "path": str(tmp_path / "access.jsonl")},
        other={"type": "file", "path": str(tmp_path / "other.jsonl"), "records": ["system"], "salts": False},
    )
    try:
        yield made
    finally:
        made.close()


def outcome(number: int, index: int) -> wire.Item:
    made = decision(number)
    data = record.encode(
        record.Outcome(
            id=made.id,
            time_us=made.time_us + 10,
            decision_index=index,
            response=record.ResponsePart(status=200, complete=True),
        )
    )
    return wire.Item(data)


def lines(path: Path) -> list[dict[str, Any]]:
    """All of it but first notices: these records are years old, so one that waits for a moment is told of."""
    found = [json.loads(line) for line in path.read_bytes().splitlines()] if path.exists() else []
    return [line for line in found if not line["id"].endswith("/open")]


def test_killed_at_any_moment_it_sends_each_record_once(state: Deployed, tmp_path: Path) -> None:
    recorder = state.start()
    chosen = random.Random(5)
    expected = set()
    for number in itertools.count():
        follower = state.follow()
        for _ in range(20):
            index = recorder.append(item(number * 100 + _))
            last = recorder.append(outcome(number * 100 + _, index))
            expected.add(f"{ORIGIN}/{index}")
        time.sleep(chosen.uniform(0.3, 0.9))
        follower.kill()
        follower.wait()
        if number == 8:
            break
    state.follow()
    state.has_come_to("file", last + 1)
    last = recorder.append(outcome(99_999, recorder.append(item(99_999))))  # once it is at work
    expected.add(f"{ORIGIN}/{last - 1}")
    state.has_come_to("file", last + 1)
    state.followers[-1].terminate()
    assert state.followers[-1].wait(10) == 0
    found = [line["id"] for line in lines(tmp_path / "access.jsonl") if line["kind"] == "access"]
    assert set(found) == expected
    assert len(found) == len(expected)
    assert recorder.end() == 0


def test_each_line_holds_the_exact_records_of_the_ledger(state: Deployed, tmp_path: Path) -> None:
    recorder = state.start()
    index = recorder.append(item(1))
    last = recorder.append(outcome(1, index))
    state.follow()
    state.has_come_to("file", last + 1)
    written = {
        part["index"]: record.decode(part["record"].encode())
        for line in lines(tmp_path / "access.jsonl")
        for part in line["ledger"]
    }
    assert written == {index: each for index, each in state.records() if index <= last}


def test_sinks_get_the_kinds_that_they_ask_for(state: Deployed, tmp_path: Path) -> None:
    recorder = state.start()
    last = recorder.append(outcome(1, recorder.append(item(1))))
    state.follow()
    state.has_come_to("other", last + 1)
    found = lines(tmp_path / "other.jsonl")
    assert [line["kind"] for line in found] == ["system"]
    assert all("salt" not in part for line in found for part in line["ledger"])


def test_sink_that_cannot_write_holds_up_no_other(tmp_path: Path) -> None:
    state = Deployed(
        tmp_path,
        broken={"type": "file", "path": str(tmp_path / "nowhere" / "x.jsonl")},
        file={"type": "file", "path": str(tmp_path / "access.jsonl")},
    )
    try:
        recorder = state.start()
        last = recorder.append(outcome(1, recorder.append(item(1))))
        state.follow()
        state.has_come_to("file", last + 1)
        found = until(lambda: Book(state.paths.sinks, "broken").state(), "a word of the broken one")
        assert found.doing == "waiting"
        assert "no such file" in found.why
        (tmp_path / "nowhere").mkdir()
        state.has_come_to("broken", last + 1)
    finally:
        state.close()


def test_new_settings_begin_where_the_old_ones_ended(state: Deployed, tmp_path: Path) -> None:
    recorder = state.start()
    first = recorder.append(outcome(1, recorder.append(item(1))))
    follower = state.follow()
    state.has_come_to("file", first + 1)
    moved = {"type": "file", "path": str(tmp_path / "moved.jsonl")}
    changed = state.configuration.model_dump(mode="json") | {"sinks": {"file": moved}}
    effective.write(type(state.configuration).model_validate(changed), state.paths.effective)
    follower.send_signal(signal.SIGHUP)
    second = recorder.append(item(2))
    last = recorder.append(outcome(2, second))
    until(lambda: lines(tmp_path / "moved.jsonl"), "a line in the new file")
    state.has_come_to("file", last + 1)
    assert [line["id"] for line in lines(tmp_path / "moved.jsonl")] == [f"{ORIGIN}/{second}"]
    assert f"{ORIGIN}/{second}" not in [line["id"] for line in lines(tmp_path / "access.jsonl")]


def test_without_a_readers_key_it_says_so_and_waits(state: Deployed) -> None:
    recorder = state.start()
    last = recorder.append(outcome(1, recorder.append(item(1))))
    key = state.paths.keys / "reader.key"
    away = key.rename(key.with_name("away"))
    follower = state.follow()
    found = until(lambda: Book(state.paths.sinks, "file").state(), "a word of the sink")
    assert found.doing == "paused"
    assert "reader.key" in found.why
    away.rename(key)
    follower.send_signal(signal.SIGHUP)
    state.has_come_to("file", last + 1)


def test_sink_that_is_named_again_while_it_ends_waits_until_it_has_ended(
    state: Deployed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two threads on one cursor would put it back."""
    recorder = state.start()
    last = recorder.append(outcome(1, recorder.append(item(1))))
    recorder.end()
    release, alive = threading.Event(), []

    class Slow(FileDestination):
        def send(self, batch: Sequence[Piece]) -> Answer:
            alive.append(1)
            assert len(alive) == 1, "two at a time"
            release.wait(10)
            answer = super().send(batch)
            alive.pop()
            return answer

    monkeypatch.setattr("gatebook.sinks.process.make", lambda settings: Slow(settings))
    make_private(state.paths.sinks)
    follower = Follower(state.paths)
    with_file = state.configuration.model_copy(update={"sinks": {"file": state.configuration.sinks["file"]}})
    follower.apply(with_file)
    until(lambda: alive, "the first to send")
    follower.apply(state.configuration.model_copy(update={"sinks": {}}))
    follower.apply(with_file)
    release.set()
    state.has_come_to("file", last + 1)
    follower.stop()
    assert len(lines(tmp_path / "access.jsonl")) == len({line["id"] for line in lines(tmp_path / "access.jsonl")})
