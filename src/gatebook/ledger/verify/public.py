"""The public files, `log/`: tiles and bundles, read with suspicion, and what each has to be.

From the signed root down, each tile's hash is known before it is read (`expected`), so that of two sources
that contradict each other the right one can be told. Where a tile above is missing nothing is expected, and
the root decides at the end. Never believes a file because of its name or its place.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from gatebook.errors import Damaged
from gatebook.ledger.note import Checkpoint
from gatebook.ledger.tiles import MAX_BUNDLE_BYTES, bundle_path, encode_bundle, parse_bundle, tile_path
from gatebook.ledger.tree import HASH_BYTES, TILE_LEVELS, TILE_WIDTH, node_hash, peaks, perfect_root
from gatebook.ledger.verify.report import Report, entries

FEW: Final = 1 << 20  # entries that are looked for whatever is there
_LOST: Final = 16  # of so many entries, at least one is there
_ENTRY_BYTES: Final = 16  # no entry takes less in a segment


class Missing(Damaged):
    """There is no such file."""


def read_file(path: Path | str, max_bytes: int) -> bytes:
    """Raises Missing, or Damaged when the system does not give it or it is too long to be one of ours."""
    return _read(path, max_bytes, whole=True)


def read_beginning(path: Path | str, length: int) -> bytes:
    """At most `length` bytes. Raises as `read_file` does."""
    return _read(path, length, whole=False)


def _read(path: Path | str, max_bytes: int, *, whole: bool) -> bytes:
    try:
        # Somebody else's copy may hold a pipe in a file's place, which would be waited for until the end of days.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise Missing("is missing") from None
    except OSError as error:
        raise Damaged(f"cannot be read: {(error.strerror or str(error)).lower()}") from error
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise Damaged("is no regular file")
        if whole and found.st_size > max_bytes:
            raise Damaged(f"is longer than {max_bytes} bytes")
        with open(descriptor, "rb", buffering=0, closefd=False) as stream:
            return stream.read(min(found.st_size, max_bytes))
    except OSError as error:
        raise Damaged(f"cannot be read: {(error.strerror or str(error)).lower()}") from error
    finally:
        os.close(descriptor)


def tile_width(level: int, number: int, size: int) -> int:
    return max(0, min((size >> (TILE_LEVELS * level)) - number * TILE_WIDTH, TILE_WIDTH))


def fold(roots: list[bytes]) -> bytes:
    """The root over perfect subtrees, the largest first."""
    folded = roots[-1]
    for root in reversed(roots[:-1]):
        folded = node_hash(root, folded)
    return folded


def peak_roots(hashes: list[bytes]) -> list[bytes]:
    """The roots of the perfect subtrees over these hashes."""
    return [perfect_root(hashes[k << level : (k + 1) << level]) for level, k in peaks(len(hashes))]


@dataclass
class Expected:
    """What the signed root demands: each full block's root, and the last block's leaf hashes. None: unknown."""

    blocks: list[bytes | None] = field(default_factory=list)
    last: list[bytes] | None = None


def can_hold(ledger: Path, size: int) -> bool:
    """Whether the files here could be of a log of that size, most of them lost: what is signed may claim any."""
    room = FEW
    if room >= size:
        return True
    for folder, per_file in (("log/tile/0", TILE_WIDTH), ("log/tile/entries", TILE_WIDTH), ("segments", 0)):
        for path, _, names in os.walk(ledger / folder):
            for name in names:
                room += _LOST * (per_file or _stored(f"{path}/{name}") // _ENTRY_BYTES)
                if room >= size:
                    return True
    return False


def _stored(path: str) -> int:
    """Bytes on the disk: a file of nothing but a hole holds none."""
    try:
        found = os.lstat(path)
    except OSError:
        return 0
    return min(found.st_size, max(found.st_blocks * 512, 4096))


class Public:
    """`log/` as it should be for a tree of `checkpoint.size`."""

    def __init__(self, folder: Path, checkpoint: Checkpoint) -> None:
        self._root = f"{folder}/"
        self.checkpoint = checkpoint
        self.size = checkpoint.size

    def tile(self, level: int, number: int) -> bytes:
        """Its hashes, at the tree's size; of a partial tile that has gone, the beginning of a wider one.

        Raises Damaged.
        """
        width = tile_width(level, number, self.size)
        length = width * HASH_BYTES
        data, wide = self._read(tile_path(level, number), width, TILE_WIDTH * HASH_BYTES)
        if len(data) != wide * HASH_BYTES:
            raise Damaged(f"has {len(data)} bytes; a tile of width {wide} has {wide * HASH_BYTES}")
        return data[:length]

    def hashes(self, level: int, number: int) -> list[bytes]:
        """`tile`, divided. Raises Damaged."""
        data = self.tile(level, number)
        return [data[at : at + HASH_BYTES] for at in range(0, len(data), HASH_BYTES)]

    def bundle(self, number: int) -> bytes:
        """The entries' bytes, as `tile` finds them. Raises Damaged."""
        width = tile_width(0, number, self.size)
        data, wide = self._read(bundle_path(number), width, MAX_BUNDLE_BYTES)
        return data if wide == width else encode_bundle(parse_bundle(data, wide)[:width])

    def _read(self, full: str, width: int, max_bytes: int) -> tuple[bytes, int]:
        """The file of that width, or the next wider one that replaced it since the checkpoint was read."""
        name = full if width == TILE_WIDTH else f"{full}.p/{width}"
        try:
            return read_file(self._root + name, max_bytes), width
        except Missing:
            if width == TILE_WIDTH:
                raise
        for wide in [w for w in self.partial_widths(full) if w > width]:
            with contextlib.suppress(Missing):
                return read_file(f"{self._root}{full}.p/{wide}", max_bytes), wide
        return read_file(self._root + full, max_bytes), TILE_WIDTH

    def partial_widths(self, full: str) -> list[int]:
        """The widths of the partial files beside a full one's place."""
        try:
            names = os.listdir(f"{self._root}{full}.p")  # noqa: PTH208 - for each block; a Path costs more
        except OSError:
            return []
        return sorted(int(name) for name in names if name.isascii() and name.isdigit() and 1 <= int(name) < 256)

    def expected(self) -> Expected:
        """From the root down, as far as the tiles are what they should be."""
        blocks: list[bytes | None] = [None] * (self.size // TILE_WIDTH)
        levels = self._right_edge()
        if levels is None:
            return Expected(blocks)
        known: dict[int, bytes] = {}  # number of a full tile at `level` -> its root
        for level in range(len(levels) - 1, 0, -1):
            below = dict(enumerate(levels[level], (self.size >> TILE_LEVELS * (level + 1)) * TILE_WIDTH))
            for number, root in known.items():
                try:
                    hashes = self.hashes(level, number)
                except Damaged:
                    continue
                if perfect_root(hashes) == root:
                    below |= dict(enumerate(hashes, number * TILE_WIDTH))
            known = below
        for number, root in known.items():
            blocks[number] = root
        return Expected(blocks, levels[0])

    def _right_edge(self) -> list[list[bytes]] | None:
        """The unfinished tiles, by level, if they add up to the signed root."""
        levels: list[list[bytes]] = []
        roots: list[bytes] = []
        level = 0
        while self.size >> TILE_LEVELS * level:
            number = self.size >> TILE_LEVELS * (level + 1)
            try:
                levels.append(self.hashes(level, number) if tile_width(level, number, self.size) else [])
            except Damaged:
                return None
            roots = peak_roots(levels[-1]) + roots
            level += 1
        return levels if roots and fold(roots) == self.checkpoint.root else None

    # -- files that stand for less than the whole -------------------------------------------------------
    def check_partial_tiles(self, report: Report, level: int, number: int, hashes: list[bytes]) -> None:
        """Whoever holds an older checkpoint reads the partial files: they have to be beginnings of the whole."""
        full = tile_path(level, number)
        self._check_partial(report, full, len(hashes), lambda width: b"".join(hashes[:width]))

    def check_partial_bundles(self, report: Report, number: int, inside: list[bytes]) -> None:
        full = bundle_path(number)
        self._check_partial(report, full, len(inside), lambda width: encode_bundle(inside[:width]))

    def _check_partial(self, report: Report, full: str, present: int, beginning: Callable[[int], bytes]) -> None:
        for width in self.partial_widths(full):
            if width >= present:
                continue  # the present one is checked as such; wider ones no checkpoint demands yet
            name = f"{full}.p/{width}"
            try:
                data = read_file(self._root + name, MAX_BUNDLE_BYTES)
            except Missing:
                continue  # removed a moment ago, since the full one is there
            except Damaged as error:
                report.found(0, "damaged", f"log/{name}", str(error), "an older checkpoint cannot be followed")
                continue
            if data != beginning(width):
                report.found(
                    0,
                    "tampered",
                    f"log/{name}",
                    "is no beginning of what was signed",
                    "who holds an older checkpoint is told something else",
                )


def block_range(number: int, size: int) -> tuple[int, int]:
    return number * TILE_WIDTH, min(size, (number + 1) * TILE_WIDTH)


def block_name(number: int, size: int) -> str:
    return entries(*block_range(number, size))
