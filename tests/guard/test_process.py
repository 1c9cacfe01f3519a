"""The guard as a process: what it starts with, what it switches to, and how it ends."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.guard.inside import IMPATIENCE, PATIENCE, head
from tests.guard.place import ROUTES, Place, Process, route
from tests.guard.twin import Aside

from gatebook import wire

ENVIRONMENT_FAULT = 3


class Guarded:
    """State folder, recorder's twin, guard."""

    def __init__(self, folder: Path, **sections: Any) -> None:
        self.place = Place(folder, **{"guard": PATIENCE, **sections})
        self.recorder = Aside(self.place.paths.recorder_socket)
        self.guard = Process(self.place)

    def wait(self) -> None:
        self.guard.until(self.guard.is_ready, "readiness")

    def reload(self, what_it_says: str, **sections: Any) -> None:
        """Put it in force, signal, and wait for the guard's word about it."""
        said = self.guard.said().count(what_it_says)
        if sections:
            self.place.put_in_force(**{"guard": PATIENCE, **sections})
        self.guard.signal(signal.SIGHUP)
        self.guard.until(lambda: self.guard.said().count(what_it_says) > said, what_it_says)

    def key(self) -> str:
        text = self.place.api_key("reader")
        line = self.guard.connect()
        with closing(line):
            self.guard.until(lambda: ask(line, "/orders/1", f"X-API-Key: {text}")[0] == 204, "the key to be known")
        return f"X-API-Key: {text}"

    def holds(self, value: bool) -> None:
        def change() -> None:
            if not value:
                self.recorder.twin.release()
            self.recorder.twin.holds = value

        self.recorder.do(change)

    def close(self) -> None:
        self.guard.close()
        self.recorder.stop()
        self.place.close()


@contextmanager
def guarded(folder: Path, **sections: Any) -> Iterator[Guarded]:
    made = Guarded(folder, **sections)
    try:
        made.wait()
        yield made
    finally:
        made.close()


def read(line: socket.socket) -> tuple[int, bytes]:
    data = b""
    while b"\r\n\r\n" not in data:
        more = line.recv(65536)
        if not more:
            raise ConnectionResetError("no answer")
        data += more
    return int(data.split(b" ", 2)[1]), data


def ask(line: socket.socket, uri: str, *fields: str) -> tuple[int, bytes]:
    line.sendall(head(uri, *fields)[1])
    return read(line)


# -- start -------------------------------------------------------------------------------------------------
def test_socket_is_its_users_alone_and_the_umask_has_no_say(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        with guarded(tmp_path) as made:
            assert stat.S_IMODE(made.guard.path.stat().st_mode) == 0o600
    finally:
        os.umask(old)


def test_ready_only_with_a_recorder_and_refusing_without(tmp_path: Path) -> None:
    with guarded(tmp_path) as made:
        key = made.key()
        made.recorder.do(made.recorder.twin.die)
        made.guard.until(lambda: not made.guard.is_ready(), "readiness to go")
        with closing(made.guard.connect()) as line:
            code, data = ask(line, "/orders/7", key)
        assert (code, b"Gatebook-Reason: recorder_unavailable" in data) == (403, True)
        made.recorder.run(made.recorder.twin.start())
        made.wait()


def test_status_names_process_and_configuration(tmp_path: Path) -> None:
    with guarded(tmp_path) as made:
        digest = made.place.configuration.digest().hex()
        assert made.guard.status() == {"ready": True, "configuration": digest, "pid": made.guard.pid}


def test_one_that_was_killed_is_followed_by_another_at_the_same_place(tmp_path: Path) -> None:
    with guarded(tmp_path) as made:
        made.guard.signal(signal.SIGKILL)
        made.guard.popen.wait()
        assert made.guard.path.exists()
        made.guard = Process(made.place)
        made.wait()


def test_guards_of_two_numbers_stand_side_by_side(tmp_path: Path) -> None:
    with guarded(tmp_path) as made:
        with closing(Process(made.place, 1)) as other:
            other.until(other.is_ready, "the second guard")
            assert other.path != made.guard.path
            assert other.end() == 0
        assert made.guard.is_ready()


def loosen_state(place: Place) -> None:
    place.paths.state.chmod(0o750)


def loosen_runtime(place: Place) -> None:
    place.paths.runtime.chmod(0o755)


def shorten_key(place: Place) -> None:
    (place.paths.keys / "fingerprint.key").write_bytes(bytes(31))


def lose_key(place: Place) -> None:
    (place.paths.keys / "pseudonym.key").unlink()


def lose_configuration(place: Place) -> None:
    place.paths.effective.unlink()


def spoil_configuration(place: Place) -> None:
    place.paths.effective.write_text('{"version": 1}')


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (loosen_state, "mode 0750 lets others in"),
        (loosen_runtime, "mode 0755 lets others in"),
        (shorten_key, "not 32 bytes; restore it"),
        (lose_key, "no such file or directory; restore it"),
        (lose_configuration, "`gatebook run` writes this file"),
        (spoil_configuration, "`gatebook run` writes this file"),
    ],
)
def test_what_it_cannot_rely_on_keeps_it_from_listening(tmp_path: Path, harm: Any, said: str) -> None:
    place = Place(tmp_path)
    try:
        harm(place)
        with closing(Process(place)) as guard:
            assert guard.popen.wait(20) == ENVIRONMENT_FAULT
            assert said in guard.said()
            assert "Traceback" not in guard.said()
            assert not guard.path.exists()
    finally:
        place.close()


