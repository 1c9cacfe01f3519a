"""HTTP with nginx alone: whatever else is sent closes the connection, and is decided by nobody."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.guard.inside import Line, head
from tests.guard.twin import looped, until

from gatebook.guard import answer
from gatebook.guard.asked import Asked
from gatebook.guard.protocol import GuardProtocol
from gatebook.wire import TO_GUARD

ALLOWED = answer.finish(answer.allow(reason="rule", upstream="orders", strip="", who=None, taken=None))


class Desk:
    """What stands behind the protocol: writes down what it is asked, and answers at once or when it is told to."""

    max_head_bytes = 16 << 10

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.replies: list[Callable[[bytes], None]] = []
        self.holds = False
        self.pages: list[str] = []

    def decide(self, asked: Asked, reply: Callable[[bytes], None]) -> None:
        self.asked.append(asked)
        self.replies.append(reply)
        if not self.holds:
            reply(ALLOWED)

    def page(self, path: str) -> bytes:
        self.pages.append(path)
        return answer.plainly("200 OK", b"here\n")


class Door:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.desk = Desk()
        self.connections: set[GuardProtocol] = set()
        self.lines: list[Line] = []

    async def line(self) -> Line:
        self.lines.append(Line(*await asyncio.open_unix_connection(str(self.path))))
        return self.lines[-1]


@asynccontextmanager
async def door(folder: Path) -> AsyncIterator[Door]:
    made = Door(folder / "guard.sock")
    loop = asyncio.get_running_loop()
    server = await loop.create_unix_server(lambda: GuardProtocol(made.desk, made.connections), str(made.path))
    try:
        yield made
    finally:
        server.close()
        for line in made.lines:
            line.close()
        await until(lambda: not made.connections)


async def is_turned_away(line: Line) -> bool:
    """400, which nginx makes a 503 of, and then nothing more."""
    assert (await line.read()).code == 400
    return await line.is_closed()


# -- what nginx sends ------------------------------------------------------------------------------------
@looped
async def test_requests_follow_one_another_on_a_kept_connection(tmp_path: Path) -> None:
    async with door(tmp_path) as made:
        line = await made.line()
        for number in range(3):
            assert (await line.ask(f"/orders/{number}", f"X-Number: {number}")).allowed
        assert [asked.uri for asked in made.desk.asked] == ["/orders/0", "/orders/1", "/orders/2"]
        assert [dict(asked.headers)[b"x-number"] for asked in made.desk.asked] == [b"0", b"1", b"2"]


@looped
async def test_head_in_pieces_is_one_question(tmp_path: Path) -> None:
    async with door(tmp_path) as made:
        line = await made.line()
        request_id, data = head("/orders/7", "X-Tenant: acme")
        for at in range(len(data)):
            line.send(data[at : at + 1])
            await asyncio.sleep(0)
        assert (await line.read(request_id)).allowed
        (asked,) = made.desk.asked
        assert (asked.id, asked.uri) == (request_id, "/orders/7")
        assert asked.headers == [(b"x-forwarded-for", b"192.0.2.7"), (b"x-tenant", b"acme")]


@looped
async def test_fields_keep_their_bytes_and_their_order(tmp_path: Path) -> None:
    async with door(tmp_path) as made:
        line = await made.line()
        await line.ask("/a", b"X-Name: \xff\xfe", "X-NAME: b", b"x-name: \xc3\xa9", "Content-Type: text/plain")
        (asked,) = made.desk.asked
        named = [value for name, value in asked.headers if name == b"x-name"]
        assert named == [b"\xff\xfe", b"b", b"\xc3\xa9"]
        assert (b"content-type", b"text/plain") in asked.headers
        assert not {name for name, _ in asked.headers} & {b"host", b"connection"}


@looped
async def test_answer_for_a_client_that_left_is_for_nobody(tmp_path: Path) -> None:
    async with door(tmp_path) as made:
        made.desk.holds = True
        leaving, staying = await made.line(), await made.line()
        leaving.send(head("/leaving")[1])
        await until(lambda: len(made.desk.asked) == 1)
        leaving.close()
        await until(lambda: len(made.connections) == 1)
        staying.send(head("/staying")[1])
        await until(lambda: len(made.desk.asked) == 2)
        for reply in made.desk.replies:
            reply(ALLOWED)
        assert (await staying.read()).allowed


# -- what it never sends -----------------------------------------------------------------------------------
OWN = sorted(name for name in TO_GUARD if name != "Gatebook-Certificate")


@pytest.mark.parametrize("name", OWN)
@pytest.mark.parametrize("spelt", [str.lower, str.upper, str])
@looped
async def test_own_field_that_stands_twice_is_not_the_gateways(
    tmp_path: Path, name: str, spelt: Callable[[str], str]
) -> None:
    async with door(tmp_path) as made:
        line = await made.line()
        line.send(head("/orders/7", f"{spelt(name)}: 1")[1])
        assert await is_turned_away(line)
        assert made.desk.asked == []


@pytest.mark.parametrize(
    "name", ["Gatebook-Subject", "Gatebook-Roles", "Gatebook-", "gatebook-x", "GATEBOOK-Receipt"]
)
@looped
async def test_field_that_only_gatebook_says_is_not_taken_from_anybody(tmp_path: Path, name: str) -> None:
    async with door(tmp_path) as made:
        line = await made.line()
        line.send(head("/orders/7", f"{name}: admin")[1])
        assert await is_turned_away(line)
        assert made.desk.asked == []


@pytest.mark.parametrize(
    "missing", ["Request_Id", "Method", "Uri", "Protocol", "Address", "Connection", "Connection_Request", "Worker"]
)
@looped
async def test_question_that_lacks_a_field_is_nobodys(tmp_path: Path, missing: str) -> None:
    async with door(tmp_path) as made:
        line = await made.line()
        own: dict[str, Any] = {missing: None}
        line.send(head("/orders/7", **own)[1])
        assert await is_turned_away(line)
        assert made.desk.asked == []


BEGIN = b"GET /decide HTTP/1.1\r\nHost: guard\r\n"
NEVER = {
    "a body": b"GET /ready HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello",
    "an empty body": b"GET /ready HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
    "chunks": b"GET /ready HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "fields behind the last chunk": b"GET /ready HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nA: b\r\n\r\n",
    "an upgrade": b"GET /ready HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
    "another method": b"POST /decide HTTP/1.1\r\n\r\n",
    "a tunnel": b"CONNECT ready:80 HTTP/1.1\r\n\r\n",
    "no such method": b"GETT /ready HTTP/1.1\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "bare line feeds": b"GET /ready HTTP/1.1\nA: b\n\n",
    "a bare carriage return": BEGIN + b"A: b\rC: d\r\n\r\n",
    "a folded field": BEGIN + b"A: b\r\n c\r\n\r\n",
    "a space before the colon": BEGIN + b"A : b\r\n\r\n",
    "a NUL": BEGIN + b"A: b\x00\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "nothing known": b"\x00\x00\x00\x05hello",
}


@pytest.mark.parametrize("what", NEVER)
@looped
async def test_what_nginx_never_sends_closes_the_connection(tmp_path: Path, what: str) -> None:
    async with door(tmp_path) as made:
        line = await made.line()
        line.send(NEVER[what])
        assert await is_turned_away(line)
        assert (made.desk.asked, made.desk.pages) == ([], [])


@pytest.mark.parametrize("byte", [0x00, 0x01, 0x08, 0x0B, 0x1F, 0x7F])
@looped
async def test_control_byte_in_a_clients_field_is_the_clients_fault(tmp_path: Path, byte: int) -> None:
    """nginx passes all of them on but NUL; that must not look like a guard that is broken."""
    async with door(tmp_path) as made:
        line = await made.line()
        request_id, data = head("/orders/7", b"X-Name: a" + bytes([byte]))
        with structlog.testing.capture_logs() as said:
            line.send(data)
            found = await line.read(request_id)
        assert (found.status, found.reason, found.place) == (400, "request_malformed", None)
        assert request_id in found.fields["gatebook-problem"]
        assert await line.is_closed()
        assert (made.desk.asked, said) == ([], [])


@looped
async def test_question_before_the_last_ones_answer_gets_none(tmp_path: Path) -> None:
    """Answers would be told apart by nothing but their order."""
    async with door(tmp_path) as made:
        made.desk.holds = True
        line = await made.line()
        line.send(head("/first")[1] + head("/second")[1])
        assert await is_turned_away(line)
        assert [asked.uri for asked in made.desk.asked] == ["/first"]
        made.desk.replies[0](ALLOWED)  # comes too late for a connection that nobody can rely on


@looped
async def test_nonsense_before_the_last_ones_answer_is_answered_by_no_denial(tmp_path: Path) -> None:
    async with door(tmp_path) as made:
        made.desk.holds = True
        line = await made.line()
        line.send(head("/first")[1] + b"nonsense\r\n\r\n")
        assert await is_turned_away(line)


@looped
async def test_head_without_an_end_is_read_up_to_the_bound_only(tmp_path: Path) -> None:
    async with door(tmp_path) as made:
        line = await made.line()
        line.send(BEGIN + b"A: ")
        for _ in range(16):
            assert made.connections
            line.send(b"a" * 1024)
            await asyncio.sleep(0)
        assert await is_turned_away(line)
        assert made.desk.asked == []


@looped
async def test_bound_counts_each_head_and_not_the_connections_sum(tmp_path: Path) -> None:
    async with door(tmp_path) as made:
        line = await made.line()
        for _ in range(4):
            assert (await line.ask("/a", "A: " + "a" * (10 << 10))).allowed


@looped
async def test_line_that_is_turned_away_is_said_without_a_clients_bytes(tmp_path: Path) -> None:
    async with door(tmp_path) as made:
        line = await made.line()
        with structlog.testing.capture_logs() as said:
            line.send(head("/orders/7", "Authorization: Bearer s3cr3t", "Gatebook-Subject: s3cr3t")[1])
            assert await is_turned_away(line)
        (entry,) = said
        assert "gatebook-subject" in entry["why"]
        assert "s3cr3t" not in str(said)


# -- anything at all ---------------------------------------------------------------------------------------
class Wire(asyncio.Transport):
    """The side of a socket that a protocol writes to, in memory; for many thousand tries."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.closed
        self.written += data

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True


