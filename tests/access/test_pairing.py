"""Pairing: an outcome that is missing is found, one that is still to come is not held against the log."""

from __future__ import annotations

from typing import Any

import pytest
from tests.access.ledger import T0, decision, encoded, outcome, refused, request_id, unknown

from gatebook import record
from gatebook.access.pairing import Pairing
from gatebook.access.totals import Kind
from gatebook.ledger.entry import Boot, Entry, Heartbeat
from gatebook.ledger.verify import Remark

START = Boot(bytes(16), bytes(32), 0, bytes(32), True)


def beat(open_: int = 0, **counts: int) -> Heartbeat:
    known = {"decisions": 0, "outcomes": 0, "requests": 0, "lost": 0}
    return Heartbeat(T0, open=open_, **{**known, **counts})


def judged(*items: record.Record | bytes | Entry, pairing: Pairing | None = None) -> list[tuple[int, Remark]]:
    """What is said of each."""
    pairing = pairing or Pairing()
    said: list[tuple[int, Remark]] = []
    for index, item in enumerate(items):
        if isinstance(item, (Boot, Heartbeat)):
            said += [(index, remark) for remark in pairing.entry(index, item)]
            continue
        assert isinstance(item, record.Record | bytes)
        remark = pairing.record(index, encoded([item])[0])
        if remark is not None:
            said.append((index, remark))
    return said


def test_pairs_by_index_and_by_id_are_fine() -> None:
    assert judged(decision(1), decision(2), outcome(2, 1), outcome(1, None), beat()) == []
    assert judged(outcome(1, None), decision(1), beat()) == []
    assert judged(decision(1, verdict="deny"), unknown(0), refused(3), beat()) == []


def test_outcome_that_a_heartbeat_says_is_there_but_is_not_is_incomplete() -> None:
    ((index, remark),) = judged(decision(1), decision(2), decision(3), beat(1))
    assert index == 3
    assert remark.kind == "incomplete"
    assert "2 more" in remark.what
    assert "entry 0" in remark.consequence


def test_missing_outcome_is_told_once_not_at_each_heartbeat() -> None:
    pairing = Pairing()
    first = judged(decision(1), beat(), beat(1), pairing=pairing)
    assert [index for index, _ in first] == [1]
    assert [len(pairing.entry(9, beat())) for _ in range(2)] == [0, 0]
    assert pairing.totals.missing == 1


def test_open_decisions_that_the_recorder_knows_of_are_fine() -> None:
    pairing = Pairing()
    assert judged(decision(1), decision(2), beat(2), pairing=pairing) == []
    assert pairing.totals.allowed.open == 2
    assert pairing.summary() == [f"the oldest open decision is entry 0, request {request_id(1)}"]


def test_outcome_of_another_request_is_incomplete() -> None:
    ((index, remark),) = judged(decision(1), outcome(2, 0))
    assert (index, remark.kind) == (1, "incomplete")
    assert request_id(1) in remark.consequence


def test_record_of_a_later_version_is_damaged_not_passed_over() -> None:
    ((index, remark),) = judged(decision(1), b'{"v":2,"kind":"decision"}')
    assert (index, remark.kind) == (1, "damaged")
    assert "newer gatebook" in remark.consequence


def test_hole_in_the_log_makes_no_outcome_missing() -> None:
    pairing = Pairing()
    assert judged(START, decision(1), decision(2), pairing=pairing) == []
    pairing.hole(3, 9)
    assert pairing.entry(9, beat(decisions=8, outcomes=8)) == []
    assert pairing.totals.allowed == Kind(total=2, untold=2)
    assert (pairing.totals.checked, pairing.totals.unchecked) == (0, 1)
    assert len(pairing.entry(10, beat(decisions=1))) == 1  # from there on it can be judged again


def test_open_decisions_are_bounded() -> None:
    pairing = Pairing(max_open=10, max_early=10)
    assert judged(*(decision(n) for n in range(25)), pairing=pairing) == []
    assert judged(*(outcome(100 + n, None, upstream=None) for n in range(25)), pairing=pairing) == []
    assert pairing.totals.allowed == Kind(total=25, open=10, untold=15)


# -- what heartbeats count ---------------------------------------------------------------------------------
GOOD = (START, decision(1), outcome(1, 1), decision(2, verdict="deny"), outcome(2, 3, 403), refused(3))


def counted(*items: Any, **counts: int) -> tuple[list[str], Pairing]:
    pairing = Pairing()
    said = judged(*items, beat(**counts), pairing=pairing)
    return [remark.what for _, remark in said], pairing


def test_heartbeat_that_counts_what_is_there_agrees() -> None:
    said, pairing = counted(*GOOD, decisions=2, outcomes=3, requests=3)
    assert said == []
    assert (pairing.totals.checked, pairing.totals.contradicted) == (1, 0)


def test_record_that_is_missing_contradicts_the_heartbeat() -> None:
    for gone, counts in ((1, "2 decisions where the log holds 1"), (5, "3 outcomes where the log holds 2")):
        items = [item for at, item in enumerate(GOOD) if at != gone]
        said, pairing = counted(*items, decisions=2, outcomes=3, requests=3)
        assert any(counts in what for what in said), said
        assert pairing.totals.contradicted == 1


def test_record_that_the_recorder_never_wrote_contradicts_the_heartbeat() -> None:
    said, _ = counted(*GOOD, decision(9), outcome(9, 6), decisions=2, outcomes=3, requests=3)
    assert "2 decisions where the log holds 3" in said[0]
    assert "3 outcomes where the log holds 4" in said[0]


