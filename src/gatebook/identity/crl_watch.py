"""What a guard knows of a provider's revocation lists: the file's content, at most POLL_S old.

A change shows in the file's inode, size or times. A file that cannot be read, or is not in order, is no list at
all until it is: never an older reading. So whoever puts a new list in place renames it over the old one, or there
is none for a moment. Trust: lists are signed, so whoever can write the file can at most put an older one back, for
as long as that one says that it holds. Reading waits for the disk, in a thread.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import structlog

from gatebook.config.model import MTLSProvider
from gatebook.identity.chain import Authorities
from gatebook.identity.crl import RevocationLists
from gatebook.kept import POLL_S, Signature

MAX_BYTES = 64 << 20

log = structlog.get_logger("identity")


class CRLWatch:
    """`value` is None while there are no lists that can be used; `generation` counts the changes of it."""

    def __init__(self, provider: MTLSProvider, path: Path, authorities: Authorities) -> None:
        self.provider = provider
        self.value: RevocationLists | None = None
        self.generation = 0
        self._path = path
        self._authorities = authorities
        self._read: Signature | None = None
        self._complaint = ""
        self._polling: asyncio.Task[None] | None = None
        self.poll()

    def start(self) -> None:
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
            await asyncio.to_thread(self.poll)

    def poll(self) -> None:
        """Read the file again if it is another. Never raises."""
        try:
            signature = Signature.of(self._path.stat())
            if signature == self._read:
                return
            self._read = signature
            self._take(_read(self._path, self._authorities))
            self._complaint = ""
        except Exception as error:
            if isinstance(error, OSError):
                self._read = None
            # From this line on no certificate of the provider opens anything.
            self._take(None)
            if str(error) != self._complaint:
                self._complaint = str(error)
                foreseen = isinstance(error, (ValueError, OSError))
                log.error(
                    "revocation lists are out of use", path=str(self._path), why=str(error), exc_info=not foreseen
                )

    def _take(self, lists: RevocationLists | None) -> None:
        self.value = lists
        self.generation += 1


def _read(path: Path, authorities: Authorities) -> RevocationLists:
    """Raises OSError and ValueError."""
    with path.open("rb") as stream:
        data = stream.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise ValueError(f"more than {MAX_BYTES} bytes")
    return RevocationLists(data, authorities)


def problem_of(path: Path, authorities: Authorities, now: float) -> str:
    """Why the lists in this file are of no use at this time; "" if they are."""
    try:
        lists = _read(path, authorities)
    except OSError as error:
        return (error.strerror or str(error)).lower()
    except ValueError as error:
        return str(error)
    if lists.current(now):
        return ""
    return "a list has run out" if now >= lists.ends else "a list lies in the future"
