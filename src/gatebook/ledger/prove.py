"""Proves from the public files alone that an entry is in the tree of the signed checkpoint.

In: `log/` and the log's public key. Out: the path from the leaf to the signed root. A tile is believed only
because what follows from it is the signed root; a wrong one makes the proof fail, never succeed. Reads files
and nothing else.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from gatebook.errors import Damaged, Tampered
from gatebook.ledger.note import Checkpoint, Verifier, open_note, parse_checkpoint
from gatebook.ledger.tiles import parse_tile, tile_path
from gatebook.ledger.tree import (
    HASH_BYTES,
    TILE_LEVELS,
    TILE_WIDTH,
    leaf_hash,
    perfect_root,
    prove_inclusion,
    root_from_inclusion,
)


class Inclusion(NamedTuple):
    """That a leaf is in the tree of a signed checkpoint. `note`: the checkpoint as it was signed."""

    checkpoint: Checkpoint
    path: list[bytes]
    note: bytes


class Tree:
    """The signed tree, read from its tiles."""

    def __init__(self, ledger: Path, verifier: Verifier, name: str = "checkpoint") -> None:
        """`name`: of the checkpoint's file below `log/`."""
        self._folder = ledger / "log"
        self._name = name
        self._verifier = verifier

    def checkpoint(self) -> Checkpoint:
        """The published one. Raises Damaged or Tampered."""
        return self._published()[0]

    def _published(self) -> tuple[Checkpoint, bytes]:
        path = self._folder / self._name
        try:
            data = path.read_bytes()
        except OSError as error:
            raise Damaged(f"{path}: {(error.strerror or str(error)).lower()}") from error
        checkpoint = parse_checkpoint(open_note(data, [self._verifier]).text)
        if checkpoint.origin != self._verifier.name:
            raise Tampered(f"{path}: is of {checkpoint.origin}; the key is of {self._verifier.name}")
        return checkpoint, data

    def inclusion(self, index: int, entry: bytes) -> Inclusion | None:
        """Prove that `entry` is leaf `index` of the signed tree. None: no checkpoint covers it yet.

        Raises Tampered when the tree says otherwise, Damaged when it cannot be read.
        """
        checkpoint, note = self._published()
        if index >= checkpoint.size:
            return None
        path = prove_inclusion(index, checkpoint.size, lambda level, k: self._subtree(level, k, checkpoint.size))
        if root_from_inclusion(index, checkpoint.size, leaf_hash(entry), path) != checkpoint.root:
            raise Tampered(f"entry {index} is not in the signed tree of {checkpoint.size} entries")
        return Inclusion(checkpoint, path, note)

    def _subtree(self, level: int, k: int, size: int) -> bytes:
        tile_level, inner = divmod(level, TILE_LEVELS)
        number, at = divmod(k << inner, TILE_WIDTH)
        data = read_tile(self._folder, tile_level, number, tile_width(tile_level, number, size))
        return perfect_root(data[at : at + (1 << inner)])


def tile_width(level: int, number: int, size: int) -> int:
    """How wide a tile is in a tree of that size; 0 or less: there is none."""
    return min((size >> (TILE_LEVELS * level)) - number * TILE_WIDTH, TILE_WIDTH)


def read_tile(folder: Path, level: int, number: int, width: int) -> list[bytes]:
    """A tile's first `width` hashes; a wider one serves for a partial one that has gone. Raises Damaged."""
    for wide in dict.fromkeys((width, TILE_WIDTH, *_wider(folder / f"{tile_path(level, number)}.p", width))):
        path = folder / tile_path(level, number, wide)
        try:
            with path.open("rb") as stream:
                data = stream.read(TILE_WIDTH * HASH_BYTES + 1)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise Damaged(f"{path}: {(error.strerror or str(error)).lower()}") from error
        return parse_tile(data, wide)[:width]
    raise Damaged(f"{folder / tile_path(level, number, width)}: missing")


def _wider(folder: Path, width: int) -> list[int]:
    """The widths of partial tiles that are there, as those of older sizes go."""
    try:
        widths = [int(path.name) for path in folder.iterdir() if path.name.isdigit() and path.name.isascii()]
    except OSError:
        return []
    return sorted(wide for wide in widths if width < wide < TILE_WIDTH)
