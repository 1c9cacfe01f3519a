"""Sinks on ledgers of which something is gone: erased on purpose is passed over, lost is not."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.ledger import test_rotation
from tests.ledger.caller import READER, Caller
from tests.ledger.test_erase import redact
from tests.recorder.test_retention import Shop
from tests.recorder.test_retention import shop as shop  # a fixture

from gatebook.errors import Damaged
from gatebook.ledger.read import Reader
from gatebook.sinks.item import Item
from gatebook.sinks.stream import Place, Stream


def reader(root: Path) -> Reader:
    return Reader(root / "ledger", "acme/node-1", root / "deks", READER)


def sent(root: Path, place: Place | None = None) -> list[int]:
    """Indices of all that a sink is given; these ledgers' records are of no kind that this version can read."""
    stream = Stream(reader(root), place or Place())
    items: list[Item] = []
    while stream.behind:
        items += stream.read(64)
    assert stream.place.next == reader(root).size
    return [part.index for item in items for part in item.parts]


def held(root: Path) -> list[int]:
    return [index for index, _ in reader(root).forwards()]


def segments(root: Path) -> list[Path]:
    return sorted((root / "ledger" / "segments").iterdir())


def test_what_retention_destroyed_is_passed_over_by_sinks_that_begin_before_it_and_in_it(shop: Shop) -> None:
    before = held(shop.root)
    shop.work()
    shop.caller.checkpoint()
    shop.caller.writer._publisher.settle()
    left = held(shop.root)
    assert left[0] > before[0]
    assert sent(shop.root) == left
    assert sent(shop.root, Place(next=before[400], open=[before[10]])) == left


def test_redacted_record_is_passed_over_and_its_neighbours_are_sent(tmp_path: Path) -> None:
    root = tmp_path / "state"
    root.mkdir()
    caller = Caller(root)
    caller.add(5)
    caller.add(2)
    redact(caller, 3)
    caller.checkpoint()
    caller.close()
    assert 3 not in sent(root)
    assert sent(root) == held(root)


@pytest.mark.parametrize("number", [0, 1])
def test_segment_that_is_lost_stops_a_sink_and_is_not_passed_over(tmp_path: Path, number: int) -> None:
    root = tmp_path / "state"
    root.mkdir()
    caller = Caller(root)
    for _ in range(3):
        caller.add(20)
        caller.writer.roll()
    caller.add(1)
    caller.checkpoint()
    caller.close()
    assert len(sent(root)) == 61
    gone = segments(root)[number]
    gone.rename(tmp_path / "away")
    with pytest.raises(Damaged, match="cannot be read: no segment"):
        sent(root)
    (tmp_path / "away").rename(gone)
    assert len(sent(root)) == 61


def test_segment_that_lost_its_end_stops_a_sink(tmp_path: Path) -> None:
    root = tmp_path / "state"
    root.mkdir()
    caller = Caller(root)
    caller.add(20)
    caller.add(20)
    caller.writer.roll()
    caller.add(20)
    caller.checkpoint()
    caller.close()
    first = segments(root)[0]
    first.write_bytes(first.read_bytes()[:-50])
    with pytest.raises(Damaged, match="cannot be read"):
        sent(root)


def test_ledger_that_was_put_back_to_an_old_copy_stops_a_sink(tmp_path: Path) -> None:
    caller = Caller(tmp_path)
    caller.add(20)
    caller.close()
    size = reader(tmp_path).size
    assert sent(tmp_path, Place(next=size)) == []
    with pytest.raises(Damaged, match=f"has {size} entries, and {size + 1} have been sent"):
        sent(tmp_path, Place(next=size + 1))


def test_new_key_of_the_log_changes_nothing_for_a_sink(tmp_path: Path) -> None:
    rotating = test_rotation.Deployment(tmp_path).make()
    writer = rotating.open()
    test_rotation.add(writer, b"one", b"two")
    stream = Stream(reader(tmp_path), Place())
    first = [part.index for item in stream.read(100) for part in item.parts]
    rotating.rotate(writer, test_rotation.THIRD)
    test_rotation.add(writer, b"three")
    assert stream.refresh()
    assert [part.index for item in stream.read(100) for part in item.parts] == held(tmp_path)[2:]
    assert first + sent(tmp_path, Place(next=first[-1] + 1)) == held(tmp_path)
    writer.close()
