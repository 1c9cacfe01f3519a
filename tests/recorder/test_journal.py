"""What is appended and when it is acknowledged; which decisions are open, also after a kill."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.ledger.disk import Disk, Step
from tests.recorder.place import KEY, T0_US, Book, Processes, item, request_id

from gatebook import record
from gatebook.errors import LedgerError
from gatebook.ledger.entry import Heartbeat
from gatebook.recorder.journal import MAX_EARLY, MAX_FRAME_RECORDS, Journal, Told
from gatebook.recorder.memo import Cursor
from gatebook.wire import Item


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Callable[..., Book]]:
    made: list[Book] = []

    def call(root: Path = tmp_path / "first", **more: object) -> Book:
        made.append(Book(root, **more))  # type: ignore[arg-type]
        return made[-1]

    yield call
    for book in made:
        book.close()


@pytest.fixture
def book(opened: Callable[..., Book]) -> Book:
    return opened()


def outcome(index: int | None = None, number: int = 1) -> Told:
    made = record.Outcome(id=request_id(number), time_us=T0_US, decision_index=index)
    return Told(record.encode(made), index, request_id(number))


def cursor(read: int) -> Cursor:
    return Cursor("epoch", {1: read}, {1: 0})


def test_nobody_is_told_before_the_sync(tmp_path: Path) -> None:
    told: list[int] = []
    synced: list[bool] = []

    class Ledger:
        def append(self, records: object, memo: bytes = b"") -> int:
            assert not told
            return 0

        def append_entry(self, entry: object, memo: bytes = b"") -> int:
            return 0

        def sync(self) -> None:
            assert not told
            synced.append(True)

    journal = Journal(KEY)
    for _ in range(3):
        journal.add([item()], told.append)
    journal.commit(Ledger())
    assert synced == [True]
    assert told == [0, 1, 2]


@pytest.mark.parametrize("fault", ["write", "sync"])
def test_disk_that_fails_acknowledges_nothing(tmp_path: Path, fault: str) -> None:
    def fail(step: Step) -> None:
        if step.name == fault and begun:
            raise OSError(28, "No space left on device")

    begun: list[bool] = []
    book = Book(tmp_path, files=Disk(tmp_path, fail))
    begun.append(True)
    told: list[int] = []
    book.journal.add([item()], told.append)
    book.journal.tell([outcome()], cursor(10))
    with pytest.raises(LedgerError):
        book.commit()
    assert told == []
    assert not book.journal.cursor_is_durable  # or files would be deleted whose lines are nowhere else
    book.journal.add([item(2)], told.append)
    with pytest.raises(LedgerError):
        book.commit()
    assert told == []
    book.close()


def test_batches_keep_their_order_and_stay_whole(book: Book) -> None:
    told: list[tuple[int, int]] = []
    sizes = [1, MAX_FRAME_RECORDS - 1, 2, MAX_FRAME_RECORDS, 3]
    numbers = iter(range(sum(sizes)))
    for position, size in enumerate(sizes):
        batch = [Item(b"%d" % next(numbers)) for _ in range(size)]
        book.journal.add(batch, lambda index, position=position: told.append((position, index)))  # type: ignore[misc]
    book.commit()
    assert [position for position, _ in told] == list(range(len(sizes)))
    records = book.contents().records
    at = 0
    for size, (_, first) in zip(sizes, told, strict=True):
        assert [records[first + i] for i in range(size)] == [b"%d" % (at + i) for i in range(size)]
        at += size


def test_decision_is_open_until_its_outcome(book: Book) -> None:
    first, second = book.decide(1, 2)
    assert list(book.journal.open) == [first, second]
    book.journal.tell([outcome(first)])
    assert list(book.journal.open) == [first, second]  # not before it is appended
    book.commit()
    assert list(book.journal.open) == [second]


def test_record_that_no_outcome_will_follow_is_not_open(book: Book) -> None:
    book.journal.add([Item(b"admin")], lambda _: None)
    book.commit()
    assert book.journal.open == {}
    assert book.journal.decisions == 0


def test_outcome_of_a_decision_that_nobody_knows_is_recorded_all_the_same(book: Book) -> None:
    book.journal.tell([outcome(4711)])
    book.commit()
    assert [each.decision_index for each in book.outcomes()] == [4711]


# -- by the request's id ----------------------------------------------------------------------------------
def test_id_finds_the_decision_while_it_is_open(book: Book) -> None:
    (index,) = book.decide(1)
    assert book.journal.decision_of(request_id(1)) == index
    assert book.journal.decision_of(request_id(2)) is None
    assert book.journal.decision_of("") is None
    book.journal.tell([outcome(index)])
    book.commit()
    assert book.journal.decision_of(request_id(1)) is None


def test_id_finds_the_decision_of_a_recorder_that_was_killed(
    book: Book, opened: Callable[..., Book], tmp_path: Path
) -> None:
    """What was never acknowledged has a line that does not name it; its gateway lives on, so nobody buries it."""
    book.decide(*range(100))
    following = opened(book.killed(tmp_path / "second"))
    for number in range(100):
        assert following.journal.decision_of(request_id(number)) in book.journal.open
    assert following.journal.open == book.journal.open


def test_open_decisions_survive_each_new_segment(book: Book, opened: Callable[..., Book], tmp_path: Path) -> None:
    (kept,) = book.decide(1)
    for number in range(2, 5):
        book.now_us += 400_000_000  # a segment has five minutes
        (index,) = book.decide(number)
        book.journal.tell([outcome(index, number)])
        book.commit()
    following = opened(book.killed(tmp_path / "second"))
    assert list(following.journal.open) == [kept]
    assert following.journal.decision_of(request_id(1)) == kept


def test_orderly_stop_keeps_what_is_open(book: Book, opened: Callable[..., Book]) -> None:
    book.decide(1)
    open_ = dict(book.journal.open)
    book.close()
    assert opened(book.root).journal.open == open_


def test_who_knows_no_key_hands_on_what_is_open(book: Book, opened: Callable[..., Book], tmp_path: Path) -> None:
    """The command line appends while no recorder runs, by a journal without a key."""
    book.decide(1)
    second = opened(book.killed(tmp_path / "second"))
    second.journal._tagger = Journal()._tagger
    second.journal.add([Item(b"admin")], lambda _: None)
    second.now_us += 400_000_000
    second.commit()
    third = opened(second.killed(tmp_path / "third"))
    assert third.journal.decision_of(request_id(1)) in third.journal.open


def test_decision_whose_outcome_is_there_already_is_not_open(book: Book) -> None:
    """With `after-response`, or when this process was held up, the line may be read first."""
    assert book.journal.decision_of(request_id(1)) is None
    book.journal.tell([outcome(None, 1)])
    book.commit()
    _, second = book.decide(1, 2)
    assert [book.journal.decision_of(request_id(number)) for number in (1, 2)] == [None, second]
    assert list(book.journal.open) == [second]
    assert book.journal.decisions == 2


def test_decision_in_the_same_commit_as_its_early_outcome_is_not_open(book: Book) -> None:
    book.journal.add([item(1)], lambda _: None)
    book.journal.tell([outcome(None, 1)])
    book.commit()
    assert book.journal.open == {}


def test_flood_of_requests_without_a_decision_makes_nobody_grow(book: Book) -> None:
    for start in range(0, 3 * MAX_EARLY, 5000):
        book.journal.tell(outcome(None, number) for number in range(start, start + 5000))
        book.commit()
    assert len(book.journal._early) == MAX_EARLY


def test_two_decisions_of_one_id_are_both_closed_by_index(book: Book) -> None:
    first, second = book.decide(1, 1)
    for index in (first, second):
        book.journal.tell([outcome(index)])
        book.commit()
    assert book.journal.open == {}
    assert book.journal.decision_of(request_id(1)) is None


# -- the cursor -------------------------------------------------------------------------------------------
def test_cursor_becomes_durable_with_what_was_made_of_the_lines(
    book: Book, opened: Callable[..., Book], tmp_path: Path
) -> None:
    book.journal.tell([outcome()], cursor(10))
    assert not book.journal.cursor_is_durable
    book.commit()
    assert book.journal.cursor_is_durable
    assert opened(book.killed(tmp_path / "second")).journal.cursor == cursor(10)


def test_cursor_of_lines_that_made_no_record_waits_for_the_next_frame(book: Book) -> None:
    book.journal.tell([], cursor(10))
    book.decide(1)
    assert book.journal.cursor != cursor(10)
    assert not book.journal.cursor_is_durable
    book.journal.tell([outcome()])
    book.commit()
    assert book.journal.cursor == cursor(10)


def test_heartbeat_carries_an_idle_logs_cursor(book: Book, opened: Callable[..., Book], tmp_path: Path) -> None:
    book.journal.tell([], cursor(10))
    book.journal.enter(lambda: Heartbeat(T0_US, 0, 0, 0, 0, 0))
    book.commit()
    assert book.journal.cursor_is_durable
    assert opened(book.killed(tmp_path / "second")).journal.cursor == cursor(10)


def test_entry_is_made_in_its_place_so_that_it_counts_what_is_before_it(book: Book) -> None:
    """A heartbeat that knows less than what stands before it would make `verify` miss outcomes."""
    book.journal.enter(lambda: Heartbeat(T0_US, book.journal.decisions, 0, len(book.journal.open), 0, 0))
    book.decide(1, 2)
    (beat,) = book.entries(Heartbeat)
    assert isinstance(beat, Heartbeat)
    assert (beat.decisions, beat.open) == (2, 2)


def test_outcomes_are_counted_and_other_records_are_not(book: Book) -> None:
    event = Told(record.encode(record.System(time_us=T0_US, event="recorder.start")))
    book.journal.tell([outcome(), event, outcome(None, 2)])
    book.commit()
    assert book.journal.outcomes == 2


def test_decision_is_of_the_worker_that_had_the_number_then(opened: Callable[..., Book]) -> None:
    processes = Processes(7)
    book = opened(workers=processes.workers())
    (index,) = book.decide(1)
    processes.began[7] += 1  # the number is another process's now
    assert not book.workers.alive(book.journal.open[index].worker)
    book.workers.refresh()
    (later,) = book.decide(2)
    assert book.workers.alive(book.journal.open[later].worker)
