"""The checkpoint that a range is proven by: the same one each time, however much the log has grown since.

The first export of a range takes the earliest checkpoint behind it that somebody outside vouches for, by a time
stamp or as witnesses, or else the newest; and keeps it in `state/checkpoints/`. Each later export takes the
smallest kept one that reaches far enough. None is ever kept in front of one that would have done.
Trust: the folder is private. It may be lost: then the same range is proven by another checkpoint, as well.
"""

from __future__ import annotations

import os
import re
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from gatebook.errors import Damaged, EnvironmentFault, LedgerError
from gatebook.ledger.note import MAX_NOTE_BYTES, Checkpoint, Verifier
from gatebook.ledger.proof import open_checkpoint
from gatebook.paths import make_private

MAX_STAMP_BYTES = 64 << 10
_NAME = re.compile(r"([0-9]{1,19})\.(tsr|cosigned)")


class Pinned(NamedTuple):
    """A checkpoint, and the note that shows it. `stamped`: what has a time stamp, and the stamp."""

    checkpoint: Checkpoint
    note: bytes
    stamped: tuple[bytes, bytes] | None


def pin(kept: Path, log: Path, verifier: Verifier, end: int) -> Pinned:
    """For entries below `end`. Raises EnvironmentFault when nothing is signed for them yet, or a LedgerError."""
    make_private(kept)
    found = _smallest(kept, verifier, end)
    if found is not None:
        return found
    found = _smallest(log / "anchors", verifier, end) or _newest(log, verifier, end)
    if found.checkpoint.size < end:
        raise EnvironmentFault(
            f"the log is signed for {found.checkpoint.size} entries; {end} are asked for: is gatebook running? "
            f"It signs each second"
        )
    name = str(found.checkpoint.size)
    if found.stamped is not None:
        _write(kept / f"{name}.checkpoint", found.stamped[0])
        _write(kept / f"{name}.tsr", found.stamped[1])
    # A crash before this leaves a stamp that counts for the same checkpoint.
    _write(kept / f"{name}.cosigned", found.note)
    return found


def _smallest(folder: Path, verifier: Verifier, end: int) -> Pinned | None:
    """Of those there that this key has signed, and that are vouched for or were kept."""
    try:
        sizes = {int(found[1]) for path in folder.iterdir() if (found := _NAME.fullmatch(path.name))}
    except FileNotFoundError:
        return None
    except OSError as error:
        raise EnvironmentFault(f"{folder}: {(error.strerror or str(error)).lower()}") from None
    for size in sorted(size for size in sizes if size >= end):
        with suppress(LedgerError):  # `gatebook verify` says what is wrong with it
            return _opened(folder, size, verifier)
    return None


def _opened(folder: Path, size: int, verifier: Verifier) -> Pinned:
    plain, stamp, cosigned = (folder / f"{size}.{ending}" for ending in ("checkpoint", "tsr", "cosigned"))
    stamped = (_bytes(plain, MAX_NOTE_BYTES), _bytes(stamp, MAX_STAMP_BYTES)) if stamp.exists() else None
    note = _bytes(cosigned, MAX_NOTE_BYTES) if cosigned.exists() or stamped is None else stamped[0]
    for each in (note, *(stamped or ())[:1]):
        checkpoint = open_checkpoint(each, verifier)[0]
        if checkpoint.size != size:
            raise Damaged(f"{plain}: is of {checkpoint.size} entries")
    return Pinned(checkpoint, note, stamped)


def _newest(log: Path, verifier: Verifier, end: int) -> Pinned:
    """The last one that witnesses vouch for, if it reaches so far; else the last one."""
    if (log / "cosigned").exists():
        with suppress(LedgerError):
            note = _bytes(log / "cosigned", MAX_NOTE_BYTES)
            checkpoint = open_checkpoint(note, verifier)[0]
            if checkpoint.size >= end:
                return Pinned(checkpoint, note, None)
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
