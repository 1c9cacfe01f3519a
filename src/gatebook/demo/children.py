"""The demo's processes: started in sessions of their own, and ended in all circumstances.

In: command lines. Out: running processes whose output goes to a file each, shown when something fails.
A terminal's Ctrl-C reaches the demo alone, which ends its children in order: SIGTERM, a bounded wait,
SIGKILL for their whole session. Should the demo be killed, the system sends them SIGTERM in its stead.
Never waits without a bound.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType

from gatebook.demo.serve import SAID
from gatebook.errors import EnvironmentFault

START_S = 30.0  # for a process to be ready
DRAIN_S = 20.0  # for a process to end by itself
SHOWN_LINES = 30
STOPS = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP})  # what ends the demo
_POLL_S = 0.05
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


class Child:
    """One process. `name` is what people are told; `log` holds all that it writes."""

    def __init__(self, name: str, argv: Sequence[str], log: Path) -> None:
        self.name, self.log = name, log
        parent, mask = os.getpid(), signal.pthread_sigmask(signal.SIG_BLOCK, ())
        with log.open("ab") as output:
            self._process = subprocess.Popen(  # noqa: S603 - a command line of ours, without a shell
                argv,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=lambda: _end_with(parent, mask - STOPS),  # safe, since the demo has one thread
            )

    @property
    def process_id(self) -> int:
        return self._process.pid

    def until(self, ready: Callable[[], bool]) -> None:
        """Waits until `ready`. Raises EnvironmentFault, with the log's end, if it ends or takes too long."""
        end = time.monotonic() + START_S
        while not ready():
            if self.ended():
                raise self.failure("ended instead of starting")
            if time.monotonic() > end:
                raise self.failure(f"was not ready within {START_S:.0f} s")
            time.sleep(_POLL_S)

    def address(self) -> str:
        """Waits for the line that `serve.main` writes, and returns the address in it."""
        self.until(lambda: bool(self._addresses()))
        return self._addresses()[0]

    def _addresses(self) -> list[str]:
        return re.findall(rf"^{SAID}(\S+)$", self.said(), re.M)

    def ended(self) -> bool:
        """It is left a zombie until `stop`, so that its number, and its session's, belong to nobody else."""
        return os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def said(self) -> str:
        return self.log.read_text("utf-8", "replace")

    def failure(self, what: str) -> EnvironmentFault:
        lines = self.said().splitlines()[-SHOWN_LINES:]
        shown = "".join(f"\n  {line}" for line in lines) or " nothing"
        return EnvironmentFault(f"{self.name} {what}. It said, in {self.log}:{shown}")

    def stop(self) -> None:
        """Ends it and whatever it started. To be called once."""
        if not self.ended():
            self._process.terminate()
        end = time.monotonic() + DRAIN_S
        while not self.ended() and time.monotonic() < end:
            time.sleep(_POLL_S)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)  # itself, if need be, and whom it left behind
        self._process.wait()


class Children:
    """`with Children(folder) as children:` ends all of them at the end, the last one first."""

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._started: list[Child] = []

    def start(self, name: str, *argv: str) -> Child:
        """Not to be interrupted between a process's start and the note that it is there."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
        try:
            child = Child(name, argv, self._logs / f"{name.replace(' ', '-')}.log")
            self._started.append(child)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return child

    def dead(self) -> Child | None:
        return next((child for child in self._started if child.ended()), None)

    def __enter__(self) -> Children:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while self._started:
            self._started[-1].stop()
            self._started.pop()


def _end_with(parent: int, mask: set[int | signal.Signals]) -> None:
    """In the child, before its program: have the system end it when `parent` does, however that comes about."""
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != parent:  # it had ended before we could ask
            os._exit(1)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
