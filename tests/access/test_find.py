"""Finding: the newest in the ledger's order, one by its id, and those still to come."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.access.ledger import (
    ORIGIN,
    T0,
    MemoryLedger,
    decision,
    outcome,
    refused,
    request_id,
    unknown,
)

from gatebook import record
from gatebook.access import find
from gatebook.access.filter import Filter
from gatebook.access.find import Follower, by_index, by_request_id, newest
from gatebook.access.found import Access, Event, Found, Strange
from gatebook.access.join import Joiner


def numbers(found: list[Found]) -> list[tuple[int, bool]]:
    """(request number, open) of each."""
    return [(int(one.id or "0", 16), one.open) for one in found if isinstance(one, Access)]


def test_newest_are_joined_and_in_the_ledgers_order() -> None:
    ledger = MemoryLedger(decision(1), decision(2), outcome(2, 1), outcome(1, 0), refused(3), decision(4))
    assert numbers(newest(ledger, 50, Filter())) == [(1, False), (2, False), (3, False), (4, True)]
    assert numbers(newest(ledger, 2, Filter())) == [(3, False), (4, True)]
    assert newest(ledger, 0, Filter()) == []


def test_newest_of_an_empty_ledger_is_nothing() -> None:
    assert newest(MemoryLedger(), 50, Filter()) == []


def test_newest_reads_no_more_than_it_needs() -> None:
    records: list[record.Record] = []
    for number in range(5000):
        records += [decision(number), outcome(number, len(records))]
    ledger = MemoryLedger(*records)
    assert numbers(newest(ledger, 10, Filter())) == [(n, False) for n in range(4990, 5000)]
    assert ledger.read < 30


def test_newest_stops_at_the_time_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(find, "CLOCK_SLACK_US", 10_000_000)
    ledger = MemoryLedger(*(decision(n) for n in range(1000)))
    found = newest(ledger, 500, Filter(since_us=T0 + 990_000_000))
    assert [n for n, _ in numbers(found)] == list(range(990, 1000))
    assert ledger.read < 30


def test_noise_that_never_reached_the_guard_does_not_make_newest_read_everything(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(find, "LOOK_BACK", 100)
    ledger = MemoryLedger(*(refused(n) for n in range(5000)))
    assert [n for n, _ in numbers(newest(ledger, 10, Filter()))] == list(range(4990, 5000))
    assert ledger.read < 300


def test_outcome_by_id_is_joined_backwards_in_either_order() -> None:
    pair = (decision(1), outcome(1, None))
    for ledger in (MemoryLedger(*pair), MemoryLedger(*reversed(pair))):
        (one,) = newest(ledger, 5, Filter())
        assert isinstance(one, Access)
        assert one.decision is not None
        assert one.status == 200


def test_real_outcome_is_preferred_to_outcome_unknown() -> None:
    ledger = MemoryLedger(decision(1), outcome(1, None), unknown(0))
    (one,) = newest(ledger, 5, Filter())
    assert isinstance(one, Access)
    assert one.status == 200


def test_outcome_of_another_request_is_not_joined_backwards() -> None:
    ledger = MemoryLedger(decision(1), outcome(2, 0))
    assert numbers(newest(ledger, 5, Filter())) == [(1, True), (2, False)]


def test_outcome_that_names_a_later_index_is_shown_alone() -> None:
    ledger = MemoryLedger(outcome(2, 1), decision(1))
    assert numbers(newest(ledger, 5, Filter())) == [(2, False), (1, True)]


def test_outcome_whose_decision_is_gone_is_still_shown() -> None:
    ledger = MemoryLedger(record.System(time_us=T0, event="recorder.start"), outcome(2, 0))
    (one,) = newest(ledger, 5, Filter())
    assert isinstance(one, Access)
    assert one.decision is None


def test_events_are_shown_when_asked_for() -> None:
    ledger = MemoryLedger(record.System(time_us=T0, event="recorder.start"), b'{"v":3}', decision(1))
    assert [type(found) for found in newest(ledger, 5, Filter(events=True))] == [Event, Strange, Access]
    assert [type(found) for found in newest(ledger, 5, Filter())] == [Access]


@given(st.integers(0, 10_000), st.integers(1, 40))
def test_backwards_gives_what_forwards_gives(seed: int, requests: int) -> None:
    chance = random.Random(seed)
    waiting = list(range(requests))
    open_at: dict[int, int] = {}
    records: list[record.Record] = []
    for _ in range(requests * 2):
        if waiting and chance.random() < 0.6:
            number = waiting.pop()
            if chance.random() < 0.1:
                records.append(refused(number))
                continue
            open_at[number] = len(records)
            records.append(decision(number))
        elif open_at:
            number = chance.choice(list(open_at))
            index = open_at.pop(number)
            records.append(outcome(number, index if chance.random() < 0.7 else None))
    ledger = MemoryLedger(*records)
    joiner = Joiner(ORIGIN)
    forwards = [found for index, data in ledger.forwards(0) for found in joiner.add(index, data)]
    forwards += list(joiner.rest())
    expected = sorted((found for found in forwards if isinstance(found, Access)), key=lambda found: found.index)
    assert newest(ledger, 1000, Filter()) == expected


def test_follower_shows_what_completes_and_streams_once() -> None:
    ledger = MemoryLedger(decision(1), decision(2), hidden=[outcome(1, 0), decision(3)])
    follower = Follower(ledger, 2)
    follower.adopt(1)
    assert numbers(list(follower.new(0))) == [(1, False)]
    assert numbers(list(follower.new(T0 + 60_000_000))) == [(2, True), (3, True)]
    assert numbers(list(follower.new(T0 + 60_000_000))) == []
    ledger.hidden = [record.encode(outcome(2, 1)), record.encode(refused(9))]
    assert numbers(list(follower.new(0))) == [(2, False), (9, False)]


def test_request_is_found_by_its_id_or_the_beginning_of_it() -> None:
    ledger = MemoryLedger(decision(0x11), decision(0x12), outcome(0x12, 1), unknown(0), refused(0x21))
    (one,) = by_request_id(ledger, request_id(0x12))
    assert (one.decision_index, one.outcome_index) == (1, 2)
    assert [found.id for found in by_request_id(ledger, request_id(0x11)[:31])] == [
        request_id(0x11),
        request_id(0x12),
    ]
    (refusal,) = by_request_id(ledger, request_id(0x21))
    assert refusal.decision is None
    assert by_request_id(ledger, "f" * 32) == []


def test_request_whose_outcome_names_only_its_index_is_found_whole() -> None:
    (one,) = by_request_id(MemoryLedger(decision(1), decision(2), unknown(0)), request_id(1))
    assert one.error is not None
    assert not one.open


def test_id_that_a_client_wrote_into_its_request_is_not_found() -> None:
    part = record.RequestPart(method="GET", path='/"id":"' + request_id(9), claimed_id=request_id(9))
    ledger = MemoryLedger(decision(1, request=part), outcome(1, 0))
    assert by_request_id(ledger, request_id(9)) == []


@pytest.mark.parametrize("index", [1, 2])
def test_receipt_leads_to_the_whole_access(index: int) -> None:
    ledger = MemoryLedger(record.System(time_us=T0, event="recorder.start"), decision(1), outcome(1, 1))
    one = by_index(ledger, index)
    assert one is not None
    assert (one.decision_index, one.outcome_index) == (1, 2)


def test_index_of_something_else_is_no_access() -> None:
    ledger = MemoryLedger(record.System(time_us=T0, event="recorder.start"), b"{}", refused(1), decision(2))
    assert by_index(ledger, 0) is None
    assert by_index(ledger, 1) is None
    assert by_index(ledger, 99) is None
    refusal, waiting = by_index(ledger, 2), by_index(ledger, 3)
    assert refusal is not None
    assert refusal.decision is None
    assert waiting is not None
    assert waiting.open
