"""A real nginx's logs, read by the recorder: what clients can do to them, and what nginx does by itself."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.gateway.conftest import SYSTEM, WHEEL
from tests.gateway.message import Seen, allow, guard_says
from tests.gateway.rig import Rig
from tests.recorder.place import Book, Desk

from gatebook import record
from gatebook.ledger.entry import Loss
from gatebook.recorder.worker import Workers, machine

GET = b"GET /orders/1 HTTP/1.1\r\nHost: x\r\n\r\n"


class Logged:
    """nginx with its logs, and the recorder's desk beside it. The guard has every decision recorded."""

    def __init__(self, folder: Path, binary: Path | None) -> None:
        self.rig = Rig(folder, binary)
        self.folder = self.rig.paths.logs
        self.book: Book | None = None
        self.decided = 0
        self._mutex = threading.Lock()
        self.rig.before_nginx = self._open
        self.rig.start()
        assert self.book is not None
        self.rig.decide = self.decide

    def _open(self) -> None:
        """The recorder comes first, as in life: so it knows every worker from its beginning."""
        self.book = Book(self.rig.folder / "book", Workers(machine()))
        self.desk = Desk(self.book, self)

    def told_to_reopen(self) -> None:
        os.kill(int((self.rig.paths.nginx / "nginx.pid").read_text()), signal.SIGUSR1)

    def decide(self, seen: Seen) -> bytes:
        assert self.book is not None
        with self._mutex:
            self.decided += 1
            (index,) = self.book.decide(self.decided, worker=int(seen.one("Gatebook-Worker") or 0))
        return allow(Gatebook_Decision=str(index))

    def outcomes(self) -> list[record.Outcome]:
        assert self.book is not None
        self.rig.settled()
        with self._mutex:
            self.desk.second()
            return [each for each in self.book.outcomes() if not (each.request and "/mark-" in each.request.path)]

    def losses(self) -> list[Loss]:
        assert self.book is not None
        self.rig.settled()
        with self._mutex:
            self.desk.second(30)
        return [each for each in self.book.entries(Loss) if isinstance(each, Loss)]

    def close(self) -> None:
        if self.book is not None:
            self.desk.close()
            self.book.close()
        self.rig.stop()
        self.rig.unused.close()


@pytest.fixture(params=["wheel", "system"])
def logged(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Logged]:
    if request.param == "system" and not SYSTEM.exists():
        pytest.skip(f"no {SYSTEM}: install nginx-light and libnginx-mod-http-headers-more-filter")
    made = Logged(tmp_path, SYSTEM if request.param == "system" else WHEEL)
    try:
        yield made
    finally:
        made.close()


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def literal(name: bytes, value: bytes) -> bytes:
    """A header field of HPACK, as plain as can be; lengths from 127 on have a byte more or two."""

    def text(data: bytes) -> bytes:
        length, more = len(data), b""
        if length >= 127:
            rest = length - 127
            length = 127
            while rest >= 128:
                more += bytes([rest % 128 + 128])
                rest //= 128
            more += bytes([rest])
        return bytes([length]) + more + data

    return b"\x00" + text(name) + text(value)


def http2(logged: Logged, value: bytes) -> None:
    """One request with this header, over HTTP/2, until nginx has had enough of it."""
    tls = ssl.create_default_context(cafile=str(logged.rig.folder / "ca.pem"))
    tls.set_alpn_protocols(["h2"])
    fields = {b":method": b"GET", b":path": b"/", b":scheme": b"https", b":authority": b"x", b"x-words": value}
    block = b"".join(literal(name, each) for name, each in fields.items())
    with logged.rig.connected(0, tls) as connection:
        connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, b"") + frame(1, 5, 1, block))
        connection.settimeout(1)
        try:
            while connection.recv(65536):
                pass
        except OSError:
            pass


def test_client_cannot_write_a_failed_handshake_of_somebody_else(logged: Logged) -> None:
    """nginx quotes a header's value in its error log as it came, line breaks and all."""
    forged = "2026/11/24 20:00:00 [info] 1#1: *{} SSL_do_handshake() failed while SSL handshaking, client: 6.6.6.6"
    for number in range(3):
        lines = "\n".join(forged.format(number) for _ in range(12))
        http2(logged, f"v\n{lines}\n".encode())
    assert "6.6.6.6" in logged.rig.error_log
    found = logged.outcomes()
    assert len(found) == 3
    assert {each.error.detail for each in found if each.error} <= {"malformed_request", "response_incomplete"}
    assert "6.6.6" not in repr(found)
    assert not logged.losses()


