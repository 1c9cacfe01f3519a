"""Tells when somebody has set the clock ahead, by one that runs beside it and that nobody sets.

In: both clocks. Out: the seconds that were left out, as a LOSS entry says it, so that nobody takes them for time
in which the recorder was silent. Never explains a silence that was one: time in which the machine slept has to
count as time by the steady clock.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from gatebook.ledger.entry import CLOCK, Loss, LossReason

TOLERANCE_US: Final = 60_000_000  # what is less makes no silence, and slewing is far less


def steady_s() -> float:
    """Seconds since the machine began, those in which it slept included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class ClockWatch:
    def __init__(self, clock_us: Callable[[], int], steady_s: Callable[[], float]) -> None:
        self._clock_us = clock_us
        self._steady_s = steady_s
        self._apart_us = self._apart()

    def _apart(self) -> int:
        return self._clock_us() - int(self._steady_s() * 1e6)

    def look(self) -> Loss | None:
        """What was left out since the last look. Ask before anything is written that bears the new time."""
        apart = self._apart()
        ahead, self._apart_us = apart - self._apart_us, apart
        if ahead < TOLERANCE_US:
            return None
        now = self._clock_us()
        return Loss(CLOCK, max(0, now - ahead) // 1_000_000, now // 1_000_000, LossReason.CLOCK_SET)
