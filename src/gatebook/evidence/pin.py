"""The checkpoint that a range is proven by: the same one each time, however much the log has grown since.

The first export of a range takes the earliest checkpoint behind it that has a time stamp, or else the newest, and
keeps it in `state/checkpoints/`, with its stamp. Each later export takes the smallest kept one that reaches far
enough. Kept ones never get in front of that: one is only ever kept when it is larger than all that are there.
Trust: the folder is private. It may be lost: then the same range is proven by another checkpoint, as well.
"""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path
from typing import NamedTuple

from gatebook.errors import Damaged, EnvironmentFault, LedgerError
from gatebook.ledger.note import MAX_NOTE_BYTES, Checkpoint, Verifier
from gatebook.ledger.proof import open_checkpoint
from gatebook.paths import make_private

MAX_STAMP_BYTES = 64 << 10
_NAME = re.compile(r"([0-9]{1,19})\.checkpoint")


class Pinned(NamedTuple):
    """A checkpoint, the note as it was kept, and the time stamp of exactly these bytes, if it has one."""

    checkpoint: Checkpoint
    note: bytes
    stamp: bytes | None


def pin(kept: Path, log: Path, verifier: Verifier, end: int) -> Pinned:
    """For entries below `end`. Raises EnvironmentFault when nothing is signed for them yet, or a LedgerError."""
    make_private(kept)
    for size in sorted(_sizes(kept)):
        if size >= end:
            return _opened(kept, size, verifier)
    found = _stamped(log / "anchors", verifier, end) or _published(log, verifier)
    if found.checkpoint.size < end:
        raise EnvironmentFault(
            f"the log is signed for {found.checkpoint.size} entries; {end} are asked for: is gatebook running? "
            f"It signs each second"
        )
    name = kept / f"{found.checkpoint.size}"
    if found.stamp is not None:
        _write(name.with_suffix(".tsr"), found.stamp)
    # A crash before this leaves a stamp without its checkpoint, which counts for nothing.
    _write(name.with_suffix(".checkpoint"), found.note)
    return found


def _sizes(folder: Path) -> list[int]:
    try:
        return [int(found[1]) for path in folder.iterdir() if (found := _NAME.fullmatch(path.name))]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise EnvironmentFault(f"{folder}: {(error.strerror or str(error)).lower()}") from None


def _stamped(folder: Path, verifier: Verifier, end: int) -> Pinned | None:
    for size in sorted(size for size in _sizes(folder) if size >= end):
        try:
            found = _opened(folder, size, verifier)
        except LedgerError:
            continue  # `gatebook verify` says what is wrong with it
        if found.stamp is not None:
            return found
    return None


def _opened(folder: Path, size: int, verifier: Verifier) -> Pinned:
    path = folder / f"{size}.checkpoint"
    note = _bytes(path, MAX_NOTE_BYTES)
    checkpoint = open_checkpoint(note, verifier)[0]
    if checkpoint.size != size:
        raise Damaged(f"{path}: is of {checkpoint.size} entries")
    stamp = path.with_suffix(".tsr")
    return Pinned(checkpoint, note, _bytes(stamp, MAX_STAMP_BYTES) if stamp.exists() else None)


def _published(log: Path, verifier: Verifier) -> Pinned:
    note = _bytes(log / "checkpoint", MAX_NOTE_BYTES)
    return Pinned(open_checkpoint(note, verifier)[0], note, None)


def _bytes(path: Path, max_bytes: int) -> bytes:
    try:
        with path.open("rb") as stream:
            data = stream.read(max_bytes + 1)
    except OSError as error:
        raise Damaged(f"{path}: {(error.strerror or str(error)).lower()}") from None
    if len(data) > max_bytes:
        raise Damaged(f"{path}: is longer than {max_bytes} bytes")
    return data


def _write(path: Path, data: bytes) -> None:
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
    Path(temporary).replace(path)
