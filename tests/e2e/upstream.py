"""A service behind the gateway that remembers who reached it, and can be as bad as services are.

What a request's path ends in says how it behaves: /ok, /slow, /hang, /trickle, /reset, /500, /huge, /events, …
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import struct
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

from tests.gateway.message import Seen, read_body, read_request

T = TypeVar("T")
DEADLINE_S = 20.0


class Upstream:
    """`seen`: every request that got here, heads only where there was no body."""

    def __init__(self) -> None:
        self.seen: list[Seen] = []
        self.sent = asyncio.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._server = self._run(asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=512))
        self.port: int = self._server.sockets[0].getsockname()[1]
        self._writers: set[asyncio.StreamWriter] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ids(self) -> list[str]:
        """The request ids that the gateway gave, in order of arrival."""
        return [seen.one("Gatebook-Request-Id") or "" for seen in list(self.seen)]

    def stop(self) -> None:
        self._run(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _close(self) -> None:
        self._server.close()
        for writer in list(self._writers):
            writer.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(DEADLINE_S)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, ValueError):
            while (seen := await read_request(reader)) is not None:
                self.seen.append(seen)
                if seen.one("Upgrade") == "websocket":
                    await _websocket(seen, reader, writer)
                    break
                body = await read_body(seen, reader)
                await self._behave(seen, body, writer)
                if writer.is_closing():
                    break
        self._writers.discard(writer)
        writer.close()

    async def _behave(self, seen: Seen, body: bytes, writer: asyncio.StreamWriter) -> None:
        what = seen.line.split(" ")[1].partition("?")[0].rpartition("/")[2]
        if what == "hang":
            await asyncio.sleep(DEADLINE_S)
        elif what == "reset":
            sock = writer.get_extra_info("socket")
            sock.setsockopt(1, 13, struct.pack("ii", 1, 0))  # SOL_SOCKET, SO_LINGER: close by RST
            writer.transport.abort()
        elif what == "trickle":
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n")
            for _ in range(20):
                writer.write(b".")
                await writer.drain()
                await asyncio.sleep(0.02)
        elif what == "torn":
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\nonly this")
            writer.close()
        elif what == "garbage":
            writer.write(b"this is no HTTP\r\n\r\n")
            writer.close()
        elif what == "500":
            writer.write(b"HTTP/1.1 500 Oh\r\nContent-Length: 2\r\n\r\noh")
        elif what == "events":
            writer.write(
                b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
            )
            for number in range(3):
                event = f"data: {number}\n\n".encode()
                writer.write(b"%x\r\n%s\r\n" % (len(event), event))
                await writer.drain()
                await asyncio.sleep(0.05)
            writer.write(b"0\r\n\r\n")
        elif what == "huge":
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (8 << 20))
            for _ in range(128):
                writer.write(bytes(64 << 10))
                await writer.drain()
        else:
            said = b"%d bytes" % len(body)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(said), said))
        await writer.drain()


async def _websocket(seen: Seen, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Accept, and send each frame's payload back (RFC 6455)."""
    key = (seen.one("Sec-WebSocket-Key") or "") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
    accept = base64.b64encode(hashlib.sha1(key.encode()).digest()).decode()
    writer.write(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Accept: {accept}\r\n\r\n".encode()
    )
    while True:
        first, second = await reader.readexactly(2)
        mask, length = await reader.readexactly(4), second & 0x7F
        payload = bytes(byte ^ mask[i % 4] for i, byte in enumerate(await reader.readexactly(length)))
        writer.write(bytes([first, length]) + payload)
        if first & 0x0F == 8:
            return
