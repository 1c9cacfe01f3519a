"""One process of ours: started, watched, restarted with growing patience, ended.

In: a name, a command line. Out: a process in a group of its own, so that a terminal's Ctrl-C reaches only the
supervisor, and that dies when the supervisor does. Never leaves a member of the group behind before the
next start: nginx's workers outlive a killed master and would keep its sockets.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import functools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import structlog

log = structlog.get_logger("supervisor")

FORGET_DEATHS_S: Final = 60.0
FIRST_DELAY_S: Final = 0.2
LAST_DELAY_S: Final = 10.0
_PR_SET_PDEATHSIG: Final = 1
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


def restart_delay_s(deaths: int) -> float:
    """Seconds to wait after so many deaths within FORGET_DEATHS_S: at once, then 0.2 s, doubling, up to 10 s."""
    return 0.0 if deaths <= 1 else min(LAST_DELAY_S, FIRST_DELAY_S * 2.0 ** (deaths - 2))


def _die_with(parent: int) -> None:
    """Runs in the child before its program does. A parent that is killed cannot end its children itself."""
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM))
        if os.getppid() != parent:  # killed before we asked for the signal
            os._exit(1)


@dataclass
class Child:
    """`quit_signal` asks it to finish what it has begun and end."""

    role: str
    command: Sequence[str]
    quit_signal: signal.Signals = signal.SIGTERM
    process: subprocess.Popen[bytes] | None = None
    restarts: int = 0
    started_at: float = 0.0
    stopping: bool = False
    _deaths: list[float] = field(default_factory=list)
    _restart: asyncio.TimerHandle | None = None

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.returncode is None

    @property
    def pid(self) -> int | None:
        return self.process.pid if self.process is not None and self.running else None

    def offspring(self) -> set[int]:
        """Process ids of its own children, such as nginx's workers; those accept, once they are there."""
        try:
            return {int(text) for text in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()}
        except (OSError, ValueError):
            return set()

    def start(self) -> None:
        """Raises OSError when the program cannot be run."""
        self._restart = None
        if self.stopping:
            return
        environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        self.process = subprocess.Popen(  # noqa: S603 - our own programs, no shell
            list(self.command),
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            umask=0o077,
            env=environment,
            preexec_fn=functools.partial(_die_with, os.getpid()),
        )
        self.started_at = time.time()
        log.info("started", child=self.role, child_pid=self.process.pid)

    def look(self) -> None:
        """Call when some child has ended: restarts this one if it was the one."""
        if self.process is None or self._restart is not None or self.stopping:
            return
        code = self.process.poll()
        if code is None:
            return
        self._clear_group()
        now = time.monotonic()
        self._deaths = [at for at in self._deaths if now - at < FORGET_DEATHS_S] + [now]
        delay_s = restart_delay_s(len(self._deaths))
        log.error("died", child=self.role, child_pid=self.process.pid, end=_end(code), restart_in_s=delay_s)
        self.restarts += 1
        self._restart = asyncio.get_running_loop().call_later(delay_s, self.start_or_retry)

    def start_or_retry(self) -> None:
        """Start, or try again later: for what others can do without meanwhile."""
        try:
            self.start()
        except OSError as error:
            log.error("cannot be started", child=self.role, error=str(error))
            self._restart = asyncio.get_running_loop().call_later(LAST_DELAY_S, self.start_or_retry)

    def signal(self, number: signal.Signals) -> None:
        if self.process is not None and self.running:
            self.process.send_signal(number)

    async def stop(self, patience_s: float) -> None:
        """Ask, wait, insist; returns when no member of the group is left."""
        self.stopping = True
        if self._restart is not None:
            self._restart.cancel()
        process = self.process
        if process is None:
            return
        for number, wait_s in ((self.quit_signal, patience_s), (signal.SIGTERM, 2.0)):
            if process.poll() is not None:
                break
            process.send_signal(number)
            deadline = time.monotonic() + wait_s
            while process.poll() is None and time.monotonic() < deadline:  # noqa: ASYNC110 - no event tells
                await asyncio.sleep(0.01)
        if process.poll() is None:
            log.warning("killed: it would not end", child=self.role, child_pid=process.pid)
        self._clear_group()
        process.wait()

    def _clear_group(self) -> None:
        """What is left of the process's group."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, signal.SIGKILL)

    def status(self) -> dict[str, Any]:
        told: dict[str, Any] = {"role": self.role, "pid": self.pid, "restarts": self.restarts}
        if self.running:
            told["since_s"] = round(time.time() - self.started_at)
        return told


def _end(code: int) -> str:
    """How a process ended, in words."""
    if code >= 0:
        return f"exit code {code}"
    with contextlib.suppress(ValueError):
        return f"killed by {signal.Signals(-code).name}"
    return f"killed by signal {-code}"
