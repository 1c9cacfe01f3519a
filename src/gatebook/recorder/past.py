"""How late it surely is: the clock that retention goes by, which a clock that jumps ahead does not move.

In: the machine's clock, and one that only counts (CLOCK_BOOTTIME). Out: a time that is never later than the
machine's clock, and never later than what has been counted since a time that was trusted. A machine that was off
for a week may come back a week later; that is handed down once it has run for an hour, so that many starts add up
to nothing. Any other leap ahead counts for nothing until an operator says, on record, that the clock is right.
state/retention.json keeps the trusted time; if it is broken, nothing is trusted. Pure, but for the file.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from gatebook import kept

MAX_DOWN_US: Final = 7 * 86_400 * 1_000_000
SETTLED_US: Final = 3600 * 1_000_000
SLEW_US: Final = 5_000_000  # so much may a clock be set right at a time, and a thousandth of what was counted

Micros = Annotated[int, Meta(ge=0, lt=1 << 62)]


class Document(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`trusted_us`: it was that late at least, when it was written."""

    version: Literal[1]
    trusted_us: Micros


KIND = kept.Kind(
    title="retention's time",
    command="gatebook retention",
    document=Document,
    empty=Document(version=1, trusted_us=0),
    check=lambda _document: None,
    max_bytes=1 << 10,
)


def read(path: Path) -> int:
    """0: there never was one. Raises EnvironmentFault for a file that cannot be used."""
    return kept.read(path, KIND).document.trusted_us


def write(path: Path, trusted_us: int, announce: Callable[[], object] = lambda: None) -> None:
    """Raises EnvironmentFault, or what `announce` raised."""
    with kept.change(path, KIND, patience_s=0) as change:
        change.become(Document(version=1, trusted_us=trusted_us), announce)


class Past:
    """`trusted_us` as the file has it; 0: then `known_us`, of the ledger, has to do. `counted_us` only grows."""

    def __init__(self, trusted_us: int, known_us: int, now_us: int, counted_us: int) -> None:
        self._trusted = trusted_us or known_us
        self._counted = self._began = counted_us
        # A machine that was off: believed for a while, but not handed down before it has run long enough.
        self._off = now_us - self._trusted if self._trusted < now_us <= self._trusted + MAX_DOWN_US else 0

    def count(self, now_us: int, counted_us: int) -> None:
        """So far has the machine counted; call it often."""
        elapsed, self._counted = max(0, counted_us - self._counted), counted_us
        self._trusted += elapsed
        if self._off and counted_us - self._began >= SETTLED_US:
            self._trusted, self._off = self._trusted + self._off, 0
        ahead = now_us - self._trusted - self._off
        if 0 < ahead <= SLEW_US + elapsed // 1000:
            self._trusted += ahead

    def trust(self, now_us: int, counted_us: int) -> None:
        """Somebody says that the machine's clock is right."""
        self._trusted, self._off, self._counted = now_us, 0, counted_us

    @property
    def trusted_us(self) -> int:
        """What is to be kept."""
        return self._trusted

    def surely_us(self, now_us: int) -> int:
        return min(now_us, self._trusted + self._off)
