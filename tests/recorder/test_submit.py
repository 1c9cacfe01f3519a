"""An operator's act is on record, once, whether the recorder runs, does not, begins just now, or hangs."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.recorder.deployed import State, until
from tests.recorder.place import item

from gatebook import record, wire
from gatebook.errors import EnvironmentFault, RecorderUnavailable
from gatebook.recorder.journal import Journal
from gatebook.recorder.process import open_writer
from gatebook.recorder.submit import ask, order, submit


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    made = State(tmp_path)
    try:
        yield made
    finally:
        made.close()


def act(number: int = 1) -> record.Admin:
    return record.Admin(time_us=1, action="key.create", actor="os:0", detail={"number": number})


def acts(state: State) -> list[int]:
    return [each.detail["number"] for _, each in state.records() if isinstance(each, record.Admin)]


def test_recorder_that_runs_takes_it(state: State) -> None:
    recorder = state.start()
    index = submit(state.configuration, [act(1), act(2)])
    assert [position for position, each in state.records() if isinstance(each, record.Admin)] == [index, index + 1]
    assert recorder.end() == 0
    state.verified()


def test_without_a_recorder_it_is_written_here_and_the_ledger_is_left_clean(state: State) -> None:
    for number in range(3):
        submit(state.configuration, [act(number)])
    assert acts(state) == [0, 1, 2]
    state.verified()
    recorder = state.start()
    assert state.events()[-1][1]["clean"] is True
    assert recorder.end() == 0


def test_without_a_recorder_what_is_open_stays_open(state: State) -> None:
    """The command knows neither gateway nor key, and must not forget for the recorder."""
    recorder = state.start()
    index = recorder.append(item(1, os.getpid()))
    recorder.kill()
    submit(state.configuration, [act()])
    recorder = state.start()
    stands = recorder.stands()
    assert stands is not None
    assert stands.open == 1
    from tests.recorder.place import Gateway

    gateway = Gateway(state.paths.logs, os.getpid())
    gateway.line(1, worker=os.getpid(), s="503", r="recorder_unavailable", us="", ua="")
    gateway.close()
    until(lambda: recorder.stands().open == 0, "the outcome")  # type: ignore[union-attr]
    outcomes = [each.decision_index for _, each in state.records() if isinstance(each, record.Outcome)]
    assert outcomes == [index]
    assert recorder.end() == 0
    state.verified()


def test_recorder_that_starts_at_the_same_moment_is_waited_for(state: State) -> None:
    """It has the ledger, but does not listen yet."""
    writer = open_writer(state.configuration, state.paths, Journal())
    told: list[int] = []
    thread = threading.Thread(target=lambda: told.append(submit(state.configuration, [act()])))
    thread.start()
    threading.Event().wait(0.3)
    assert not told
    writer.close()
    thread.join()
    assert len(told) == 1
    assert acts(state) == [1]


def test_many_at_once_and_a_recorder_in_between_lose_and_double_nothing(state: State) -> None:
    told: list[int] = []
    threads = [
        threading.Thread(target=lambda number=number: told.append(submit(state.configuration, [act(number)])))
        for number in range(8)
    ]
    for thread in threads[:4]:
        thread.start()
    recorder = state.start(wait=False)
    for thread in threads[4:]:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(told)) == 8
    until(lambda: recorder.popen.poll() is not None or recorder.stands() is not None, "the recorder")
    if recorder.popen.poll() is None:
        assert recorder.end() == 0
    else:
        assert recorder.popen.returncode == 14  # one of them had the ledger; the supervisor would start another
    assert sorted(acts(state)) == list(range(8))
    state.verified()


def test_ledger_that_stays_held_is_said_so(state: State) -> None:
    writer = open_writer(state.configuration, state.paths, Journal())
    try:
        with pytest.raises(RecorderUnavailable, match="another process"):
            submit(state.configuration, [act()], patience_s=0.2)
    finally:
        writer.close()
    assert acts(state) == []


def test_recorder_that_hangs_is_said_so_and_nothing_is_written_past_it(state: State) -> None:
    recorder = state.start()
    recorder.popen.send_signal(signal.SIGSTOP)
    with pytest.raises(RecorderUnavailable, match="did not answer"):
        submit(state.configuration, [act()], patience_s=0.3)
    recorder.popen.send_signal(signal.SIGCONT)
    assert recorder.end() == 0
    state.verified()


def test_recorder_that_dies_before_it_answers_is_said_so(state: State) -> None:
    recorder = state.start()
    recorder.popen.send_signal(signal.SIGSTOP)
    failed: list[BaseException] = []

    def submitted() -> None:
        try:
            submit(state.configuration, [act()])
        except RecorderUnavailable as error:
            failed.append(error)

    thread = threading.Thread(target=submitted)
    thread.start()
    threading.Event().wait(0.3)
    recorder.kill()
    thread.join()
    assert len(failed) == 1


def test_refusal_is_said_in_its_own_words(state: State) -> None:
    recorder = state.start()
    with pytest.raises(RecorderUnavailable, match="between 1 and"):
        submit(state.configuration, [])
    assert recorder.end() == 0


@pytest.mark.parametrize("answer", [b"\xff" * 8, b"\0\0\0\1\xc1", wire.pack(wire.Status()), b""])
def test_answer_that_is_none_is_said_so(state: State, answer: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(state.paths.recorder_socket))
        server.listen()

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(RecorderUnavailable):
            ask(state.paths, wire.Status(), 5.0)
        thread.join()


def test_socket_with_a_full_queue_is_said_so(state: State) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(state.paths.recorder_socket))
        server.listen(0)
        waiting = []
        try:
            for _ in range(10):
                client = socket.socket(socket.AF_UNIX)
                client.setblocking(False)
                waiting.append(client)
                client.connect(str(state.paths.recorder_socket))
        except BlockingIOError:
            pass
        with pytest.raises(RecorderUnavailable, match="hanging"):
            submit(state.configuration, [act()], patience_s=0.2)
        for client in waiting:
            client.close()


def test_state_folder_that_lets_others_in_is_refused(state: State) -> None:
    state.paths.state.chmod(0o755)
    with pytest.raises(EnvironmentFault, match="lets others in"):
        submit(state.configuration, [act()])


KILLED = """
import os, signal, sys
from pathlib import Path
from gatebook import record
from gatebook.config import effective
from gatebook.ledger.writer import Writer
from gatebook.recorder.submit import submit
configuration = effective.read(Path(sys.argv[1]))
Writer.close = lambda self: os.kill(os.getpid(), signal.SIGKILL)
submit(configuration, [record.Admin(time_us=1, action="key.create", actor="os:0", detail={"number": 1})])
"""


def test_command_that_is_killed_before_it_closes_leaves_a_ledger_that_goes_on(state: State) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, str(state.paths.effective)], check=False)
    assert done.returncode == -signal.SIGKILL
    submit(state.configuration, [act(2)])
    assert acts(state) == [1, 2]
    state.verified()


@pytest.mark.parametrize("running", [True, False], ids=["running", "stopped"])
def test_order_of_an_unknown_verb_is_refused_and_leaves_the_ledger_clean(state: State, running: bool) -> None:
    recorder = state.start() if running else None
    with pytest.raises(EnvironmentFault, match="no order 'sing'"):
        order(state.configuration, "sing", {})
    if recorder is not None:
        assert recorder.end() == 0
    state.verified()
