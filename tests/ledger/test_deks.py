"""Wrapped DEKs: durable before they are needed, never replaced, gone when deleted."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatebook.errors import Damaged
from gatebook.ledger import deks
from gatebook.ledger.deks import Deks
from gatebook.ledger.files import Files
from gatebook.ledger.keys import Wrapped

ID = bytes(range(16))
ROWS = [Wrapped(b"r" * 32, b"w" * 80), Wrapped(b"s" * 32, b"x" * 80)]


class Noting(Files):
    """Notes what is synced, and in which order."""

    def __init__(self) -> None:
        self.steps: list[str] = []

    def write(self, descriptor: int, data: bytes) -> None:
        self.steps.append("write")
        super().write(descriptor, data)

    def sync(self, descriptor: int) -> None:
        self.steps.append("sync")
        super().sync(descriptor)

    def sync_folder(self, path: Path) -> None:
        self.steps.append("sync_folder")
        super().sync_folder(path)

    def remove(self, path: Path) -> None:
        super().remove(path)  # what is not there is no step
        self.steps.append("remove")


@given(
    st.binary(min_size=16, max_size=16),
    st.lists(
        st.builds(Wrapped, st.binary(min_size=32, max_size=32), st.binary(min_size=80, max_size=80)),
        min_size=1,
        max_size=5,
    ),
)
def test_what_is_stored_is_what_is_read(dek_id: bytes, rows: list[Wrapped]) -> None:
    assert deks.parse(deks.encode(dek_id, rows), dek_id) == rows


def test_stored_dek_is_synced_and_so_is_its_name(tmp_path: Path) -> None:
    files = Noting()
    Deks(tmp_path, files).put(ID, ROWS)
    assert files.steps == ["write", "sync", "sync_folder"]
    assert Deks(tmp_path).get(ID) == ROWS
    assert (tmp_path / f"{ID.hex()}.dek").stat().st_mode & 0o777 == 0o600


def test_deletion_is_durable_and_may_be_repeated(tmp_path: Path) -> None:
    files = Noting()
    store = Deks(tmp_path, files)
    store.put(ID, ROWS)
    files.steps.clear()
    store.delete(ID)
    assert files.steps == ["remove", "sync_folder"]
    assert store.get(ID) is None
    store.delete(ID)
    assert list(tmp_path.iterdir()) == []


class KilledBeforeTheName(Files):
    def rename(self, old: Path, new: Path) -> None:
        raise KeyboardInterrupt


def test_half_replaced_dek_does_not_outlive_its_deletion(tmp_path: Path) -> None:
    Deks(tmp_path).put(ID, ROWS)
    with pytest.raises(KeyboardInterrupt):
        Deks(tmp_path, KilledBeforeTheName()).replace(ID, ROWS[:1])
    assert len(list(tmp_path.iterdir())) == 2
    Deks(tmp_path).delete(ID)
    assert list(tmp_path.iterdir()) == []


def test_dek_is_never_written_over(tmp_path: Path) -> None:
    store = Deks(tmp_path)
    store.put(ID, ROWS)
    with pytest.raises(FileExistsError):
        store.put(ID, ROWS[:1])
    assert store.get(ID) == ROWS


def test_planted_link_is_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "elsewhere"
    (tmp_path / f"{ID.hex()}.dek").symlink_to(target)
    with pytest.raises(FileExistsError):
        Deks(tmp_path).put(ID, ROWS)
    assert not target.exists()


def test_every_flipped_or_missing_byte_is_seen(tmp_path: Path) -> None:
    data = deks.encode(ID, ROWS)
    for at in range(len(data)):
        bad = bytearray(data)
        bad[at] ^= 1
        with pytest.raises(Damaged):
            deks.parse(bytes(bad), ID)
        with pytest.raises(Damaged):
            deks.parse(data[:at], ID)
    with pytest.raises(Damaged):
        deks.parse(data + b"\0", ID)


def test_file_of_another_dek_is_refused(tmp_path: Path) -> None:
    store = Deks(tmp_path)
    store.put(ID, ROWS)
    other = bytes(16)
    (tmp_path / f"{ID.hex()}.dek").rename(tmp_path / f"{other.hex()}.dek")
    with pytest.raises(Damaged, match="is that of"):
        store.get(other)


def test_huge_file_is_read_in_bounds_and_refused(tmp_path: Path) -> None:
    path = tmp_path / f"{ID.hex()}.dek"
    path.touch()
    os.truncate(path, 1 << 40)
    with pytest.raises(Damaged):
        Deks(tmp_path).get(ID)


def test_folder_in_place_of_a_dek_is_damage(tmp_path: Path) -> None:
    (tmp_path / f"{ID.hex()}.dek").mkdir()
    with pytest.raises(Damaged, match="directory"):
        Deks(tmp_path).get(ID)


@given(st.binary(max_size=400))
def test_hostile_bytes_are_damage(data: bytes) -> None:
    with pytest.raises(Damaged):
        deks.parse(data, ID)


@pytest.mark.parametrize("rows", [[], ROWS * 33, [Wrapped(b"r", b"w" * 80)]], ids=["none", "many", "short"])
def test_nobody_or_too_many_to_wrap_for_is_refused(rows: list[Wrapped]) -> None:
    with pytest.raises(ValueError, match="wrapped"):
        deks.encode(ID, rows)
