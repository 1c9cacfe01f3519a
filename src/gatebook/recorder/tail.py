"""The gateway's log files: read whole lines from a cursor on, rotate them, delete them once sealed.

`access.log` is being written; rotated files are `access.<n>.log`. A file keeps its number `n` through its
rotation (the active file's is the next free one), so the cursor {n: bytes read} stays true whatever happens
between renaming and reopening. A rotated file is deleted only when a cursor that no longer names it is
durable: never before its lines are in the ledger.
Trust: the files are ours alone (mode 0600 in a private folder), but what stands in them clients wrote.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Callable
from pathlib import Path

from gatebook.recorder.memo import Offsets

MAX_READ_BYTES = 1 << 20
MAX_LINE_BYTES = 256 << 10
ROTATE_BYTES = 8 << 20
ROTATE_AFTER_S = 60.0
QUIET_S = 10.0  # workers reopen their files within milliseconds of the signal; this is generous


def epoch(folder: Path) -> str:
    """The name of this folder's life, made when it is new. A memory file system forgets it with the files."""
    marker = folder / "epoch"
    try:
        return marker.read_text()
    except FileNotFoundError:
        made = secrets.token_hex(8)
        # A crash before the rename: no file, so the next start makes another name. No log exists yet.
        temporary = folder / f"epoch.{made}"
        temporary.write_text(made)
        temporary.rename(marker)
        return made


class Log:
    """One log: its active file and those rotated away."""

    def __init__(self, folder: Path, name: str, offsets: Offsets) -> None:
        self._folder = folder
        self._name = name
        rotated = self._rotated()
        beyond = [n for n in offsets if n not in rotated]
        self.active = max(beyond) if beyond else max(rotated, default=0) + 1
        # A rotated file that a durable cursor does not name any more was sealed; the crash came before
        # its deletion.
        if offsets:
            for number in [n for n in rotated if n not in offsets]:
                if number < min(offsets):
                    self._path(number).unlink()
                    rotated.remove(number)
        self.offsets: Offsets = {n: offsets.get(n, 0) for n in [*rotated, self.active]}
        self._files: dict[int, int] = {}
        self._rotated_at: dict[int, float] = dict.fromkeys(rotated, 0.0)
        self._active_since: float | None = None
        self._doomed: list[Path] = []

    def _rotated(self) -> list[int]:
        pattern = re.compile(re.escape(self._name) + r"\.(\d{1,12})\.log")
        found = (pattern.fullmatch(entry.name) for entry in self._folder.iterdir())
        return sorted(int(m[1]) for m in found if m)

    def _path(self, number: int) -> Path:
        return self._folder / (f"{self._name}.log" if number == self.active else f"{self._name}.{number}.log")

    def read(self) -> list[bytes]:
        """New whole lines, oldest file first, at most about MAX_READ_BYTES; moves the cursor behind them."""
        lines: list[bytes] = []
        budget = MAX_READ_BYTES
        for number in sorted(self.offsets):
            file = self._open(number)
            if file is None or budget <= 0:
                continue
            data = os.pread(file, budget, self.offsets[number])
            end = data.rfind(b"\n") + 1
            if end == 0 and len(data) > MAX_LINE_BYTES:
                end = len(data)  # no line of ours is that long: pass over it rather than stop for good
            if end:
                lines += data[: end - 1].split(b"\n")
                self.offsets[number] += end
                budget -= end
        return lines

    def behind(self) -> bool:
        """Whether whole or partial lines are waiting."""
        for number, offset in self.offsets.items():
            file = self._open(number)
            if file is not None and os.fstat(file).st_size > offset:
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
            if self._rotated_at:
                reopen()
            return
        if self._active_since is None:
            self._active_since = now
        if read < ROTATE_BYTES and (read == 0 or now - self._active_since < ROTATE_AFTER_S):
            return
        number = self.active
        self._path(number).rename(self._folder / f"{self._name}.{number}.log")
        self._rotated_at[number] = now
        self.active = number + 1
        self.offsets[self.active] = 0
        self._active_since = None
        reopen()

    def retire(self, now: float) -> bool:
        """Drop rotated files that are read to the end and quiet from the cursor; True when it changed."""
        if self._open(self.active) is None:
            return False  # the gateway has not reopened: it may still write to the old file
        changed = False
        for number, since in list(self._rotated_at.items()):
            file = self._open(number)
            if file is None or os.fstat(file).st_size > self.offsets[number]:
                self._rotated_at[number] = now
                continue
            if now - since < QUIET_S and since:
                continue
            if since == 0.0:
                self._rotated_at[number] = now
                continue
            self._doomed.append(self._path(number))
            os.close(self._files.pop(number))
            del self.offsets[number], self._rotated_at[number]
            changed = True
        return changed

    def sweep(self) -> None:
        """Delete what was retired. Call only when the cursor without those files is durable."""
        for path in self._doomed:
            path.unlink(missing_ok=True)
        self._doomed.clear()

    def close(self) -> None:
        for file in self._files.values():
            os.close(file)
        self._files.clear()
