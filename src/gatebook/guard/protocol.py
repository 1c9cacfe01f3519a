"""HTTP/1.1 as nginx speaks it to the guard: one request at a time on a kept connection, no bodies.

In: bytes. Out: `Asked` for the service, and its answer's bytes back. Whatever is not exactly what our nginx
sends closes the connection, which the client sees as 503 (as 400, if it is what a client can bring about).
Never reads more than `max_head_bytes` a request.
Trust: only nginx can open the socket, but every value in here came from a client.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

import httptools
import structlog

from gatebook.guard import answer
from gatebook.guard.asked import OWN_FIELDS, PREFIX, Asked, parse

log = structlog.get_logger("guard")

# Fields of the subrequest itself: the client's Host is in Gatebook-Host, its connection is not ours.
_SKIPPED = frozenset({b"host", b"connection"})
_NEVER = frozenset({b"content-length", b"transfer-encoding", b"upgrade"})


class Decides(Protocol):
    """What stands behind the protocol: guard.service.Service."""

    @property
    def max_head_bytes(self) -> int: ...
    def decide(self, asked: Asked, reply: Callable[[bytes], None]) -> None: ...
    def page(self, path: str) -> bytes: ...


class GuardProtocol(asyncio.Protocol):
    def __init__(self, service: Decides, open_connections: set[GuardProtocol]) -> None:
        self._service = service
        self._connections = open_connections
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpRequestParser(self)
        self._url = b""
        self._own: dict[bytes, bytes] = {}
        self._headers: list[tuple[bytes, bytes]] = []
        self._size = 0
        self._waiting = False  # a request has been asked and not answered

    # -- asyncio ----------------------------------------------------------------------------------------
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # uvloop's class is not asyncio's
        self._connections.add(self)

    def connection_lost(self, _error: Exception | None) -> None:
        self._transport = None  # an answer that comes later is for nobody
        self._connections.discard(self)

    def data_received(self, data: bytes) -> None:
        self._size += len(data)
        if self._size > self._service.max_head_bytes:
            self._close("a request head that is too large")
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserCallbackError as error:
            self._close(f"not what the gateway sends: {error.__context__}")
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._refuse(f"not what the gateway sends: {error}")

    # -- httptools --------------------------------------------------------------------------------------
    def on_message_begin(self) -> None:
        if self._waiting:
            raise ValueError("a request before the last one's answer")
        self._url = b""
        self._own = {}
        self._headers = []

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        if name in OWN_FIELDS and name not in self._own:
            self._own[name] = value
        elif name.startswith(PREFIX):
            raise ValueError(f"a field {name!r} that the gateway does not send, or sends once")
        elif name in _NEVER:
            raise ValueError(f"a field {name!r}, which announces more than a head")
        elif name not in _SKIPPED:
            self._headers.append((name, value))

    def on_message_complete(self) -> None:
        self._size = 0
        if self._parser.get_method() != b"GET":
            raise ValueError("a method other than GET")
        if self._url != b"/decide":
            self._write(self._service.page(self._url.decode("ascii", "replace")))
            return
        self._waiting = True
        self._service.decide(parse(self._own, self._headers), self._reply)

    # -- the way back -----------------------------------------------------------------------------------
    def _reply(self, data: bytes) -> None:
        self._waiting = False
        self._write(data)

    def _write(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def _refuse(self, why: str) -> None:
        """The gateway's own fields come first. What is no HTTP after them, as a control byte, is the client's."""
        asked = self._own.get(b"gatebook-request-id")
        if asked is None or self._waiting or self._transport is None:
            self._close(why)
            return
        denial = answer.deny(reason="request_malformed", request_id=asked.decode("ascii", "replace"))
        self._transport.write(answer.finish(denial))
        self._transport.close()

    def _close(self, why: str) -> None:
        log.error("closed a gateway connection", why=why)
        if self._transport is not None:
            self._transport.write(answer.plainly("400 Bad Request"))
            self._transport.close()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()
