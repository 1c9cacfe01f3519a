"""Which process a gateway's worker is. A number alone does not say: it is given again, after a reboot to many.

In: process ids as the gateway says them. Out: one number for this very process, made of its id and of when it
began, which the recorder's memos can hold. Never takes a process for alive that is another one. Asks /proc.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

PID_BITS: Final = 22  # Linux gives no greater ones
MAX_PID: Final = (1 << PID_BITS) - 1
MAX_KNOWN: Final = 4096
_MARK_BITS: Final = 40
_TICKS_A_SECOND: Final = os.sysconf("SC_CLK_TCK")

Look = Callable[[int], int | None]


def began(pid: int) -> int | None:
    """When the process began, in clock ticks since the machine did; None when there is none, or a dead one."""
    try:
        text = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text.rpartition(b")")[2].split()  # a program's name may hold anything
    return None if fields[0] in (b"Z", b"X") else int(fields[19])


def machine() -> str:
    """Another one after each boot."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def uptime_ticks() -> int:
    """Now, on the scale of `began`."""
    return int(time.clock_gettime(time.CLOCK_BOOTTIME) * _TICKS_A_SECOND)


class Workers:
    """Remembers who is who, since it is asked about each line; `refresh` finds whose number has a new owner."""

    def __init__(self, boot: str, look: Look = began) -> None:
        self.boot = boot
        self._look = look
        self._known: dict[int, int] = {}

    def worker(self, pid: int) -> int:
        """This process; a number that nobody has if there is none."""
        known = self._known.get(pid)
        if known is None:
            since = self._look(pid)
            known = self._known[pid] = pid if since is None else self._number(pid, since)
        return known

    def alive(self, worker: int) -> bool:
        pid = worker & MAX_PID
        since = self._look(pid)
        return since is not None and self._number(pid, since) == worker

    def since(self, worker: int) -> int | None:
        """When it began, as `began` says; None when it has gone."""
        return self._look(worker & MAX_PID) if self.alive(worker) else None

    def refresh(self) -> None:
        """Call each second. Who has gone stays known until then: late lines are still its own."""
        for pid, worker in list(self._known.items()):
            since = self._look(pid)
            if since is not None and self._number(pid, since) != worker:
                del self._known[pid]
        while len(self._known) > MAX_KNOWN:
            del self._known[next(iter(self._known))]

    def _number(self, pid: int, since: int) -> int:
        digest = hashlib.sha256(f"{self.boot} {since}".encode()).digest()
        mark = int.from_bytes(digest[:5], "big") | 1 << (_MARK_BITS - 1)  # never 0, which is nobody's
        return mark << PID_BITS | pid
