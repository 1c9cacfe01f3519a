"""Retention: what is old goes, key first, on record; and everything that must not make it go sooner."""

from __future__ import annotations

import asyncio
import secrets
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.ledger.caller import READER, VERIFIER, Caller

from gatebook import holds, record
from gatebook.access.pairing import Pairing
from gatebook.config.evidence import Retention as Terms
from gatebook.errors import EnvironmentFault
from gatebook.ledger.entry import Erase, Erased, EraseReason, parse
from gatebook.ledger.read import Reader
from gatebook.ledger.verify import Finding, Private, verify
from gatebook.paths import Paths
from gatebook.recorder import past, retention
from gatebook.recorder.hands import Hands
from gatebook.recorder.retention import Retention

DAY = 86_400_000_000
T0 = 1_700_000_000_000_000


class Shop:
    """A ledger with a segment of 300 records a day, and retention beside it."""

    def __init__(self, root: Path, days: int) -> None:
        self.root = root
        self.paths = Paths(root)
        self.now = self.counted = T0
        self.caller = Caller(root, now_us=T0)
        for _ in range(days):
            self.caller.add(300)
            self.go_on(DAY)
            self.caller.writer.roll_if_due()
        self.caller.checkpoint()
        self.caller.writer._publisher.settle()
        self.retention = self.begin()

    def go_on(self, micros: int) -> None:
        self.now += micros
        self.counted += micros
        self.caller.now_us = self.now

    def begin(self) -> Retention:
        made = Retention(
            self.paths, self.caller.writer, self.caller.sync, now_us=lambda: self.now, counted=lambda: self.counted
        )
        made.configure(Terms(records=3 * 86400))
        return made

    def work(self) -> None:
        self.retention._looked_s = float("-inf")
        asyncio.run(self.retention.work())

    def restart(self) -> None:
        self.caller.close()
        self.caller = Caller(self.root, now_us=self.now)
        self.retention = self.begin()

    @property
    def segments(self) -> list[int]:
        """First indices of those that hold records."""
        return [
            int(p.name[:16], 16) for p in sorted(self.paths.ledger.glob("segments/*")) if p.stat().st_size > 2048
        ]

    def erased(self) -> list[Erase]:
        return [one for one in entries(self.root) if isinstance(one, Erase)]

    def orders(self) -> list[record.Admin]:
        made = [data for data in records(self.root).values() if data.startswith(b'{"v":1,"kind":"admin"')]
        found = [record.decode(data) for data in made]
        return [each for each in found if isinstance(each, record.Admin)]

    def hold(self, **changed: Any) -> holds.Hold:
        known: dict[str, Any] = {
            "person": None,
            "since_us": None,
            "until_us": None,
            "reason": "case",
            "by": "os:1",
        }
        known |= {"now": 1.0, "random": secrets.token_bytes, "announce": lambda _: None}
        return holds.add(self.paths.holds, **known | changed)

    def check(self) -> list[Finding]:
        """What is wrong, but for heartbeats, which nobody writes here."""
        private = Private(self.paths.deks, READER, None)
        report = verify(self.paths.ledger, VERIFIER, lock=self.paths.lock, private=private)
        return [each for each in report.findings if "no heartbeat" not in each.what]


def records(root: Path) -> dict[int, bytes]:
    return dict(Reader(root / "ledger", "acme/node-1", root / "deks", READER).forwards())


def entries(root: Path) -> list[Any]:
    reader = Reader(root / "ledger", "acme/node-1", root / "deks", READER)
    found = [reader.entry(index) for index in range(reader.size)]
    return [parse(data) for data in found if data is not None]


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    monkeypatch.setattr(retention, "PAUSE_S", 0.0)
    (tmp_path / "state").mkdir()
    made = Shop(tmp_path / "state", days=6)
    yield made
    made.caller.close()


