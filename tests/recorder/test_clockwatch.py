"""A clock that is set ahead is told from time that passes, also while the machine sleeps."""

from __future__ import annotations

import pytest

from gatebook.ledger.entry import CLOCK, Loss, LossReason
from gatebook.recorder.clockwatch import ClockWatch, steady_s

T0_S = 1_700_000_000


class Clocks:
    def __init__(self) -> None:
        self.wall_us = T0_S * 1_000_000
        self.steady = 5000.0
        self.watch = ClockWatch(lambda: max(0, self.wall_us), lambda: self.steady)

    def passes(self, seconds: float, set_by_s: float = 0) -> None:
        self.steady += seconds
        self.wall_us += int((seconds + set_by_s) * 1e6)


def test_seconds_that_were_left_out_are_named_once() -> None:
    clocks = Clocks()
    clocks.passes(10, set_by_s=3600)
    assert clocks.watch.look() == Loss(CLOCK, T0_S + 10, T0_S + 3610, LossReason.CLOCK_SET)
    clocks.passes(10)
    assert clocks.watch.look() is None


@pytest.mark.parametrize("seconds", [0.001, 59, 86_400 * 365])
def test_time_that_passes_is_never_explained_away(seconds: float) -> None:
    """The recorder was stopped, or the machine slept: that is a silence."""
    clocks = Clocks()
    clocks.passes(seconds)
    assert clocks.watch.look() is None


def test_small_steps_and_slewing_add_up_to_nothing() -> None:
    clocks = Clocks()
    for _ in range(1000):
        clocks.passes(60, set_by_s=1)
        assert clocks.watch.look() is None


def test_clock_set_back_leaves_out_nothing_and_set_right_again_says_so() -> None:
    clocks = Clocks()
    clocks.passes(1, set_by_s=-2 * T0_S)
    assert clocks.watch.look() is None
    clocks.passes(1, set_by_s=2 * T0_S)
    found = clocks.watch.look()
    assert found is not None
    assert found.first_seq < 2, "there is no time before 1970 here"
    assert found.last_seq == T0_S + 2


def test_steady_clock_goes_on() -> None:
    before = steady_s()
    assert steady_s() >= before > 0
