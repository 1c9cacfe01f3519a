"""An OpenID provider on loopback that can be told to misbehave, byte by byte. Counts who asks."""

from __future__ import annotations

import asyncio
import json
import re
import ssl
from collections import Counter
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any
from urllib.parse import parse_qsl

from gatebook.identity.discovery import WELL_KNOWN

JWKS = "/jwks"
INTROSPECT = "/introspect"

Answer = Callable[[asyncio.StreamWriter], Awaitable[None]]


def plain(body: bytes, status: str = "200 OK", *headers: str) -> Answer:
    """A whole answer at once."""

    async def answer(writer: asyncio.StreamWriter) -> None:
        head = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *headers]
        writer.write("\r\n".join(head).encode() + b"\r\n\r\n" + body)

    return answer


def document(value: Any) -> Answer:
    return plain(json.dumps(value).encode(), "200 OK", "Content-Type: application/json")


async def hang(writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(3600)


async def hang_up(writer: asyncio.StreamWriter) -> None:
    writer.close()


async def trickle(writer: asyncio.StreamWriter) -> None:
    """Always alive, never done."""
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    while True:
        writer.write(b" ")
        await asyncio.sleep(0.01)


async def endless(writer: asyncio.StreamWriter) -> None:
    """As many bytes as anybody takes, without saying how many."""
    writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
    while True:
        writer.write(b" " * 65536)
        await writer.drain()


class Provider:
    """`keys` is what it publishes, `tokens` what it says of each; `answers` replaces its answer on a path.

    `asked` counts requests; `heads` and `forms` are what came.
    """

    def __init__(self, *keys: dict[str, Any], tls: ssl.SSLContext | None = None) -> None:
        self.keys = list(keys)
        self.tokens: dict[str, dict[str, Any]] = {}
        self.answers: dict[str, Answer] = {}
        self.asked: Counter[str] = Counter()
        self.heads: list[bytes] = []
        self.forms: list[dict[str, str]] = []
        self.port = 0
        self._tls = tls
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def issuer(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    @property
    def discovered(self) -> dict[str, Any]:
        return {"issuer": self.issuer, "jwks_uri": self.issuer + JWKS}

    async def __aenter__(self) -> Provider:
        await self.up()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.down()

    async def up(self) -> None:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", self.port, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]

    async def down(self) -> None:
        """Nobody listens any more; `up` comes back on the same port."""
        if self._server is not None:
            self._server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await self._server.wait_closed()
            self._server = None

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            self.heads.append(head)
            path = head.split(b" ", 2)[1].decode()
            length = re.search(rb"^content-length: *([0-9]+)\r$", head, re.I | re.M)
            if length is not None:
                self.forms.append(dict(parse_qsl((await reader.readexactly(int(length[1]))).decode())))
            self.asked[path] += 1
            await self._answer(path)(writer)
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()

    def _answer(self, path: str) -> Answer:
        found = self.answers.get(path)
        if found is not None:
            return found
        if path == WELL_KNOWN:
            return document(self.discovered)
        if path == JWKS:
            return document({"keys": self.keys})
        if path == INTROSPECT:
            return document(self.tokens.get(self.forms[-1].get("token", ""), {"active": False}))
        return plain(b"", "404 Not Found")
