"""Pseudonyms and keys: a name -> 16 random bytes and a key, the same for as long as the row lives.

A row's lookup is HMAC-SHA256(pseudonym.key, name), so that the vault alone names nobody; there is one for each
period in which the name was seen. Rows are durable after `sync`: it comes before any record that uses them is
written, and before these are given out, so no crash makes one forgotten that was ever used. Destroying a
person's rows unlinks them for everyone and for good; `Erasure` says how far one that has begun is.
Trust: the file may not be lost (pseudonyms would change); whoever has it and pseudonym.key can test guesses and
open what is sealed. A row's key is mixed with pseudonym.key, so the file alone opens nothing.
"""

from __future__ import annotations

import contextlib
import hmac
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from gatebook.errors import Damaged, EnvironmentFault, LedgerError, LedgerFull

SCHEMA: Final = 2
_AT_ONCE: Final = 500  # parameters of one statement
_WIPE_MS: Final = 300  # how long an erasure waits for readers of the file: nobody is served meanwhile
_BUSY: Final = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
_TABLES: Final = (
    "CREATE TABLE person (lookup BLOB NOT NULL, began INTEGER NOT NULL, pseudonym BLOB NOT NULL,"
    " key BLOB NOT NULL, PRIMARY KEY (lookup, began)) STRICT",
    # What has to be finished, and how many have been: guards that see another number forget what they know.
    "CREATE TABLE erasure (id INTEGER PRIMARY KEY AUTOINCREMENT, size INTEGER NOT NULL, reason INTEGER NOT NULL,"
    " record BLOB NOT NULL, pseudonyms BLOB NOT NULL) STRICT",
)
# Version 1 knew neither keys nor periods: each name had one row, for good.
_FROM_1: Final = (
    "INSERT INTO person SELECT lookup, 0, pseudonym, fresh_key() FROM pseudonym",
    "DROP TABLE pseudonym",
)
_ROWS: Final = "SELECT lookup, began, pseudonym, key FROM person"
_ROWS_OF_1: Final = "SELECT lookup, 0 AS began, pseudonym, x'' AS key FROM pseudonym"


class Row(NamedTuple):
    """`began`: of its period, in seconds since 1970; 0 for one that has no end. `key`: as it is in the file."""

    lookup: bytes
    began: int
    pseudonym: bytes
    key: bytes


class Known(NamedTuple):
    """What a name stands for until `until` (seconds since 1970; 0: for good). `key` is for sealing."""

    pseudonym: bytes
    key: bytes
    until: float


class Erasure(NamedTuple):
    """One that was begun. `size`: of the ledger before; `record`: the exact bytes that are to say so."""

    id: int
    size: int
    reason: int
    record: bytes
    pseudonyms: tuple[bytes, ...]


def find(path: Path, beginning: str) -> list[Row]:
    """The rows whose pseudonym, in hex, begins so. Beside a running recorder; writes nothing."""
    return _ask(path, "substr(lower(hex(pseudonym)), 1, ?) = ?", len(beginning), beginning)


def rows_of(path: Path, lookup: bytes) -> list[Row]:
    """All periods of one name, the latest last. Beside a running recorder; writes nothing."""
    return _ask(path, "lookup = ?", lookup)


def among(path: Path, pseudonyms: Sequence[bytes]) -> list[Row]:
    """The rows of these pseudonyms that there are. Beside a running recorder; writes nothing."""
    found = []
    for start in range(0, len(pseudonyms), _AT_ONCE):
        some = pseudonyms[start : start + _AT_ONCE]
        found += _ask(path, f"pseudonym IN ({', '.join('?' * len(some))})", *some)
    return found


def key_of(row: Row, pseudonym_key: bytes) -> bytes:
    """The row's key, as it seals."""
    return hmac.digest(pseudonym_key, b"gatebook/vault/v2/key" + row.key, "sha256")


def _ask(path: Path, where: str, *parameters: object) -> list[Row]:
    if not path.exists():
        return []
    try:
        with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as db:
            (version,) = db.execute("PRAGMA user_version").fetchone()
            rows = _ROWS if version else _ROWS_OF_1  # no recorder has opened it since the change
            found = db.execute(f"SELECT * FROM ({rows}) WHERE {where} ORDER BY lookup, began", parameters)  # noqa: S608
            return [Row(bytes(a), began, bytes(b), bytes(c)) for a, began, b, c in found]
    except sqlite3.Error as error:
        raise EnvironmentFault(f"{path}: {error}") from error


