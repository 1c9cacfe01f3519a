"""The control socket: one JSON object in a line asked, one answered. And how the commands ask.

Commands: {"command": "status"}, {"command": "reload"}. An answer with "error" says why not.
Trust: the socket lies in a private folder, mode 0600; who can open it already is this user.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from gatebook.errors import EnvironmentFault

MAX_LINE_BYTES = 64 << 10
TIMEOUT_S = 90.0

Handler = Callable[[str], Awaitable[dict[str, Any]]]


async def serve(path: Path, handler: Handler) -> asyncio.Server:
    """Listen. The caller holds the deployment's lock, so a socket that is there is a dead one's."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(ConnectionError, ValueError, TimeoutError):
                line = await asyncio.wait_for(reader.readline(), TIMEOUT_S)
                asked = json.loads(line)
                answer = await handler(str(asked.get("command") if isinstance(asked, dict) else None))
                writer.write(json.dumps(answer).encode() + b"\n")
                await writer.drain()
        finally:
            writer.close()  # also after an error of ours: who asked must not wait for its time-out

    path.unlink(missing_ok=True)  # noqa: ASYNC240 - once, at the start
    old = os.umask(0o177)
    try:
        return await asyncio.start_unix_server(talk, str(path), limit=MAX_LINE_BYTES)
    finally:
        os.umask(old)


def ask(path: Path, command: str) -> dict[str, Any]:
    """Raises EnvironmentFault when nobody is there or no answer comes."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(TIMEOUT_S)
        try:
            connection.connect(str(path))
            connection.sendall(json.dumps({"command": command}).encode() + b"\n")
            with connection.makefile("rb") as stream:
                line = stream.readline()
        except (FileNotFoundError, ConnectionRefusedError):
            raise EnvironmentFault(
                "no gatebook is running on this state folder; start it by `gatebook run`"
            ) from None
        except OSError as error:
            raise EnvironmentFault(f"{path}: {error}; is `gatebook run` hanging?") from None
    if not line:
        raise EnvironmentFault("gatebook hung up without an answer; see what `gatebook run` printed")
    answer: dict[str, Any] = json.loads(line)
    return answer