@st.composite
def mangled(draw: st.DrawFn) -> bytes:
    """A question with some bytes changed, dropped, doubled or put in."""
    data = bytearray(head("/orders/7", "X-Tenant: acme", "Authorization: Bearer token")[1])
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(data) - 1))
        until_ = draw(st.integers(at, min(len(data), at + 40)))
        data[at:until_] = draw(st.binary(max_size=8)) + draw(st.sampled_from([b"", bytes(data[at:until_])]))
        if not data:
            break
    return bytes(data)


@settings(max_examples=500, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.one_of(st.binary(max_size=600), mangled()), cut=st.integers(0, 600))
def test_no_bytes_get_more_than_one_answer_to_each_question(data: bytes, cut: int) -> None:
    desk, connections = Desk(), set[GuardProtocol]()
    protocol, transport = GuardProtocol(desk, connections), Wire()
    protocol.connection_made(transport)
    for piece in (data[:cut], data[cut:]):
        if piece and not transport.closed:
            protocol.data_received(piece)
    passes = transport.written.count(b"HTTP/1.1 204 ")
    assert passes == len(desk.asked)
    refusals = transport.written.count(b"HTTP/1.1 400 ") + transport.written.count(b"HTTP/1.1 403 ")
    assert refusals == transport.closed
    for asked in desk.asked:
        assert asked.worker > 0
        assert asked.method
        assert asked.uri
    protocol.connection_lost(None)
    assert not connections
