"""What may happen only once: a key that was used is known until it could not be used any more.

A key is 32 bytes, a hash of what must not come twice (a token's jti, a proof's). All that is taken in one turn
becomes durable by one `commit`, and only then may anybody be told. Nothing is forgotten before its time has been
over for MARGIN_US, by a clock that has not jumped for as long: so a clock that runs ahead and is set back within
that forgets nothing. Forgetting is part of taking: a few old ones for each new one, in the same commit.
Trust: who can write the file, or remove it, can have used keys accepted again.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

from gatebook.errors import EnvironmentFault, LedgerFull

MARGIN_US = 3_600_000_000
JUMP_US = 60_000_000
FORGOTTEN_FOR_EACH = 4  # more than one, so that what has piled up becomes less


class Once:
    """Raises EnvironmentFault for a file that is none of ours. `clock` and `steady` give microseconds."""

    def __init__(
        self,
        path: Path,
        clock: Callable[[], int] = lambda: time.time_ns() // 1000,
        steady: Callable[[], int] = lambda: time.monotonic_ns() // 1000,
    ) -> None:
        self._clock = clock
        self._steady = steady
        self._taken = 0  # in the transaction that is open
        old = os.umask(0o077)
        try:
            self._db = sqlite3.connect(path, isolation_level=None)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")  # a commit is a sync
            self._db.execute(
                "CREATE TABLE IF NOT EXISTS used (key BLOB PRIMARY KEY, until_us INTEGER NOT NULL) STRICT"
            )
            self._db.execute("CREATE INDEX IF NOT EXISTS used_until ON used (until_us)")
        except sqlite3.Error as error:
            raise EnvironmentFault(
                f"{path}: {error}; restore it, or move it away, after which everything that was used before "
                f"can be used once more until it expires"
            ) from error
        finally:
            os.umask(old)
        self._steady_since_us = self._steady()  # the last time that the clock jumped, or that is not known
        self._apart_us = self._clock() - self._steady()

    def take(self, key: bytes, until_us: int) -> bool:
        """Whether it is the first time; to be believed after `commit`. Raises LedgerFull."""
        try:
            if not self._taken:
                self._db.execute("BEGIN IMMEDIATE")
            self._taken += 1
            if self._db.execute("INSERT OR IGNORE INTO used VALUES (?, ?)", (key, until_us)).rowcount:
                return True
            self._db.execute(
                "UPDATE used SET until_us = ? WHERE key = ? AND until_us < ?", (until_us, key, until_us)
            )
            return False
        except sqlite3.Error as error:
            raise self._full(error) from error

    def commit(self) -> None:
        """What was taken is durable. Raises LedgerFull: then none of it may be told."""
        if not self._taken:
            return
        try:
            old = "SELECT key FROM used WHERE until_us < ? ORDER BY until_us LIMIT ?"
            forgotten = (self._over(), FORGOTTEN_FOR_EACH * self._taken)
            self._db.execute(f"DELETE FROM used WHERE key IN ({old})", forgotten)  # noqa: S608 - no foreign text
            # A crash before this commit: nobody was told. After it: whoever was not told yet cannot try again.
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            raise self._full(error) from error
        self._taken = 0

    def _over(self) -> int:
        """What ended before this may be forgotten."""
        now, steady = self._clock(), self._steady()
        if abs(now - steady - self._apart_us) > JUMP_US:
            self._steady_since_us = steady
        self._apart_us = now - steady
        return now - MARGIN_US if steady - self._steady_since_us >= MARGIN_US else 0

    def _full(self, error: sqlite3.Error) -> LedgerFull:
        return LedgerFull(f"the memory of what was used once took no row: {error}; make room on its disk")

    def close(self) -> None:
        """What was not committed is not kept."""
        self._db.close()
