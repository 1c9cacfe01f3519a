"""A ledger of any size, made by the real writer, and what a stranger is given of it."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.ledger.caller import SIGNER, VERIFIER, Caller

from gatebook.ledger.note import Checkpoint, sign_note
from gatebook.ledger.prove import Inclusion, Tree
from gatebook.ledger.tiles import bundle_path, parse_bundle
from gatebook.ledger.tree import TILE_WIDTH

VKEY = SIGNER.vkey
SEGMENT_RECORDS = 65_536
EMPTY_ROOT = bytes.fromhex("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")


class Log:
    """Grows to the sizes asked for; each published checkpoint is kept in `kept`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folder = root / "ledger" / "log"
        self.kept: list[Path] = []
        self._caller = Caller(root)
        self._in_segment = 0
        self.keep()

    @property
    def size(self) -> int:
        return self._caller.writer.synced

    def grow(self, size: int) -> None:
        """Exactly so many entries, under a checkpoint. A segment that is full costs one entry for its end."""
        while self.size < size:
            room = SEGMENT_RECORDS - self._in_segment
            n = min(size - self.size, 2000, room or SEGMENT_RECORDS)
            if room == 0:
                self._in_segment, n = 0, min(n - 1, 1) or 1
            self._caller.add(n)
            self._in_segment += n
        assert self.size == size
        self._caller.checkpoint()
        self.keep()

    def keep(self) -> None:
        self.root.joinpath("kept").mkdir(exist_ok=True)
        kept = self.root / "kept" / str(self.size)
        shutil.copy(self.folder / "checkpoint", kept)
        self.kept.append(kept)

    def copy(self, to: Path) -> Path:
        """The public folder, as a mirror has it."""
        shutil.copytree(self.folder, to)
        return to

    def close(self) -> None:
        self._caller.close()


def empty_log(folder: Path) -> Path:
    """Size 0, which no writer leaves behind: a start is an entry."""
    folder.mkdir()
    checkpoint = Checkpoint(SIGNER.name, 0, EMPTY_ROOT)
    folder.joinpath("checkpoint").write_bytes(sign_note(checkpoint.text(), SIGNER))
    return folder


def entry(folder: Path, index: int, size: int) -> bytes:
    number, at = divmod(index, TILE_WIDTH)
    width = min(TILE_WIDTH, size - number * TILE_WIDTH)
    return parse_bundle((folder / bundle_path(number, width)).read_bytes(), width)[at]


def proof(ledger: Path, index: int, size: int) -> Inclusion:
    made = Tree(ledger, VERIFIER).inclusion(index, entry(ledger / "log", index, size))
    assert made is not None
    return made
