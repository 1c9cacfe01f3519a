"""All processes of a deployment, in the right order.

Start: recorder, guards, the portal if one is needed, gateway, each when the one before it answers. End: the other
way round, so that what has been let in is decided, recorded and told of before its scribe goes. Never starts
anything while `preflight` finds a problem, and never two supervisors on one state folder.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import structlog

from gatebook import ownlog, wire
from gatebook.config import effective
from gatebook.config.model import Configuration
from gatebook.errors import ConfigError, EnvironmentFault, GatebookError, RecorderUnavailable
from gatebook.gateway import nginx, render
from gatebook.grants import closing
from gatebook.paths import Paths, check_private, make_private
from gatebook.preflight import preflight
from gatebook.recorder.submit import ask
from gatebook.supervisor import control
from gatebook.supervisor.child import Child
from gatebook.supervisor.reload import Reload

POLL_S = 0.02
SLOW_START_S = 10.0
DRAIN_S = 10.0
GUARD_DRAIN_S = 6.0
FOLLOWER_DRAIN_S = 7.0
RECORDER_DRAIN_S = 15.0

log = structlog.get_logger("supervisor")


@contextlib.contextmanager
def only_one(paths: Paths) -> Iterator[None]:
    """Hold the deployment's lock. Raises EnvironmentFault when another supervisor has it."""
    descriptor = os.open(paths.state / "run.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise EnvironmentFault(
                f"{paths.state}: another `gatebook run` is at work on it; stop that one, or use `gatebook reload`"
            ) from None
        yield
    finally:
        os.close(descriptor)


def checked(config: Path) -> Configuration:
    """The configuration, if `run` may go on with it. Raises ConfigError with every problem."""
    found = preflight(config)
    for warning in found.warnings:
        log.warning(str(warning))
    if found.problems or found.configuration is None:
        raise ConfigError(found.problems)
    return found.configuration


