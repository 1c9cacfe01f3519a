"""Pseudonyms: the same for good, unguessable, durable before they are used; a vault that is broken says so."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gatebook.errors import Damaged, LedgerFull
from gatebook.recorder.vault import _TABLES, SCHEMA, Vault

KEY = b"k" * 32


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Callable[..., Vault]]:
    made: list[Vault] = []

    def call(path: Path = tmp_path / "vault.sqlite", key: bytes = KEY) -> Vault:
        made.append(Vault(path, key))
        return made[-1]

    yield call
    for vault in made:
        vault.close()


Opened = Callable[..., Vault]


def test_name_keeps_its_pseudonym_over_restarts(opened: Opened) -> None:
    first = opened()
    alice, bob = first.pseudonym("subject:staff:alice"), first.pseudonym("subject:staff:bob")
    assert alice != bob
    assert len(alice) == 16
    assert first.pseudonym("subject:staff:alice") == alice
    first.sync()
    first.close()
    again = opened()
    assert (again.pseudonym("subject:staff:alice"), again.pseudonym("subject:staff:bob")) == (alice, bob)


def test_pseudonym_says_nothing_of_the_name_even_to_who_has_key_and_name(opened: Opened, tmp_path: Path) -> None:
    """It is random: once the row is deleted nobody can find it again."""
    one, other = opened(tmp_path / "1"), opened(tmp_path / "2")
    assert one.pseudonym("alice") != other.pseudonym("alice")


def test_vault_alone_names_nobody(opened: Opened, tmp_path: Path) -> None:
    vault = opened()
    vault.pseudonym("subject:staff:alice")
    vault.sync()
    vault.close()
    found = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b"alice" not in found


def test_key_of_another_vault_or_with_a_bit_turned_is_refused(opened: Opened) -> None:
    """Everybody would get a new pseudonym, and nobody would notice."""
    vault = opened()
    known = vault.pseudonym("alice")
    vault.sync()
    for key in (b"x" * 32, bytes([KEY[0] ^ 1]) + KEY[1:], KEY[:-1] + bytes([KEY[-1] ^ 128])):
        with pytest.raises(Damaged, match=r"not of this pseudonym\.key"):
            opened(key=key)
    assert opened().pseudonym("alice") == known


def test_names_that_are_no_unicode_are_told_apart(opened: Opened) -> None:
    vault = opened()
    assert len({vault.pseudonym(name) for name in ("\udc80", "\udc81", "", "\0", "a\0")}) == 5


def test_deleted_row_unlinks_for_good(opened: Opened, tmp_path: Path) -> None:
    vault = opened()
    before = vault.pseudonym("alice")
    vault.sync()
    vault.close()
    with sqlite3.connect(tmp_path / "vault.sqlite") as database:
        database.execute("DELETE FROM person")
    database.close()
    assert opened().pseudonym("alice") != before


def test_file_is_its_owners_alone_whatever_the_umask_is(opened: Opened, tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        vault = opened()
        vault.pseudonym("alice")
        vault.sync()
    finally:
        os.umask(old)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert set(modes.values()) == {0o600}, modes


def test_new_one_says_that_it_is_new(opened: Opened) -> None:
    """A vault that was lost comes back empty, and the same people have other pseudonyms: that is worth a word."""
    first = opened()
    assert first.made
    first.close()
    assert not opened().made


# -- durability -------------------------------------------------------------------------------------------
def test_pseudonym_that_was_not_synced_is_not_kept_and_one_that_was_is(opened: Opened, tmp_path: Path) -> None:
    vault = opened()
    kept = vault.pseudonym("alice")
    vault.sync()
    lost = vault.pseudonym("bob")
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in tmp_path.glob("vault.sqlite*"):
        shutil.copy(path, copy)  # what kill -9 leaves
    after = opened(copy / "vault.sqlite")
    assert after.pseudonym("alice") == kept
    assert after.pseudonym("bob") != lost


def test_many_new_names_cost_one_sync(opened: Opened) -> None:
    """With pseudonyms for addresses, a flood from many of them would otherwise hold everybody up."""
    vault = opened()
    trace: list[str] = []
    vault._db.set_trace_callback(trace.append)
    for number in range(50):
        vault.pseudonym(f"address:192.0.2.{number}")
    vault.sync()
    vault.sync()
    assert [text for text in trace if text.startswith(("BEGIN", "COMMIT"))] == ["BEGIN IMMEDIATE", "COMMIT"]


# -- what may be wrong with it ----------------------------------------------------------------------------
FULL = """
import resource, signal, sys
from pathlib import Path
from gatebook.errors import LedgerFull

from gatebook.recorder.vault import _TABLES, SCHEMA, Vault
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
vault = Vault(Path(sys.argv[1]), b"k" * 32)
kept = vault.pseudonym("alice").hex()
vault.sync()
resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))
try:
    for number in range(10_000):
        vault.pseudonym(f"name {number}")
        vault.sync()
except LedgerFull as error:
    print(kept, error)
"""


def test_full_disk_gives_no_pseudonym_and_keeps_the_old_ones(opened: Opened, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path / "vault.sqlite")], capture_output=True, text=True, check=True
    )
    kept, _, said = done.stdout.partition(" ")
    assert "make room" in said
    assert opened().pseudonym("alice").hex() == kept


@pytest.mark.parametrize("damage", ["other bytes", "cut", "middle"])
def test_torn_database_is_damage_and_never_begun_anew(opened: Opened, tmp_path: Path, damage: str) -> None:
    path = tmp_path / "vault.sqlite"
    vault = opened()
    for number in range(500):
        vault.pseudonym(f"name {number}")
    vault.sync()
    vault.close()
    data = path.read_bytes()
    torn = {
        "other bytes": b"not a database" * 100,
        "cut": data[: len(data) // 2 + 100],
        "middle": data[:4096] + bytes(len(data) - 4096),
    }[damage]
    path.write_bytes(torn)

    def use() -> None:
        again = opened()
        for number in range(500):
            again.pseudonym(f"name {number}")

    with pytest.raises(Damaged, match="bring it back"):
        use()
    assert path.read_bytes() == torn


def test_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(LedgerFull, match="unable to open"):
        Vault(tmp_path / "nowhere" / "vault.sqlite", KEY)


def test_second_writer_waits_and_gets_the_same(opened: Opened) -> None:
    """The ledger's lock keeps two recorders apart; should somebody else write all the same, nothing is doubled."""
    first, second = opened(), opened()
    name = first.pseudonym("alice")
    first.sync()
    assert second.pseudonym("alice") == name
    second.pseudonym("bob")
    second._db.execute("PRAGMA busy_timeout = 0")
    first._db.execute("PRAGMA busy_timeout = 0")
    with pytest.raises(LedgerFull, match="locked"):
        first.pseudonym("carol")
    second.sync()
    assert first.pseudonym("bob") == second.pseudonym("bob")


def test_process_that_starts_at_the_same_moment_does_not_fail_on_the_others_tables(
    opened: Opened, tmp_path: Path
) -> None:
    path = tmp_path / "vault.sqlite"
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("PRAGMA journal_mode=WAL")
    other.execute("BEGIN IMMEDIATE")
    with ThreadPoolExecutor(1) as pool:
        late = pool.submit(lambda: Vault(path, KEY).close())
        time.sleep(0.2)  # it has seen that there are no tables, and waits for its turn to make them
        for statement in _TABLES:
            other.execute(statement)
        other.execute(f"PRAGMA user_version = {SCHEMA}")
        other.execute("COMMIT")
        other.close()
        late.result()
    assert len(opened().pseudonym("alice")) == 16
