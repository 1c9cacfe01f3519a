"""Memos: what they add up to is what was encoded, whatever happened in between; other bytes are refused."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatebook.errors import Damaged
from gatebook.recorder import memo
from gatebook.recorder.journal import Journal
from gatebook.recorder.memo import Change, Cursor, Open, Snapshot, restore

tags = st.binary(min_size=8, max_size=8)
opened = st.builds(Open, st.integers(1, 3), tags)
decisions = st.dictionaries(st.integers(0, 40), opened, max_size=20)
offsets = st.dictionaries(st.integers(1, 5), st.integers(0, 1 << 40), max_size=3)
cursors = st.builds(Cursor, st.text(max_size=5), offsets, offsets, offsets)


def snapshot(decisions: dict[int, Open], cursor: Cursor | None = None) -> bytes:
    return memo.encode(Snapshot(*memo.runs(sorted(decisions.items())), cursor))


@given(decisions, st.none() | cursors)
def test_snapshot_says_everything(decisions: dict[int, Open], cursor: Cursor | None) -> None:
    restored = restore([(17, snapshot(decisions, cursor))])
    assert restored.open == decisions
    assert restored.cursor == cursor


@given(decisions, decisions, st.sets(st.integers(0, 99)), cursors, st.none() | cursors)
def test_changes_add_up(
    before: dict[int, Open], frame: dict[int, Open], closed: set[int], cursor: Cursor, moved: Cursor | None
) -> None:
    change = Change(*memo.runs(sorted(frame.items())), sorted(closed), moved)
    restored = restore([(0, snapshot(before, cursor)), (50, memo.encode(change))])
    expected = before | {50 + position: each for position, each in frame.items()}
    assert restored.open == {index: each for index, each in expected.items() if index not in closed}
    assert restored.cursor == (moved or cursor)


def test_snapshot_takes_the_place_of_all_before() -> None:
    first = snapshot({1: Open(7, b"a" * 8)}, Cursor("x", {}, {}))
    assert restore([(0, first), (9, snapshot({}))]) == memo.Restored({}, None)


def test_decisions_of_one_worker_in_a_row_are_one_run() -> None:
    runs, found = memo.runs((position, Open(7, b"%08d" % position)) for position in range(1000))
    assert runs == [(7, 0, 1000)]
    assert len(found) == 8000


def test_nothing_of_a_request_can_be_read_in_a_memo() -> None:
    """Memos are clear, and a request's id is in its upstream's logs, beside a name perhaps."""
    from tests.recorder.place import item

    request = item(0xABCDEF)
    seen: list[bytes] = []

    class Ledger:
        def append(self, records: object, memo: bytes = b"") -> int:
            seen.append(memo)
            return 0

        def append_entry(self, entry: object, memo: bytes = b"") -> int:
            return 0

        def sync(self) -> None:
            pass

    def memo_under(key: bytes) -> bytes:
        journal = Journal(key)
        journal.add([request], lambda _: None)
        journal.commit(Ledger())
        return seen[-1]

    assert memo_under(b"a" * 32) == memo_under(b"a" * 32)
    assert memo_under(b"a" * 32) != memo_under(b"b" * 32)
    assert request.request_id.encode() not in seen[0]
    assert bytes.fromhex(request.request_id) not in seen[0]


@given(st.binary(max_size=60))
def test_other_bytes_are_damage_never_an_accident(data: bytes) -> None:
    journal = Journal()
    try:
        msgspec.msgpack.decode(data, type=Change | Snapshot)
    except ValueError:
        with pytest.raises(Damaged, match="memos"):
            journal.restore([(0, data)])
