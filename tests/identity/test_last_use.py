"""The last use of a key: once an hour, never backwards, and no fault of it reaches a caller."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from gatebook.identity.last_use import HOUR_S, LastUse, last_use

NOW = 1_800_000_000.0  # a whole hour


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "last-use"


def test_use_is_known_to_the_hour(folder: Path) -> None:
    assert last_use(folder, "abcdefgh") is None
    LastUse(folder).note("abcdefgh", NOW + 1234.5)
    assert last_use(folder, "abcdefgh") == int(NOW)
    assert last_use(folder, "hgfedcba") is None
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_second_use_within_the_hour_touches_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    used = LastUse(folder)
    used.note("abcdefgh", NOW)
    monkeypatch.setattr(os, "open", lambda *_: pytest.fail("touched again"))
    used.note("abcdefgh", NOW + HOUR_S - 1)


def test_later_hour_moves_it_and_an_earlier_one_does_not(folder: Path) -> None:
    one, other = LastUse(folder), LastUse(folder)
    one.note("abcdefgh", NOW)
    other.note("abcdefgh", NOW + 2 * HOUR_S)
    one.note("abcdefgh", NOW + HOUR_S)
    assert last_use(folder, "abcdefgh") == int(NOW) + 2 * HOUR_S


def test_disk_that_takes_nothing_is_said_once_and_hurts_nobody(folder: Path) -> None:
    folder.write_text("in the way")
    with capture_logs() as logs:
        used = LastUse(folder)
        used.note("abcdefgh", NOW)
        used.note("hgfedcba", NOW)
    assert [entry["event"] for entry in logs] == ["the last use of keys is not noted"]
    assert last_use(folder, "abcdefgh") is None


def test_link_in_the_way_is_not_followed(folder: Path, tmp_path: Path) -> None:
    folder.mkdir()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("kept")
    os.utime(elsewhere, (1, 1))
    (folder / "abcdefgh").symlink_to(elsewhere)
    LastUse(folder).note("abcdefgh", NOW)
    assert elsewhere.stat().st_mtime == 1
