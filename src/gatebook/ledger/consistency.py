"""Proofs that a log's tree of one size is the beginning of its tree of a later size (RFC 9162, 2.1.4).

`prove_consistency` and `check_consistency` are a pair, over any source of subtrees; `consistency_from_tiles`
reads `log/` for one. A tile is believed only because what follows from it is the signed root. Never lets two
roots pass for consistent that are not. Pure, but for the tiles that are read.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from gatebook.errors import Tampered
from gatebook.ledger.note import Checkpoint
from gatebook.ledger.prove import read_tile, tile_width
from gatebook.ledger.tree import (
    EMPTY_ROOT,
    HASH_BYTES,
    TILE_LEVELS,
    TILE_WIDTH,
    Subtree,
    node_hash,
    perfect_root,
    range_root,
)

MAX_PATH: Final = 63


def prove_consistency(old: int, new: int, subtree: Subtree) -> list[bytes]:
    """The proof for 0 <= old <= new; empty for no leaves and for the same tree."""
    if not 0 <= old <= new:
        raise ValueError(f"no tree of {old} is the beginning of one of {new}")
    if old in (0, new):
        return []
    proof: list[bytes] = []
    start, end = 0, new
    while end != old:
        split = start + (1 << ((end - start - 1).bit_length() - 1))
        if old <= split:
            proof.append(range_root(split, end, subtree))
            end = split
        else:
            proof.append(range_root(start, split, subtree))
            start = split
    if start:  # else it is the old root itself, which whoever checks has
        proof.append(range_root(start, end, subtree))
    return proof[::-1]


def check_consistency(old: int, old_root: bytes, new: int, new_root: bytes, proof: Sequence[bytes]) -> None:
    """Raises ValueError unless `proof` shows it; no proof is needed, and none is taken, for no leaves at all."""
    if not 0 <= old <= new:
        raise ValueError(f"no tree of {old} is the beginning of one of {new}")
    if any(size == 0 and root != EMPTY_ROOT for size, root in ((old, old_root), (new, new_root))):
        raise ValueError("this is not the root of a tree without leaves")
    if old in (0, new):
        if proof:
            raise ValueError("nothing is to be proven, but a proof was given")
        if old == new and old_root != new_root:
            raise ValueError(f"two roots over the same {old} leaves")
        return
    if any(len(each) != HASH_BYTES for each in proof):
        raise ValueError("the proof has a hash of a wrong length")
    path = [old_root, *proof] if old & (old - 1) == 0 else list(proof)
    if not path:
        raise ValueError("the proof is too short")
    node, last = old - 1, new - 1
    while node & 1:
        node, last = node >> 1, last >> 1
    older = newer = path[0]
    for each in path[1:]:
        if last == 0:
            raise ValueError("the proof is too long")
        if node & 1 or node == last:
            older, newer = node_hash(each, older), node_hash(each, newer)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            newer = node_hash(newer, each)
        node, last = node >> 1, last >> 1
    if last:
        raise ValueError("the proof is too short")
    if older != old_root:
        raise ValueError(f"the first {old} leaves are not those of the older root")
    if newer != new_root:
        raise ValueError(f"the proof does not lead to the root over {new} leaves")


def consistency_from_tiles(folder: Path, old: int, checkpoint: Checkpoint) -> tuple[bytes, list[bytes]]:
    """The root over the first `old` entries, and the proof that the checkpoint's tree begins with them.

    `folder` is `log/`. Raises Damaged when a tile cannot be read, Tampered when the tiles do not lead to the
    checkpoint's root.
    """

    def subtree(level: int, k: int) -> bytes:
        tile_level, inner = divmod(level, TILE_LEVELS)
        number, at = divmod(k << inner, TILE_WIDTH)
        width = tile_width(tile_level, number, checkpoint.size)
        return perfect_root(read_tile(folder, tile_level, number, width)[at : at + (1 << inner)])

    new = checkpoint.size
    proof = prove_consistency(old, new, subtree)
    old_root = range_root(0, old, subtree) if old else EMPTY_ROOT
    try:
        check_consistency(old, old_root, new, checkpoint.root, proof)
    except ValueError as error:
        raise Tampered(f"{folder}: the tiles are not those of the checkpoint of {new} entries: {error}") from None
    return old_root, proof
