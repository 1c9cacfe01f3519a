"""Joining: no record is lost, none counts twice, and a wrong pair is never made."""

from __future__ import annotations

import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.access.ledger import ORIGIN, T0, decision, encoded, outcome, refused, request_id, unknown

from gatebook import record
from gatebook.access.found import Access, Event, Found, Placed, Strange, access, as_json
from gatebook.access.join import Joiner


def joined(*records: record.Record | bytes, joiner: Joiner | None = None) -> list[Found]:
    joiner = joiner or Joiner(ORIGIN)
    out: list[Found] = []
    for index, data in enumerate(encoded(records)):
        out += joiner.add(index, data)
    return out


def only(found: list[Found]) -> Access:
    (one,) = found
    assert isinstance(one, Access)
    return one


def test_decision_and_outcome_become_one_access() -> None:
    one = only(joined(decision(1), outcome(1, 0)))
    assert (one.id, one.decision_index, one.outcome_index) == (request_id(1), 0, 1)
    assert one.time_us == T0 + 1_000_000
    assert one.status == 200
    assert not one.open
    assert one.upstream is not None
    assert (one.upstream.name, one.upstream.address) == ("orders", "127.0.0.1:9001")


def test_json_has_the_groups_by_name_and_leaves_out_what_is_unknown() -> None:
    told = json.loads(as_json(only(joined(decision(1), outcome(1, 0)))))
    assert set(told) == {
        *("id", "time_us", "origin", "decision_index", "outcome_index"),
        *("identity", "request", "decision", "response", "upstream"),
    }
    assert told["origin"] == ORIGIN
    assert told["request"]["path"] == "/orders/1"


def test_open_decision_says_so() -> None:
    joiner = Joiner(ORIGIN)
    assert joined(decision(1), joiner=joiner) == []
    assert joiner.waiting == 1
    (one,) = joiner.rest()
    assert one.open
    assert one.status is None
    assert json.loads(as_json(one))["open"] is True


def test_open_denial_has_the_status_it_will_be_told() -> None:
    joiner = Joiner(ORIGIN)
    joined(decision(1, verdict="deny"), joiner=joiner)
    assert [one.status for one in joiner.rest()] == [403]


def test_outcome_without_decision_is_an_access_too() -> None:
    one = only(joined(refused(7, 413)))
    assert (one.decision_index, one.outcome_index, one.status) == (None, 0, 413)
    assert one.request is not None
    assert one.decision is None


def test_outcome_that_does_not_know_the_index_finds_its_decision_by_id() -> None:
    one = only(joined(decision(1), outcome(1, None, request=decision(2).request)))
    assert (one.decision_index, one.outcome_index) == (0, 1)
    assert one.request is not None
    assert one.request.path == "/orders/1"


def test_decision_that_comes_after_its_outcome_is_joined_by_id() -> None:
    found = joined(outcome(1, None), decision(1))
    assert [(one.decision_index, one.outcome_index) for one in found if isinstance(one, Access)] == [
        (None, 0),
        (1, 0),
    ]


@pytest.mark.parametrize("early", [True, False])
def test_outcome_unknown_for_what_the_id_has_joined_is_not_a_second_access(early: bool) -> None:
    pair: list[record.Record] = [outcome(1, None), decision(1)] if early else [decision(1), outcome(1, None)]
    joiner = Joiner(ORIGIN)
    joined(*pair, joiner=joiner)
    assert joiner.add(2, record.encode(unknown(1 if early else 0))) == []


def test_outcome_unknown_is_shown_as_what_it_is() -> None:
    one = only(joined(decision(1), unknown(0)))
    assert one.error is not None
    assert one.error.detail == "outcome_unknown"
    assert (one.open, one.status, one.id) == (False, None, request_id(1))


def test_outcome_of_another_request_closes_nothing() -> None:
    joiner = Joiner(ORIGIN)
    one = only(joined(decision(1), outcome(2, 0), joiner=joiner))
    assert one.decision is None
    assert one.id == request_id(2)
    assert joiner.waiting == 1


def test_outcome_of_a_decision_from_before_is_looked_up() -> None:
    earlier = record.encode(decision(1))
    joiner = Joiner(ORIGIN, {3: earlier}.get)
    (one,) = joiner.add(9, record.encode(outcome(1, 3)))
    assert isinstance(one, Access)
    assert one.decision is not None
    assert one.decision_index == 3
    (lost,) = joiner.add(10, record.encode(outcome(2, 4)))
    assert isinstance(lost, Access)
    assert (lost.decision, lost.decision_index) == (None, 4)


def test_index_of_a_record_that_is_no_decision_joins_nothing() -> None:
    joiner = Joiner(ORIGIN, {3: record.encode(outcome(9, 1)), 4: b"not json"}.get)
    for index in (3, 4):
        (one,) = joiner.add(9, record.encode(outcome(1, index)))
        assert isinstance(one, Access)
        assert one.decision is None


def test_open_decisions_are_bounded_and_none_is_lost() -> None:
    data = encoded([decision(n) for n in range(50)])
    joiner = Joiner(ORIGIN, lambda index: data[index], max_open=10)
    given = joined(*data, joiner=joiner)
    assert joiner.waiting == 10
    assert [one.decision_index for one in given if isinstance(one, Access) and one.open] == list(range(40))
    (one,) = joiner.add(50, record.encode(outcome(0, 0)))
    assert isinstance(one, Access)
    assert one.decision is not None


def test_overdue_decisions_are_told_once_and_again_when_complete() -> None:
    joiner = Joiner(ORIGIN)
    joined(decision(1), decision(100), joiner=joiner)
    assert [one.decision_index for one in joiner.overdue(T0 + 50_000_000)] == [0]
    assert list(joiner.overdue(T0 + 50_000_000)) == []
    assert [one.decision_index for one in joiner.overdue(T0 + 200_000_000)] == [1]
    (one,) = joiner.add(2, record.encode(outcome(1, 0)))
    assert isinstance(one, Access)
    assert not one.open


def test_other_records_pass_and_unreadable_ones_are_named() -> None:
    admin = record.Admin(time_us=T0, action="key.create", actor="os:0")
    found = joined(admin, b'{"v":2}')
    assert isinstance(found[0], Event)
    assert (found[0].index, found[0].record.time_us) == (0, T0)
    assert isinstance(found[1], Strange)
    assert found[1].index == 1
    assert all(isinstance(found, Strange) and found.why for found in joined(b'{"v":2}', b"", b"[]"))


def test_access_of_nothing_cannot_be() -> None:
    with pytest.raises(ValueError, match="a decision or an outcome"):
        access(ORIGIN, None, None)
    assert access(ORIGIN, Placed(0, decision(1)), None).index == 0


@given(st.integers(0, 10_000), st.integers(1, 40))
def test_whatever_the_order_each_request_is_complete_exactly_once(seed: int, requests: int) -> None:
    chance = random.Random(seed)
    waiting = list(range(requests))
    open_at: dict[int, int] = {}
    records: list[record.Record] = []
    while waiting or open_at:
        if waiting and (not open_at or chance.random() < 0.5):
            number = waiting.pop()
            open_at[number] = len(records)
            records.append(decision(number))
        else:
            number = chance.choice(list(open_at))
            index = open_at.pop(number)
            records.append(outcome(number, index if chance.random() < 0.7 else None))
    found = joined(*records)
    ids = [one.id for one in found if isinstance(one, Access) and one.decision and not one.open]
    assert sorted(ids) == [request_id(n) for n in range(requests)]  # type: ignore[type-var]
    assert len(found) == requests