class Vault:
    """`made`: there was none before. `period_s`: how long a pseudonym serves; None: for good."""

    def __init__(
        self,
        path: Path,
        key: bytes,
        random: Callable[[int], bytes] = os.urandom,
        *,
        period_s: float | None = None,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        """Raises Damaged for a file that is no vault, LedgerFull when it cannot be used for now."""
        self.made = not path.exists()
        self.period_s = period_s
        self.erasures = 0  # ever begun
        # Of unfinished ones, once looked up: where the ledger has their record, and the ERASE entries so far.
        self.on_record: dict[int, tuple[int, dict[bytes, int]]] = {}
        self._path = path
        self._key = key
        self._random = random
        self._now_s = now_s
        self._writing = False
        old = os.umask(0o077)
        try:
            with self._failing():
                self._db = sqlite3.connect(path, isolation_level=None)
                self._db.execute("PRAGMA journal_mode=WAL")
                self._db.execute("PRAGMA synchronous=FULL")  # a commit is a sync: see the docstring
                self._db.execute("PRAGMA secure_delete=ON")
                self._make_tables()
                self._check_key()
                self.erasures = self._count_erasures()
        finally:
            os.umask(old)

    def _check_key(self) -> None:
        """Raises Damaged for another key than the first: everybody would get a new pseudonym, unnoticed."""
        proof = hmac.digest(self._key, b"gatebook/vault/key", "sha256")
        mark = int.from_bytes(proof[:4], "big", signed=True) or 1
        (known,) = self._db.execute("PRAGMA application_id").fetchone()
        if known == 0:
            self._db.execute(f"PRAGMA application_id = {mark}")
        elif known != mark:
            raise Damaged(f"{self._path}: not of this pseudonym.key; bring back the file that it was made with")

    def _make_tables(self) -> None:
        """Raises Damaged for a vault of a later version: what it means is not known here."""
        if self._version() == SCHEMA:
            return
        self._db.create_function("fresh_key", 0, lambda: self._random(32))
        self._db.execute("BEGIN IMMEDIATE")
        version = self._version()  # asked again: another process that starts now may have been faster
        if version:
            self._db.execute("ROLLBACK")
            if version != SCHEMA:
                raise Damaged(f"{self._path}: of version {version}, made by a later gatebook; start that one")
            return
        for statement in _TABLES:
            self._db.execute(statement)
        if self._db.execute("SELECT 1 FROM sqlite_master WHERE name = 'pseudonym'").fetchone():
            for statement in _FROM_1:
                self._db.execute(statement)
        self._db.execute(f"PRAGMA user_version = {SCHEMA}")
        # A crash before this: the old vault, whole. After it: the new one, with all the old pseudonyms.
        self._db.execute("COMMIT")

    def _version(self) -> int:
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        return int(version)

    # -- names ------------------------------------------------------------------------------------------
    def pseudonym(self, name: str) -> bytes:
        """16 bytes, to be used only after `sync`. Raises LedgerFull when the disk does not take the row."""
        return self.known(name).pseudonym

    def lookup(self, name: str) -> bytes:
        """What its rows are found by, whether there are any or not."""
        return hmac.digest(self._key, name.encode("utf-8", "surrogateescape"), "sha256")

    def known(self, name: str) -> Known:
        """As `pseudonym`, with all that goes with it."""
        lookup = self.lookup(name)
        began, until = self._period()
        with self._failing():
            row = self._find(lookup, began)
            if row is None:
                if not self._writing:
                    self._db.execute("BEGIN IMMEDIATE")
                    self._writing = True
                made = Row(lookup, began, self._random(16), self._random(32))
                added = self._db.execute("INSERT OR IGNORE INTO person VALUES (?, ?, ?, ?)", made).rowcount
                row = made if added else self._find(lookup, began) or made
        return Known(row.pseudonym, key_of(row, self._key), until)

    def _period(self) -> tuple[int, float]:
        """When the present one began and will end. Before 1970, or without periods: the one without an end."""
        if self.period_s is None:
            return 0, 0.0
        began = int(max(0.0, self._now_s()) // self.period_s * self.period_s)
        return began, began + self.period_s

    def _find(self, lookup: bytes, began: int) -> Row | None:
        found = self._db.execute(f"{_ROWS} WHERE lookup = ? AND began = ?", (lookup, began)).fetchone()
        return None if found is None else Row(bytes(found[0]), found[1], bytes(found[2]), bytes(found[3]))

    def sync(self) -> None:
        """All pseudonyms are durable on return. Raises LedgerFull: then none of the new ones may be used."""
        if self._writing:
            with self._failing():
                # A crash before this commit: nobody has seen the pseudonyms. After it: the same are given again.
                self._db.execute("COMMIT")
                self._writing = False

    # -- erasing ----------------------------------------------------------------------------------------
    def rows(self, lookup: bytes) -> list[Row]:
        """All periods of one name, the earliest first. Call after `sync`."""
        with self._failing():
            found = self._db.execute(f"{_ROWS} WHERE lookup = ? ORDER BY began", (lookup,)).fetchall()
        return [Row(bytes(a), began, bytes(b), bytes(c)) for a, began, b, c in found]

    def begin_erasure(self, size: int, reason: int, record: bytes, pseudonyms: Sequence[bytes]) -> Erasure:
        """Durable on return, before anything is gone. Call after `sync`."""
        with self._failing():
            self._db.execute(
                "INSERT INTO erasure (size, reason, record, pseudonyms) VALUES (?, ?, ?, ?)",
                (size, reason, record, b"".join(pseudonyms)),
            )
        return self.unfinished()[-1]

    def unfinished(self) -> list[Erasure]:
        with self._failing():
            found = self._db.execute("SELECT id, size, reason, record, pseudonyms FROM erasure ORDER BY id")
            return [
                Erasure(number, size, reason, bytes(record), _split(bytes(joined)))
                for number, size, reason, record, joined in found
            ]

    def destroy(self, pseudonyms: Sequence[bytes]) -> bool:
        """Delete these rows, and their bytes from the file and its log. May be repeated; durable on return.

        False when somebody reads the file: the rows are gone then, but the bytes may be there; repeat it later.
        """
        with self._failing():
            gone = [self._db.execute(f"{_ROWS} WHERE pseudonym = ?", (each,)).fetchone() for each in pseudonyms]
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany("DELETE FROM person WHERE pseudonym = ?", [(each,) for each in pseudonyms])
            # A crash here: the rows are there, and the next process deletes them.
            self._db.execute("COMMIT")
            self.erasures = self._count_erasures()
            # A crash here: the rows are gone for whoever asks; their bytes are still in the log beside the file.
            if not self._wipe():
                return False
            secrets = [bytes(part) for row in gone if row is not None for part in (row[0], row[3])]
            content = self._path.read_bytes()
            # Of a row that was gone already, before a crash perhaps, nobody knows what to look for.
            if None in gone or any(each in content for each in secrets):
                # SQLite zeroes what it deletes, but for what it had moved before.
                return self._wipe("VACUUM") and self._wipe()
            return True

    def unread(self) -> bool:
        """Whether nobody reads the file just now, so that `destroy` would succeed. Call after `sync`."""
        with self._failing():
            return self._wipe(wait_ms=0)

    def _wipe(self, statement: str = "PRAGMA wal_checkpoint(TRUNCATE)", wait_ms: int = _WIPE_MS) -> bool:
        """Move the log's pages into the file and empty it. False when somebody else uses it for so long."""
        (usual,) = self._db.execute("PRAGMA busy_timeout").fetchone()
        self._db.execute(f"PRAGMA busy_timeout = {wait_ms}")
        try:
            answer = self._db.execute(statement).fetchone()
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF not in _BUSY:
                raise
            return False
        finally:
            self._db.execute(f"PRAGMA busy_timeout = {usual}")
        return answer is None or answer[0] == 0

    def finish_erasure(self, number: int) -> None:
        """Durable on return: nothing of it is to be done any more."""
        with self._failing():
            self._db.execute("DELETE FROM erasure WHERE id = ?", (number,))
        self.on_record.pop(number, None)

    def _count_erasures(self) -> int:
        found = self._db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'erasure'").fetchone()
        return 0 if found is None else int(found[0])

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


def _split(joined: bytes) -> tuple[bytes, ...]:
    return tuple(joined[at : at + 16] for at in range(0, len(joined), 16))
