"""The gateway's files: each line once, whoever is killed, renames, deletes, empties or tears what and when."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatebook.recorder import tail
from gatebook.recorder.tail import QUIET_S, ROTATE_AFTER_S, Log, epoch


class Nginx:
    """Writers with descriptors of their own, which they open anew when they are told to, each in its own time."""

    def __init__(self, folder: Path, workers: int = 1) -> None:
        self.folder = folder
        self.files = [-1] * workers
        self.signals = 0
        for worker in range(workers):
            self.reopen(worker)

    def signal(self) -> None:
        self.signals += 1

    def reopen(self, worker: int = 0) -> None:
        if self.files[worker] >= 0:
            os.close(self.files[worker])
        path = self.folder / "access.log"
        self.files[worker] = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def write(self, data: bytes, worker: int = 0) -> None:
        os.write(self.files[worker], data)

    def close(self) -> None:
        for file in self.files:
            os.close(file)


@pytest.fixture
def nginx(tmp_path: Path) -> Iterator[Nginx]:
    made = Nginx(tmp_path)
    yield made
    made.close()


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Callable[..., Log]]:
    made: list[Log] = []

    def call(offsets: dict[int, int] | None = None) -> Log:
        made.append(Log(tmp_path, "access", offsets or {}))
        return made[-1]

    yield call
    for log in made:
        log.close()


Opened = Callable[..., Log]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def retire(log: Log, at: float) -> bool:
    """As often as it takes, in time."""
    log.read()
    log.retire(at)
    return log.retire(at + QUIET_S)


def test_only_whole_lines_are_read(nginx: Nginx, opened: Opened) -> None:
    log = opened()
    nginx.write(b"one\ntwo\nthr")
    assert log.read() == [b"one", b"two"]
    assert log.read() == []
    nginx.write(b"ee\n")
    assert log.read() == [b"three"]


def test_next_process_goes_on_where_the_cursor_says(nginx: Nginx, opened: Opened) -> None:
    log = opened()
    nginx.write(b"one\n")
    log.read()
    durable = dict(log.offsets)
    nginx.write(b"two\n")
    log.read()
    assert opened(durable).read() == [b"two"]


def test_much_is_read_in_parts_and_in_order(nginx: Nginx, opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tail, "MAX_READ_BYTES", 64)
    log = opened()
    lines = [b"line %d" % number for number in range(100)]
    nginx.write(b"\n".join(lines) + b"\n")
    found: list[bytes] = []
    while more := log.read():
        found += more
    assert found == lines
    assert not log.behind()


def test_newer_file_waits_until_the_older_is_read_to_its_end(
    nginx: Nginx, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or a request would be read before the one before it."""
    monkeypatch.setattr(tail, "MAX_READ_BYTES", 64)
    log = opened()
    nginx.write(b"first\n")
    log.read()
    log.rotate(0.0, nginx.signal)
    log.rotate(ROTATE_AFTER_S, nginx.signal)
    old = [b"an old and rather long line, number %02d" % number for number in range(10)]
    nginx.write(b"\n".join(old) + b"\n")
    nginx.reopen()
    nginx.write(b"n\n")
    found: list[bytes] = []
    while more := log.read():
        found += more
    assert found == [*old, b"n"]


def test_line_without_an_end_that_is_longer_than_any_is_passed_over(
    nginx: Nginx, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tail, "MAX_READ_BYTES", 64)
    log = opened()
    nginx.write(b"x" * 150 + b"\nnext\n")
    found = [line for _ in range(5) for line in log.read()]
    assert b"".join(found[:-1]) == b"x" * 150
    assert found[-1] == b"next"


# -- rotation ---------------------------------------------------------------------------------------------
def test_file_is_deleted_only_when_it_is_read_quiet_and_behind_a_durable_cursor(
    nginx: Nginx, opened: Opened, tmp_path: Path
) -> None:
    log = opened()
    nginx.write(b"one\n")
    log.read()
    log.rotate(0.0, nginx.signal)
    assert nginx.signals == 0
    log.rotate(ROTATE_AFTER_S, nginx.signal)
    assert nginx.signals == 1
    assert names(tmp_path) == ["access.1.log"]
    assert not retire(log, 100.0)  # nginx has not opened the new file, so it writes to the old one
    nginx.write(b"late\n")
    nginx.reopen()
    assert log.read() == [b"late"]
    assert not log.retire(200.0)
    assert not log.retire(200.0 + QUIET_S / 2)
    assert log.retire(200.0 + QUIET_S)
    assert names(tmp_path) == ["access.1.log", "access.log"]  # not yet: the cursor is not durable
    assert log.offsets == {2: 0}
    log.sweep()
    assert names(tmp_path) == ["access.log"]


