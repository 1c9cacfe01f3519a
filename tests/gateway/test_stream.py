"""Long-lived and large things pass as they come: nothing waits for its end, nothing waits in a file."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import socket

import pytest
from tests.gateway.message import Seen, allow, deny
from tests.gateway.rig import Rig, descriptors
from websockets.sync.client import connect

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def test_server_sent_events_arrive_one_by_one(rig: Rig) -> None:
    """Each event is sent only once the client has told, out of band, that the one before it has come."""
    came = asyncio.Semaphore(0)

    async def behave(seen: Seen, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD)
        for number in range(3):
            writer.write(b"9\r\ndata: %d\n\n\r\n" % number)
            await writer.drain()
            await came.acquire()
        writer.write(b"0\r\n\r\n")

    rig.behave = behave
    with rig.connected() as connection:
        connection.sendall(b"GET /events HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        data = b""
        for number in range(3):
            while b"data: %d\n\n" % number not in data:
                part = connection.recv(65536)
                assert part
                data += part
            rig.loop.call_soon_threadsafe(came.release)


def test_upload_reaches_the_upstream_before_its_end_was_sent(rig: Rig) -> None:
    begun = asyncio.Event()
    rig.before_body = begun.set
    with rig.connected() as connection:
        connection.sendall(b"PUT /up HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 100000\r\n\r\n")
        connection.sendall(b"x" * 50000)
        rig.until(begun.is_set)
        assert not [name for name in descriptors(rig.worker()) if "temp-" in name]
        connection.sendall(b"x" * 50000)
        assert connection.recv(65536).startswith(b"HTTP/1.1 200")
    assert len(rig.forwarded[0].body) == 100000


def test_download_that_nobody_reads_waits_at_the_upstream_and_not_in_a_file(rig: Rig) -> None:
    size = 64 << 20
    waiting: list[asyncio.StreamWriter] = []

    async def behave(seen: Seen, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size)
        waiting.append(writer)
        await writer.drain()

    left: list[int] = []

    def stuck() -> bool:
        """The same number of bytes has been waiting at the upstream for a while."""
        left.extend(writer.transport.get_write_buffer_size() for writer in waiting)
        return len(left) > 30 and len(set(left[-30:])) == 1

    rig.behave = behave
    with rig.connected(1) as connection:
        connection.sendall(b"GET /down HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        rig.until(lambda: b"200" in connection.recv(12))
        rig.until(stuck)
        assert left[-1] > size // 2
        assert not [name for name in descriptors(rig.worker()) if "temp-" in name]
    assert rig.line()["ok"] == ""


def _accepts_websocket(rig: Rig) -> None:
    async def behave(seen: Seen, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        key = (seen.one("Sec-WebSocket-Key") or "") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        accept = base64.b64encode(hashlib.sha1(key.encode()).digest()).decode()
        writer.write(
            f"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Accept: {accept}\r\n\r\n".encode()
        )
        while frame := await reader.read(2):
            size = frame[1] & 0x7F
            mask = await reader.readexactly(4)
            data = await reader.readexactly(size)
            plain = bytes(byte ^ mask[place % 4] for place, byte in enumerate(data))
            writer.write(bytes([frame[0], size]) + plain)
            if frame[0] & 0x0F == 8:
                break
        writer.close()

    rig.behave = behave


def test_websocket_echoes(rig: Rig) -> None:
    _accepts_websocket(rig)
    plain = socket.create_connection(rig.address())
    with connect("wss://localhost/ws", ssl=rig.client_tls(), sock=plain, proxy=None) as connection:
        connection.send("hello")
        assert connection.recv() == "hello"
    (forwarded,) = rig.forwarded
    assert forwarded.one("Upgrade") == "websocket"
    assert (forwarded.one("Connection") or "").lower() == "upgrade"
    assert forwarded.one("Gatebook-Receipt") == "acme/node-1/41"
    line = rig.line()
    assert (line["s"], line["d"]) == ("101", "41")


def test_denied_websocket_is_never_opened(rig: Rig) -> None:
    _accepts_websocket(rig)
    rig.decide = lambda seen: deny(403)
    answer = rig.ask("/ws", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Key: eA==")
    assert answer.status == 403
    assert not rig.forwarded


def test_answer_of_100_continue_comes_after_the_decision(rig: Rig) -> None:
    rig.decide = lambda seen: deny(403)
    answer = rig.exchange(
        b"PUT / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 9\r\nConnection: close\r\n\r\n"
    )
    assert answer.status == 403


@pytest.mark.parametrize("method", ["HEAD", "DELETE", "OPTIONS", "PROPFIND", "PURGE"])
def test_methods_pass_as_they_are(rig: Rig, method: str) -> None:
    rig.decide = lambda seen: allow()
    assert rig.ask("/", method=method).status == 200
    assert rig.guarded[0].one("Gatebook-Method") == method
    assert rig.forwarded[0].line == f"{method} / HTTP/1.1"
