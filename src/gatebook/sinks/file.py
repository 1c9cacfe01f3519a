"""Items as lines of JSON in a file of this machine, for programs that read files.

Synced before they count as stored. A line that a crash tore is cut off when the file is opened, and lines that
stand near its end are not written twice: so each item is there exactly once. With `rotate: daily` a file whose day
(UTC) is over is renamed to `<path>.<day>` before the first line of another.
"""

from __future__ import annotations

import datetime
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

from gatebook.config.sinks import FileSink
from gatebook.sinks.destination import Answer, Delivered, Limits, Piece, Retry
from gatebook.sinks.fields import document
from gatebook.sinks.item import Item, encode

LOOK_BACK_BYTES = 64 << 20  # two chunks of the largest lines


class FileDestination:
    limits = Limits(items=1000, batch_bytes=4 << 20, item_bytes=1 << 20, linger_s=0.5)

    def __init__(self, settings: FileSink) -> None:
        self._path = settings.path
        self._format = settings.format
        self._daily = settings.rotate == "daily"
        self._descriptor: int | None = None
        self._known: set[bytes] = set()

    def encode(self, item: Item) -> bytes:
        return encode(document(item, self._format)) + b"\n"

    def send(self, batch: Sequence[Piece]) -> Answer:
        try:
            descriptor = self._open()
            fresh = [piece for piece in batch if _mark(piece.data) not in self._known]
            end = os.fstat(descriptor).st_size
            data = b"".join(piece.data for piece in fresh)
            try:
                view = memoryview(data)
                while view:
                    view = view[os.write(descriptor, view) :]
                os.fsync(descriptor)
            except OSError:
                # Whether it is there cannot be told any more: the file is opened anew, and looked at.
                os.ftruncate(descriptor, end)
                self.close()
                raise
        except OSError as error:
            return Retry(f"{self._path}: {(error.strerror or str(error)).lower()}")
        self._known = {_mark(piece.data) for piece in batch}
        return Delivered(duplicates=len(batch) - len(fresh))

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _open(self) -> int:
        if self._descriptor is not None and self._is_current(self._descriptor):
            return self._descriptor
        self.close()
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(self._path, flags, 0o600)
        try:
            self._known |= self._repair(descriptor)
            if self._daily and self._is_over(descriptor):
                self._path.rename(self._name_of(descriptor))
                os.close(descriptor)
                descriptor = os.open(self._path, flags, 0o600)
            _sync_folder(self._path.parent)
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor
        return descriptor

    def _is_current(self, descriptor: int) -> bool:
        """Whether it is the file of that name, of today: somebody else may have moved it away."""
        try:
            there = self._path.stat()
        except FileNotFoundError:
            return False
        ours = os.fstat(descriptor)
        return (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino) and not (
            self._daily and self._is_over(descriptor)
        )

    def _is_over(self, descriptor: int) -> bool:
        found = os.fstat(descriptor)
        return found.st_size > 0 and _day(found.st_mtime) != datetime.datetime.now(datetime.UTC).date()

    def _name_of(self, descriptor: int) -> str:
        day = _day(os.fstat(descriptor).st_mtime).isoformat()
        name = f"{self._path}.{day}"
        number = 1
        while os.path.lexists(name):
            number += 1
            name = f"{self._path}.{day}.{number}"
        return name

    def _repair(self, descriptor: int) -> set[bytes]:
        """Cut a torn last line off; the ids of the lines before it."""
        size = os.fstat(descriptor).st_size
        start = max(0, size - LOOK_BACK_BYTES)
        tail = os.pread(descriptor, size - start, start)
        whole = tail.rfind(b"\n") + 1
        if whole < len(tail) and (whole or start == 0):
            os.ftruncate(descriptor, start + whole)
        return {_mark(line) for line in tail[:whole].splitlines(keepends=True)}


def _mark(line: bytes) -> bytes:
    """The same item always makes the same line."""
    return hashlib.sha256(line).digest()


def _day(at_s: float) -> datetime.date:
    return datetime.datetime.fromtimestamp(at_s, datetime.UTC).date()


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
