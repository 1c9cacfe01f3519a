"""The recorder's process, killed and stopped at any moment: each request has one decision and one outcome."""

from __future__ import annotations

import contextlib
import os
import random
import resource
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.recorder.deployed import DEADLINE_S, State, until
from tests.recorder.place import Gateway, item, request_id

from gatebook import record, wire
from gatebook.config import effective
from gatebook.errors import RecorderUnavailable
from gatebook.ledger.entry import encode, parse
from gatebook.recorder.process import Recorder

SELF = os.getpid()  # stands for a gateway's worker: a process that lives
KILLS = 100 if os.environ.get("GATEBOOK_FAULTS") == "all" else 8


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    made = State(tmp_path)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def gateway(state: State) -> Iterator[Gateway]:
    made = Gateway(state.paths.logs, SELF)
    yield made
    made.close()


def outcomes(state: State) -> list[record.Outcome]:
    return [each for _, each in state.records() if isinstance(each, record.Outcome)]


# -- start and end ----------------------------------------------------------------------------------------
def test_start_and_stop_are_on_record_and_the_end_is_clean(state: State) -> None:
    for clean in (True, True):
        recorder = state.start()
        assert recorder.end() == 0
        event, detail = state.events()[-2]
        assert (event, detail["clean"]) == ("recorder.start", clean)
        assert state.events()[-1] == ("recorder.stop", {"open": 0})
    assert state.events()[0][1]["vault"] == "made anew"
    assert "vault" not in state.events()[2][1]
    state.verified()


def test_kill_is_on_record_at_the_next_start(state: State) -> None:
    state.start().kill()
    recorder = state.start()
    assert [detail["clean"] for _, detail in state.events()] == [True, False]
    assert recorder.end() == 0
    state.verified()


def test_second_recorder_refuses_and_the_first_goes_on(state: State) -> None:
    first = state.start()
    second = state.start(wait=False)
    assert second.exits() == 14
    assert "another process" in second.said()
    assert first.is_ready()
    first.append(item(1, SELF))
    assert first.end() == 0
    state.verified()


def test_socket_of_a_dead_recorder_is_taken_over_and_ours_alone(state: State) -> None:
    state.start().kill()
    assert state.paths.recorder_socket.exists()
    state.start()
    assert stat.S_IMODE(state.paths.recorder_socket.stat().st_mode) == 0o600


def test_sender_that_is_there_at_the_end_is_answered(state: State) -> None:
    """Guards end before the recorder; what they still send is taken until they have hung up."""
    recorder = state.start()
    with socket.socket(socket.AF_UNIX) as guard:
        guard.settimeout(DEADLINE_S)
        guard.connect(str(state.paths.recorder_socket))
        guard.sendall(wire.pack(wire.Status()))
        assert guard.recv(1000)
        recorder.popen.send_signal(signal.SIGTERM)
        until(lambda: state.paths.recorder_socket.exists(), "the socket")
        guard.sendall(wire.pack(wire.Append([item(1)])))
        (body,) = wire.Framer().feed(guard.recv(1000))
        assert isinstance(wire.unpack_reply(body), wire.Appended)
    assert recorder.exits() == 0
    assert [type(each) for _, each in state.records()][-2:] == [record.Decision, record.System]
    state.verified()


def test_sender_that_never_leaves_does_not_keep_it_up(state: State) -> None:
    recorder = state.start()
    with socket.socket(socket.AF_UNIX) as guard:
        guard.connect(str(state.paths.recorder_socket))
        assert recorder.end() == 0
    state.verified()


@pytest.mark.parametrize("lost", ["effective.json", "keys/pseudonym.key", "keys/log.key", "keys/reader.pub"])
def test_what_is_missing_is_named(state: State, lost: str) -> None:
    (state.paths.state / lost).unlink()
    recorder = state.start(wait=False)
    assert recorder.exits() == 3
    assert Path(lost).name in recorder.said()
    assert "Traceback" not in recorder.said()


def test_vault_that_is_no_vault_is_said_before_anything_is_written(state: State) -> None:
    state.paths.vault.write_bytes(b"nonsense" * 1000)
    recorder = state.start(wait=False)
    assert recorder.exits() == 11
    assert "vault.sqlite" in recorder.said()
    assert not state.paths.ledger.exists()


def test_folder_that_lets_others_in_is_refused(state: State) -> None:
    state.paths.logs.chmod(0o755)
    recorder = state.start(wait=False)
    assert recorder.exits() == 3
    assert "lets others in" in recorder.said()


