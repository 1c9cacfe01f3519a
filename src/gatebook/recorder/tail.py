"""The gateway's log files: read whole lines from a cursor on, rotate them, delete them once sealed.

`access.log` is being written; rotated files are `access.<n>.log`. A file keeps its number `n` through its
rotation (the active file's is the next free one), so the cursor {n: bytes read} stays true whatever happens
between renaming and reopening. A rotated file is deleted only when a cursor that no longer names it is
durable: never before its lines are in the ledger.
Trust: the files are ours alone (mode 0600 in a private folder), but what stands in them clients wrote.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from collections.abc import Callable
from pathlib import Path

from gatebook.recorder.memo import Offsets

MAX_READ_BYTES = 512 << 10  # at a time: what is made of it is one frame, and the loop waits for it
ROTATE_BYTES = 8 << 20
ROTATE_AFTER_S = 60.0
QUIET_S = 10.0  # workers reopen their files within milliseconds of the signal; this is generous


def discard(folder: Path) -> None:
    """For a ledger that has never read a line: what lies here is another's, which lived under the same name."""
    for path in folder.iterdir():
        if path.name == "epoch" or path.suffix == ".log":
            path.unlink()


def epoch(folder: Path, born: str) -> str:
    """The name of this folder's life, made when it is new. A memory file system forgets it with the files.

    `born` becomes a part of a new name, and tells when that was.
    """
    marker = folder / "epoch"
    try:
        return marker.read_text()
    except FileNotFoundError:
        made = f"{secrets.token_hex(8)} {born}"
        # A crash before the rename: no file, so the next start makes another name. No log exists yet.
        temporary = folder / f"epoch.{secrets.token_hex(8)}"
        temporary.write_text(made)
        temporary.rename(marker)
        return made


class Log:
    """One log: its active file and those rotated away. `torn` counts lines that never got their end.

    `gone`: files that somebody removed or emptied while they were being read; what they held nobody knows.
    """

    def __init__(self, folder: Path, name: str, offsets: Offsets) -> None:
        self.torn = 0
        self._folder = folder
        self._name = name
        rotated = self._on_disk()
        beyond = max(offsets, default=0)
        self.active = max(beyond, max(rotated, default=0) + 1)
        self.gone = sum(n < beyond and n not in rotated for n in offsets)
        for number in [n for n in rotated if n < beyond and n not in offsets]:
            # A durable cursor does not name it any more: it was sealed, and the crash came before its deletion.
            self._path(number).unlink()
            rotated.remove(number)
        self.offsets: Offsets = {n: offsets.get(n, 0) for n in [*rotated, self.active]}
        self._files: dict[int, int] = {}
        self._looked_at: Offsets = {}  # where the last read of each file ended
        self._quiet: dict[int, tuple[int, float] | None] = dict.fromkeys(rotated)  # size, and since when
        self._active_since: float | None = None
        self._doomed: list[Path] = []
        for number in self.offsets:
            # Shorter than what was read of it: a power failure took what had not reached the disk. What comes
            # next is written behind the rest.
            file = self._open(number)
            size = os.fstat(file).st_size if file is not None else 0
            self.offsets[number] = min(self.offsets[number], size)

    @property
    def begun(self) -> bool:
        """Whether anything was read before."""
        return any(self.offsets.values())

    def _on_disk(self) -> list[int]:
        pattern = re.compile(re.escape(self._name) + r"\.([1-9]\d{0,11})\.log")
        found = (pattern.fullmatch(entry.name) for entry in self._folder.iterdir())
        return sorted(int(m[1]) for m in found if m)

    def _path(self, number: int) -> Path:
        return self._folder / (f"{self._name}.log" if number == self.active else f"{self._name}.{number}.log")

    def read(self) -> list[bytes]:
        """New whole lines, oldest file first, about MAX_READ_BYTES at most; moves the cursor behind them.

        A newer file waits until the older ones are read to their end.
        """
        lines: list[bytes] = []
        room = MAX_READ_BYTES
        for number in sorted(self.offsets):
            file = self._open(number)
            if file is None or room <= 0:
                continue
            data = os.pread(file, room, self.offsets[number])
            self._looked_at[number] = self.offsets[number] + len(data)
            if not data:
                if os.fstat(file).st_size < self.offsets[number]:
                    self.offsets[number] = 0  # somebody has emptied it; nginx goes on at its beginning
                    self.gone += 1
                continue
            end = data.rfind(b"\n") + 1
            if end == 0 and len(data) == MAX_READ_BYTES:
                end = len(data)  # no line of ours is that long: pass over it rather than stop for good
            if end:
                lines += data[:end].removesuffix(b"\n").split(b"\n")
                self.offsets[number] += end
            room -= len(data)
        return lines

    def behind(self) -> bool:
        """Whether there is anything that no `read` has looked at."""
        for number, offset in self.offsets.items():
            file = self._open(number)
            if file is not None and os.fstat(file).st_size > self._looked_at.get(number, offset):
                return True
        return False

    def _open(self, number: int) -> int | None:
        if number not in self._files:
            try:
                self._files[number] = os.open(self._path(number), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            except FileNotFoundError:
                return None
        return self._files[number]

    def rotate(self, now: float, reopen: Callable[[], None]) -> None:
        """Rename the active file when it is large or old and not empty, then have the gateway `reopen`.

        A crash between the two leaves the gateway writing to the renamed file, which is read to its end;
        with no active file, `reopen` is asked for again.
        """
        read = self.offsets[self.active]
        if self._open(self.active) is None:
            reopen()
            return
        if self._active_since is None:
            self._active_since = now
        if read < ROTATE_BYTES and (read == 0 or now - self._active_since < ROTATE_AFTER_S):
            return
        self._rename()
        reopen()

    def _rename(self) -> None:
        number, self.active = self.active, self.active + 1
        old, new = self._folder / f"{self._name}.log", self._path(number)
        with contextlib.suppress(
            FileNotFoundError
        ):  # somebody has deleted it; what we hold open can still be read
            old.rename(new)
        self._quiet[number] = None
        self.offsets[self.active] = 0
        self._active_since = None

    def retire(self, now: float) -> bool:
        """Drop rotated files that are read to the end and quiet from the cursor; True when it changed."""
        if self._open(self.active) is None:
            return False  # the gateway has not reopened: it may still write to the old file
        changed = False
        for number, quiet in list(self._quiet.items()):
            file = self._open(number)
            size = os.fstat(file).st_size if file is not None else 0
            if quiet is None or quiet[0] != size:
                self._quiet[number] = size, now
            elif now - quiet[1] >= QUIET_S and self._looked_at.get(number, 0) >= size:
                # Whoever wrote a line without an end is dead: a line is one write.
                self.torn += size > self.offsets[number]
                self._retire(number)
                changed = True
        return changed

    def _retire(self, number: int) -> None:
        self._doomed.append(self._path(number))
        if number in self._files:
            os.close(self._files.pop(number))
        del self.offsets[number], self._quiet[number]
        self._looked_at.pop(number, None)

    def put_away(self) -> None:
        """For the end, when nobody writes any more and all is read: nothing stays behind in clear."""
        if self._open(self.active) is not None:
            self._rename()
        for number in list(self._quiet):
            self.torn += self._looked_at.get(number, 0) > self.offsets[number]
            self._retire(number)

    def sweep(self) -> None:
        """Delete what was retired. Call only when the cursor without those files is durable."""
        for path in self._doomed:
            path.unlink(missing_ok=True)
        self._doomed.clear()

    def close(self) -> None:
        for file in self._files.values():
            os.close(file)
        self._files.clear()