def test_file_that_still_grows_is_kept(nginx: Nginx, opened: Opened) -> None:
    nginx.files.append(-1)
    nginx.reopen(1)
    log = opened()
    nginx.write(b"one\n")
    log.read()
    log.rotate(0.0, nginx.signal)
    log.rotate(ROTATE_AFTER_S, nginx.signal)
    nginx.reopen(0)
    for second in range(100, 200, 5):
        nginx.write(b"slow worker\n", 1)
        assert log.read() == [b"slow worker"]
        assert not log.retire(float(second))


def test_empty_file_is_not_rotated(nginx: Nginx, opened: Opened) -> None:
    log = opened()
    for second in range(0, 600, 60):
        log.rotate(float(second), nginx.signal)
    assert nginx.signals == 0


def test_gateway_that_has_not_reopened_is_asked_again(nginx: Nginx, opened: Opened) -> None:
    log = opened()
    nginx.write(b"one\n")
    log.read()
    log.rotate(0.0, nginx.signal)
    log.rotate(ROTATE_AFTER_S, nginx.signal)
    log.rotate(ROTATE_AFTER_S + 1, nginx.signal)
    assert nginx.signals == 2


def test_crash_between_renaming_and_reopening_loses_and_doubles_nothing(nginx: Nginx, opened: Opened) -> None:
    log = opened()
    nginx.write(b"one\n")
    log.read()
    durable = dict(log.offsets)
    log.rotate(0.0, nginx.signal)
    log.rotate(ROTATE_AFTER_S, lambda: None)  # killed before the signal
    nginx.write(b"two\n")
    following = opened(durable)
    following.rotate(0.0, nginx.signal)
    assert nginx.signals == 1
    nginx.reopen()
    nginx.write(b"three\n")
    assert following.read() == [b"two", b"three"]


def test_two_rotations_that_no_cursor_knows_lose_and_double_nothing(nginx: Nginx, opened: Opened) -> None:
    log = opened()
    nginx.write(b"one\n")
    log.read()
    durable = dict(log.offsets)
    for number in range(2):
        log.rotate(1000.0 * number, nginx.signal)
        log.rotate(1000.0 * number + ROTATE_AFTER_S, nginx.signal)
        nginx.reopen()
        nginx.write(b"after %d\n" % number)
        log.read()
    assert opened(durable).read() == [b"after 0", b"after 1"]


def test_retired_file_whose_deletion_a_crash_prevented_is_not_read_again(
    nginx: Nginx, opened: Opened, tmp_path: Path
) -> None:
    log = opened()
    for number in range(3):
        nginx.write(b"line %d\n" % number)
        log.read()
        log.rotate(1000.0 * number, nginx.signal)
        log.rotate(1000.0 * number + ROTATE_AFTER_S, nginx.signal)
        nginx.reopen()
    # The middle one is retired first: a worker had not let go of the oldest.
    log._retire(2)
    following = opened(dict(log.offsets))
    assert following.read() == []
    assert "access.2.log" not in names(tmp_path)
    assert {"access.1.log", "access.3.log"} <= set(names(tmp_path))


# -- what others do to the files --------------------------------------------------------------------------
def test_line_that_a_kill_has_torn_holds_up_nobody(nginx: Nginx, opened: Opened) -> None:
    log = opened()
    nginx.write(b'one\n{"i":"to')
    assert log.read() == [b"one"]
    assert not log.behind()
    log.rotate(0.0, nginx.signal)
    log.rotate(ROTATE_AFTER_S, nginx.signal)
    nginx.reopen()
    assert retire(log, 100.0)
    assert log.torn == 1


def test_what_no_read_has_looked_at_is_behind(nginx: Nginx, opened: Opened) -> None:
    log = opened()
    assert not log.behind()
    nginx.write(b"half a li")
    assert log.behind()
    log.read()
    assert not log.behind()
    nginx.write(b"ne\n")
    assert log.behind()


def test_file_that_somebody_empties_is_read_from_its_beginning(
    nginx: Nginx, opened: Opened, tmp_path: Path
) -> None:
    log = opened()
    nginx.write(b"one\ntwo\n")
    log.read()
    os.truncate(tmp_path / "access.log", 0)
    assert log.read() == []
    nginx.write(b"three\n")
    assert log.read() == [b"three"]
    assert (log.torn, log.gone) == (0, 1)


def test_file_that_a_power_failure_has_shortened_is_read_from_its_end(
    nginx: Nginx, opened: Opened, tmp_path: Path
) -> None:
    log = opened()
    nginx.write(b"one\ntwo\n")
    log.read()
    os.truncate(tmp_path / "access.log", 4)
    following = opened(dict(log.offsets))
    nginx.write(b"three\n")
    assert following.read() == [b"three"]