def test_heartbeat_says_no_more_than_it_can_and_counts_anew(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the counts are and wherever the clock stands: without heartbeats the log would be incomplete."""
    recorder = Recorder(state.paths, state.configuration)
    try:
        recorder._logs.requests = recorder._journal.decisions = 1 << 40
        monkeypatch.setattr("time.time_ns", lambda: -5_000)
        beat = recorder._logs.heartbeat()
        assert (beat.t_us, beat.decisions, beat.requests) == (0, (1 << 32) - 1, (1 << 32) - 1)
        assert parse(encode(beat)) == beat
        assert recorder._logs.heartbeat().requests == 0
    finally:
        recorder._logs.close()
        recorder._vault.close()
        recorder._once.close()
        recorder._writer.close()


# -- outcomes ---------------------------------------------------------------------------------------------
def test_decision_and_its_line_become_one(state: State, gateway: Gateway) -> None:
    recorder = state.start()
    first = recorder.append(item(1, SELF), item(2, SELF))
    gateway.line(1, first, worker=SELF)
    gateway.line(2, worker=SELF, s="503", r="recorder_unavailable", us="", ua="")
    until(lambda: recorder.stands().open == 0, "both outcomes")  # type: ignore[union-attr]
    assert [each.decision_index for each in outcomes(state)] == [first, first + 1]
    assert recorder.end() == 0
    state.verified()


def test_decision_of_a_worker_that_is_killed_is_unknown(state: State, gateway: Gateway) -> None:
    recorder = state.start()
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100)"]) as worker:
        index = recorder.append(item(1, worker.pid), item(2, SELF))
        worker.kill()
    until(lambda: recorder.stands().open == 1, "the outcome")  # type: ignore[union-attr]
    (found,) = outcomes(state)
    assert found.decision_index == index
    assert found.error is not None
    assert found.error.detail == "outcome_unknown"


def test_at_the_end_the_logs_are_sealed_and_gone(state: State) -> None:
    recorder = state.start()
    gateway = Gateway(state.paths.logs, SELF)
    gateway.line(1, worker=SELF)
    gateway.close()
    assert recorder.end() == 0
    assert len(outcomes(state)) == 1
    assert list(state.paths.logs.glob("*.log")) == []


def test_long_log_holds_up_nobody(state: State, gateway: Gateway) -> None:
    """After a while without a recorder there is much to read."""
    assert state.start().end() == 0
    for start in range(0, 40_000, 1000):
        lines = (gateway.text(start + n, n=str(start + n), u="", worker=SELF) for n in range(1, 1001))
        gateway.write(b"".join(lines), SELF)
    recorder = state.start()
    index = recorder.append(item(100_000, 0))
    until(lambda: recorder.stands().size > 40_000, "all lines to be read")  # type: ignore[union-attr]
    found = [index for index, each in state.records() if isinstance(each, record.Outcome)]
    assert len(found) == 40_000
    assert index < found[-1]  # answered in between
    assert recorder.end() == 0


def test_signal_goes_to_no_process_that_got_the_number_of_a_dead_gateway(state: State, gateway: Gateway) -> None:
    """USR1 ends a process that does not expect it."""
    state.paths.nginx.mkdir(mode=0o700)
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100)"]) as innocent:
        (state.paths.nginx / "nginx.pid").write_text(f"{innocent.pid}\n")
        recorder = state.start()  # and no access.log, so it wants one
        time.sleep(2.5)  # it asks each second
        assert innocent.poll() is None
        innocent.kill()
    assert recorder.end() == 0


# -- configurations ---------------------------------------------------------------------------------------
def test_configuration_is_applied_when_it_is_the_one_that_lies_there(state: State, gateway: Gateway) -> None:
    recorder = state.start()
    changed = state.configuration.model_copy(
        update={"audit": state.configuration.audit.model_copy(update={"address": "keep"})}
    )
    admin = record.encode(record.Admin(time_us=1, action="configuration.apply", actor="os:0"))
    refused = recorder.ask(wire.Apply(changed.digest(), admin))
    assert isinstance(refused, wire.Refused)
    effective.write(changed, state.paths.effective)
    assert isinstance(recorder.ask(wire.Apply(changed.digest(), admin)), wire.Appended)
    gateway.line(1, worker=SELF)
    until(lambda: outcomes(state), "the outcome")
    assert outcomes(state)[0].client == record.ClientPart(address="192.0.2.7")
    assert recorder.end() == 0


def test_period_of_pseudonyms_is_that_of_the_configuration_in_force(state: State) -> None:
    recorder = state.start()
    before = recorder.ask(wire.Pseudonym("subject:staff:alice"))
    audit = state.configuration.audit.model_copy(update={"pseudonym_period": 3600.0})
    changed = state.configuration.model_copy(update={"audit": audit})
    effective.write(changed, state.paths.effective)
    admin = record.encode(record.Admin(time_us=1, action="configuration.apply", actor="os:0"))
    assert isinstance(recorder.ask(wire.Apply(changed.digest(), admin)), wire.Appended)
    after = recorder.ask(wire.Pseudonym("subject:staff:alice"))
    assert isinstance(before, wire.Pseudonymous)
    assert isinstance(after, wire.Pseudonymous)
    assert (before.until, after.until % 3600) == (0, 0)
    assert after.until > time.time()
    assert after.pseudonym != before.pseudonym
    assert recorder.end() == 0


# -- killed under load ------------------------------------------------------------------------------------
class Load:
    """A guard and its gateway: batches of decisions, and for each request a line, by what the guard was told."""

    def __init__(self, state: State, gateway: Gateway) -> None:
        self._state = state
        self._gateway = gateway
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self.receipts: dict[str, int] = {}
        self.refused: set[str] = set()

    def _work(self) -> None:
        number = 0
        while not self._ending.is_set():
            batch = [item(number + position, SELF) for position in range(20)]
            first = self._append(batch)
            for position in range(20):
                known = (
                    {}
                    if first is not None
                    else {"s": "503", "r": "recorder_unavailable", "u": "", "us": "", "ua": ""}
                )
                index = None if first is None else first + position
                if index is None:
                    self.refused.add(request_id(number + position))
                else:
                    self.receipts[request_id(number + position)] = index
                self._gateway.line(number + position, index, worker=SELF, **known)
            number += 20
            time.sleep(0.001 if first is not None else 0.02)

    def _append(self, batch: list[wire.Item]) -> int | None:
        with contextlib.suppress(OSError, ValueError), socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(DEADLINE_S)
            connection.connect(str(self._state.paths.recorder_socket))
            connection.sendall(wire.pack(wire.Append(batch)))
            framer = wire.Framer()
            while data := connection.recv(65536):
                for body in framer.feed(data):
                    reply = wire.unpack_reply(body)
                    return reply.first_index if isinstance(reply, wire.Appended) else None
        return None

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        self._thread.start()
        try:
            yield
        finally:
            self._ending.set()
            self._thread.join()


def test_kill_under_load_loses_and_doubles_nothing(state: State, gateway: Gateway) -> None:
    load, chance = Load(state, gateway), random.Random(5)
    recorder = state.start()
    with load.running():
        for _ in range(KILLS):
            before = len(load.receipts)
            until(lambda before=before: len(load.receipts) > before + 100, "load")  # type: ignore[misc]
            time.sleep(chance.random() * 0.3)
            recorder.kill()
            recorder = state.start()
    until(lambda: recorder.stands().open == 0, "every decision to have its outcome")  # type: ignore[union-attr]
    asked = set(load.receipts) | load.refused
    until(lambda: len(outcomes(state)) >= len(asked), "every line to be read")
    assert recorder.end() == 0
    state.verified()
    decisions = {each.id: index for index, each in state.records() if isinstance(each, record.Decision)}
    for request, index in load.receipts.items():
        assert decisions[request] == index
    found = outcomes(state)
    assert sorted(str(each.id) for each in found) == sorted(asked)
    for each in found:
        # Of what was never acknowledged some is durable, and joined by the request's id.
        assert each.decision_index == decisions.get(str(each.id))
        assert each.error is None or each.error.detail == "recorder_unavailable"
    assert not [event for event, _ in state.events() if event.startswith("gateway.")]


def test_disk_that_fills_up_ends_it_with_its_code_and_loses_nothing(state: State) -> None:
    """By a limit on the size of files: a write fails as on a full disk."""

    def limited() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (5 << 20, 5 << 20))

    recorder = state.start(prepare=limited)
    told: dict[int, str] = {}
    for number in range(1000):
        path = "/" + os.urandom(14_000).hex()
        try:
            reply = recorder.ask(wire.Append([item(number, path=path)]))
        except (OSError, RecorderUnavailable):
            break
        if isinstance(reply, wire.Refused):
            break
        assert isinstance(reply, wire.Appended)
        told[reply.first_index] = request_id(number)
    assert recorder.exits() == 15
    assert "make room" in recorder.said()
    assert len(told) > 100
    assert state.start().end() == 0
    found = {index: each.id for index, each in state.records() if isinstance(each, record.Decision)}
    assert told.items() <= found.items()
    state.verified()
