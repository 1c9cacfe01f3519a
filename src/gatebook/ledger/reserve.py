"""A file that only takes up room, so that a full disk still has some for the last words.

It is deleted when the disk refuses a write: then the entry that says what was refused, and a checkpoint over
it, find room. It is made again before anything else at the next start, which so refuses to begin on a disk
that is still full. Never holds data.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from gatebook.errors import LedgerFull
from gatebook.ledger.files import Files


class Reserve:
    """`length` 0: no reserve is kept."""

    def __init__(self, files: Files, path: Path, length: int) -> None:
        self._files = files
        self._path = path
        self._length = length

    def make(self) -> None:
        """Raises LedgerFull, leaving no file, when there is no room for it."""
        if not self._length:
            return
        try:
            found = self._path.stat()
            if found.st_size == self._length and found.st_blocks * 512 >= self._length:
                return
            self._files.remove(self._path)
        except FileNotFoundError:
            pass
        try:
            descriptor = self._files.create(self._path)
            try:
                self._files.allocate(descriptor, self._length)
            finally:
                self._files.close(descriptor)
        except OSError as error:
            self.release()
            raise LedgerFull(
                f"{self._path}: {(error.strerror or str(error)).lower()}: no room for the "
                f"{self._length} bytes that are kept free for a full disk; make room, then start again"
            ) from error
        # A crash here, synced or not: the next start makes it again when it is not whole.

    def release(self) -> None:
        """Give the room back. Never raises: this is called when everything has gone wrong already."""
        with contextlib.suppress(OSError):
            self._files.remove(self._path)
