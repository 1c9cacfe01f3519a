"""The loop behind every sink: whatever a destination answers and whenever it is stopped, no record is missing."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import pytest
from tests.access.ledger import ORIGIN, T0, decision, outcome
from tests.sinks.twin import Ledger, Sink, Store

from gatebook import record
from gatebook.errors import EnvironmentFault
from gatebook.sinks.cursor import Book
from gatebook.sinks.delivery import MAX_ASKED_S, Delivery, Stopped
from gatebook.sinks.destination import Answer, Delivered, Divide, Limits, Partly, Pause, Piece, Retry


def traffic(requests: int) -> Ledger:
    """Each decision followed by its outcome: entries 0, 1, 2, 3 …"""
    records = [(decision(n), outcome(n, 2 * n)) for n in range(requests)]
    return Ledger(*itertools.chain.from_iterable(records))


def ids(*indices: int) -> list[str]:
    return [f"{ORIGIN}/{index}" for index in indices]


def test_each_access_is_sent_once_in_order_under_the_index_of_its_decision(tmp_path: Path) -> None:
    store = Store()
    sink = Sink(tmp_path, traffic(10), store)
    delivery = sink.run()
    assert store.got == ids(*range(0, 20, 2))
    assert all(len(batch) <= 4 for batch in store.tries)
    assert delivery.cursor.sent == 10
    assert sink.place.next == 20


def test_nothing_is_sent_again_by_the_next_process(tmp_path: Path) -> None:
    ledger, store = traffic(3), Store()
    Sink(tmp_path, ledger, store).run()
    Sink(tmp_path, ledger, store).run()
    assert store.got == ids(0, 2, 4)


def test_decision_that_waits_over_a_stop_is_joined_with_its_outcome(tmp_path: Path) -> None:
    ledger, store = Ledger(decision(0), decision(1), outcome(1, 1)), Store()
    sink = Sink(tmp_path, ledger, store)
    sink.now = T0 / 1e6 + 1
    sink.run()
    assert store.got == ids(1)
    assert sink.place.open == [0]
    ledger.data.append(record.encode(outcome(0, 0)))
    Sink(tmp_path, ledger, store).run()
    assert store.got == ids(1, 0)


def test_long_stream_is_told_of_once_while_it_lasts_and_once_when_it_ends(tmp_path: Path) -> None:
    ledger, store = Ledger(decision(0)), Store()
    Sink(tmp_path, ledger, store).run()
    Sink(tmp_path, ledger, store).run()
    assert store.got == [f"{ORIGIN}/0/open"]
    ledger.data.append(record.encode(outcome(0, 0)))
    Sink(tmp_path, ledger, store).run()
    assert store.got == [f"{ORIGIN}/0/open", f"{ORIGIN}/0"]


def test_destination_that_is_down_gets_everything_later_and_is_asked_ever_more_seldom(tmp_path: Path) -> None:
    store = Store(*[Retry("down")] * 12)
    sink = Sink(tmp_path, traffic(6), store)
    sink.run()
    assert store.got == ids(*range(0, 12, 2))
    assert len(sink.waits) == 12
    assert sink.waits[0] < 1 < sink.waits[4] < sink.waits[-1] <= 60


def test_retry_after_is_honoured_but_not_for_ever(tmp_path: Path) -> None:
    store = Store(Retry("busy", 90.0), Retry("busy", 1e9))
    sink = Sink(tmp_path, traffic(1), store)
    sink.run()
    assert sink.waits == [90.0, MAX_ASKED_S]
    assert store.got == ids(0)


def test_refused_key_pauses_and_loses_nothing(tmp_path: Path) -> None:
    store = Store(Pause("401"), Pause("401"))
    sink = Sink(tmp_path, traffic(2), store)
    sink.run()
    assert store.got == ids(0, 2)
    assert sink.refused() == []


def test_poisoned_record_is_set_aside_with_the_reason_and_its_neighbours_are_stored(tmp_path: Path) -> None:
    poison = f"{ORIGIN}/6"
    store = Store(limits=Limits(items=8, batch_bytes=1 << 20, item_bytes=1 << 16, linger_s=0.0))

    def refuse(batch: Sequence[Piece]) -> Answer:
        store.answers.insert(0, refuse)
        if any(piece.item.id == poison for piece in batch):
            return Divide("400 mapping")
        store.take(batch)
        return Delivered()

    store.answers.append(refuse)
    sink = Sink(tmp_path, traffic(8), store)
    delivery = sink.run()
    assert sorted(store.got) == sorted(ids(0, 2, 4, 8, 10, 12, 14))
    assert [(line["id"], line["indices"], line["why"]) for line in sink.refused()] == [
        (poison, [6, 7], "400 mapping")
    ]
    assert (delivery.cursor.sent, delivery.cursor.refused) == (7, 1)
    assert sink.place.next == 16


def test_of_a_batch_that_is_taken_in_part_only_the_rest_is_sent_again(tmp_path: Path) -> None:
    store = Store(Partly(refused={1: "no such field"}, again=(0, 3), why="429"))
    sink = Sink(tmp_path, traffic(4), store)
    delivery = sink.run()
    assert store.tries == [ids(0, 2, 4, 6), ids(0, 6)]
    assert [line["id"] for line in sink.refused()] == ids(2)
    assert (delivery.cursor.sent, delivery.cursor.refused) == (3, 1)


def test_record_that_is_too_large_or_has_no_form_there_is_set_aside(tmp_path: Path) -> None:
    store = Store(limits=Limits(items=4, batch_bytes=1 << 20, item_bytes=2000, linger_s=0.0))
    large = decision(1, request=record.RequestPart(method="GET", path="/" + "x" * 2000))
    ledger = Ledger(decision(0), outcome(0, 0), large, outcome(1, 2), decision(2), outcome(2, 4))
    store.unfit.add(f"{ORIGIN}/4")
    sink = Sink(tmp_path, ledger, store)
    sink.run()
    assert store.got == ids(0)
    assert [line["id"] for line in sink.refused()] == ids(2, 4)


def test_batches_keep_within_their_bytes(tmp_path: Path) -> None:
    store = Store(limits=Limits(items=100, batch_bytes=3500, item_bytes=3500, linger_s=0.0))
    sink = Sink(tmp_path, traffic(10), store)
    sink.run()
    assert store.got == ids(*range(0, 20, 2))
    assert len(store.tries) > 3


def test_long_records_of_an_attacker_are_not_gathered_by_the_thousand(tmp_path: Path) -> None:
    store = Store(limits=Limits(items=1000, batch_bytes=20_000, item_bytes=20_000, linger_s=0.0))
    records = []
    for number in range(100):
        path = record.RequestPart(method="GET", path="/" + "x" * 4000)
        records += [decision(number, request=path), outcome(number, 2 * number)]
    delivery = Sink(tmp_path, Ledger(*records), store).open()
    assert delivery.step()
    assert 1 <= len(store.got) < 10
    Sink(tmp_path, Ledger(*records), store).run()
    assert store.got == ids(*range(0, 200, 2))


def test_destination_whose_code_fails_loses_nothing(tmp_path: Path) -> None:
    def fail(_batch: Sequence[Piece]) -> Answer:
        raise KeyError("of our own")

    store = Store(fail)
    sink = Sink(tmp_path, traffic(2), store)
    sink.run()
    assert store.got == ids(0, 2)


def test_unreadable_entries_stop_a_sink_until_they_can_be_read(tmp_path: Path) -> None:
    ledger, store = traffic(5), Store()
    ledger.unreadable = {4}
    sink = Sink(tmp_path, ledger, store)
    sink.run()
    assert store.got == []
    state = sink.book.state()
    assert state is not None
    assert state.doing == "stuck"
    assert "entries 4 to 4 cannot be read" in state.why
    ledger.unreadable.clear()
    ledger.gaps.clear()
    Sink(tmp_path, ledger, store).run()
    assert store.got == ids(0, 2, 4, 6, 8)


def test_erased_records_are_passed_over(tmp_path: Path) -> None:
    ledger, store = traffic(3), Store()
    ledger.erased = {2, 3}
    Sink(tmp_path, ledger, store).run()
    assert store.got == ids(0, 4)


def test_full_disk_for_the_refused_moves_no_cursor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(Partly(refused={0: "never"}))
    sink = Sink(tmp_path, traffic(1), store)
    full = [OSError(28, "no space left on device")] * 3
    refuse = Book.refuse

    def on_a_full_disk(book: Book, lines: object) -> None:
        if full:
            raise full.pop()
        refuse(book, lines)  # type: ignore[arg-type]

    monkeypatch.setattr(Book, "refuse", on_a_full_disk)
    sink.run()
    assert [line["id"] for line in sink.refused()] == ids(0)
    assert sink.waits == [30.0, 30.0, 30.0]
    assert sink.place.next == 2


def test_stop_at_every_step_loses_nothing(tmp_path: Path) -> None:
    """Each send, each note of a refusal and each move of the cursor in turn is the last of its process."""
    poison = f"{ORIGIN}/4"
    for after in (False, True):
        for number in range(1, 30):
            folder = tmp_path / f"{number}-{after}"
            folder.mkdir()
            store = Store(limits=Limits(items=3, batch_bytes=1 << 20, item_bytes=1 << 16, linger_s=0.0))

            def answer(batch: Sequence[Piece], store: Store = store) -> Answer:
                store.answers.insert(0, answer)
                taken = [piece for piece in batch if piece.item.id != poison]
                store.take(taken)
                refused = {n: "never" for n, piece in enumerate(batch) if piece.item.id == poison}
                return Partly(refused=refused) if refused else Delivered()

            store.answers.append(answer)
            sink = Sink(folder, traffic(8), store)
            died = _stop_at(sink, number, after=after)
            sink.run()
            assert set(store.got) == set(ids(0, 2, 6, 8, 10, 12, 14)), (number, after)
            assert {line["id"] for line in sink.refused()} == {poison}
            assert sink.place.next == 16
            if not died:
                break
        else:
            pytest.fail("there are more steps than were tried")


def _stop_at(sink: Sink, number: int, *, after: bool) -> bool:
    """Run until step `number`, and leave before or after it; whether it came so far."""
    steps = itertools.count(1)
    left = []

    class Left(BaseException):
        pass

    def stepping(function: object) -> object:
        def step(*arguments: object) -> object:
            last = next(steps) == number
            if last and not after:
                left.append(1)
                raise Left
            result = function(*arguments)  # type: ignore[operator]
            if last:
                left.append(1)
                raise Left
            return result

        return step

    delivery: Delivery = sink.open()
    book = delivery._book
    book.move = stepping(book.move)  # type: ignore[method-assign,assignment]
    book.refuse = stepping(book.refuse)  # type: ignore[method-assign,assignment]
    send = sink.store.send
    sink.store.send = stepping(send)  # type: ignore[method-assign,assignment]
    sink.idle = 0
    try:
        while True:
            delivery.step()
    except (Left, Stopped):
        pass
    finally:
        sink.store.send = send  # type: ignore[method-assign]
        sink.book = Book(sink.folder, "twin")
    return bool(left)


def test_cursor_of_another_ledger_is_refused(tmp_path: Path) -> None:
    Sink(tmp_path, traffic(1), Store()).run()
    with pytest.raises(EnvironmentFault, match="is of the ledger acme/node-1, not of acme/node-2"):
        Book(tmp_path, "twin").cursor("acme/node-2")


def test_torn_cursor_is_refused_and_never_taken_for_a_beginning(tmp_path: Path) -> None:
    Sink(tmp_path, traffic(1), Store()).run()
    path = tmp_path / "twin.cursor"
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(EnvironmentFault, match="move it away to begin anew"):
        Book(tmp_path, "twin").cursor(ORIGIN)


def test_torn_line_of_the_refused_spoils_no_other(tmp_path: Path) -> None:
    (tmp_path / "twin.refused").write_bytes(b'{"id":"torn')
    sink = Sink(tmp_path, traffic(1), Store(Partly(refused={0: "never"})))
    sink.run()
    lines = (tmp_path / "twin.refused").read_bytes().splitlines()
    assert len(lines) == 2
    assert b'"acme/node-1/0"' in lines[1]
