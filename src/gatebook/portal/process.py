"""The portal's process: start, reload, stop.

In: the state folder. Serves its socket until SIGTERM, then finishes what it has begun. SIGHUP reads the
effective configuration anew: if it cannot be used, the old one stays in force and `/status` goes on naming it.
The socket is made by us, mode 0600, in a folder that is ours alone. Never listens before everything that it
needs is there.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import structlog
import uvicorn
import uvloop

from gatebook import ownlog, record, web
from gatebook.config import effective
from gatebook.config.model import Configuration
from gatebook.errors import GatebookError
from gatebook.guard.client import RecorderClient
from gatebook.identity.keyed import Keys, read_keys
from gatebook.identity.session import SKEW_S
from gatebook.paths import Paths, check_private
from gatebook.portal import login, metadata
from gatebook.portal.app import Application, Page, Portal
from gatebook.portal.call import Scribe
from gatebook.portal.desk import Desk
from gatebook.portal.metadata import Metadata
from gatebook.portal.signing import Schedule, Signing
from gatebook.portal.token import TokenService

BACKLOG = 512
MAX_CONCURRENT = 512
DRAIN_S = 5
MARGIN_S = 60.0  # by which a key stays published beyond what it signed
KEEP_ALIVE_S = 75  # longer than nginx keeps an idle connection: who closes first wins

log = structlog.get_logger("portal")


class Lasting(NamedTuple):
    """What stays while configurations come and go."""

    signing: Signing
    desk: Desk


class _Server(uvicorn.Server):
    """uvicorn's, without its signal handlers: signals are ours."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def lifetime_s(configuration: Configuration) -> float:
    """The longest that something signed here can be good, by any clock."""
    sessions_s = [
        provider.login.session_ttl + SKEW_S for provider in configuration.logins.values() if provider.login
    ]
    return max([access_lifetime_s(configuration), *sessions_s])


def access_lifetime_s(configuration: Configuration) -> float:
    """The same of an access token alone: so long a revoked one takes room in the file of revocations."""
    service = configuration.token_service
    return 0.0 if service is None else service[1].access_ttl + service[1].clock_skew


def schedule(configuration: Configuration) -> Schedule:
    return Schedule(configuration.portal.key_rotation, lifetime_s(configuration) + MARGIN_S)


def make_portal(
    configuration: Configuration, paths: Paths, keys: Keys, recorder: RecorderClient, lasting: Lasting
) -> Portal:
    """All that serves one configuration."""
    signing, desk = lasting
    scribe = Scribe(configuration, keys, recorder)
    pages: dict[str, Page] = {}
    if configuration.token_service is not None:
        name, provider = configuration.token_service
        about = Metadata(configuration, signing)
        pages[metadata.JWKS] = Page("gatebook:jwks", ("GET", "HEAD"), about.jwks)
        for path in metadata.DOCUMENTS:
            pages[path] = Page("gatebook:metadata", ("GET", "HEAD"), about.document)
        service = TokenService(name, provider, configuration, signing, scribe, desk)
        pages[metadata.TOKEN] = Page("gatebook:token", ("POST",), service.token)
        pages[metadata.REVOKE] = Page("gatebook:revoke", ("POST",), service.revoke)
    if configuration.logins:
        pages |= login.pages(configuration, paths, signing, keys)
    return Portal(configuration, scribe, pages)


async def serve(paths: Paths) -> None:
    configuration = effective.read(paths.effective)
    keys = read_keys(paths)
    recorder = RecorderClient(paths.recorder_socket, configuration.guard.acknowledgement_timeout)

    async def announce(detail: dict[str, object]) -> None:
        said = record.System(time_us=time.time_ns() // 1000, event="portal.keys", detail=detail)
        await application.portal.scribe.append(said)

    signing = Signing(paths.portal_keys, paths.portal_jwks, schedule(configuration), announce)
    desk = Desk(
        paths, lambda: application.portal.scribe, lambda: access_lifetime_s(application.portal.configuration)
    )
    lasting = Lasting(signing, desk)
    application = Application(recorder, signing, make_portal(configuration, paths, keys, recorder, lasting))
    loop = asyncio.get_running_loop()
    stop, reload = asyncio.Event(), asyncio.Event()
    for each in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(each, stop.set)
    loop.add_signal_handler(signal.SIGHUP, reload.set)
    recorder.start()
    signing.start()
    desk.start()
    server = _Server(
        web.settings(
            application.asgi,
            concurrent=MAX_CONCURRENT,
            backlog=BACKLOG,
            keep_alive_s=KEEP_ALIVE_S,
            drain_s=DRAIN_S,
            date=False,
        )
    )
    serving = loop.create_task(server.serve([_bind(paths.portal_socket)]))
    log.info("listening", configuration=application.portal.scribe.digest[:16])
    reloading = loop.create_task(_reloads(reload, paths, keys, application, lasting))
    stopping = loop.create_task(stop.wait())
    await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
    application.draining = True
    reloading.cancel()
    server.should_exit = True
    await serving
    await desk.stop()
    await signing.stop()
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


async def _reloads(
    asked: asyncio.Event, paths: Paths, keys: Keys, application: Application, lasting: Lasting
) -> None:
    while True:
        await asked.wait()
        asked.clear()
        try:
            configuration = effective.read(paths.effective)
            portal = make_portal(configuration, paths, keys, application.recorder, lasting)
        except (GatebookError, OSError, ValueError) as error:
            log.error("kept the old configuration: the new one cannot be used", error=str(error))
            continue
        # From this line on every new request is answered by the new configuration.
        application.portal = portal
        application.signing.schedule = schedule(configuration)
        application.recorder.timeout_s = configuration.guard.acknowledgement_timeout
        log.info("switched", configuration=portal.scribe.digest[:16])


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