class Supervisor:
    def __init__(self, config: Path, configuration: Configuration) -> None:
        self.config = config
        self.configuration = configuration
        self.paths = Paths(configuration.state_dir)
        self.facts = nginx.find(configuration)
        python, state = [sys.executable, "-m"], str(self.paths.state)
        self.recorder = Child("recorder", [*python, "gatebook.recorder", state])
        self.guards = [
            Child(f"guard {number}", [*python, "gatebook.guard", state, str(number)])
            for number in range(configuration.guard.processes)
        ]
        self.gateway = Child("gateway", nginx.argv(self.facts, self.paths.nginx), quit_signal=signal.SIGQUIT)
        self.portal: Child | None = self.make_portal() if configuration.needs_portal else None
        self.follower: Child | None = self.make_follower() if configuration.sinks else None
        self.started = False
        self._reload = Reload(self)
        self._stop = asyncio.Event()

    def make_portal(self) -> Child:
        return Child("portal", [sys.executable, "-m", "gatebook.portal", str(self.paths.state)])

    def make_follower(self) -> Child:
        return Child("follower", [sys.executable, "-m", "gatebook.sinks", str(self.paths.state)])

    @property
    def children(self) -> list[Child]:
        optional = [child for child in (self.portal, self.follower) if child is not None]
        return [self.recorder, *self.guards, *optional, self.gateway]

    # -- start ------------------------------------------------------------------------------------------
    async def run(self) -> None:
        """Until SIGTERM or SIGINT. Raises EnvironmentFault when something cannot be started at all."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, self._hang_up)
        loop.add_signal_handler(signal.SIGCHLD, self._look)
        make_private(self.paths.runtime)
        make_private(self.paths.logs)
        effective.write(self.configuration, self.paths.effective)
        nginx.write(render.render(self.configuration, self.paths, self.facts), self.paths.nginx)
        server = await control.serve(self.paths.control_socket, self._command)
        try:
            stopped = loop.create_task(self._stop.wait())
            starting = loop.create_task(self._start())
            completing = loop.create_task(self._close_grants())
            await asyncio.wait({stopped, starting}, return_when=asyncio.FIRST_COMPLETED)
            starting.cancel()
            await asyncio.gather(starting, return_exceptions=True)
            if not starting.cancelled():
                _raise(starting.exception())
            await stopped
        finally:
            completing.cancel()
            await asyncio.gather(completing, return_exceptions=True)
            await self._end()
            server.close()
            self.paths.control_socket.unlink(missing_ok=True)

    async def _start(self) -> None:
        self.recorder.start()
        await self._until(self.recorder, self._recorder_answers)
        for guard in self.guards:
            guard.start()
        for number, guard in enumerate(self.guards):
            await self._until(guard, lambda number=number: self._guard_ready(number))
        if self.portal is not None:
            await self.start_portal(self.portal, SLOW_START_S)
        if self.follower is not None:
            self.follower.start()  # nobody waits for it
        self.gateway.start()
        await self._until(self.gateway, self._gateway_accepts)
        self.started = True
        log.info("ready", listen=self.listening(), configuration=self.configuration.digest().hex()[:16])

    def listening(self) -> list[str]:
        return [
            f"{'https' if listener.tls else 'http'}://{listener.address}" for listener in self.configuration.listen
        ]

    async def _until(self, child: Child, holds: Any) -> None:
        """Children that die meanwhile are restarted; only a stop gives this up."""
        warn_at = time.monotonic() + SLOW_START_S
        while not await holds():
            if time.monotonic() > warn_at:
                log.warning("still waiting", child=child.role, restarts=child.restarts)
                warn_at += SLOW_START_S
            await asyncio.sleep(POLL_S)

    def _look(self) -> None:
        for child in self.children:
            child.look()

    # -- how it stands ----------------------------------------------------------------------------------
    async def stands(self) -> wire.Stands | None:
        """What the recorder says of itself; None when it says nothing."""
        try:
            reply = await asyncio.to_thread(ask, self.paths, wire.Status(), 2.0)
        except (OSError, RecorderUnavailable):
            return None
        return reply if isinstance(reply, wire.Stands) else None

    async def _recorder_answers(self) -> bool:
        return await self.stands() is not None

    async def guard_status(self, number: int) -> dict[str, Any] | None:
        return await _status(self.paths.guard_socket(number))

    async def portal_status(self) -> dict[str, Any] | None:
        return await _status(self.paths.portal_socket)

    async def _guard_ready(self, number: int) -> bool:
        return _is_ready(await self.guard_status(number))

    async def portal_ready(self) -> bool:
        return _is_ready(await self.portal_status())

    async def _gateway_accepts(self) -> bool:
        """Its workers come after it has got its ports: until then somebody else may accept there."""
        return bool(self.gateway.offspring()) and all(
            _accepts(listener.host, listener.port) for listener in self.configuration.listen
        )

    async def status(self) -> dict[str, Any]:
        stands = await self.stands()
        answer = [await self.guard_status(number) for number in range(len(self.guards))]
        if self.portal is not None:
            answer.append(await self.portal_status())
        ready = self.started and stands is not None and bool(self.gateway.offspring())
        return {
            "ready": ready and all(map(_is_ready, answer)),
            "pid": os.getpid(),
            "configuration": self.configuration.digest().hex(),
            "file": str(self.config),
            "listen": self.listening(),
            "entries": stands.size if stands is not None else None,
            "open_decisions": stands.open if stands is not None else None,
            "outside": stands.outside if stands is not None else {},
            "processes": [child.status() for child in self.children],
        }

    # -- the portal, when a reload asks for one or for none any more -------------------------------------
    async def start_portal(self, portal: Child, patience_s: float) -> None:
        """Waits for it, but not for ever: without it its own pages are 503, and nothing else."""
        self.portal = portal
        portal.start_or_retry()
        deadline = time.monotonic() + patience_s
        while not await self.portal_ready():
            if time.monotonic() > deadline:
                log.error("does not answer yet; its pages are 503 until it does", child=portal.role)
                return
            await asyncio.sleep(POLL_S)

    async def stop_portal(self) -> None:
        if self.portal is not None:
            portal, self.portal = self.portal, None
            await portal.stop(GUARD_DRAIN_S)

    async def apply_follower(self, *, wanted: bool) -> None:
        """The same of the follower; no request waits for it, so nor does a reload."""
        if wanted and self.follower is None:
            self.follower = self.make_follower()
            self.follower.start_or_retry()
        elif wanted and self.follower is not None:
            self.follower.signal(signal.SIGHUP)
        elif self.follower is not None:
            follower, self.follower = self.follower, None
            await follower.stop(FOLLOWER_DRAIN_S)

    # -- grants -----------------------------------------------------------------------------------------
    async def _close_grants(self) -> None:
        """Whatever has ended is completed on record; what fails is tried again."""
        said = ""
        while True:
            await asyncio.sleep(closing.POLL_S)
            try:
                await asyncio.to_thread(closing.close_ended, self.configuration, self.paths, time.time())
                said = ""
            except GatebookError as error:
                if str(error) != said:
                    said = str(error)
                    log.error("grants that have ended are not on record as that yet", why=said)
            except Exception:
                log.exception("error of our own while completing grants")

    # -- orders -----------------------------------------------------------------------------------------
    async def _command(self, command: str) -> dict[str, Any]:
        if command == "status":
            return await self.status()
        if command == "reload":
            return await self._reload.run()
        return {"error": f"no such command: {command}", "problems": []}

    def _hang_up(self) -> None:
        task = asyncio.get_running_loop().create_task(self._reload.run())
        task.add_done_callback(lambda done: done.cancelled() or done.exception())

    # -- end --------------------------------------------------------------------------------------------
    async def _end(self) -> None:
        log.info("stopping: no new connections, what is under way is finished")
        await self._reload.stop()
        await self.gateway.stop(DRAIN_S)
        await asyncio.gather(self.stop_portal(), *(guard.stop(GUARD_DRAIN_S) for guard in self.guards))
        await self.recorder.stop(RECORDER_DRAIN_S)
        await self.apply_follower(wanted=False)
        log.info("stopped")


def _raise(error: BaseException | None) -> None:
    if isinstance(error, OSError):
        raise EnvironmentFault(f"a process cannot be started: {error}") from error
    if error is not None:
        raise error


async def _status(path: Path) -> dict[str, Any] | None:
    """What a process that serves this socket says of itself; None when it says nothing."""
    transport = httpx2.AsyncHTTPTransport(uds=str(path))
    try:
        async with httpx2.AsyncClient(transport=transport, timeout=2.0) as client:
            told: dict[str, Any] = (await client.get("http://gatebook/status")).json()
            return told
    except (httpx2.HTTPError, OSError, ValueError):
        return None


def _is_ready(told: dict[str, Any] | None) -> bool:
    return told is not None and bool(told["ready"])


def _accepts(host: str, port: int) -> bool:
    target = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - asked, not listened on
    try:
        with socket.create_connection((target, port), timeout=1.0):
            return True
    except OSError:
        return False


def run(config: Path) -> None:
    """Blocks until it is stopped. Raises ConfigError, EnvironmentFault."""
    ownlog.configure("supervisor")
    configuration = checked(config)
    paths = Paths(configuration.state_dir)
    check_private(paths.state)
    with only_one(paths):
        asyncio.run(_run(config, configuration))


async def _run(config: Path, configuration: Configuration) -> None:
    await Supervisor(config, configuration).run()
