"""The signed tree, out of the tiles and entry bundles that are in a bundle of evidence.

From the signed root down: what is on the right edge has to give the root, each other tile has to give the hash
that stands for it in the tile above. Never gives out an entry or a hash that the root does not vouch for. Which
tiles an entry needs is `tiles_of`'s to say, for whoever makes a bundle.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Final

from gatebook.errors import Damaged, Tampered
from gatebook.evidence.archive import Members
from gatebook.ledger.note import Checkpoint
from gatebook.ledger.prove import tile_width
from gatebook.ledger.tiles import bundle_path, parse_bundle, parse_tile, tile_path
from gatebook.ledger.tree import (
    EMPTY_ROOT,
    HASH_BYTES,
    TILE_LEVELS,
    TILE_WIDTH,
    leaf_hashes,
    peaks,
    perfect_root,
)
from gatebook.ledger.verify.public import fold, peak_roots

MAX_BUNDLE_BYTES: Final = TILE_WIDTH * 512  # no entry of format 1 is half as long
_KEPT = 64
_ENTRIES = "log/tile/entries/"


def tiles_of(index: int, size: int) -> Iterator[tuple[int, int]]:
    """(level, number) of each tile that the path of an entry goes through."""
    level = 0
    while size >> TILE_LEVELS * level:
        number = index >> TILE_LEVELS * (level + 1)
        if tile_width(level, number, size) > 0:
            yield level, number
        level += 1


def right_edge(size: int) -> Iterator[tuple[int, int]]:
    """(level, number) of each tile that is not full."""
    return (place for place in tiles_of(size, size) if tile_width(*place, size) < TILE_WIDTH)


def tile_name(level: int, number: int, size: int) -> str:
    return f"log/{tile_path(level, number, tile_width(level, number, size))}"


def bundle_name(number: int, size: int) -> str:
    return f"log/{bundle_path(number, tile_width(0, number, size))}"


def blocks_in(members: Members, size: int) -> list[int]:
    """The blocks of entries in a bundle of a tree of that size, in order. Raises Damaged for any other."""
    found = []
    for name in members.names():
        if not name.startswith(_ENTRIES):
            continue
        digits = name.removeprefix(_ENTRIES).partition(".p/")[0].replace("x", "").replace("/", "")
        number = int(digits) if digits.isdigit() and len(digits) < 19 else -1
        if not 0 <= number * TILE_WIDTH < size or bundle_name(number, size) != name:
            raise Damaged(f"{name}: is no part of this tree")
        found.append(number)
    return sorted(found)


class SignedTree:
    """Raises Damaged for what is missing or no tile, Tampered for what contradicts the root."""

    def __init__(self, members: Members, checkpoint: Checkpoint) -> None:
        self._members = members
        self._checkpoint = checkpoint
        self._kept: OrderedDict[tuple[int, int], list[bytes]] = OrderedDict()
        self._edge: dict[tuple[int, int], list[bytes]] | None = None

    @property
    def size(self) -> int:
        return self._checkpoint.size

    def check_root(self) -> None:
        """That what is not full adds up to the signed root."""
        if self._edge is not None:
            return
        edge: dict[tuple[int, int], list[bytes]] = {}
        roots: list[bytes] = []
        for place in right_edge(self.size):
            edge[place] = self._read(*place)
            roots[:0] = peak_roots(edge[place])
        if (fold(roots) if roots else EMPTY_ROOT) != self._checkpoint.root:
            raise Tampered("the tiles at the tree's end do not give the signed root")
        self._edge = edge

    def hashes(self, level: int, number: int) -> list[bytes]:
        """A tile's hashes."""
        place = (level, number)
        if tile_width(level, number, self.size) < TILE_WIDTH:
            self.check_root()
            assert self._edge is not None  # noqa: S101 - check_root has set it
            return self._edge[place]
        if place not in self._kept:
            hashes = self._read(level, number)
            if perfect_root(hashes) != self.hashes(level + 1, number // TILE_WIDTH)[number % TILE_WIDTH]:
                raise Tampered(f"{tile_name(level, number, self.size)}: is not what was signed")
            self._kept[place] = hashes
            if len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(place)
        return self._kept[place]

    def _read(self, level: int, number: int) -> list[bytes]:
        name, width = tile_name(level, number, self.size), tile_width(level, number, self.size)
        try:
            return parse_tile(self._members.read(name, TILE_WIDTH * HASH_BYTES), width)
        except Damaged as error:
            raise Damaged(str(error) if str(error).startswith(name) else f"{name}: {error}") from None

    def entries(self, number: int) -> list[bytes]:
        """The entries of block `number`."""
        name = bundle_name(number, self.size)
        data = self._members.read(name, MAX_BUNDLE_BYTES)
        try:
            inside = parse_bundle(data, tile_width(0, number, self.size))
        except Damaged as error:
            raise Damaged(f"{name}: {error}") from None
        if leaf_hashes(inside) != self.hashes(0, number):
            raise Tampered(f"{name}: is not what was signed")
        return inside

    def root_at(self, size: int) -> bytes:
        """The root over the first `size` entries, for a size whose tiles are in the bundle."""
        roots = [self._subtree(level, k) for level, k in peaks(size)]
        return fold(roots) if roots else EMPTY_ROOT

    def _subtree(self, level: int, k: int) -> bytes:
        tile_level, inner = divmod(level, TILE_LEVELS)
        number, at = divmod(k << inner, TILE_WIDTH)
        return perfect_root(self.hashes(tile_level, number)[at : at + (1 << inner)])
