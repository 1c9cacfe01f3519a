"""The guard's process: start, reload, stop.

In: the state folder and the guard's number. Serves its socket until SIGTERM, then finishes what it has
begun. SIGHUP reads the effective configuration anew: if it cannot be used, the old one stays in force and
`/status` goes on naming it. Never listens before everything that it needs is there.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import structlog
import uvloop

from gatebook import ownlog
from gatebook.config import effective
from gatebook.errors import GatebookError
from gatebook.guard.client import RecorderClient
from gatebook.guard.protocol import GuardProtocol
from gatebook.guard.rules import Rules
from gatebook.guard.service import Service
from gatebook.identity import Identifier
from gatebook.identity.keyed import Keys, read_keys
from gatebook.paths import Paths, check_private

BACKLOG = 4096  # nginx opens as many connections as it has requests; the kernel may cut this down
DRAIN_S = 5.0

log = structlog.get_logger("guard")


async def serve(paths: Paths, number: int) -> None:
    configuration = effective.read(paths.effective)
    keys = read_keys(paths)
    recorder = RecorderClient(paths.recorder_socket, configuration.guard.acknowledgement_timeout)
    identifier = Identifier(configuration, paths)
    service = Service(Rules(configuration, keys), identifier, recorder)
    loop = asyncio.get_running_loop()
    stop, reload = asyncio.Event(), asyncio.Event()
    for each in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(each, stop.set)
    loop.add_signal_handler(signal.SIGHUP, reload.set)
    await identifier.start()
    recorder.start()
    connections: set[GuardProtocol] = set()
    server = await _listen(paths.guard_socket(number), lambda: GuardProtocol(service, connections))
    log.info("listening", number=number, configuration=service.rules.digest[:16])
    reloading = loop.create_task(_reloads(reload, paths, keys, service, identifier, recorder))
    await stop.wait()
    reloading.cancel()
    service.draining = True
    server.close()
    deadline = time.monotonic() + DRAIN_S
    while not service.idle and time.monotonic() < deadline:  # noqa: ASYNC110 - once, at the end
        await asyncio.sleep(0.01)
    await recorder.stop()  # whoever still waits is refused
    for connection in list(connections):
        connection.close()  # once what has been answered is sent
    while connections and time.monotonic() < deadline:  # noqa: ASYNC110 - once, at the end
        await asyncio.sleep(0.001)
    await identifier.stop()
    await asyncio.gather(reloading, return_exceptions=True)


async def _listen(path: Path, protocol: Callable[[], asyncio.Protocol]) -> asyncio.Server:
    path.unlink(missing_ok=True)  # noqa: ASYNC240 - left by one that was killed; the folder is ours alone
    old = os.umask(0o177)
    try:
        return await asyncio.get_running_loop().create_unix_server(protocol, str(path), backlog=BACKLOG)
    finally:
        os.umask(old)


async def _reloads(
    asked: asyncio.Event,
    paths: Paths,
    keys: Keys,
    service: Service,
    identifier: Identifier,
    recorder: RecorderClient,
) -> None:
    while True:
        await asked.wait()
        asked.clear()
        try:
            configuration = effective.read(paths.effective)
            rules = Rules(configuration, keys, service.rules)
            identifier.reconfigure(configuration)
        except (GatebookError, OSError, ValueError) as error:
            log.error("kept the old configuration: the new one cannot be used", error=str(error))
            continue
        except Exception:
            log.exception("kept the old configuration: an error of the guard's own")
            continue
        # Nothing has run since the identifier switched: nobody is identified by one configuration and judged by
        # the other.
        service.switch(rules)
        recorder.timeout_s = configuration.guard.acknowledgement_timeout
        log.info("switched", configuration=rules.digest[:16])


def main(arguments: Sequence[str]) -> None:
    """`arguments`: the state folder and the guard's number."""
    ownlog.configure(f"guard {arguments[1]}")
    paths = Paths(Path(arguments[0]))
    try:
        check_private(paths.state)
        check_private(paths.runtime)
        with contextlib.suppress(KeyboardInterrupt):
            uvloop.run(serve(paths, int(arguments[1])))
    except (GatebookError, OSError) as error:
        log.error("stopped", error=str(error))
        raise SystemExit(getattr(error, "exit_code", 1)) from error
