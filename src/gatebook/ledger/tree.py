"""The Merkle tree of RFC 6962, over any leaves, and proofs that one leaf is in it.

leaf = SHA256(00 || entry), node = SHA256(01 || left || right), empty root = SHA256("").
A tree of n leaves is cut into perfect subtrees; `(level, k)` names the one over the leaves
[k * 2^level, (k + 1) * 2^level). `Builder` keeps hashes in tiles, 256 of them and eight levels each:

    tile level 1            [ h  h  .. ]            h = root of the full tile below it
    tile level 0   [ 256 leaves ][ 256 leaves ][ 17 leaves so far ]

Never holds more than one unfinished tile a level: 255 hashes for each factor of 256 in size. Pure.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice

HASH_BYTES = 32
TILE_LEVELS = 8
TILE_WIDTH = 1 << TILE_LEVELS
EMPTY_ROOT = hashlib.sha256(b"").digest()

_sha256 = hashlib.sha256

Full = Callable[[int, int, list[bytes]], None]
Subtree = Callable[[int, int], bytes]


def leaf_hash(entry: bytes) -> bytes:
    return _sha256(b"\0" + entry).digest()


def leaf_hashes(entries: Iterable[bytes]) -> list[bytes]:
    """`leaf_hash` of each: the hot loop of sealing and of verification."""
    sha256 = _sha256
    return [sha256(b"\0" + entry).digest() for entry in entries]


def node_hash(left: bytes, right: bytes) -> bytes:
    return _sha256(b"\1" + left + right).digest()


def perfect_root(hashes: Sequence[bytes]) -> bytes:
    """The root over a power of two of hashes."""
    sha256 = _sha256
    while len(hashes) > 1:
        hashes = [sha256(b"\1" + a + b).digest() for a, b in zip(hashes[::2], hashes[1::2], strict=True)]
    return hashes[0]


def peaks(size: int) -> Iterator[tuple[int, int]]:
    """The perfect subtrees that a tree of `size` leaves consists of, left to right, as (level, k)."""
    start = 0
    for level in range(size.bit_length() - 1, -1, -1):
        if size >> level & 1:
            yield level, start >> level
            start += 1 << level


def _fold(roots: Sequence[bytes]) -> bytes:
    """The root over perfect subtrees, left to right."""
    folded = roots[-1]
    for root in reversed(roots[:-1]):
        folded = node_hash(root, folded)
    return folded


class Builder:
    """Takes leaf hashes in order; knows the root over all of them. `full` is told of each tile that fills."""

    def __init__(self, full: Full | None = None) -> None:
        self.size = 0
        self._levels: list[list[bytes]] = [[]]
        self._full = full

    @classmethod
    def resumed(cls, size: int, levels: Sequence[Sequence[bytes]], full: Full | None = None) -> Builder:
        """As it was at `size`: `levels` are its unfinished tiles' hashes, level 0 first, empty ones included."""
        if [len(level) for level in levels] != [
            size >> TILE_LEVELS * level & TILE_WIDTH - 1 for level in range(len(levels))
        ] or size >> TILE_LEVELS * len(levels):
            raise ValueError(f"these are not the unfinished tiles of a tree of {size}")
        builder = cls(full)
        builder.size = size
        builder._levels = [list(level) for level in levels]
        return builder

    def extend(self, hashes: Iterable[bytes]) -> None:
        """Add leaves, given by their leaf hashes."""
        source = iter(hashes)
        while taken := list(islice(source, TILE_WIDTH - len(self._levels[0]))):
            self._levels[0] += taken
            self.size += len(taken)
            if len(self._levels[0]) == TILE_WIDTH:
                self._carry()

    def _carry(self) -> None:
        """Full tiles become one hash each in the tile above."""
        level = 0
        while len(self._levels[level]) == TILE_WIDTH:
            tile = self._levels[level]
            if level + 1 == len(self._levels):
                self._levels.append([])
            self._levels[level + 1].append(perfect_root(tile))
            if self._full is not None:
                self._full(level, (self.size >> (TILE_LEVELS * (level + 1))) - 1, tile)
            self._levels[level] = []
            level += 1

    def unfinished(self) -> Iterator[tuple[int, int, list[bytes]]]:
        """The partial tiles at this size: (tile level, number, its 1 to 255 hashes)."""
        for level, hashes in enumerate(self._levels):
            if hashes:
                yield level, self.size >> (TILE_LEVELS * (level + 1)), list(hashes)

    def root(self) -> bytes:
        """The root over everything so far; at most 255 hashes a tile level."""
        roots: list[bytes] = []
        for hashes in reversed(self._levels):
            start = 0
            for level, _ in peaks(len(hashes)):
                roots.append(perfect_root(hashes[start : start + (1 << level)]))
                start += 1 << level
        return _fold(roots) if roots else EMPTY_ROOT


def range_root(start: int, end: int, subtree: Subtree) -> bytes:
    """The root over the leaves [start, end), where start is a multiple of a power of two >= end - start."""
    return _fold([subtree(level, k + (start >> level)) for level, k in peaks(end - start)])


def prove_inclusion(index: int, size: int, subtree: Subtree) -> list[bytes]:
    """The path from a leaf up to the root of the tree of `size` leaves, the leaf's neighbour first."""
    if not 0 <= index < size:
        raise ValueError(f"no leaf {index} in a tree of {size}")
    path: list[bytes] = []
    start, end = 0, size
    while end - start > 1:
        split = start + (1 << ((end - start - 1).bit_length() - 1))
        if index < split:
            path.append(range_root(split, end, subtree))
            end = split
        else:
            path.append(range_root(start, split, subtree))
            start = split
    return path[::-1]


def root_from_inclusion(index: int, size: int, leaf: bytes, path: Sequence[bytes]) -> bytes:
    """The root that `path` claims (RFC 9162, 2.1.3.2). Raises ValueError when it is no path of that tree."""
    if not 0 <= index < size:
        raise ValueError(f"no leaf {index} in a tree of {size}")
    node, last, folded = index, size - 1, leaf
    for sibling in path:
        if last == 0 or len(sibling) != HASH_BYTES:
            raise ValueError("inclusion path is too long or has a hash of a wrong length")
        if node & 1 or node == last:
            folded = node_hash(sibling, folded)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            folded = node_hash(folded, sibling)
        node, last = node >> 1, last >> 1
    if last:
        raise ValueError("inclusion path is too short")
    return folded
