"""Each line counts once and each decision has its outcome, at whatever moment the recorder or the machine dies.

One story is told again and again: decisions, lines, files that are rotated, segments that are full, heartbeats.
Each time it ends some steps later: at a write, a sync or a rename of the ledger's, between a look at the logs
and its commit, between renaming a file and telling the gateway, before a deletion. Then the next process begins.
"""

from __future__ import annotations

import itertools
import random
import shutil
from collections import Counter
from pathlib import Path

import pytest
from tests.ledger.disk import POLICIES, Disk, Policy, after_crash
from tests.recorder.place import Book, Desk, Gateway, Processes, item, request_id

from gatebook import record
from gatebook.access.pairing import Pairing
from gatebook.ledger.entry import Heartbeat, Loss

ACTIONS = 39


class Killed(BaseException):
    """Nothing that the program could catch."""


class Story:
    """Ends at step `last`, wherever that is. `receipts`: what was acknowledged."""

    def __init__(self, folder: Path, last: int) -> None:
        self.folder = folder
        self._left = last
        self._chance = random.Random(11)
        self.steps = 0
        self.sent: list[int] = []  # requests whose decision was sent to the recorder
        self.receipts: dict[int, int] = {}
        self.lines: list[int] = []
        self.nonsense = 0
        self.now = 0
        state = folder / "state"
        state.mkdir()
        self.disk = Disk(state, lambda _: self.step())
        self.gateway = Gateway(folder / "logs", 7, 8)
        self.gateway.starts()
        self.booked: Book | None = None
        self.desk: Desk | None = None

    def step(self) -> None:
        self.steps += 1
        self._left -= 1
        if self._left < 0:
            raise Killed

    def tell(self) -> bool:
        """Whether it came to its end."""
        try:
            self._tell()
        except Killed:
            return False
        finally:
            if self.desk is not None:
                self.desk.close()
        return True

    def _tell(self) -> None:
        workers = Processes(7, 8).workers()
        book = self.booked = Book(self.folder / "state", workers, self.disk)

        def reopen() -> None:
            self.step()
            self.gateway.told_to_reopen()

        self.desk = desk = Desk(book, self.gateway, reopen=reopen)
        desk.interrupt = self.step
        for number in range(ACTIONS):
            match number % 13:
                case 0 | 2 | 5 | 9:
                    self._decide(book)
                case 1 | 3 | 6 | 10:
                    self._write_lines()
                case 4:
                    self.gateway.write(b"nonsense\n")
                    self.nonsense += 1
                case 7:
                    book.journal.enter(desk.log.heartbeat)
                    desk.commit()
                case 8:
                    desk.second(70)  # files are rotated, and retired later
                case 11:
                    book.now_us += 400_000_000  # the next frame begins a segment
            desk.read()

    def _decide(self, book: Book) -> None:
        first = len(self.sent)
        batch = range(first, first + 3)
        self.sent += batch
        for number in batch:
            book.journal.add([item(number, 7)], lambda index, number=number: self._told(number, index))  # type: ignore[misc]
        book.commit()

    def _told(self, number: int, index: int) -> None:
        self.receipts[number] = index

    def _write_lines(self) -> None:
        """Of what is decided, with the index if the guard was told, which one in four forgets."""
        waiting = [number for number in self.sent if number not in self.lines]
        for number in waiting[:-1]:
            self._line(number)

    def _line(self, number: int) -> None:
        known = self._chance.random() < 0.75
        self.gateway.line(number, self.receipts.get(number) if known else None)
        self.lines.append(number)

    def ends(self) -> None:
        """The gateway finishes what it has begun."""
        for number in self.sent:
            if number not in self.lines:
                self._line(number)


def judged(book: Book) -> tuple[dict[str, int], Counter[str]]:
    """Decisions by request, and how many outcomes each request has. Records alone must say so too."""
    pairing = Pairing()
    decisions: dict[str, int] = {}
    outcomes: Counter[str] = Counter()
    found = book.contents()
    for index, parsed in enumerate(found.parsed):
        assert pairing.entry(index, parsed) == []
        if index not in found.records:
            continue
        assert pairing.record(index, found.records[index]) is None
        made = record.decode(found.records[index])
        if isinstance(made, record.Decision):
            decisions[made.id] = index
        elif isinstance(made, record.Outcome):
            request = (
                made.id
                if made.id is not None
                else next(k for k, v in decisions.items() if v == made.decision_index)
            )
            outcomes[request] += 1
            assert made.decision_index == decisions.get(request, made.decision_index)
    kinds = (pairing.totals.allowed, pairing.totals.denied)
    assert [(kind.open, kind.untold) for kind in kinds] == [(0, 0)] * 2
    assert (pairing.totals.repeated, pairing.totals.undecided) == (0, 0)
    return decisions, outcomes


