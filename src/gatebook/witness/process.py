"""The process of our own witness: take its folder, listen, end on SIGTERM or Ctrl-C.

Plain HTTP, on loopback unless it is told otherwise: TLS, and bounds for each client, are what a proxy in front is
for. Never two processes on one folder.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import structlog
import uvicorn

from gatebook import ownlog, web
from gatebook.witness.service import make_app
from gatebook.witness.state import State

MAX_CONCURRENT: Final = 64
BACKLOG: Final = 64
KEEP_ALIVE_S: Final = 75
DRAIN_S: Final = 5

log = structlog.get_logger("witness")


class _Server(uvicorn.Server):
    """uvicorn's, without its signal handlers: signals are ours."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def serve(folder: Path, host: str, port: int) -> None:
    """Blocks until it is stopped. Port 0: any. Raises EnvironmentFault or a LedgerError."""
    ownlog.configure("witness")
    state = State(folder, time.time)
    try:
        asyncio.run(_serve(state, host, port))
    finally:
        state.close()


async def _serve(state: State, host: str, port: int) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for each in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(each, stop.set)
    bound = web.listen(host, port, BACKLOG)
    server = _Server(
        web.settings(
            make_app(state),
            concurrent=MAX_CONCURRENT,
            backlog=BACKLOG,
            keep_alive_s=KEEP_ALIVE_S,
            drain_s=DRAIN_S,
            http="h11",
        )
    )
    serving = loop.create_task(server.serve([bound]))
    log.info("ready", url=f"http://{_shown(bound)}", key=state.vkey)
    stopping = loop.create_task(stop.wait())
    await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
    server.should_exit = True
    await serving
    stopping.cancel()


def _shown(bound: socket.socket) -> str:
    host, port = bound.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
