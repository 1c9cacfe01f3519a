"""An introspection endpoint for measurements: every token is active, connections are kept, nothing is checked.

In: POSTs with a Content-Length. Out: the same answer for each, but for the subject. Runs in the loop that starts
it, never in the process that is measured.
"""

from __future__ import annotations

import asyncio
import json
import time
import zlib
from typing import Any


class Endpoint(asyncio.Protocol):
    """`await Endpoint.serve()` gives the server and its URL."""

    @classmethod
    async def serve(cls) -> tuple[asyncio.Server, str]:
        server = await asyncio.get_running_loop().create_server(cls, "127.0.0.1", 0)
        return server, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/introspect"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport
        self._buffer = b""

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, found, rest = self._buffer.partition(b"\r\n\r\n")
        if not found:
            return
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r", 1)[0])
        if len(rest) < length:
            return
        self._buffer = rest[length:]
        now = int(time.time())
        told = {
            "active": True,
            "token_type": "Bearer",
            "iss": "https://login.acme.example",
            "sub": f"user-{zlib.crc32(rest[:length]) % 32}",
            "aud": "orders-api",
            "client_id": "web",
            "scope": "orders:read",
            "iat": now,
            "exp": now + 300,
            "roles": ["reader"],
        }
        body = json.dumps(told).encode()
        kind = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
        self._transport.write(kind + b"Content-Length: %d\r\n\r\n" % len(body) + body)