def whole_story(folder: Path) -> Story:
    story = Story(folder, 1 << 30)
    assert story.tell()
    return story


def test_story_has_enough_of_everything(tmp_path: Path) -> None:
    """Or the tests below would try nothing."""
    story = whole_story(tmp_path)
    assert story.steps > 150
    assert story.gateway.asked_to_reopen >= 2
    assert story.booked is not None
    assert len(story.booked.contents().segments) >= 3
    assert len(story.lines) > 15
    assert sum(isinstance(each, Heartbeat) and each.decisions > 0 for each in story.booked.contents().parsed) > 2
    story.booked.close()
    story.gateway.close()


@pytest.mark.parametrize("part", range(8))
def test_kill_of_the_recorder_at_any_step(tmp_path: Path, part: int) -> None:
    for last in itertools.count(part, 8):
        folder = tmp_path / str(last)
        folder.mkdir()
        story = Story(folder, last)
        ended = story.tell()
        # kill -9: what was written stays written, also what no sync has confirmed.
        state = folder / "after"
        after_crash(state, story.disk.steps, "kept")
        book = Book(state, Processes(7, 8).workers())
        desk = Desk(book, story.gateway)
        story.ends()
        desk.read()
        desk.second(3)
        decisions, outcomes = judged(book)
        assert {request_id(number): index for number, index in story.receipts.items()}.items() <= decisions.items()
        assert outcomes == Counter(request_id(number) for number in story.lines), last
        lost = [detail["lines"] for event, detail in book.events() if event == "gateway.log_unreadable"]
        assert sum(lost) == story.nonsense, last
        said = [each for each in book.entries(Loss) if isinstance(each, Loss) and each.reason == 18]
        assert sum(each.last_seq for each in said) == story.nonsense, last
        assert book.journal.open == {}
        desk.close()
        book.close()
        story.gateway.close()
        shutil.rmtree(folder)
        if ended:
            return


@pytest.mark.parametrize("policy", POLICIES)
def test_power_failure_at_any_step_with_logs_in_memory(tmp_path: Path, policy: Policy) -> None:
    """The logs are gone, the gateway is dead: what was acknowledged is there, its outcome perhaps unknown."""
    for last in itertools.count(POLICIES.index(policy), 11):
        folder = tmp_path / str(last)
        folder.mkdir()
        story = Story(folder, last)
        ended = story.tell()
        state = folder / "after"
        after_crash(state, story.disk.steps, policy, seed=last)
        story.gateway.close()
        gateway = Gateway(folder / "new logs", 17)
        book = Book(state, Processes(17).workers("boot-2"))
        desk = Desk(book, gateway)
        desk.second(3)
        decisions, outcomes = judged(book)
        assert {request_id(number): index for number, index in story.receipts.items()}.items() <= decisions.items()
        assert set(outcomes) == set(decisions), last
        assert set(outcomes.values()) <= {1}, last
        desk.close()
        book.close()
        gateway.close()
        shutil.rmtree(folder)
        if ended:
            return


@pytest.mark.parametrize("policy", POLICIES)
def test_power_failure_at_any_step_with_logs_on_a_disk(tmp_path: Path, policy: Policy) -> None:
    """Where there is no memory file system; nobody syncs a log, so any part of it may be cut off."""
    chance = random.Random(3)
    for last in itertools.count(POLICIES.index(policy), 11):
        folder = tmp_path / str(last)
        folder.mkdir()
        story = Story(folder, last)
        ended = story.tell()
        state = folder / "after"
        after_crash(state, story.disk.steps, policy, seed=last)
        story.gateway.close()
        for path in (folder / "logs").glob("*.log"):
            data = path.read_bytes()
            path.write_bytes(data[: chance.choice([len(data), chance.randrange(len(data) + 1)])])
        gateway = Gateway(folder / "logs", 17)
        book = Book(state, Processes(17).workers("boot-2"))
        desk = Desk(book, gateway)
        desk.second(3)
        decisions, outcomes = judged(book)
        assert {request_id(number): index for number, index in story.receipts.items()}.items() <= decisions.items()
        assert set(decisions) <= set(outcomes), last
        assert set(outcomes.values()) <= {1}, last
        desk.close()
        book.close()
        gateway.close()
        shutil.rmtree(folder)
        if ended:
            return
