"""From one configuration to another, or not at all.

Order: check everything; put it on record; then the gateway, then guards and portal. So nothing is ever in force
that the ledger does not name, and no guard names an upstream that the gateway has not heard of. Upstreams
that are gone stay known to the gateway until the next reload, for requests that were decided before.
Never half: what is refused is refused before anything has changed.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import signal
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from gatebook import record, wire
from gatebook.config import effective
from gatebook.config.load import examine, locate
from gatebook.config.model import Configuration
from gatebook.errors import ConfigError, GatebookError, Problem, RecorderUnavailable
from gatebook.gateway import nginx, render
from gatebook.preflight import preflight
from gatebook.recorder.submit import ask
from gatebook.supervisor.child import Child

if TYPE_CHECKING:
    from gatebook.supervisor.service import Supervisor

SWITCH_S = 10.0
POLL_S = 0.02

log = structlog.get_logger("supervisor")

# What cannot change while the processes live: key -> how to read it.
FIXED: dict[str, Callable[[Configuration], object]] = {
    "state_dir": lambda c: c.state_dir,
    "name": lambda c: c.name,
    "node": lambda c: c.node,
    "guard.processes": lambda c: c.guard.processes,
    "gateway.nginx": lambda c: c.gateway.nginx,
    "gateway.modules": lambda c: c.gateway.modules,
}


class Reload:
    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._lock = asyncio.Lock()
        self._stopped = False

    async def stop(self) -> None:
        """No other one begins; the one that is under way has SWITCH_S to come to its end."""
        self._stopped = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SWITCH_S), self._lock:
                pass

    async def run(self) -> dict[str, Any]:
        """`{"configuration": …, "changed": …}`, or `{"error": …, "problems": […]}` and nothing has changed."""
        async with self._lock:
            if self._stopped or not self._supervisor.started:
                why = "stopping" if self._stopped else "still starting; try again when it is ready"
                log.error("kept the old configuration", error=f"gatebook is {why}")
                return {"error": f"gatebook is {why}", "problems": []}
            try:
                changed = await self._run()
            except ConfigError as error:
                log.error("kept the old configuration", problems=[str(problem) for problem in error.problems])
                return {"error": str(error), "problems": [_plain(problem) for problem in error.problems]}
            except (GatebookError, OSError) as error:
                log.error("kept the old configuration", error=str(error))
                return {"error": str(error), "problems": []}
        digest = self._supervisor.configuration.digest().hex()
        log.info("reloaded", configuration=digest[:16], changed=changed)
        return {"configuration": digest, "changed": changed}

    async def _run(self) -> bool:
        supervisor = self._supervisor
        old = supervisor.configuration
        new = await asyncio.to_thread(_checked, supervisor.config, old)
        kept = new.model_copy(update={"upstreams": {**old.upstreams, **new.upstreams}})
        files = render.render(kept, supervisor.paths, supervisor.facts)
        before = {name: (supervisor.paths.nginx / name).read_bytes() for name in files}
        nginx.write(files, supervisor.paths.nginx)
        # A crash here: the gateway's next start reads the new file, which the next start of all writes anew.
        if new.digest() != old.digest():
            try:
                await self._apply(old, new)
            except BaseException:
                nginx.write(before, supervisor.paths.nginx)
                raise
        # From here on the new configuration is on record; a crash now starts with it.
        digest = new.digest().hex()
        if new.needs_portal and supervisor.portal is None:
            await supervisor.start_portal(supervisor.make_portal(), SWITCH_S)
        await self._switch_gateway()  # always: certificates may have changed under the same name
        for guard in supervisor.guards:
            guard.signal(signal.SIGHUP)
        if supervisor.portal is not None:
            supervisor.portal.signal(signal.SIGHUP)
        for number, guard in enumerate(supervisor.guards):
            await self._switched(guard, digest, functools.partial(supervisor.guard_status, number))
        if supervisor.portal is not None:
            if new.needs_portal:
                await self._switched(supervisor.portal, digest, supervisor.portal_status)
            else:
                await supervisor.stop_portal()
        await supervisor.apply_follower(wanted=bool(new.sinks))
        supervisor.configuration = new
        return new.digest() != old.digest()

    async def _apply(self, old: Configuration, new: Configuration) -> None:
        """Put the change on record; if that fails the old configuration stays."""
        paths = self._supervisor.paths
        admin = record.Admin(
            time_us=time.time_ns() // 1000,
            action="configuration.apply",
            actor=f"os:{os.geteuid()}",
            detail={"from": old.digest().hex(), "to": new.digest().hex()},
        )
        effective.write(new, paths.effective)
        try:
            reply = await asyncio.to_thread(ask, paths, wire.Apply(new.digest(), record.encode(admin)))
            if not isinstance(reply, wire.Appended):
                raise RecorderUnavailable(f"the recorder refused it: {getattr(reply, 'why', reply)}")
        except (OSError, GatebookError):
            effective.write(old, paths.effective)
            raise

    async def _switch_gateway(self) -> None:
        """New workers read the new files; the old ones finish what they have begun, and accept nothing more."""
        gateway = self._supervisor.gateway
        before = gateway.offspring()
        gateway.signal(signal.SIGHUP)
        deadline = time.monotonic() + SWITCH_S
        while gateway.running and not (gateway.offspring() - before and all(map(_retires, before))):
            if time.monotonic() > deadline:
                log.error("the gateway has not started new workers; see its error log")
                return
            await asyncio.sleep(POLL_S)

    async def _switched(
        self, child: Child, digest: str, status: Callable[[], Awaitable[dict[str, Any] | None]]
    ) -> None:
        """Returns when it answers by the new configuration, or has been ended for it."""
        deadline = time.monotonic() + SWITCH_S
        while True:
            told = await status()
            if told is not None and told["configuration"] == digest:
                return
            if time.monotonic() > deadline:
                log.error("has not switched in time, and is restarted", child=child.role)
                child.signal(signal.SIGKILL)  # it starts anew with the effective configuration
                return
            await asyncio.sleep(POLL_S)


def _retires(worker: int) -> bool:
    """Whether this worker of nginx has ended, or says that it is about to."""
    try:
        words = Path(f"/proc/{worker}/cmdline").read_bytes()
    except OSError:
        return True
    return not words or b"shutting down" in words


def _checked(config: Path, old: Configuration) -> Configuration:
    """Raises ConfigError with every problem."""
    found = preflight(config)
    problems = list(found.problems)
    if found.configuration is not None:
        for key, read in FIXED.items():
            if read(found.configuration) != read(old):
                said = f"changed from {read(old)} to {read(found.configuration)}"
                problems.append(_restart(config, key, said))
    if problems or found.configuration is None:
        raise ConfigError(problems)
    return found.configuration


def _restart(config: Path, key: str, said: str) -> Problem:
    expected = "a restart of `gatebook run` for this"
    source = examine(config).source
    if source is None:  # spoilt meanwhile
        return Problem(str(config), 0, 0, key, said, expected)
    return locate([(tuple(key.split(".")), said, expected)], source)[0]


def _plain(problem: Problem) -> dict[str, Any]:
    return {name: getattr(problem, name) for name in Problem.__slots__}
