"""What may happen only once: again, after a crash, with a wrong clock, on a full disk."""

from __future__ import annotations

import hashlib
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gatebook.errors import EnvironmentFault, LedgerFull
from gatebook.recorder.once import FORGOTTEN_FOR_EACH, MARGIN_US, Once

SECOND = 1_000_000
HOUR = 3600 * SECOND
NOW = 1_800_000_000 * SECOND


class Clocks:
    def __init__(self) -> None:
        self.now = NOW
        self.steady = 0

    def passes(self, time_us: int) -> None:
        self.now += time_us
        self.steady += time_us


@pytest.fixture
def clocks() -> Clocks:
    return Clocks()


@pytest.fixture
def opened(tmp_path: Path, clocks: Clocks) -> Iterator[Callable[[], Once]]:
    made: list[Once] = []

    def call() -> Once:
        made.append(Once(tmp_path / "once.sqlite", lambda: clocks.now, lambda: clocks.steady))
        return made[-1]

    yield call
    for once in made:
        once.close()


def key(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()


def use(once: Once, name: str, until_us: int = NOW + 300 * SECOND) -> bool:
    first = once.take(key(name), until_us)
    once.commit()
    return first


def rows(once: Once) -> int:
    return int(once._db.execute("SELECT count(*) FROM used").fetchone()[0])


def test_second_use_is_told_from_the_first(opened: Callable[[], Once]) -> None:
    once = opened()
    assert [use(once, "a"), use(once, "a"), use(once, "b"), use(once, "a")] == [True, False, True, False]


def test_two_uses_in_one_group_are_one_first(opened: Callable[[], Once]) -> None:
    once = opened()
    assert [once.take(key("a"), NOW) for _ in range(3)] == [True, False, False]
    once.commit()
    assert not use(once, "a")


def test_use_is_known_after_a_restart(opened: Callable[[], Once]) -> None:
    once = opened()
    assert use(once, "a")
    once.close()
    assert not use(opened(), "a")


def test_use_is_known_after_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "once.sqlite"
    program = (
        "import os, sys; from pathlib import Path; from gatebook.recorder.once import Once\n"
        f"once = Once(Path({str(path)!r})); first = once.take(bytes(32), 1 << 61)\n"
        "once.commit(); print(first, flush=True); once.take(bytes([1] * 32), 1 << 61); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("True\n", -9), done.stderr
    once = Once(path)
    assert not once.take(bytes(32), 0)
    assert once.take(bytes([1] * 32), 0)  # nobody was told of that one
    once.close()


def test_later_use_cannot_shorten_the_memory(opened: Callable[[], Once], clocks: Clocks) -> None:
    once = opened()
    use(once, "a", NOW + 10 * HOUR)
    use(once, "a", NOW)
    clocks.passes(5 * HOUR)
    for number in range(3):
        use(once, f"other-{number}", clocks.now)
    assert not use(once, "a", NOW)


def test_what_is_over_is_forgotten_and_what_is_not_stays(opened: Callable[[], Once], clocks: Clocks) -> None:
    once = opened()
    for number in range(100):
        use(once, f"short-{number}", NOW + SECOND)
    use(once, "long", NOW + 24 * HOUR)
    clocks.passes(2 * HOUR)
    for number in range(1, 40):
        use(once, f"new-{number}", clocks.now + SECOND)
    assert rows(once) == 40
    assert not use(once, "long", 0)


def test_memory_becomes_less_when_much_has_piled_up(opened: Callable[[], Once], clocks: Clocks) -> None:
    once = opened()
    for number in range(10 * FORGOTTEN_FOR_EACH):
        use(once, f"old-{number}", NOW)
    clocks.passes(2 * HOUR)
    use(once, "new", clocks.now + HOUR)
    assert rows(once) == 9 * FORGOTTEN_FOR_EACH + 1


# -- clocks -----------------------------------------------------------------------------------------------
def test_clock_that_jumps_ahead_and_back_forgets_nothing(opened: Callable[[], Once], clocks: Clocks) -> None:
    once = opened()
    use(once, "a")
    clocks.passes(HOUR)
    clocks.now += 365 * 24 * HOUR
    for number in range(50):
        clocks.passes(SECOND)
        use(once, f"b-{number}", clocks.now)
    clocks.now -= 365 * 24 * HOUR
    assert not use(once, "a")


def test_clock_that_is_ahead_at_the_start_forgets_nothing(opened: Callable[[], Once], clocks: Clocks) -> None:
    use(opened(), "a")
    clocks.now += 365 * 24 * HOUR
    clocks.steady = 7
    once = opened()
    for number in range(50):
        use(once, f"b-{number}", clocks.now)
    clocks.now = NOW
    assert not use(once, "a")
    assert use(once, "c")
    assert not use(once, "c")


def test_clock_set_back_makes_nothing_new(opened: Callable[[], Once], clocks: Clocks) -> None:
    once = opened()
    use(once, "a")
    clocks.now -= 365 * 24 * HOUR
    assert not use(once, "a")


def test_nothing_is_forgotten_within_the_margin(opened: Callable[[], Once], clocks: Clocks) -> None:
    once = opened()
    use(once, "a", NOW)
    clocks.passes(MARGIN_US)
    use(once, "b", clocks.now)
    assert not use(once, "a", NOW)


def test_proof_of_long_ago_does_not_keep_others_in_memory(opened: Callable[[], Once], clocks: Clocks) -> None:
    use(opened(), "a", 0)
    once = opened()
    use(once, "b", NOW)
    clocks.passes(2 * HOUR)
    use(once, "c", clocks.now)
    assert rows(once) == 1


# -- the file ---------------------------------------------------------------------------------------------
def test_file_is_private(opened: Callable[[], Once], tmp_path: Path) -> None:
    use(opened(), "a")
    assert {stat.S_IMODE(entry.stat().st_mode) for entry in tmp_path.iterdir()} == {0o600}


def test_file_that_is_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "once.sqlite"
    path.write_bytes(b"not a database, but something else of some length" * 100)
    with pytest.raises(EnvironmentFault, match="can be used once more"):
        Once(path)


def test_disk_that_is_full_is_said_and_nothing_is_told(opened: Callable[[], Once]) -> None:
    once = opened()
    use(once, "a")
    pages = once._db.execute("PRAGMA page_count").fetchone()[0]
    once._db.execute(f"PRAGMA max_page_count = {pages}")

    def fill() -> None:
        for number in range(10_000):
            use(once, f"b-{number}")

    with pytest.raises(LedgerFull, match="make room"):
        fill()


def test_lock_that_another_holds_is_a_failure_and_no_second_use(
    opened: Callable[[], Once], tmp_path: Path
) -> None:
    once = opened()
    once._db.execute("PRAGMA busy_timeout = 0")
    foreign = sqlite3.connect(tmp_path / "once.sqlite", isolation_level=None)
    foreign.execute("BEGIN IMMEDIATE")
    with pytest.raises(LedgerFull):
        use(once, "a")
    foreign.close()
