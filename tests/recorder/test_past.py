"""The time that retention goes by: whatever the machine's clock does, it is never later than it surely is."""

from __future__ import annotations

from pathlib import Path

import pytest

from gatebook.errors import EnvironmentFault
from gatebook.recorder import past
from gatebook.recorder.past import Past

SECOND, HOUR, DAY = 1_000_000, 3_600_000_000, 86_400_000_000
T0 = 1_700_000_000 * SECOND


def run(clock: Past, now: int, counted: int, hours: int, step: int = 60 * SECOND) -> tuple[int, int]:
    """Both clocks go on for so long."""
    for _ in range(hours * HOUR // step):
        now, counted = now + step, counted + step
        clock.count(now, counted)
    return now, counted


def test_clock_that_is_right_is_followed() -> None:
    clock = Past(T0, 0, T0, 5)
    now, _ = run(clock, T0, 5, 30)
    assert clock.surely_us(now) == now
    assert clock.trusted_us == now


def test_clock_that_jumps_ahead_moves_nothing_however_long_it_stays_there() -> None:
    clock = Past(T0, 0, T0, 0)
    now, counted = run(clock, T0, 0, 1)
    assert clock.surely_us(now + 3650 * DAY) == now
    wrong, _ = run(clock, now + 3650 * DAY, counted, 48)
    assert clock.surely_us(wrong) == now + 48 * HOUR


def test_clock_that_jumps_ahead_and_back_is_followed_again() -> None:
    clock = Past(T0, 0, T0, 0)
    now, counted = run(clock, T0, 0, 1)
    run(clock, now + 365 * DAY, counted, 1)
    assert clock.surely_us(now + HOUR) == now + HOUR


def test_clock_that_crawls_ahead_moves_little() -> None:
    """Half a minute more each minute would make three months of two."""
    clock = Past(T0, 0, T0, 0)
    now, counted = T0, 0
    for _ in range(60 * 24):
        now, counted = now + 90 * SECOND, counted + 60 * SECOND
        clock.count(now, counted)
    assert clock.surely_us(now) == T0 + DAY


def test_clock_that_is_set_right_by_seconds_is_followed() -> None:
    clock = Past(T0, 0, T0, 0)
    clock.count(T0 + 63 * SECOND, 60 * SECOND)
    assert clock.surely_us(T0 + 63 * SECOND) == T0 + 63 * SECOND


def test_clock_that_goes_back_is_believed_since_nothing_is_older_by_it() -> None:
    clock = Past(T0, 0, T0, 0)
    assert clock.surely_us(T0 - DAY) == T0 - DAY


@pytest.mark.parametrize(("days", "believed"), [(1, True), (7, True), (8, False), (3650, False)])
def test_machine_that_was_off_is_believed_for_a_week(days: int, believed: bool) -> None:
    now = T0 + days * DAY
    clock = Past(T0, 0, now, 0)
    clock.count(now, 0)
    assert clock.surely_us(now) == (now if believed else T0)


def test_many_starts_do_not_add_up_to_a_year() -> None:
    """A recorder that dies every ten minutes under a clock that is set ahead each time."""
    trusted, now, counted = T0, T0, 0
    for _ in range(100):
        now += 7 * DAY
        clock = Past(trusted, 0, now, counted)
        for _ in range(10):
            now, counted = now + 60 * SECOND, counted + 60 * SECOND
            clock.count(now, counted)
        trusted = clock.trusted_us
    assert trusted == T0 + 100 * 600 * SECOND


def test_week_off_is_handed_down_after_an_hour() -> None:
    clock = Past(T0, 0, T0 + 7 * DAY, 0)
    now, counted = run(clock, T0 + 7 * DAY, 0, 2)
    assert clock.trusted_us == now
    again = Past(clock.trusted_us, 0, now, counted)
    assert again.surely_us(now) == now


def test_without_a_trusted_time_that_of_the_ledger_has_to_do() -> None:
    assert Past(0, T0, T0 + DAY, 0).surely_us(T0 + DAY) == T0 + DAY
    assert Past(0, T0, T0 + 400 * DAY, 0).surely_us(T0 + 400 * DAY) == T0


def test_file_is_read_as_it_was_written_and_refused_otherwise(tmp_path: Path) -> None:
    path = tmp_path / "retention.json"
    assert past.read(path) == 0
    past.write(path, T0)
    assert past.read(path) == T0
    path.write_text('{"version": 1, "trusted_us": 99999999999999999999}')
    with pytest.raises(EnvironmentFault, match="not as gatebook writes it"):
        past.read(path)
    path.unlink()
    with pytest.raises(EnvironmentFault, match="is gone"):
        past.read(path)
