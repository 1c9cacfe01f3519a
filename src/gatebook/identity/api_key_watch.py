"""What a guard knows of the API keys: the file's content, at most POLL_S old.

A change shows in the file's inode, size or times, since every change replaces the file; so a revocation works
within a second, without a message that could be lost. A missing file is no keys. A file that cannot be read,
or is not in order, lets nobody in until it is: never an older reading.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import structlog

from gatebook.errors import EnvironmentFault
from gatebook.identity.api_key import KeyRing
from gatebook.identity.api_key_file import Signature, read

POLL_S = 0.5

log = structlog.get_logger("identity")


class KeyWatch:
    """`ring` is None while the file cannot be used. `poll` may be called at any time."""

    def __init__(self, path: Path) -> None:
        self.ring: KeyRing | None = None
        self._path = path
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
        """Read the file again if it is another. Never raises."""
        try:
            if self.ring is None or self._signature() != self._read:
                keys, self._read = read(self._path)
                self.ring = KeyRing(keys)
                self._complaint = ""
        except Exception as error:
            # From this line on no key opens anything.
            self.ring = None
            if str(error) != self._complaint:
                self._complaint = str(error)
                foreseen = isinstance(error, (EnvironmentFault, OSError))
                log.error("API keys are out of use", why=str(error), exc_info=not foreseen)

    def _signature(self) -> Signature | None:
        try:
            return Signature.of(self._path.lstat())
        except FileNotFoundError:
            return None
