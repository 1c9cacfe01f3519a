"""What a process knows of a kept file: its content, at most POLL_S old.

A change shows in the file's inode, size or times, since every change replaces the file; so it is known within a
second, without a message that could be lost. A file that cannot be read or is not in order is nothing at all until
it is: never an older reading.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

import msgspec
import structlog

from gatebook.errors import EnvironmentFault
from gatebook.kept.file import Kind, Signature, read

POLL_S = 0.5

D = TypeVar("D", bound=msgspec.Struct)
V = TypeVar("V")

log = structlog.get_logger("kept")


class Watch(Generic[D, V]):
    """`value` is what `make` makes of the document; None while the file cannot be used: then nobody is let in."""

    def __init__(self, path: Path, kind: Kind[D], make: Callable[[D], V]) -> None:
        self.value: V | None = None
        self._path = path
        self._kind = kind
        self._make = make
        self._read: Signature | None = None
        self._complaint = ""
        self._polling: asyncio.Task[None] | None = None

    def start(self) -> None:
        self.poll()
        if self._polling is None:
            self._polling = asyncio.get_running_loop().create_task(self._watch())

    async def stop(self) -> None:
        if self._polling is not None:
            self._polling.cancel()
            await asyncio.gather(self._polling, return_exceptions=True)
            self._polling = None

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(POLL_S)
            self.poll()

    def poll(self) -> None:
        """Read the file again if it is another. May be called at any time. Never raises."""
        try:
            # Where there is no file, whether there may be none has to be asked each time.
            if self.value is None or self._read is None or self._signature() != self._read:
                document, self._read = read(self._path, self._kind)
                self.value = self._make(document)
                self._complaint = ""
        except Exception as error:
            # From this line on nothing opens by what the file said.
            self.value = None
            if str(error) != self._complaint:
                self._complaint = str(error)
                foreseen = isinstance(error, (EnvironmentFault, OSError))
                log.error(f"{self._kind.title} are out of use", why=str(error), exc_info=not foreseen)

    def _signature(self) -> Signature | None:
        try:
            return Signature.of(self._path.lstat())
        except FileNotFoundError:
            return None
