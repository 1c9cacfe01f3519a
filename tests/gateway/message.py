"""What passes between a test, nginx, the guard and the upstream: HTTP/1.1 messages, read and written exactly."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple


class Seen(NamedTuple):
    """A request as it reached the guard or the upstream."""

    line: str
    headers: list[tuple[str, str]]
    body: bytes = b""

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def one(self, name: str) -> str | None:
        found = self.all(name)
        assert len(found) <= 1, found
        return found[0] if found else None

    @property
    def names(self) -> set[str]:
        return {key.lower() for key, _ in self.headers}


class Answer(NamedTuple):
    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def one(self, name: str) -> str | None:
        found = self.all(name)
        assert len(found) <= 1, found
        return found[0] if found else None

    def problem(self) -> dict[str, Any]:
        """The body, once it is certain that it is a problem of ours."""
        assert self.one("Content-Type") == "application/problem+json"
        found: dict[str, Any] = json.loads(self.body)
        assert found["status"] == self.status
        return found


def guard_says(status: int = 204, **headers: str) -> bytes:
    """`Gatebook_Upstream="orders"` and the like; `content-length: 0` unless it is a 204."""
    lines = [f"HTTP/1.1 {status} X"] + [f"{k.replace('_', '-')}: {v}" for k, v in headers.items()]
    return "\r\n".join([*lines, *([] if status == 204 else ["Content-Length: 0"]), "", ""]).encode()


def allow(upstream: str = "orders", **headers: str) -> bytes:
    known = {"Gatebook_Decision": "41", "Gatebook_Receipt": "acme/node-1/41", "Gatebook_Reason": "rule"}
    return guard_says(204, Gatebook_Upstream=upstream, **{**known, **headers})


def deny(status: int, **headers: str) -> bytes:
    body = json.dumps({"type": "about:blank", "title": "No", "status": status})
    known = {"Gatebook_Decision": "42", "Gatebook_Receipt": "acme/node-1/42", "Gatebook_Reason": "no_rule"}
    return guard_says(
        401 if status == 401 else 403,
        Gatebook_Status=str(status),
        **{"Gatebook_Problem": body, **known, **headers},
    )


async def read_request(reader: asyncio.StreamReader) -> Seen | None:
    """The head alone; None at the end of the connection."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    line, *fields = head.decode("latin-1").split("\r\n")[:-2]
    headers = [(name, value.strip()) for name, _, value in (field.partition(":") for field in fields)]
    return Seen(line, headers)


async def read_body(seen: Seen, reader: asyncio.StreamReader) -> bytes:
    if "transfer-encoding" in seen.names:
        parts = []
        while size := int(await reader.readline(), 16):
            parts.append(await reader.readexactly(size))
            await reader.readline()
        await reader.readline()
        return b"".join(parts)
    return await reader.readexactly(int(seen.one("Content-Length") or 0))


Behaviour = Callable[[Seen, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def responds(data: bytes) -> Behaviour:
    async def behave(seen: Seen, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()

    return behave


OK = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nok"


def read_answer(connection: socket.socket, method: str = "GET") -> Answer:
    response = http.client.HTTPResponse(connection, method=method)
    try:
        response.begin()
        return Answer(response.status, response.getheaders(), response.read())
    finally:
        response.close()
