"""The public tree as files (C2SP tlog-tiles): their names, their bytes, and which of them are due.

    tile/<L>/<N>[.p/<W>]         W hashes of 32 bytes; 256 when there is no .p
    tile/entries/<N>[.p/<W>]     the same leaves' entries, each `u16_be length || entry`
    N = 1234067 is written x001/x234/067

A level >= 1 hash covers a full lower tile only. `Tiler` turns new entries into files and writes none
itself. Never holds an entry for longer than until its full bundle has been reported and forgotten. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from gatebook.errors import Damaged
from gatebook.ledger.tree import HASH_BYTES, TILE_WIDTH, Builder, leaf_hashes

MAX_ENTRY_BYTES = (1 << 16) - 1
MAX_BUNDLE_BYTES = TILE_WIDTH * (2 + MAX_ENTRY_BYTES)


def _name(number: int) -> str:
    groups = [f"{number % 1000:03}"]
    while number := number // 1000:
        groups.append(f"x{number % 1000:03}")
    return "/".join(reversed(groups))


def _path(kind: str, number: int, width: int) -> str:
    if number < 0 or not 1 <= width <= TILE_WIDTH:
        raise ValueError(f"no tile has number {number} and width {width}")
    return f"tile/{kind}/{_name(number)}" + ("" if width == TILE_WIDTH else f".p/{width}")


def tile_path(level: int, number: int, width: int = TILE_WIDTH) -> str:
    """Where the tile lies below `log/`."""
    if not 0 <= level <= 7:
        raise ValueError(f"no tile has level {level}")
    return _path(str(level), number, width)


def bundle_path(number: int, width: int = TILE_WIDTH) -> str:
    """Where the entries of the level-0 tile of that number lie below `log/`."""
    return _path("entries", number, width)


def parse_tile(data: bytes, width: int = TILE_WIDTH) -> list[bytes]:
    """The tile's hashes. Raises Damaged when there are not exactly `width`."""
    if len(data) != width * HASH_BYTES:
        raise Damaged(f"tile of {len(data)} bytes; a tile of width {width} has {width * HASH_BYTES}")
    return [data[at : at + HASH_BYTES] for at in range(0, len(data), HASH_BYTES)]


def encode_bundle(entries: Sequence[bytes]) -> bytes:
    """`u16_be length || entry` for each. Raises ValueError for an entry of more than 65,535 bytes."""
    try:
        if len(lengths := set(map(len, entries))) == 1:  # records alone, as nearly always: one join, no loop
            head = lengths.pop().to_bytes(2, "big")
            return head + head.join(entries)
        return b"".join([len(entry).to_bytes(2, "big") + entry for entry in entries])
    except OverflowError:
        raise ValueError(f"an entry has at most {MAX_ENTRY_BYTES} bytes") from None


def parse_bundle(data: bytes, width: int | None = None) -> list[bytes]:
    """The entries, in order. Raises Damaged unless the bytes are exactly a bundle (of `width` entries)."""
    entries: list[bytes] = []
    at, end = 0, len(data)
    while at < end:
        start = at + 2
        at = start + int.from_bytes(data[at:start], "big")
        if start > end or at > end:
            raise Damaged(f"entry bundle ends within its entry {len(entries)}")
        entries.append(data[start:at])
    if width is not None and len(entries) != width:
        raise Damaged(f"entry bundle of {len(entries)} entries; expected {width}")
    return entries


class _Due(NamedTuple):
    size: int  # the tree size at which the file was complete
    path: str
    data: bytes


class Tiler:
    """Takes entries in order; knows the root, and the files that a checkpoint at this size needs."""

    def __init__(self) -> None:
        self._builder = Builder(self._full)
        self._bundle: list[bytes] = []
        self._due: list[_Due] = []

    @classmethod
    def resumed(cls, size: int, levels: Sequence[Sequence[bytes]]) -> Tiler:
        """As it was at `size`, a multiple of 256; `levels` as for `Builder.resumed`."""
        if size % TILE_WIDTH:
            raise ValueError(f"{size} is not a multiple of {TILE_WIDTH}")
        tiler = cls()
        tiler._builder = Builder.resumed(size, levels, tiler._full)
        return tiler

    @property
    def size(self) -> int:
        return self._builder.size

    def root(self) -> bytes:
        return self._builder.root()

    def extend(self, entries: Sequence[bytes]) -> None:
        """Add entries, each of at most 65,535 bytes."""
        at = 0
        while at < len(entries):
            taken = entries[at : at + TILE_WIDTH - len(self._bundle)]
            at += len(taken)
            self._bundle += taken
            self._builder.extend(leaf_hashes(taken))
            if len(self._bundle) == TILE_WIDTH:
                number = self.size // TILE_WIDTH - 1
                self._due.append(_Due(self.size, bundle_path(number), encode_bundle(self._bundle)))
                self._bundle = []

    def _full(self, level: int, number: int, hashes: list[bytes]) -> None:
        self._due.append(_Due(self._builder.size, tile_path(level, number), b"".join(hashes)))

    def files(self, since: int) -> list[tuple[str, bytes]]:
        """(path below `log/`, bytes): what filled up after tree size `since`, and what is partial now."""
        return [(due.path, due.data) for due in self._due if due.size > since] + list(self._partial())

    def _partial(self) -> Iterator[tuple[str, bytes]]:
        for level, number, hashes in self._builder.unfinished():
            yield tile_path(level, number, len(hashes)), b"".join(hashes)
        if self._bundle:
            yield bundle_path(self.size // TILE_WIDTH, len(self._bundle)), encode_bundle(self._bundle)

    def forget(self, upto: int) -> None:
        """Full files complete at tree size `upto` or before are written: keep them no longer."""
        self._due = [due for due in self._due if due.size > upto]
