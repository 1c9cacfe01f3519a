"""When an API key was last presented, to the hour: an empty file for each key, whose time says it.

A guard touches a key's file once an hour, with the first good use; nothing is synced, so a power cut may lose the
last hours. It is a help for whoever tidies up, and no evidence: that is the log. Only a key that was found by its
whole secret leaves a file, so clients cannot make any. Never raises: a use that cannot be noted is none the worse.
"""

from __future__ import annotations

import os
from pathlib import Path

import structlog

HOUR_S = 3600

log = structlog.get_logger("identity")


class LastUse:
    """`folder` is made when it is needed; it lies in a private one."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._noted: dict[str, int] = {}  # as many as there are keys
        self._complained = False

    def note(self, key_id: str, now: float) -> None:
        hour = int(now // HOUR_S)
        if self._noted.get(key_id) == hour:
            return
        self._noted[key_id] = hour
        try:
            self._touch(self._folder / key_id, hour * HOUR_S)
        except OSError as error:
            if not self._complained:
                self._complained = True
                log.warning("the last use of keys is not noted", why=str(error))

    def _touch(self, path: Path, moment: int) -> None:
        self._folder.mkdir(mode=0o700, exist_ok=True)
        try:
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        except FileExistsError:
            if path.lstat().st_mtime >= moment:
                return  # another guard was first, or the clock has been set back
        os.utime(path, (moment, moment), follow_symlinks=False)


def last_use(folder: Path, key_id: str) -> int | None:
    """The beginning of the hour, in seconds since 1970; None when none is known."""
    try:
        return int((folder / key_id).lstat().st_mtime)
    except OSError:
        return None
