"""Pseudonyms of a first version's vault survive the change to keys and periods, wherever that is interrupted."""

from __future__ import annotations

import functools
import hashlib
import hmac
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from gatebook.errors import Damaged, Tampered
from gatebook.recorder import vault
from gatebook.recorder.vault import Vault
from gatebook.sealed import seal, unseal

KEY = b"k" * 32
DAY_S = 86_400.0
OLD = {f"subject:staff:{name}": hashlib.sha256(name.encode()).digest()[:16] for name in ("alice", "bob", "carol")}


def lookup(name: str) -> bytes:
    return hmac.digest(KEY, name.encode(), "sha256")


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A vault as the first version left it, its last rows in the log beside the file, as after a kill."""
    made, path = tmp_path / "made.sqlite", tmp_path / "vault.sqlite"
    db = sqlite3.connect(made, isolation_level=None)
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("CREATE TABLE pseudonym (lookup BLOB PRIMARY KEY, pseudonym BLOB NOT NULL) STRICT")
    db.executemany("INSERT INTO pseudonym VALUES (?, ?)", [(lookup(name), made) for name, made in OLD.items()])
    for suffix in ("", "-wal"):
        shutil.copy(f"{made}{suffix}", f"{path}{suffix}")
    db.close()
    return path


def pseudonyms(path: Path, period_s: float | None = None) -> dict[str, bytes]:
    opened = Vault(path, KEY, period_s=period_s)
    try:
        return {name: opened.pseudonym(name) for name in OLD}
    finally:
        opened.close()


def test_people_keep_their_pseudonyms_and_get_a_key_each(old: Path) -> None:
    assert pseudonyms(old) == OLD
    keys = {row.key for name in OLD for row in vault.rows_of(old, lookup(name))}
    assert {len(key) for key in keys} == {32}
    assert len(keys) == len(OLD)
    assert pseudonyms(old) == OLD


def test_vault_that_nobody_has_opened_since_is_read_all_the_same(old: Path) -> None:
    """`gatebook revoke` right after an update, with the recorder not started yet."""
    (row,) = vault.rows_of(old, lookup("subject:staff:alice"))
    assert row.pseudonym == OLD["subject:staff:alice"]
    assert vault.find(old, row.pseudonym.hex()[:8]) == [row]
    assert pseudonyms(old) == OLD


class Killed(BaseException):
    pass


class Stopping(sqlite3.Connection):
    """Is killed at its statement number `stop`."""

    stop = 0

    def __init__(self, *given: Any, **more: Any) -> None:
        super().__init__(*given, **more)
        self.seen: list[str] = []
        last.append(self)

    def execute(self, sql: str, parameters: Any = ()) -> sqlite3.Cursor:
        if len(self.seen) == Stopping.stop:
            raise Killed
        self.seen.append(sql)
        return super().execute(sql, parameters)


last: list[Stopping] = []


def test_kill_at_each_statement_loses_no_pseudonym(
    old: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is on disk then is copied, as kill -9 leaves it, and opened by the next process."""
    reached: set[str] = set()
    for Stopping.stop in range(100):
        work, killed = tmp_path / f"work-{Stopping.stop}", tmp_path / f"killed-{Stopping.stop}"
        work.mkdir()
        for path in tmp_path.glob("vault.sqlite*"):
            shutil.copy(path, work)
        with monkeypatch.context() as patched:
            patched.setattr(sqlite3, "connect", functools.partial(sqlite3.connect, factory=Stopping))
            try:
                Vault(work / "vault.sqlite", KEY).close()
            except Killed:
                shutil.copytree(work, killed)
                last[-1].close()
            else:
                break
        reached.update(text.split()[0] for text in last[-1].seen)
        assert pseudonyms(killed / "vault.sqlite") == OLD
    assert {"BEGIN", "CREATE", "INSERT", "DROP"} <= reached
    assert Stopping.stop > 8


def test_vault_of_a_later_version_is_left_alone(old: Path) -> None:
    pseudonyms(old)
    db = sqlite3.connect(old)
    db.execute("PRAGMA user_version = 3")
    db.close()
    with pytest.raises(Damaged, match="later gatebook"):
        Vault(old, KEY)


# -- periods ----------------------------------------------------------------------------------------------
class Clock:
    def __init__(self, now_s: float) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        return self.now_s


def test_same_person_has_another_pseudonym_and_key_in_each_period(tmp_path: Path) -> None:
    clock = Clock(100 * DAY_S + 5)
    opened = Vault(tmp_path / "v", KEY, period_s=90 * DAY_S, now_s=clock)
    first = opened.known("alice")
    assert first.until == 180 * DAY_S
    clock.now_s = 180 * DAY_S - 1
    assert opened.known("alice") == first
    clock.now_s += 1
    second = opened.known("alice")
    assert second.until == 270 * DAY_S
    assert second.pseudonym != first.pseudonym
    assert second.key != first.key
    clock.now_s -= 1  # a clock that went back: the period's own row, not a third one
    assert opened.known("alice") == first
    opened.sync()
    opened.close()
    rows = vault.rows_of(tmp_path / "v", lookup("alice"))
    assert [row.pseudonym for row in rows] == [first.pseudonym, second.pseudonym]
    assert [row.began for row in rows] == [90 * DAY_S, 180 * DAY_S]


def test_period_that_is_configured_later_leaves_the_old_pseudonym_to_be_found(old: Path) -> None:
    after = pseudonyms(old, period_s=90 * DAY_S)
    assert not set(after.values()) & set(OLD.values())
    opened = Vault(old, KEY, period_s=90 * DAY_S)
    made = opened.pseudonym("subject:staff:alice")
    opened.sync()
    opened.close()
    rows = vault.rows_of(old, lookup("subject:staff:alice"))
    assert [row.pseudonym for row in rows] == [OLD["subject:staff:alice"], made]
    assert pseudonyms(old) == OLD  # and without periods again, they have their first ones again


def test_vault_without_its_key_tests_no_guess_and_opens_nothing(tmp_path: Path) -> None:
    """Whoever has a copy of the vault, readable records and a list of all employees, but not pseudonym.key."""
    opened = Vault(tmp_path / "v", KEY)
    known = opened.known("subject:staff:alice")
    opened.sync()
    opened.close()
    part = seal({"subject": "alice"}, known.pseudonym.hex(), known.key, "0" * 32)
    (row,) = vault.find(tmp_path / "v", part.under)
    assert row.lookup not in {hashlib.sha256(name).digest() for name in (b"alice", b"subject:staff:alice")}
    assert vault.rows_of(tmp_path / "v", hmac.digest(b"x" * 32, b"subject:staff:alice", "sha256")) == []
    for key in (row.key, vault.key_of(row, b"x" * 32), row.lookup):
        with pytest.raises(Tampered):
            unseal(part, key, "0" * 32)
    assert unseal(part, vault.key_of(row, KEY), "0" * 32) == {"subject": "alice"}


def test_key_in_the_file_is_not_the_key_that_seals(tmp_path: Path) -> None:
    """Whoever has the vault alone opens nothing: pseudonym.key is mixed into each key."""
    opened = Vault(tmp_path / "v", KEY)
    known = opened.known("alice")
    opened.sync()
    opened.close()
    (row,) = vault.rows_of(tmp_path / "v", lookup("alice"))
    assert known.key not in (tmp_path / "v").read_bytes()
    assert row.key != known.key
    assert vault.key_of(row, KEY) == known.key
    assert vault.key_of(row, b"x" * 32) != known.key