def test_file_that_somebody_deletes_is_read_to_its_end_and_made_anew(
    nginx: Nginx, opened: Opened, tmp_path: Path
) -> None:
    log = opened()
    nginx.write(b"one\n")
    log.read()
    (tmp_path / "access.log").unlink()
    nginx.write(b"two\n")
    log.rotate(0.0, nginx.signal)
    log.rotate(ROTATE_AFTER_S, nginx.signal)
    assert nginx.signals == 1
    nginx.reopen()
    nginx.write(b"three\n")
    assert log.read() == [b"two", b"three"]
    assert retire(log, 100.0)
    log.sweep()


def test_log_that_was_deleted_while_nobody_read_is_asked_for_again(
    nginx: Nginx, opened: Opened, tmp_path: Path
) -> None:
    log = opened()
    nginx.write(b"one\n")
    log.read()
    (tmp_path / "access.log").unlink()
    following = opened(dict(log.offsets))
    following.rotate(0.0, nginx.signal)
    assert nginx.signals == 1
    nginx.reopen()
    nginx.write(b"two\n")
    assert following.read() == [b"two"]
    assert following.torn == 0


def test_link_in_the_place_of_a_log_is_not_followed(tmp_path: Path, opened: Opened) -> None:
    (tmp_path / "other").write_bytes(b"somebody's secret\n")
    (tmp_path / "access.log").symlink_to(tmp_path / "other")
    with pytest.raises(OSError, match="symbolic link"):
        opened()


def test_other_names_are_left_alone(tmp_path: Path, opened: Opened) -> None:
    for name in ("access.x.log", "access.01.log", "access.1.log.gz", "error.1.log"):
        (tmp_path / name).write_bytes(b"not ours\n")
    log = opened({9: 5})
    assert log.read() == []
    assert log.offsets == {9: 0}
    assert len(names(tmp_path)) == 4


def test_at_the_end_nothing_stays_behind_in_clear(nginx: Nginx, opened: Opened, tmp_path: Path) -> None:
    log = opened()
    nginx.write(b"one\n")
    log.read()
    log.put_away()
    durable = dict(log.offsets)
    log.sweep()
    assert names(tmp_path) == []
    following = opened(durable)
    nginx.reopen()
    nginx.write(b"two\n")
    assert following.read() == [b"two"]
    assert following.torn == 0


# -- anything, in any order -------------------------------------------------------------------------------
@settings(max_examples=150, deadline=None)
@given(st.randoms(use_true_random=False), st.lists(st.sampled_from("wwwrrtodsk"), max_size=60))
def test_each_line_is_read_once_whatever_happens(
    tmp_path_factory: pytest.TempPathFactory, chance: random.Random, steps: list[str]
) -> None:
    """w: a worker writes, r: read and make durable, t: time passes, o: a worker reopens, d: read, not durable,
    s: sweep, k: kill -9 and start again."""
    folder = tmp_path_factory.mktemp("log")
    nginx = Nginx(folder, 2)
    log, now, written = Log(folder, "access", {}), 0.0, 0
    durable: dict[int, int] = {}
    found: list[bytes] = []
    unsure: list[bytes] = []
    told = [False, False]

    def signal() -> None:
        told[:] = True, True

    try:
        for step in [*steps, "k", "o", "o", "r"]:
            match step:
                case "w":
                    nginx.write(b"%d\n" % written, chance.randrange(2))
                    written += 1
                case "r" | "d":
                    unsure += log.read()
                    if step == "r":
                        found += unsure
                        unsure, durable = [], dict(log.offsets)
                case "t":
                    now += ROTATE_AFTER_S
                    log.rotate(now, signal)
                    # The signal reaches every worker long before a file counts as quiet.
                    for worker in range(2):
                        if told[worker]:
                            nginx.reopen(worker)
                    told[:] = False, False
                    log.retire(now)
                case "o":
                    nginx.reopen(chance.randrange(2))
                case "s":
                    unsure += log.read()
                    found += unsure
                    unsure, durable = [], dict(log.offsets)
                    log.sweep()
                case "k":
                    log.close()
                    unsure = []
                    log = Log(folder, "access", durable)
        assert sorted(found, key=int) == [b"%d" % number for number in range(written)]
    finally:
        log.close()
        nginx.close()


def test_epoch_lives_as_long_as_the_folder(tmp_path: Path) -> None:
    first = epoch(tmp_path, "here")
    assert epoch(tmp_path, "there") == first
    assert first.partition(" ")[2] == "here"
    (tmp_path / "epoch").unlink()
    assert epoch(tmp_path, "here") != first
    assert names(tmp_path) == ["epoch"]
