"""A disk that refuses the operation it was told to refuse, in each of the ways in which disks do.

A failed operation may have had its whole effect, none, or for a write a part of it; and a failed sync may have
made the kernel forget what it could not write, so that a later sync, on whatever descriptor, succeeds without it.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal, NamedTuple

from tests.ledger.disk import Disk, Step

Way = Literal["undone", "done", "half", "forgotten"]


class Fault(NamedTuple):
    """The `at`th operation fails, counted from 1; with `forever` all that take room after it fail too."""

    at: int
    way: Way = "undone"
    code: int = errno.EIO
    forever: bool = False


NEVER: Final = Fault(0)
_TAKES_NO_ROOM: Final = ("remove", "remove_folder", "truncate")


class Breaking(Disk):
    """`before` is called before each operation."""

    def __init__(self, root: Path, fault: Fault = NEVER) -> None:
        super().__init__(root)
        self.broken = fault
        self.count = 0
        self.names: list[str] = []  # of all operations so far
        self.failed_at = 0  # how many steps there were when it failed
        self.before: Callable[[], None] = lambda: None

    def _fails(self, name: str) -> bool:
        self.before()
        self.count += 1
        self.names.append(name)
        fault = self.broken
        if self.count != fault.at:
            return bool(fault.at and fault.forever and self.count > fault.at and name not in _TAKES_NO_ROOM)
        self.failed_at = len(self.steps)
        return True

    def _raise(self, path: Path | None = None) -> None:
        code = self.broken.code
        raise OSError(code, os.strerror(code), str(path) if path else None)

    def _do(self, name: str, act: Callable[[], object], path: Path | None = None) -> None:
        fails = self._fails(name)
        if not fails or (self.broken.way == "done" and self.count == self.broken.at):
            act()
        if fails:
            self._raise(path)

    def _new(self, name: str, act: Callable[[], int], path: Path) -> int:
        fails = self._fails(name)
        if not fails:
            return act()
        if self.broken.way == "done" and self.count == self.broken.at:
            os.close(act())
        self._raise(path)
        return -1

    def create(self, path: Path) -> int:
        return self._new("create", lambda: super(Breaking, self).create(path), path)

    def reopen(self, path: Path) -> int:
        return self._new("reopen", lambda: super(Breaking, self).reopen(path), path)

    def write(self, descriptor: int, data: bytes) -> None:
        if self.count + 1 == self.broken.at and self.broken.way == "half":
            super().write(descriptor, data[: len(data) // 2])
        self._do("write", lambda: super(Breaking, self).write(descriptor, data))

    def allocate(self, descriptor: int, length: int) -> None:
        self._do("allocate", lambda: None)

    def sync(self, descriptor: int) -> None:
        if self.count + 1 == self.broken.at and self.broken.way == "forgotten":
            self.steps.append(Step("forget", self._open[descriptor]))
        self._do("sync", lambda: super(Breaking, self).sync(descriptor))

    def truncate(self, descriptor: int, length: int) -> None:
        self._do("truncate", lambda: super(Breaking, self).truncate(descriptor, length))

    def rename(self, old: Path, new: Path) -> None:
        self._do("rename", lambda: super(Breaking, self).rename(old, new), old)

    def remove(self, path: Path) -> None:
        self._do("remove", lambda: super(Breaking, self).remove(path), path)

    def make_folder(self, path: Path) -> None:
        self._do("make_folder", lambda: super(Breaking, self).make_folder(path), path)

    def remove_folder(self, path: Path) -> None:
        self._do("remove_folder", lambda: super(Breaking, self).remove_folder(path), path)

    def sync_folder(self, path: Path) -> None:
        self._do("sync_folder", lambda: super(Breaking, self).sync_folder(path), path)

    def sync_all(self, path: Path) -> None:
        self._do("sync_all", lambda: super(Breaking, self).sync_all(path), path)


def ways(name: str) -> list[Way]:
    """In which an operation of that name can fail."""
    known: list[Way] = ["undone", "done"]
    if name == "write":
        known.append("half")
    if name == "sync":
        known.append("forgotten")
    return known
