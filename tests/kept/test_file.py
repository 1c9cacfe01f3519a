"""A kept file: foreign content, foreign hands, loss, faults in the middle of a change."""

from __future__ import annotations

import dataclasses
import errno
import fcntl
import os
import stat
import threading
from pathlib import Path

import pytest
from tests.kept.notes import KIND, add, quiet, words

from gatebook import kept
from gatebook.errors import EnvironmentFault, RecorderUnavailable
from gatebook.kept import file

BOTH = {"notes.json", "notes.json.lock"}
GOOD = '{\n "version": 1,\n "words": [\n  "one"\n ]\n}\n'


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "notes.json"


def left(folder: Path) -> set[str]:
    return {entry.name for entry in folder.iterdir()}


def write(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    path.chmod(0o600)


# -- what is kept -----------------------------------------------------------------------------------------
def test_file_that_never_was_is_an_empty_one(path: Path) -> None:
    assert kept.read(path, KIND) == (KIND.empty, None)
    assert left(path.parent) == set()


def test_what_is_written_is_read(path: Path) -> None:
    add(path, "one")
    assert words(path) == ("one",)
    assert path.read_text() == GOOD
    add(path, "two")
    assert words(path) == ("one", "two")
    assert left(path.parent) == BOTH


def test_mode_is_private_whatever_the_umask(path: Path) -> None:
    before = os.umask(0)
    try:
        add(path, "one")
    finally:
        os.umask(before)
    assert {stat.S_IMODE(entry.stat().st_mode) for entry in path.parent.iterdir()} == {0o600}


def test_change_that_changes_nothing_leaves_the_file_alone(path: Path) -> None:
    add(path, "one")
    before = path.stat()
    with kept.change(path, KIND) as change:
        assert change.document.words == ("one",)
    assert kept.Signature.of(path.stat()) == kept.Signature.of(before)


# -- loss -------------------------------------------------------------------------------------------------
def test_lost_file_is_no_empty_one(path: Path) -> None:
    add(path, "one")
    path.unlink()
    with pytest.raises(EnvironmentFault, match=r"is gone, with notes that were in effect; restore it"):
        words(path)
    with pytest.raises(EnvironmentFault, match="is gone"):
        add(path, "two")
    path.with_name("notes.json.lock").unlink()
    assert words(path) == ()


def test_first_change_that_fails_leaves_no_lock_without_its_file(path: Path) -> None:
    def fail() -> None:
        raise RecorderUnavailable("no acknowledgement")

    with pytest.raises(RecorderUnavailable):
        add(path, "one", fail)
    assert words(path) == ()
    assert left(path.parent) == BOTH


def test_first_change_of_two_at_once_loses_neither(path: Path) -> None:
    threads = [threading.Thread(target=add, args=(path, str(n))) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(words(path)) == [str(n) for n in range(8)]
    assert left(path.parent) == BOTH


def test_file_that_another_makes_between_two_looks_is_not_taken_for_gone(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.path.lexists

    def made_meanwhile(beside: Path) -> bool:
        monkeypatch.setattr(os.path, "lexists", real)
        add(path, "one")
        return real(beside)

    monkeypatch.setattr(os.path, "lexists", made_meanwhile)
    assert words(path) == ("one",)


# -- the record comes first -------------------------------------------------------------------------------
def test_nothing_is_in_effect_before_it_is_announced(path: Path) -> None:
    seen: list[tuple[str, ...]] = []
    add(path, "one", lambda: seen.append(words(path)))
    add(path, "two", lambda: seen.append(words(path)))
    assert seen == [(), ("one",)]


def test_what_could_not_be_announced_does_not_take_effect(path: Path) -> None:
    def fail() -> None:
        raise RecorderUnavailable("no acknowledgement")

    add(path, "one")
    before = path.read_bytes()
    with pytest.raises(RecorderUnavailable):
        add(path, "two", fail)
    assert path.read_bytes() == before
    assert left(path.parent) == BOTH


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_disk_that_fails_leaves_the_old_file(path: Path, call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    add(path, "one")
    before = path.read_bytes()

    def fail(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    told: list[bool] = []
    monkeypatch.setattr(os if call == "fsync" else Path, call, fail)
    with pytest.raises(EnvironmentFault, match="not changed: no space left"):
        add(path, "two", lambda: told.append(True))
    assert path.read_bytes() == before
    assert left(path.parent) == BOTH
    assert len(told) == (call == "replace")


def test_disk_that_fails_at_the_first_change_leaves_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(EnvironmentFault, match="not changed: no space left"):
        add(path, "one")
    assert left(path.parent) == set()


def test_folder_that_does_not_sync_is_said(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add(path, "one")
    real = os.fsync

    def fail(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(
        EnvironmentFault, match=r"the disk did not confirm it .*; see what `gatebook note list` says"
    ):
        add(path, "two")


def test_file_and_folder_are_synced_in_that_order(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add(path, "one")
    done: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def synced(descriptor: int) -> None:
        done.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        fsync(descriptor)

    def replaced(self: Path, target: Path) -> Path:
        done.append("replace")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", replaced)
    add(path, "two", lambda: done.append("announce"))
    assert done == ["file", "announce", "replace", "folder"]


# -- the lock ---------------------------------------------------------------------------------------------
def test_two_at_once_do_not_lose_each_other_s_change(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def second() -> None:
        monkeypatch.setattr(file, "LOCK_PATIENCE_S", 0.0)
        with pytest.raises(EnvironmentFault, match="another `gatebook note` holds it"):
            add(path, "two")

    add(path, "one", second)
    assert words(path) == ("one",)


def test_lock_of_one_that_was_killed_holds_nobody(path: Path) -> None:
    add(path, "one")
    with path.with_name("notes.json.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
    add(path, "two")


def test_lock_that_is_a_link_is_not_followed(path: Path, tmp_path: Path) -> None:
    add(path, "one")
    lock = path.with_name("notes.json.lock")
    lock.unlink()
    lock.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(EnvironmentFault, match="lock"):
        add(path, "two")
    assert not (tmp_path / "elsewhere").exists()


# -- foreign hands ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("mode", [0o604, 0o640, 0o660, 0o602, 0o666, 0o610])
def test_file_that_lets_others_in_is_refused(path: Path, mode: int) -> None:
    add(path, "one")
    path.chmod(mode)
    with pytest.raises(EnvironmentFault, match="lets others in"):
        words(path)


def test_file_of_a_foreign_owner_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add(path, "one")
    monkeypatch.setattr(os, "geteuid", lambda: path.stat().st_uid + 1)
    with pytest.raises(EnvironmentFault, match="owned by uid"):
        words(path)


def test_link_is_refused_even_to_a_good_file(path: Path, tmp_path: Path) -> None:
    add(tmp_path / "real.json", "one")
    path.symlink_to(tmp_path / "real.json")
    with pytest.raises(EnvironmentFault, match="is a link"):
        words(path)


def test_link_to_nowhere_is_no_missing_file(path: Path, tmp_path: Path) -> None:
    path.symlink_to(tmp_path / "nowhere")
    with pytest.raises(EnvironmentFault, match="is a link"):
        words(path)


def test_what_is_no_file_is_refused_without_waiting(path: Path) -> None:
    os.mkfifo(path, 0o600)
    with pytest.raises(EnvironmentFault, match="not a file"):
        words(path)
    path.unlink()
    path.mkdir(0o700)
    with pytest.raises(EnvironmentFault, match="not a file"):
        words(path)


# -- foreign content --------------------------------------------------------------------------------------
def test_content_as_we_write_it_is_taken(path: Path) -> None:
    write(path, GOOD.encode())
    assert words(path) == ("one",)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "\n",
        "{",
        "null",
        "[]",
        "{}",
        GOOD.strip(),
        GOOD + "\n",
        GOOD + " trailing",
        "\ufeff" + GOOD,
        GOOD.replace("\n", "\r\n"),
        GOOD.replace('"one"', '"\\u006fne"'),
        GOOD.replace('"one"', '"one",\n  "one"'),
        GOOD.replace('"one"', "1"),
        GOOD.replace("1", "2"),
        GOOD.replace("1", '"1"'),
        GOOD.replace("1", "1.0"),
        GOOD.replace(' "version": 1,\n', ""),
        GOOD.replace(' "version": 1,\n', ' "version": 1,\n "version": 1,\n'),
        GOOD.replace(' "version": 1,\n', ' "version": 1,\n "more": 1,\n'),
        '{"version":1,"words":["one"]}',
        '{\n "words": [\n  "one"\n ],\n "version": 1\n}\n',
        "[" * 100_000,
    ],
)
def test_foreign_content_is_refused_and_not_changed(path: Path, content: str) -> None:
    write(path, content.encode())
    before = path.read_bytes()
    with pytest.raises(EnvironmentFault, match="not as gatebook writes it"):
        words(path)
    with pytest.raises(EnvironmentFault, match="not as gatebook writes it"):
        add(path, "two")
    assert path.read_bytes() == before


def test_no_torn_file_is_taken(path: Path) -> None:
    for length in range(len(GOOD)):
        write(path, GOOD.encode()[:length])
        with pytest.raises(EnvironmentFault, match="not as gatebook writes it"):
            words(path)


def test_bytes_that_are_no_text_are_refused(path: Path) -> None:
    write(path, GOOD.encode().replace(b"one", b"on\xff"))
    with pytest.raises(EnvironmentFault, match="not as gatebook writes it"):
        words(path)


def test_file_beyond_all_measure_is_refused(path: Path) -> None:
    write(path, GOOD.encode())
    kind = dataclasses.replace(KIND, max_bytes=len(GOOD))
    assert kept.read(path, kind).document.words == ("one",)
    with pytest.raises(EnvironmentFault, match="would grow beyond"), kept.change(path, kind) as change:
        change.become(type(change.document)(version=1, words=("one", "two")), quiet)
    assert words(path) == ("one",)
    with pytest.raises(EnvironmentFault, match="more than"):
        kept.read(path, dataclasses.replace(KIND, max_bytes=len(GOOD) - 1))
