"""Which lines are missing: those that never come, and never one that came, was read before, or may still come."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gatebook.recorder import numbering
from gatebook.recorder.numbering import ALL_UNKNOWN, PATIENCE_S, Missing, Numbering

WORKER = 7


def fresh(highest: dict[int, int] | None = None, *, ours: bool = True) -> Numbering:
    return Numbering({} if highest is None else highest, lambda worker: ours)


def missing(numbers: Numbering, at: float = PATIENCE_S) -> list[tuple[int, int, int]]:
    return [(each.connection, each.first, each.last) for each in numbers.missing(at, 100)]


def saw(numbers: Numbering, connection: int, *seen: int, at: float = 0.0) -> None:
    for number in seen:
        numbers.saw(WORKER, connection, number, at)


def test_numbers_in_a_row_miss_nothing() -> None:
    numbers = fresh()
    saw(numbers, 1, 1, 2, 3)
    assert missing(numbers) == []


def test_hole_is_told_once_and_not_before_its_time() -> None:
    numbers = fresh()
    saw(numbers, 1, 1, 4)
    assert missing(numbers, PATIENCE_S - 0.1) == []
    assert missing(numbers) == [(1, 2, 3)]
    assert missing(numbers, 1000.0) == []


def test_connection_whose_first_line_is_missing_is_told() -> None:
    numbers = fresh()
    saw(numbers, 1, 3)
    assert missing(numbers) == [(1, 1, 2)]


def test_last_lines_of_a_connection_may_be_missing_unnoticed() -> None:
    numbers = fresh()
    saw(numbers, 1, 1, 2)
    saw(numbers, 2, 1)
    assert missing(numbers, 1e9) == []


def test_line_that_was_read_late_is_not_missing() -> None:
    """Two files are read in turns when the gateway has just changed from one to the other."""
    numbers = fresh()
    saw(numbers, 1, 1, 5)
    saw(numbers, 1, 3, at=0.1)
    assert missing(numbers) == [(1, 2, 2), (1, 4, 4)]


def test_number_that_comes_twice_changes_nothing() -> None:
    numbers = fresh()
    saw(numbers, 1, 1, 2, 2, 1, 3)
    assert missing(numbers) == []


def test_connections_and_workers_are_told_apart() -> None:
    numbers = fresh()
    numbers.saw(7, 1, 1, 0.0)
    numbers.saw(8, 1, 2, 0.0)
    numbers.saw(7, 2, 1, 0.0)
    numbers.saw(7, 1, 2, 0.0)
    assert numbers.missing(PATIENCE_S, 100) == [Missing(8, 1, 1, 1)]


# -- never a false alarm ----------------------------------------------------------------------------------
def test_connection_that_another_process_may_have_read_of_is_judged_from_here_on() -> None:
    before = fresh()
    saw(before, 5, 1, 2)
    after = fresh(dict(before.highest))
    saw(after, 5, 4, 5, 7)
    saw(after, 3, 9, 10)
    assert missing(after) == [(5, 6, 6)]


def test_connection_that_is_new_after_a_restart_is_judged_from_its_beginning() -> None:
    before = fresh()
    saw(before, 5, 1)
    after = fresh(dict(before.highest))
    saw(after, 6, 2)
    assert missing(after) == [(6, 1, 1)]


def test_worker_that_is_older_than_the_log_is_judged_from_here_on() -> None:
    numbers = fresh(ours=False)
    saw(numbers, 5, 4, 5)
    saw(numbers, 6, 9)
    assert numbers.highest == {WORKER: ALL_UNKNOWN}
    assert missing(numbers) == []


def test_what_is_forgotten_is_not_judged() -> None:
    numbers = fresh()
    saw(numbers, 1, 1)
    for connection in range(2, numbering.MAX_CONNECTIONS + 3):
        saw(numbers, connection, 1)
    assert len(numbers._connections) == numbering.MAX_CONNECTIONS
    saw(numbers, 1, 7)
    assert missing(numbers) == []


def test_gap_is_not_forgotten_however_many_connections_come() -> None:
    """As somebody would open them who has just removed a line."""
    numbers = fresh()
    saw(numbers, 1, 1, 5)
    for connection in range(2, numbering.MAX_CONNECTIONS + 3):
        saw(numbers, connection, 1)
    saw(numbers, 1, 3, 6)
    assert missing(numbers) == [(1, 2, 2), (1, 4, 4)]
    assert numbers.gaps() == []


def test_gap_is_known_to_the_next_process_and_its_line_may_still_come() -> None:
    before = fresh()
    saw(before, 1, 1, 5)
    saw(before, 2, 2)
    after = Numbering(dict(before.highest), lambda worker: True, before.gaps(), 100.0)
    saw(after, 1, 3, 6, at=100.0)
    assert missing(after, 100.0 + PATIENCE_S - 1) == []
    assert missing(after, 100.0 + PATIENCE_S) == [(1, 2, 2), (1, 4, 4), (2, 1, 1)]


def test_worker_that_has_gone_leaves_nothing_behind_but_what_was_missing() -> None:
    numbers = fresh()
    saw(numbers, 1, 1, 3)
    numbers.forget(WORKER)
    assert numbers.highest == {}
    assert missing(numbers) == [(1, 2, 2)]


def test_as_many_as_were_asked_for_are_told_and_none_is_lost() -> None:
    numbers = fresh()
    saw(numbers, 1, *range(1, 40, 2))
    told: list[Missing] = []
    for _ in range(20):
        part = numbers.missing(PATIENCE_S, 3)
        assert len(part) <= 3
        told += part
    assert [(each.first, each.last) for each in told] == [(number, number) for number in range(2, 39, 2)]


def test_producer_names_worker_and_connection() -> None:
    assert Missing(1 << 40 | 4711, 9, 2, 3).producer == (4711).to_bytes(4, "big") + (9).to_bytes(4, "big")


@given(st.lists(st.booleans(), min_size=1, max_size=40), st.randoms(use_true_random=False))
def test_exactly_what_never_came_is_missing(come: list[bool], chance: object) -> None:
    """Lines a little out of order, as two files give them."""
    order = [number for number, comes in enumerate(come, 1) if comes]
    for at in range(0, len(order) - 1, 3):
        order[at], order[at + 1] = order[at + 1], order[at]
    numbers = fresh()
    saw(numbers, 1, *order)
    found = {number for _, first, last in missing(numbers) for number in range(first, last + 1)}
    assert found == {number for number in range(1, max(order, default=0)) if not come[number - 1]}