def test_what_is_older_goes_and_the_rest_stays_and_verifies(shop: Shop) -> None:
    first = shop.segments
    deks = len(list(shop.paths.deks.iterdir()))
    shop.work()
    assert shop.segments == first[3:]
    erased = shop.erased()
    assert [(one.kind, one.reason) for one in erased] == [(Erased.SEGMENT, EraseReason.RETENTION)] * 3
    assert len(list(shop.paths.deks.iterdir())) == deks - 3
    (order,) = shop.orders()
    assert (order.action, order.actor, order.detail["segments"]) == ("erase.segment", "retention", 3)
    assert shop.check() == []
    assert shop.retention.status() == {
        "records_s": 3 * 86400,
        "destroyed": 3,
        "held": {},
        "clock_ahead_s": 0,
        "trouble": None,
    }


def test_nothing_more_goes_until_more_is_old(shop: Shop) -> None:
    shop.work()
    left = shop.segments
    shop.work()
    assert shop.segments == left
    for _ in range(24):
        shop.go_on(DAY // 24)
        shop.work()
    assert shop.segments == left[1:]


def test_ledger_starts_and_goes_on_without_what_was_destroyed(shop: Shop) -> None:
    shop.work()
    count = shop.caller.count
    for _ in range(2):
        shop.restart()
        assert shop.caller.count == count
    shop.caller.add(3)
    shop.restart()
    assert shop.check() == []


def test_nothing_goes_where_nothing_is_configured(shop: Shop) -> None:
    shop.retention.configure(None)
    before = shop.segments
    shop.work()
    assert shop.segments == before
    assert shop.retention.status() is None


@pytest.mark.parametrize(
    ("since", "until", "gone"), [(None, None, []), (1, 2, [0]), (None, 1, [2]), (4, None, [0, 1, 2])]
)
def test_held_segments_stay_and_status_says_so(
    shop: Shop, since: int | None, until: int | None, gone: list[int]
) -> None:
    """A record may have been sealed a day after its time, so a hold keeps what was sealed on the day behind it."""
    first = shop.segments
    day = [None if each is None else T0 + each * DAY - DAY // 2 for each in (since, until)]
    made = shop.hold(since_us=day[0], until_us=day[1])
    shop.work()
    assert [number for number, each in enumerate(first) if each not in shop.segments] == gone
    status = shop.retention.status()
    assert status is not None
    assert status["held"] == ({made.id: 3 - len(gone)} if len(gone) < 3 else {})
    assert shop.check() == []
    holds.release(shop.paths.holds, made.id, announce=lambda _: None)
    shop.work()
    assert shop.segments == first[3:]


def test_hold_on_a_person_keeps_everything_since_nobody_can_tell_where_they_are(shop: Shop) -> None:
    before = shop.segments
    shop.hold(person=holds.Person(provider="staff", key="a1" * 32, pseudonym=None))
    shop.work()
    assert shop.segments == before


def test_nothing_goes_while_holds_cannot_be_told(shop: Shop) -> None:
    before = shop.segments
    shop.hold(until_us=5)
    shop.paths.holds.write_text("{}")
    shop.work()
    assert shop.segments == before
    status = shop.retention.status()
    assert status is not None
    assert "not as gatebook writes it" in status["trouble"]


def test_clock_that_jumps_ahead_destroys_nothing(shop: Shop) -> None:
    """NTP is spoofed, or a battery dies: ten years in a second, and everything would be older than that."""
    shop.work()
    left = shop.segments
    shop.now += 3650 * DAY
    shop.caller.now_us = shop.now
    for _ in range(5):
        shop.work()
        shop.now += 60_000_000
        shop.counted += 60_000_000
    shop.restart()
    shop.work()
    assert shop.segments[:2] == left[1:], "the fourth day's was due a minute later anyhow"
    status = shop.retention.status()
    assert status is not None
    assert status["clock_ahead_s"] > 3600 * 86400


def test_clock_that_was_ahead_at_the_first_start_destroys_nothing(shop: Shop) -> None:
    before = shop.segments
    shop.now += 400 * DAY
    shop.restart()
    shop.work()
    assert shop.segments[:3] == before[3:]


def test_clock_that_was_set_back_makes_no_record_old(shop: Shop) -> None:
    """What is written under a clock of 1970 is not older than what lies before it."""
    shop.go_on(-19_000 * DAY)
    shop.caller.add(300)
    shop.caller.writer.roll()
    shop.go_on(19_000 * DAY)
    shop.caller.add(300)
    shop.caller.checkpoint()
    shop.caller.writer._publisher.settle()
    last = shop.segments[-2]
    shop.work()
    assert last in shop.segments


def test_operator_can_say_that_the_clock_is_right(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.now += 400 * DAY
    shop.caller.now_us = shop.now
    shop.work()
    before = len(shop.segments)
    monkeypatch.setattr(time, "time_ns", lambda: shop.now * 1000)
    hands = Hands(None, shop.paths, shop.caller.writer, None)  # type: ignore[arg-type]
    with pytest.raises(Exception, match="nothing was changed"):
        retention.resume(hands, {"reason": "", "actor": "os:1"})
    retention.resume(hands, {"reason": "NTP is in sync", "actor": "os:1"})
    shop.work()
    assert len(shop.segments) < before
    assert [each.action for each in shop.orders()] == ["erase.segment", "retention.resume", "erase.segment"]
    assert past.read(shop.paths.retention) == shop.now
    assert not retention.resume(hands, {"reason": "once more", "actor": "os:1"})["changed"]
    assert len(shop.orders()) == 3  # nothing was stopped, so nothing is on record


def test_broken_time_file_destroys_nothing(shop: Shop) -> None:
    before = shop.segments
    past.write(shop.paths.retention, T0)
    shop.paths.retention.write_text("{}")
    shop.work()
    assert shop.segments == before
    with pytest.raises(EnvironmentFault):
        past.read(shop.paths.retention)


def test_segment_whose_bundle_is_wrong_stays_and_status_says_why(shop: Shop) -> None:
    bundle = shop.paths.ledger / "log" / "tile" / "entries" / "001"
    data = bytearray(bundle.read_bytes())
    data[7] ^= 1
    bundle.write_bytes(data)
    first = shop.segments
    shop.work()
    assert first[0] in shop.segments
    status = shop.retention.status()
    assert status is not None
    assert "is not what the segment holds" in status["trouble"]


def test_many_old_segments_go_in_batches(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "BATCH", 2)
    shop.work()
    assert len(shop.segments) == 3
    assert [each.detail["segments"] for each in shop.orders()] == [2, 1]


def test_destroyed_segments_are_told_on_whose_word(shop: Shop) -> None:
    shop.work()
    report = verify(
        shop.paths.ledger, VERIFIER, lock=shop.paths.lock, private=Private(shop.paths.deks, READER, Pairing())
    )
    assert any("erase.segment) are on the order of retention" in text for text in report.notes)


def test_copy_that_still_has_a_destroyed_segment_cannot_read_it(shop: Shop, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(shop.root, copy)
    shop.work()
    shutil.rmtree(copy / "deks")
    shutil.copytree(shop.paths.deks, copy / "deks")
    assert len(list((copy / "ledger" / "segments").iterdir())) > len(shop.segments) + 1
    assert min(records(copy)) >= shop.segments[0]


def test_reader_tells_what_was_erased_between_held_segments_from_what_was_lost(shop: Shop) -> None:
    """So that who follows the log goes on behind the one, and stops before the other."""
    first = shop.segments
    shop.hold(until_us=T0 - DAY // 2)
    shop.hold(since_us=T0 - DAY, until_us=T0 + 1)
    shop.work()
    shop.caller.checkpoint()
    assert [each for each in first if each not in shop.segments] == [first[2]]
    reader = Reader(shop.paths.ledger, "acme/node-1", shop.paths.deks, READER)
    found = [index for index, _ in reader.forwards()]
    assert [(gap.first_index, gap.n, gap.erased) for gap in reader.gaps] == [(first[2], first[3] - first[2], True)]
    assert first[3] + 5 in found
    lost = next(path for path in (shop.paths.ledger / "segments").iterdir() if int(path.name[:16], 16) == first[4])
    lost.unlink()
    reader = Reader(shop.paths.ledger, "acme/node-1", shop.paths.deks, READER)
    assert len(list(reader.forwards())) < len(found)
    assert [(gap.first_index, gap.erased) for gap in reader.gaps] == [(first[2], True), (first[4], False)]