def test_command_without_a_number_is_no_guard(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "gatebook.guard", str(tmp_path)], capture_output=True, check=False
    )
    assert done.returncode != 0


# -- reload ------------------------------------------------------------------------------------------------
def test_reload_switches_what_is_decided_and_what_is_said(tmp_path: Path) -> None:
    with guarded(tmp_path) as made, closing(made.guard.connect()) as line:
        key = made.key()
        assert ask(line, "/orders/7", key)[0] == 204
        made.reload('"switched"', routes=[each for each in ROUTES if each["name"] != "read-order"])
        assert b"Gatebook-Reason: no_route" in ask(line, "/orders/7", key)[1]
        assert made.guard.status()["configuration"] == made.place.configuration.digest().hex()


def test_configuration_that_cannot_be_used_leaves_the_old_one_in_force(tmp_path: Path) -> None:
    """Whichever part of it fails; and the next one that can be used is."""
    with guarded(tmp_path) as made, closing(made.guard.connect()) as line:
        key, before = made.key(), made.guard.status()["configuration"]
        kept = "kept the old configuration"
        made.place.paths.effective.write_bytes(b"\xff{")
        made.reload(kept)
        made.reload(kept, routes=[route("a", "/a"), route("b", "/a")])  # two routes for one path
        made.reload(kept, routes=[route("a", "/a", allow=[{"name": "broken", "when": "1 +"}])])
        oidc = {
            "type": "oidc",
            "issuer": "https://op.example",
            "audience": ["a"],
            "ca": str(tmp_path / "none.pem"),
        }
        made.reload(kept, identity={"partners": oidc})  # its file of authorities is not there
        made.place.paths.effective.unlink()
        made.reload(kept)
        assert made.guard.status()["configuration"] == before
        assert ask(line, "/orders/7", key)[0] == 204
        made.reload('"switched"', audit={"address": "drop"})
        assert made.guard.status()["configuration"] != before
        assert ask(line, "/orders/7", key)[0] == 204
        assert made.guard.end() == 0
        assert "Traceback" not in made.guard.said()


def test_new_bound_of_heads_holds_for_kept_connections_too(tmp_path: Path) -> None:
    with guarded(tmp_path, gateway={"max_header": "4k"}) as made, closing(made.guard.connect()) as line:
        long = "A: " + "a" * (30 << 10)
        with closing(made.guard.connect()) as other:
            assert ask(other, "/healthz", long)[0] == 400
        made.reload('"switched"', gateway={"max_header": "64k"})
        assert ask(line, "/healthz", long)[0] == 204


def test_new_patience_with_the_recorder_holds_from_the_switch_on(tmp_path: Path) -> None:
    with guarded(tmp_path) as made, closing(made.guard.connect()) as line:
        key = made.key()
        made.reload('"switched"', guard=IMPATIENCE)
        made.holds(True)
        assert b"recorder_unavailable" in ask(line, "/orders/7", key)[1]
        made.holds(False)


# -- end -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_end_finishes_what_it_has_begun(tmp_path: Path, number: signal.Signals) -> None:
    with guarded(tmp_path) as made, closing(made.guard.connect()) as line:
        key = made.key()
        made.holds(True)
        request_id, data = head("/orders/7", key)
        line.sendall(data)
        made.recorder.until(lambda: [m for m in made.recorder.twin.held if isinstance(m[1], wire.Append)])
        made.guard.signal(number)
        made.guard.until(lambda: not _accepts(made.guard), "it to accept no more")
        made.holds(False)
        assert read(line)[0] == 204
        assert line.recv(1) == b""
        assert made.guard.popen.wait(20) == 0
        items = made.recorder.do(lambda: list(made.recorder.twin.items))
        assert request_id in [item.request_id for item in items]


def test_end_lets_nobody_through_whom_the_recorder_does_not_answer(tmp_path: Path) -> None:
    with guarded(tmp_path, guard=IMPATIENCE) as made, closing(made.guard.connect()) as line:
        key = made.key()
        made.holds(True)
        line.sendall(head("/orders/7", key)[1])
        made.recorder.until(lambda: [m for m in made.recorder.twin.held if isinstance(m[1], wire.Append)])
        made.guard.signal(signal.SIGTERM)
        code, data = read(line)
        assert (code, b"recorder_unavailable" in data) == (403, True)
        assert made.guard.popen.wait(20) == 0


def test_end_does_not_wait_for_ever(tmp_path: Path) -> None:
    with guarded(tmp_path) as made, closing(made.guard.connect()) as line:
        key = made.key()
        made.holds(True)
        line.sendall(head("/orders/7", key)[1])
        made.recorder.until(lambda: [m for m in made.recorder.twin.held if isinstance(m[1], wire.Append)])
        assert made.guard.end() == 0
        code, data = read(line)
        assert (code, b"recorder_unavailable" in data) == (403, True)


def test_end_of_an_idle_guard_closes_kept_connections(tmp_path: Path) -> None:
    with guarded(tmp_path) as made, closing(made.guard.connect()) as line:
        assert ask(line, "/healthz")[0] == 204
        assert made.guard.end() == 0
        assert line.recv(1) == b""
        assert "Traceback" not in made.guard.said()


def _accepts(guard: Process) -> bool:
    try:
        guard.connect().close()
    except OSError:
        return False
    return True
