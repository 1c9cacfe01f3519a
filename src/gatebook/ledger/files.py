"""The operations on the disk that writing a ledger consists of, so that a test can stop between any two.

Each is one step whose effect a crash can keep, drop or tear until the sync named with it has returned:
`write` until `sync` of its file, names until `sync_folder` of their folder. Reading needs no seam and has
none. Never follows a link that somebody planted as a new file. Errors are OSError, as the system gives them.
"""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

from gatebook.errors import LedgerFull

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW


class Files:
    """The machine's own disk. Stateless."""

    def create(self, path: Path) -> int:
        """A new file, mode 0600, to be appended to; its descriptor. Fails where there is one."""
        return os.open(path, _CREATE, 0o600)

    def reopen(self, path: Path) -> int:
        """An existing file, to be appended to."""
        return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW)

    def write(self, descriptor: int, data: bytes) -> None:
        """All of `data`; after an error any part of it may be in the file."""
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]

    def allocate(self, descriptor: int, length: int) -> None:
        """Make the file's blocks the file's own, so that nobody else can fill the disk with them."""
        os.posix_fallocate(descriptor, 0, length)

    def sync(self, descriptor: int) -> None:
        os.fdatasync(descriptor)

    def truncate(self, descriptor: int, length: int) -> None:
        """Cut the file to `length`; durable with the next `sync`."""
        os.ftruncate(descriptor, length)

    def close(self, descriptor: int) -> None:
        os.close(descriptor)

    def rename(self, old: Path, new: Path) -> None:
        old.replace(new)

    def remove(self, path: Path) -> None:
        path.unlink()

    def make_folder(self, path: Path) -> None:
        """A new folder, mode 0700. Fails where there is one."""
        path.mkdir(mode=0o700)

    def remove_folder(self, path: Path) -> None:
        path.rmdir()

    def sync_folder(self, path: Path) -> None:
        """The names in `path` are durable."""
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def sync_all(self, path: Path) -> None:
        """Everything on the file system that `path` is on: cheaper than a sync for each of many small files."""
        if not sys.platform.startswith("linux"):
            os.sync()
            return
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            if ctypes.CDLL(None, use_errno=True).syncfs(descriptor):
                code = ctypes.get_errno()
                raise OSError(code, os.strerror(code), str(path))
        finally:
            os.close(descriptor)

    def store(self, path: Path, data: bytes, *, durable: bool) -> None:
        """A whole file at once: who looks sees the old one or the new one, never a part.

        Without `durable`, a crash may leave it missing, empty or torn.
        """
        temporary = path.with_name(path.name + ".new")
        try:
            descriptor = self.create(temporary)
        except FileExistsError:
            # A crash came before the rename: nobody has ever read it.
            self.remove(temporary)
            descriptor = self.create(temporary)
        try:
            self.write(descriptor, data)
            if durable:
                self.sync(descriptor)
        finally:
            self.close(descriptor)
        self.rename(temporary, path)
        if durable:
            self.sync_folder(path.parent)


def full(error: OSError) -> LedgerFull:
    """What a refused operation means for the ledger, whichever it was."""
    place = f"{error.filename}: " if error.filename else ""
    return LedgerFull(
        f"{place}{(error.strerror or str(error)).lower()}: the ledger could not be written, so nothing more is "
        f"acknowledged; make room or replace the disk, then start again"
    )
