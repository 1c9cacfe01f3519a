"""Whether entries that no segment holds were erased on purpose, as the public bundles say.

In: the folder `log/`, a range of entries, the ledger's size. Out: yes or no; each bundle is looked through once.
Trust: for telling people, and for going on behind such a hole; nothing here was compared with a signature, so who
could write `log/` could have a loss told as an erasure. `verify` compares. Never raises.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from gatebook.errors import Damaged
from gatebook.ledger.entry import ERASE_PREFIX, SEGMENT_PREFIX, Erase, Segment, parse
from gatebook.ledger.recovery import explained
from gatebook.ledger.tiles import bundle_path, parse_bundle
from gatebook.ledger.tree import TILE_WIDTH


class Holes:
    def __init__(self, log: Path) -> None:
        self._log = log
        self._stated: dict[int, Segment] = {}
        self._erased: dict[bytes, Erase] = {}  # by their own bytes: a partial bundle is read more than once
        self._looked: set[int] = set()  # numbers of full bundles

    def erased(self, first: int, end: int, size: int) -> bool:
        """Of the entries from `first` on, below `end`: whether ERASE entries name all segments that held them."""
        self._look(range(first // TILE_WIDTH, size // TILE_WIDTH + 1))
        # Who reads on from some place may have stopped in the middle of a segment that is gone now.
        start = next((at for at, one in self._stated.items() if at <= first < at + one.entries), first)
        return explained(start, end, self._stated, list(self._erased.values()))

    def _look(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            if number in self._looked:
                continue
            try:
                data = (self._log / bundle_path(number)).read_bytes()
                self._looked.add(number)
            except OSError:
                data = self._partial(number)
            if ERASE_PREFIX in data or SEGMENT_PREFIX in data:
                self._take(data)

    def _partial(self, number: int) -> bytes:
        folder = self._log / f"{bundle_path(number)}.p"
        try:
            return max(
                folder.iterdir(), key=lambda path: int(path.name) if path.name.isdigit() else 0
            ).read_bytes()
        except (OSError, ValueError):
            return b""

    def _take(self, data: bytes) -> None:
        try:
            for one in parse_bundle(data):
                entry = parse(one) if one[:4] in (ERASE_PREFIX, SEGMENT_PREFIX) else None
                if isinstance(entry, Segment):
                    self._stated[entry.first_index] = entry
                elif isinstance(entry, Erase):
                    self._erased[one] = entry
        except Damaged:
            return
