"""Refresh tokens: families of them, each token used once, in one SQLite file.

A family is all that follows from one authentication; its tokens follow one another, and one that comes back
after its use ends the whole family (RFC 9700, 4.14). Of a token the SHA-256 is kept: it has 256 random bits.
Every change is one transaction, durable on return; of two that use one token, one succeeds. A family that was
ended because of theft stays `untold` until somebody says that it is on record. Trust: whoever writes the file
gets no token by it, but can bring an ended family back; its loss ends all families. Blocks; call it from one
thread.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

from gatebook.errors import EnvironmentFault
from gatebook.identity.api_key import is_well_formed, make_id, make_text

REFRESH: Final = "gbr"
UNTOLD, ALERTED, TOLD = 0, 1, 2  # how far an end is on record: not at all, by an alert, with its access tokens
MAX_FAMILIES: Final = 64  # alive, of one client: beyond it the oldest ends
FORGET_S: Final = 86400.0  # a family is forgotten so long after its end

_SCHEMA = """
CREATE TABLE IF NOT EXISTS family (
  id TEXT PRIMARY KEY, client TEXT NOT NULL, scopes TEXT NOT NULL, started REAL NOT NULL, ends REAL NOT NULL,
  revoked REAL, why TEXT, told INTEGER NOT NULL DEFAULT 2
) STRICT;
CREATE INDEX IF NOT EXISTS family_client ON family (client, started);
CREATE TABLE IF NOT EXISTS token (
  hash BLOB PRIMARY KEY, family TEXT NOT NULL REFERENCES family (id) ON DELETE CASCADE, used REAL
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS token_family ON token (family);
"""


class Family(NamedTuple):
    """Times are seconds since 1970."""

    id: str
    client: str
    scopes: tuple[str, ...]
    started: float
    ends: float
    revoked: float | None
    why: str | None
    told: int


class Found(NamedTuple):
    family: Family
    used: float | None


def hashed(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


class Families:
    """Raises EnvironmentFault when the disk does not take a change: then nothing has changed."""

    def __init__(self, path: Path, random: Callable[[int], bytes] = os.urandom) -> None:
        self._random = random
        old = os.umask(0o077)
        try:
            with _said(path):
                self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
                for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "secure_delete=ON"):
                    self._db.execute(f"PRAGMA {pragma}")
                self._db.executescript(_SCHEMA)
        finally:
            os.umask(old)
        self._path = path

    def close(self) -> None:
        self._db.close()

    # -- asking -----------------------------------------------------------------------------------------
    def find(self, token: str) -> Found | None:
        if not is_well_formed(token.encode("utf-8", "replace"), REFRESH):
            return None
        with _said(self._path):
            row = self._db.execute(
                "SELECT id, client, scopes, started, ends, revoked, why, told, used "
                "FROM token JOIN family ON family = id WHERE hash = ?",
                (hashed(token),),
            ).fetchone()
        return None if row is None else Found(_family(row), row[8])

    def untold(self) -> list[Family]:
        """Families that were ended because of theft, as nobody may know yet."""
        with _said(self._path):
            rows = self._db.execute(
                "SELECT id, client, scopes, started, ends, revoked, why, told FROM family WHERE told < ?", (TOLD,)
            ).fetchall()
        return [_family(row) for row in rows]

    # -- changing ---------------------------------------------------------------------------------------
    def new_token(self) -> str:
        """Not kept yet: `begin` or `rotate` does that."""
        return make_text(make_id(self._random), self._random, REFRESH)

    def new_id(self) -> str:
        return self._random(16).hex()

    def begin(
        self, family_id: str, client: str, scopes: tuple[str, ...], token: str, now: float, ends: float
    ) -> None:
        with self._transaction():
            self._forget(now)
            alive = self._db.execute(
                "SELECT id FROM family WHERE client = ? AND revoked IS NULL AND ends > ? ORDER BY started",
                (client, now),
            ).fetchall()
            for (oldest,) in alive[: max(0, len(alive) + 1 - MAX_FAMILIES)]:
                self._end(oldest, "superseded", now, TOLD)
            self._db.execute(
                "INSERT INTO family (id, client, scopes, started, ends) VALUES (?, ?, ?, ?, ?)",
                (family_id, client, " ".join(scopes), now, ends),
            )
            self._db.execute("INSERT INTO token (hash, family) VALUES (?, ?)", (hashed(token), family_id))

    def rotate(self, old: str, new: str, now: float) -> bool:
        """Whether `old` could be used, and `new` follows it. False: somebody was faster, or its family ended."""
        with self._transaction():
            done = self._db.execute(
                "UPDATE token SET used = ? WHERE hash = ? AND used IS NULL AND EXISTS "
                "(SELECT 1 FROM family WHERE id = token.family AND revoked IS NULL AND ends > ?)",
                (now, hashed(old), now),
            )
            if done.rowcount != 1:
                return False
            self._db.execute(
                "INSERT INTO token (hash, family) SELECT ?, family FROM token WHERE hash = ?",
                (hashed(new), hashed(old)),
            )
        return True

    def end(self, family_id: str, why: str, now: float, told: int = TOLD) -> bool:
        """Whether it had not ended before."""
        with self._transaction():
            return self._end(family_id, why, now, told)

    def tell(self, family_id: str, told: int) -> None:
        with self._transaction():
            self._db.execute("UPDATE family SET told = ? WHERE id = ?", (told, family_id))

    def _end(self, family_id: str, why: str, now: float, told: int) -> bool:
        done = self._db.execute(
            "UPDATE family SET revoked = ?, why = ?, told = ? WHERE id = ? AND revoked IS NULL",
            (now, why, told, family_id),
        )
        return done.rowcount == 1

    def _forget(self, now: float) -> None:
        self._db.execute("DELETE FROM family WHERE ends < ? AND told = ?", (now - FORGET_S, TOLD))

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        with _said(self._path):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                # A crash before this commit: as if nothing had been asked. After it: as if the answer was lost.
                self._db.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):
                    self._db.execute("ROLLBACK")
                raise


def _family(row: tuple[object, ...]) -> Family:
    family_id, client, scopes, started, ends, revoked, why, told = row[:8]
    return Family(
        str(family_id),
        str(client),
        tuple(str(scopes).split()),
        float(str(started)),
        float(str(ends)),
        None if revoked is None else float(str(revoked)),
        None if why is None else str(why),
        int(str(told)),
    )


@contextlib.contextmanager
def _said(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise EnvironmentFault(f"{path}: {error}; see whether its disk has room and can be written") from error