def test_outcome_that_no_line_was_read_for_contradicts_the_heartbeat() -> None:
    said, _ = counted(*GOOD, decisions=2, outcomes=3, requests=2)
    assert "2 requests of the gateway's log where 3 have an outcome" in said[0]


def test_line_that_was_read_and_has_no_outcome_contradicts_the_heartbeat_unless_it_was_lost() -> None:
    said, _ = counted(*GOOD, decisions=2, outcomes=3, requests=4)
    assert "4 requests of the gateway's log where 3 have an outcome" in said[0]
    assert counted(*GOOD, decisions=2, outcomes=3, requests=4, lost=1)[0] == []


def test_outcomes_without_a_line_are_none_of_the_lines_that_were_read() -> None:
    handshake = record.Outcome(time_us=T0, error=record.ErrorPart(source="client", detail="tls_handshake_failed"))
    assert counted(START, decision(1), unknown(1), handshake, decisions=1, outcomes=2, requests=0)[0] == []


def test_start_in_between_leaves_nothing_to_compare_and_that_is_counted() -> None:
    said, pairing = counted(START, decision(1), START, outcome(1, 1), outcomes=1, requests=1)
    assert said == []
    assert (pairing.totals.checked, pairing.totals.unchecked) == (1, 1)


def test_nothing_is_compared_before_the_first_start_that_was_seen() -> None:
    assert counted(decision(1), decisions=7, outcomes=7)[1].totals.unchecked == 1


# -- let through without a decision ------------------------------------------------------------------------
def through(number: int) -> record.Outcome:
    """A line of the gateway's log that names an upstream, and no decision."""
    return outcome(number, None, upstream=record.UpstreamPart(name="orders", status=200))


def test_request_that_was_let_through_without_a_decision_is_incomplete() -> None:
    for rest in ((beat(), beat()), (START,)):
        ((index, remark),) = judged(refused(2), through(1), *rest)
        assert (index, remark.kind) == (1 + len(rest), "incomplete")
        assert "1 requests were let through" in remark.what
        assert "outcome of them is 1" in remark.consequence


def test_decision_that_comes_behind_its_outcome_is_waited_for() -> None:
    assert judged(through(1)) == []
    assert judged(through(1), beat(), decision(1), beat(decisions=1), beat(), START) == []


def test_request_let_through_is_told_although_too_many_others_came_before_its_decision() -> None:
    pairing = Pairing(max_early=3)
    said = judged(through(1), *(refused(n) for n in range(2, 9)), pairing=pairing)
    assert [remark.kind for _, remark in said] == ["incomplete"]
    assert pairing.totals.undecided == 1


# -- every record in one place -------------------------------------------------------------------------------
def test_totals_count_every_record_once() -> None:
    pairing = Pairing()
    started = record.System(time_us=T0, event="recorder.start")
    connected = {"connection": 7, "request": record.RequestPart(method="GET", path="/a", protocol="1.1")}
    judged(
        started,
        decision(1, connection_request=1, **connected),
        decision(2, verdict="deny", connection_request=2, **connected),
        unknown(1),
        outcome(1, 1),
        refused(5),
        outcome(6, None, error=record.ErrorPart(source="limit", detail="flood_requests")),
        outcome(7, None),
        decision(7),
        decision(8),
        pairing=pairing,
    )
    totals = pairing.totals
    assert totals.allowed == Kind(total=3, outcome=1, unknown=1, open=1)
    assert totals.denied == Kind(total=1, open=1)
    assert {source: count for source, count in totals.alone.items() if count} == {"none": 1, "limit": 1}
    assert (totals.repeated, totals.others, totals.numbered, totals.connections) == (1, 1, 2, 1)
    assert (totals.decisions, totals.outcomes) == (4, 5)


def test_ten_thousand_accesses_leave_nothing_behind_in_memory() -> None:
    pairing = Pairing()
    for number in range(10_000):
        pairing.record(2 * number, encoded([decision(number)])[0])
        pairing.record(2 * number + 1, encoded([outcome(number, 2 * number)])[0])
    held = [value for value in vars(pairing).values() if isinstance(value, dict)]
    assert len(held) == 6
    assert sum(map(len, held)) == 0


# -- erasures ---------------------------------------------------------------------------------------------------


def order_of(action: str, actor: str = "os:7") -> bytes:
    return record.encode(record.Admin(time_us=1, action=action, actor=actor))


@pytest.mark.parametrize(("kind", "action"), [(1, "erase.subject"), (2, "erase.record"), (3, "erase.segment")])
def test_erasure_on_an_order_of_its_kind_is_told_with_whose_it_was(kind: int, action: str) -> None:
    pairing = Pairing()
    assert pairing.erasure(9, kind, order_of(action)) is None
    assert any(f"({action}) are on the order of os:7" in text for text in pairing.summary())


@pytest.mark.parametrize(
    "order", [order_of("key.create"), order_of("erase.subject"), b"no record", encoded([decision(1)])[0]]
)
def test_erasure_on_the_word_of_something_else_is_incomplete(order: bytes) -> None:
    remark = Pairing().erasure(9, 2, order)
    assert remark is not None
    assert "orders no such erasure" in remark.what


def test_outcome_that_was_erased_is_not_missed_and_no_other_is_excused_by_it() -> None:
    pairing = Pairing()
    for number in (1, 2):
        pairing.record(number, encoded([decision(number)])[0])
    pairing.removed(3)
    assert pairing.entry(4, Heartbeat(0, 2, 1, 1, 1, 0)) == []
    (missing,) = pairing.entry(5, Heartbeat(0, 0, 0, 0, 0, 0))
    assert "1 more have no outcome" in missing.what
