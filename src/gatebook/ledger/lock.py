"""What must not be forgotten between two processes that write: who writes, and what was promised last.

    gatebook-lock 1
    tiles_durable 65536         tiles and bundles up to this tree size are on disk for good; a multiple of 256
    acme/node-1                 the signed checkpoint, byte for byte as it is published after this
    ...

`state/lock` is written, synced and renamed into place before anybody sees its checkpoint, so nothing is ever
promised that the next process does not know. Trust: who can put an older lock and an older ledger back
together goes unnoticed here; only a witness or a kept checkpoint tells (docs/format.md).
"""

from __future__ import annotations

import fcntl
import os
import re
from pathlib import Path
from typing import Final, NamedTuple

from gatebook.errors import Damaged, LedgerBusy, Tampered
from gatebook.ledger.note import MAX_NOTE_BYTES, Checkpoint, SignatureLine, Verifier, check_note, parse_checkpoint
from gatebook.ledger.tree import TILE_WIDTH

_HEAD: Final = re.compile(rb"gatebook-lock 1\ntiles_durable (0|[1-9][0-9]{0,18})\n")


class Promise(NamedTuple):
    """The last signed checkpoint, and up to where its tiles are on disk for good."""

    checkpoint: Checkpoint
    note: bytes
    tiles_durable: int
    by: tuple[Verifier, ...] = ()  # the log's keys that signed it, the one in force first


def encode_promise(promise: Promise) -> bytes:
    return b"gatebook-lock 1\ntiles_durable %d\n" % promise.tiles_durable + promise.note


def parse_promise(data: bytes, *verifiers: Verifier) -> Promise:
    """Raises Damaged or Tampered unless an owner of these keys has promised exactly this."""
    head = _HEAD.match(data)
    if head is None:
        raise Damaged("not a lock file of format 1")
    note, durable = data[head.end() :], int(head[1])
    checkpoint, by, _ = open_signed(note, *verifiers)
    if durable > checkpoint.size or durable % TILE_WIDTH:
        raise Damaged(f"tiles_durable is {durable}, which a log of {checkpoint.size} entries never has")
    return Promise(checkpoint, note, durable, by)


class Signed(NamedTuple):
    """A checkpoint; the log's keys that signed it, in the order of their lines; signatures of unknown keys."""

    checkpoint: Checkpoint
    by: tuple[Verifier, ...]
    unknown: tuple[SignatureLine, ...] = ()


def open_signed(note: bytes, *verifiers: Verifier) -> Signed:
    """The checkpoint, if one of this log's keys signed it, and no known one's signature is wrong.

    Raises Damaged or Tampered.
    """
    checked = check_note(note, verifiers)
    checkpoint = parse_checkpoint(checked.text)
    by = tuple(verifier for verifier, _ in checked.signatures)
    for verifier in by:
        if checkpoint.origin != verifier.name:
            raise Tampered(f"the key of {verifier.name} signed for another log, {checkpoint.origin}")
    return Signed(checkpoint, by, checked.unknown)


def read_small(path: Path, max_bytes: int = MAX_NOTE_BYTES + 128) -> bytes | None:
    """A file of at most a note's size, or cut; None when there is none. Raises Damaged."""
    try:
        with path.open("rb") as stream:
            return stream.read(max_bytes)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Damaged(f"{path}: {(error.strerror or str(error)).lower()}") from error


class Held:
    """The right to write, for as long as this object is not released and the process lives.

    It is a flock on a file beside the lock, because the lock itself is replaced at every checkpoint.
    """

    def __init__(self, lock: Path) -> None:
        """Raises LedgerBusy when another process has it; never waits."""
        self._path = lock.with_name(lock.name + ".held")
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = os.pread(self._descriptor, 20, 0).decode("ascii", "replace").strip() or "unknown"
                raise LedgerBusy(
                    f"{lock}: another process ({holder}) writes this ledger; stop it first, or use its socket"
                ) from None
            self.check()  # the file may have been deleted between open and flock: then this lock locks nothing
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, b"%d\n" % os.getpid(), 0)
        except BaseException:
            os.close(self._descriptor)
            raise

    def check(self) -> None:
        """Raises LedgerBusy when somebody removed or replaced the file: another process may hold the new one."""
        mine = os.fstat(self._descriptor)
        try:
            found = self._path.lstat()
        except FileNotFoundError:
            found = None
        if found is None or (found.st_dev, found.st_ino) != (mine.st_dev, mine.st_ino):
            raise LedgerBusy(f"{self._path}: removed or replaced under us; another process may write this ledger")

    def release(self) -> None:
        os.close(self._descriptor)
