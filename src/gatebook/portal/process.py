"""The portal's process: start, reload, stop.

In: the state folder. Serves its socket until SIGTERM, then finishes what it has begun. SIGHUP reads the effective
configuration anew: if it cannot be used, the old one stays in force and `/status` goes on naming it. The socket is
made by us, mode 0600, in a folder that is ours alone. Never listens before everything that it needs is there.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path

import structlog
import uvicorn
import uvloop

from gatebook import ownlog
from gatebook.config import effective
from gatebook.config.model import Configuration
from gatebook.errors import GatebookError
from gatebook.guard.client import RecorderClient
from gatebook.identity.keyed import read_keys
from gatebook.paths import Paths, check_private
from gatebook.portal.app import Application, Portal

BACKLOG = 512
MAX_CONCURRENT = 512
DRAIN_S = 5
KEEP_ALIVE_S = 75  # longer than nginx keeps an idle connection: who closes first wins

log = structlog.get_logger("portal")


class _Server(uvicorn.Server):
    """uvicorn's, without its signal handlers: signals are ours."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def make_portal(configuration: Configuration, key: bytes, recorder: RecorderClient) -> Portal:
    return Portal(configuration, key, recorder, {})


async def serve(paths: Paths) -> None:
    configuration = effective.read(paths.effective)
    key = read_keys(paths).fingerprints
    recorder = RecorderClient(paths.recorder_socket, configuration.guard.acknowledgement_timeout)
    application = Application(recorder, make_portal(configuration, key, recorder))
    loop = asyncio.get_running_loop()
    stop, reload = asyncio.Event(), asyncio.Event()
    for each in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(each, stop.set)
    loop.add_signal_handler(signal.SIGHUP, reload.set)
    recorder.start()
    server = _Server(
        uvicorn.Config(
            application.asgi,
            http="httptools",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=False,
            limit_concurrency=MAX_CONCURRENT,
            backlog=BACKLOG,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=DRAIN_S,
        )
    )
    serving = loop.create_task(server.serve([_bind(paths.portal_socket)]))
    log.info("listening", configuration=application.portal.digest[:16])
    reloading = loop.create_task(_reloads(reload, paths, key, application))
    stopping = loop.create_task(stop.wait())
    await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
    application.draining = True
    reloading.cancel()
    server.should_exit = True
    await serving
    await recorder.stop()
    await asyncio.gather(reloading, return_exceptions=True)


def _bind(path: Path) -> socket.socket:
    path.unlink(missing_ok=True)  # left by one that was killed; the folder is ours alone
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    old = os.umask(0o177)
    try:
        bound.bind(str(path))
    finally:
        os.umask(old)
    return bound


async def _reloads(asked: asyncio.Event, paths: Paths, key: bytes, application: Application) -> None:
    while True:
        await asked.wait()
        asked.clear()
        try:
            configuration = effective.read(paths.effective)
            portal = make_portal(configuration, key, application.recorder)
        except (GatebookError, OSError, ValueError) as error:
            log.error("kept the old configuration: the new one cannot be used", error=str(error))
            continue
        # From this line on every new request is answered by the new configuration.
        application.portal = portal
        application.recorder.timeout_s = configuration.guard.acknowledgement_timeout
        log.info("switched", configuration=portal.digest[:16])


def main(arguments: Sequence[str]) -> None:
    """`arguments`: the state folder."""
    ownlog.configure("portal")
    paths = Paths(Path(arguments[0]))
    try:
        check_private(paths.state)
        check_private(paths.runtime)
        with contextlib.suppress(KeyboardInterrupt):
            uvloop.run(serve(paths))
    except (GatebookError, OSError) as error:
        log.error("stopped", error=str(error))
        raise SystemExit(getattr(error, "exit_code", 1)) from error
