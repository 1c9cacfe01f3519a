"""How often somebody may do something, such as fail: a bucket for each key, emptied by time. No I/O.

A key may do it `burst` times at once, and once every `interval_s` after that. Bounded: beyond MAX_KEYS the key
that did it longest ago is forgotten, which takes more than anybody is allowed.
"""

from __future__ import annotations

from collections import OrderedDict
from math import ceil

MAX_KEYS = 100_000


class Throttle:
    def __init__(self, burst: int, interval_s: float, max_keys: int = MAX_KEYS) -> None:
        self._interval_s = interval_s
        self._slack_s = (burst - 1) * interval_s
        self._max_keys = max_keys
        self._full_at: OrderedDict[str, float] = OrderedDict()  # when a key's doings will all be forgotten

    def wait_s(self, key: str, now: float) -> int:
        """Seconds until it may try again, rounded up; 0: now."""
        left_s = self._full_at.get(key, now) - self._slack_s - now
        return max(0, ceil(left_s - 1e-6))

    def count(self, key: str, now: float) -> bool:
        """Whether it has to wait from now on, and did not before."""
        free = self.wait_s(key, now) == 0
        self._full_at[key] = max(now, self._full_at.pop(key, now)) + self._interval_s
        while len(self._full_at) > self._max_keys:
            self._full_at.popitem(last=False)
        return free and self.wait_s(key, now) > 0
