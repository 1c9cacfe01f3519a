"""Pseudonyms: a name -> 16 random bytes, the same for as long as the row lives.

The row's key is HMAC-SHA256(pseudonym.key, name), so that the vault alone names nobody. The row is durable
before its pseudonym is given out, so no record ever uses one that a crash could forget. Deleting a row
unlinks a person for everyone; nothing here can bring the link back.
Trust: the file may not be lost (pseudonyms would change); whoever has it and the key can test guesses.
"""

from __future__ import annotations

import hmac
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

from gatebook.errors import LedgerFull


class Vault:
    def __init__(self, path: Path, key: bytes, random: Callable[[int], bytes] = os.urandom) -> None:
        self._key = key
        self._random = random
        old = os.umask(0o077)
        try:
            self._db = sqlite3.connect(path, isolation_level=None)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")  # a commit is a sync: see the docstring
            self._db.execute(
                "CREATE TABLE IF NOT EXISTS pseudonym (lookup BLOB PRIMARY KEY, pseudonym BLOB NOT NULL) STRICT"
            )
        finally:
            os.umask(old)

    def pseudonym(self, name: str) -> bytes:
        """16 bytes; durable on return. Raises LedgerFull when the disk does not take the row."""
        try:
            return self._lookup(name)
        except sqlite3.Error as error:
            raise LedgerFull(f"the pseudonym vault took no row: {error}; make room on its disk") from error

    def _lookup(self, name: str) -> bytes:
        lookup = hmac.digest(self._key, name.encode("utf-8", "surrogateescape"), "sha256")
        row = self._db.execute("SELECT pseudonym FROM pseudonym WHERE lookup = ?", (lookup,)).fetchone()
        if row is not None:
            return bytes(row[0])
        made = self._random(16)
        # A crash before this commit: nobody has seen the pseudonym. After it: the same is given again.
        self._db.execute("INSERT INTO pseudonym VALUES (?, ?)", (lookup, made))
        return made

    def close(self) -> None:
        self._db.close()
