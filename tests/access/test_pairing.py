"""Pairing: an outcome that is missing is found, one that is still to come is not held against the log."""

from __future__ import annotations

from tests.access.ledger import T0, decision, encoded, outcome, refused, request_id, unknown

from gatebook import record
from gatebook.access.pairing import Pairing
from gatebook.ledger.verify import Remark


def judged(*records: record.Record | bytes | int, pairing: Pairing | None = None) -> list[tuple[int, Remark]]:
    """What is said of each; an int is a heartbeat with so many open decisions."""
    pairing = pairing or Pairing()
    said = []
    for index, item in enumerate(records):
        if isinstance(item, int):
            remark = pairing.heartbeat(index, item)
        else:
            remark = pairing.record(index, encoded([item])[0])
        if remark is not None:
            said.append((index, remark))
    return said


def test_pairs_by_index_and_by_id_are_fine() -> None:
    assert judged(decision(1), decision(2), outcome(2, 1), outcome(1, None), 0) == []
    assert judged(outcome(1, None), decision(1), 0) == []
    assert judged(decision(1, verdict="deny"), unknown(0), refused(3), 0) == []


def test_outcome_that_a_heartbeat_says_is_there_but_is_not_is_incomplete() -> None:
    ((index, remark),) = judged(decision(1), decision(2), decision(3), 1)
    assert index == 3
    assert remark.kind == "incomplete"
    assert "2 more" in remark.what
    assert "entry 0" in remark.consequence


def test_missing_outcome_is_told_once_not_at_each_heartbeat() -> None:
    said = judged(decision(1), 0, 0, decision(2), 1, 0)
    assert [index for index, _ in said] == [1, 5]


def test_open_decisions_that_the_recorder_knows_of_are_fine() -> None:
    pairing = Pairing()
    assert judged(decision(1), decision(2), 2, pairing=pairing) == []
    assert any("2 decisions wait" in text and request_id(1) in text for text in pairing.summary())


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
    assert judged(decision(1), decision(2), pairing=pairing) == []
    pairing.hole(2, 9)
    assert pairing.heartbeat(9, 0) is None
    assert any("cannot be told" in text for text in pairing.summary())


def test_open_decisions_are_bounded() -> None:
    pairing = Pairing(max_open=10)
    assert judged(*(decision(n) for n in range(25)), pairing=pairing) == []
    assert judged(*(outcome(100 + n, None) for n in range(25)), pairing=pairing) == []
    assert any(text.startswith("of 15 decisions") for text in pairing.summary())


def test_summary_counts_what_there_is() -> None:
    pairing = Pairing()
    started = record.System(time_us=T0, event="recorder.start")
    judged(started, decision(1), decision(2, verdict="deny"), unknown(1), pairing=pairing)
    assert pairing.summary() == [
        "2 decisions (1 allowed), 1 outcomes, 1 other records",
        "1 decisions have an outcome that nobody knows (outcome_unknown)",
        f"1 decisions wait for their outcome; the oldest is entry 2, request {request_id(2)}",
    ]