def test_handshake_that_really_fails_is_on_record(logged: Logged) -> None:
    with pytest.raises(ssl.SSLError), logged.rig.connected(0, ssl.create_default_context()):
        pass
    (found,) = logged.outcomes()
    assert found.error is not None
    assert found.error.detail == "tls_handshake_failed"
    assert found.client == record.ClientPart(address="127.0.0.0/24")


def test_each_request_over_all_rotations_counts_once_and_none_is_missing(logged: Logged) -> None:
    assert logged.book is not None
    sent = 0
    for _ in range(4):
        with logged.rig.connected(1) as first, logged.rig.connected(1) as second:
            for connection in (first, second) * 5:
                connection.sendall(GET + b"GET /.gatebook/live HTTP/1.1\r\nHost: x\r\n\r\n")
                data = b""
                while data.count(b"HTTP/1.1 200") < 2 or not data.endswith(b"live\n"):
                    data += connection.recv(65536)
                sent += 1
        logged.outcomes()
        logged.desk.second(75)
        logged.rig.until(lambda: (logged.folder / "access.log").exists())
    found = [each for each in logged.outcomes() if each.decision_index is not None]
    assert len(found) == len({each.decision_index for each in found}) == sent
    assert logged.book.journal.open == {}
    assert not logged.losses()
    assert not (logged.folder / "access.1.log").exists()


def test_line_that_is_taken_away_is_missed(logged: Logged) -> None:
    with logged.rig.connected(1) as connection:
        for _ in range(2):
            connection.sendall(GET)
            connection.recv(65536)
        logged.outcomes()
        connection.sendall(GET)
        connection.recv(65536)
        logged.rig.until(lambda: len(logged.rig.all_lines()) == 4)
        os.truncate(logged.folder / "access.log", 0)
        connection.sendall(GET)
        connection.recv(65536)
        logged.rig.until(lambda: len(logged.rig.all_lines()) == 1)
        (line,) = logged.rig.all_lines()
    (loss,) = logged.losses()
    assert (loss.first_seq, loss.last_seq, loss.reason) == (3, 3, 16)
    assert f'"n":"{4}"'.encode() in line


def test_killed_worker_leaves_unknown_outcomes_and_no_loss(logged: Logged) -> None:
    assert logged.book is not None
    logged.rig.ask("/orders/1")
    waiting = socket.create_connection(logged.rig.address(1), timeout=20)
    arrived = threading.Event()

    async def never(seen: Seen, reader: object, writer: object) -> None:
        arrived.set()
        await logged.rig.release.wait()

    logged.rig.behave = never
    waiting.sendall(GET)
    assert arrived.wait(20)
    logged.rig.hold()
    os.kill(logged.rig.worker(), signal.SIGKILL)
    waiting.close()
    logged.rig.go_on()
    logged.rig.until(lambda: logged.rig.ask("/.gatebook/live").status == 200)
    logged.outcomes()
    found = logged.outcomes()
    causes = [each.error.detail if each.error else None for each in found if each.decision_index is not None]
    assert causes == [None, "outcome_unknown"]
    assert logged.book.journal.open == {}
    assert not logged.losses()


def test_answer_that_an_upstream_cuts_short_is_its_doing(logged: Logged) -> None:
    async def cut(seen: Seen, reader: object, writer: object) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc")  # type: ignore[attr-defined]
        await writer.drain()  # type: ignore[attr-defined]
        writer.close()  # type: ignore[attr-defined]

    logged.rig.behave = cut
    with logged.rig.connected(1) as connection:
        connection.sendall(GET)
        while connection.recv(65536):
            pass
    (found,) = logged.outcomes()
    assert found.error is not None
    assert (found.error.source, found.error.detail) == ("upstream", "closed_early")
    assert found.response is not None
    assert (found.response.status, found.response.complete) == (200, False)


def test_guard_that_is_gone_is_the_guards_doing(logged: Logged) -> None:
    logged.rig.decide = lambda seen: None
    assert logged.rig.ask("/orders/1").status == 503
    logged.rig.decide = lambda seen: guard_says(500)
    (found,) = logged.outcomes()
    assert found.error is not None
    assert (found.error.source, found.error.detail) == ("guard", "guard_unavailable")
    assert found.request is not None
    assert found.request.path == "/orders/1"
