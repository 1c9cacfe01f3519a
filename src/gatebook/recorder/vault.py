"""Pseudonyms: a name -> 16 random bytes, the same for as long as the row lives.

The row's key is HMAC-SHA256(pseudonym.key, name), so that the vault alone names nobody. Rows are durable after
`sync`: it comes before any record that uses their pseudonyms is written, and before these are given out, so no
crash makes one forgotten that was ever used. Deleting a row unlinks a person for everyone; nothing here can
bring the link back.
Trust: the file may not be lost (pseudonyms would change); whoever has it and the key can test guesses.
"""

from __future__ import annotations

import contextlib
import hmac
import os
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from gatebook.errors import Damaged, EnvironmentFault, LedgerError, LedgerFull

_TABLE = "CREATE TABLE IF NOT EXISTS pseudonym (lookup BLOB PRIMARY KEY, pseudonym BLOB NOT NULL) STRICT"


class Row(NamedTuple):
    lookup: bytes
    pseudonym: bytes


def find(path: Path, beginning: str) -> list[Row]:
    """The rows whose pseudonym, in hex, begins so. Beside a running recorder; writes nothing."""
    sql = "SELECT lookup, pseudonym FROM pseudonym WHERE substr(lower(hex(pseudonym)), 1, ?) = ?"
    return [Row(bytes(lookup), bytes(made)) for lookup, made in _ask(path, sql, len(beginning), beginning)]


def pseudonym_of(path: Path, lookup: bytes) -> bytes | None:
    """None for a name that has none. Beside a running recorder; writes nothing."""
    rows = _ask(path, "SELECT pseudonym FROM pseudonym WHERE lookup = ?", lookup)
    return bytes(rows[0][0]) if rows else None


def _ask(path: Path, sql: str, *parameters: object) -> list[tuple[bytes, ...]]:
    if not path.exists():
        return []
    try:
        with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as db:
            return list(db.execute(sql, parameters))
    except sqlite3.Error as error:
        raise EnvironmentFault(f"{path}: {error}") from error


class Vault:
    """`made`: there was none before."""

    def __init__(self, path: Path, key: bytes, random: Callable[[int], bytes] = os.urandom) -> None:
        """Raises Damaged for a file that is no vault, LedgerFull when it cannot be used for now."""
        self.made = not path.exists()
        self._path = path
        self._key = key
        self._random = random
        self._writing = False
        old = os.umask(0o077)
        try:
            with self._failing():
                self._db = sqlite3.connect(path, isolation_level=None)
                self._db.execute("PRAGMA journal_mode=WAL")
                self._db.execute("PRAGMA synchronous=FULL")  # a commit is a sync: see the docstring
                self._db.execute(_TABLE)
        finally:
            os.umask(old)

    def pseudonym(self, name: str) -> bytes:
        """16 bytes, to be used only after `sync`. Raises LedgerFull when the disk does not take the row."""
        lookup = hmac.digest(self._key, name.encode("utf-8", "surrogateescape"), "sha256")
        with self._failing():
            known = self._find(lookup)
            if known is not None:
                return known
            if not self._writing:
                self._db.execute("BEGIN IMMEDIATE")
                self._writing = True
            made = self._random(16)
            if self._db.execute("INSERT OR IGNORE INTO pseudonym VALUES (?, ?)", (lookup, made)).rowcount:
                return made
            return self._find(lookup) or made

    def _find(self, lookup: bytes) -> bytes | None:
        row = self._db.execute("SELECT pseudonym FROM pseudonym WHERE lookup = ?", (lookup,)).fetchone()
        return None if row is None else bytes(row[0])

    def sync(self) -> None:
        """All pseudonyms are durable on return. Raises LedgerFull: then none of the new ones may be used."""
        if self._writing:
            with self._failing():
                # A crash before this commit: nobody has seen the pseudonyms. After it: the same are given again.
                self._db.execute("COMMIT")
                self._writing = False

    @contextlib.contextmanager
    def _failing(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            raise LedgerFull(
                f"{self._path}: {error}; make room on its disk, and let nobody else use it"
            ) from error
        except sqlite3.Error as error:
            raise self._damaged(error) from error

    def _damaged(self, error: sqlite3.Error) -> LedgerError:
        return Damaged(
            f"{self._path}: {error}; bring it back from a backup: without it the same people get new pseudonyms"
        )

    def close(self) -> None:
        """What was not synced is gone."""
        self._db.close()
