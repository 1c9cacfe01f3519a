"""How far a sink has come, durably; and for whoever asks, how it fares.

`<name>.cursor`: written as a whole and synced after each acknowledgement; what it says was sent, was. Of another
ledger than ours it is refused. `<name>.state`: what the last attempt came to; lost without harm.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Literal, TypeVar

import msgspec

from gatebook.errors import EnvironmentFault
from gatebook.sinks.stream import Place

_APPEND = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
_REPLACE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW


class Cursor(msgspec.Struct, frozen=True, kw_only=True):
    """`sent`, `refused`, `duplicates`, `elsewhere` count items since the sink began."""

    version: Literal[1] = 1
    origin: str
    place: Place
    sent: int = 0
    refused: int = 0
    duplicates: int = 0
    elsewhere: int = 0
    sent_us: int = 0  # time of the newest record that was sent
    first: int = 0  # the entry that it began with


class State(msgspec.Struct, frozen=True, kw_only=True):
    """`doing`: sending (all is well), waiting (to try again), paused (somebody has to act), stuck (ledger, disk).

    `why`: of the last attempt that came to nothing.
    """

    doing: Literal["sending", "waiting", "paused", "stuck"]
    why: str = ""
    since_us: int = 0
    attempts: int = 0


class Refused(msgspec.Struct, frozen=True, kw_only=True):
    """A line of `<name>.refused`: an item that a sink will never take. Its content stays in the ledger alone."""

    id: str
    indices: list[int]
    why: str
    time_us: int


T = TypeVar("T", bound=msgspec.Struct)


class Book:
    """The files of one sink below `folder`."""

    def __init__(self, folder: Path, name: str) -> None:
        self._cursor = folder / f"{name}.cursor"
        self._state = folder / f"{name}.state"
        self.refused = folder / f"{name}.refused"

    def cursor(self, origin: str) -> Cursor | None:
        """None: it never sent anything. Raises EnvironmentFault for a file that is not ours to go by."""
        found = _read(self._cursor, Cursor)
        if found is not None and found.origin != origin:
            raise EnvironmentFault(
                f"{self._cursor}: is of the ledger {found.origin}, not of {origin}; move it away to begin anew"
            )
        return found

    def move(self, cursor: Cursor) -> None:
        """Durable on return. Raises OSError."""
        _write(self._cursor, msgspec.json.encode(cursor), durable=True)

    def state(self) -> State | None:
        with contextlib.suppress(EnvironmentFault):
            return _read(self._state, State)
        return None

    def tell(self, state: State) -> None:
        with contextlib.suppress(OSError):
            _write(self._state, msgspec.json.encode(state), durable=False)

    def refuse(self, lines: list[Refused]) -> None:
        """Durable on return. Raises OSError: then the cursor may not move."""
        data = b"".join(msgspec.json.encode(line) + b"\n" for line in lines)
        descriptor = os.open(self.refused, _APPEND, 0o600)
        try:
            end = os.fstat(descriptor).st_size
            torn = end > 0 and os.pread(descriptor, 1, end - 1) != b"\n"
            data = b"\n" * torn + data
            if os.write(descriptor, data) != len(data):
                os.ftruncate(descriptor, end)
                raise OSError(28, "no space left on device", str(self.refused))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _read(path: Path, kind: type[T]) -> T | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise EnvironmentFault(
            f"{path}: {why}; bring it back from a copy, or move it away to begin anew"
        ) from error


def _write(path: Path, data: bytes, *, durable: bool) -> None:
    temporary = path.with_name(path.name + ".new")
    descriptor = os.open(temporary, _REPLACE, 0o600)
    try:
        os.write(descriptor, data)
        if durable:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
    # A crash here: the file beside it is nobody's; the old one counts.
    temporary.replace(path)
    if durable:
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
