"""A segment written anew: the same tree, every record that stays, none that was removed, and no salt of it."""

from __future__ import annotations

import hashlib
import tracemalloc
from dataclasses import replace

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from gatebook.errors import Tampered
from gatebook.ledger import explicit, rewrite, segment
from gatebook.ledger.entry import Policy, encode
from gatebook.ledger.explicit import Opened, Removed
from gatebook.ledger.segment import Header, Memo, Place

OLD, NEW = segment.derive(b"o" * 32), segment.derive(b"n" * 32)
HEADER = Header(b"s" * 16, b"o" * 16, 70, 1_700_000_000_000_000, hashlib.sha256(b"acme/node-1").digest())
POLICY = encode(Policy(bytes(32), 1))
compress = zstandard.ZstdCompressor(level=1).compress


def build(frames: list[list[bytes] | None]) -> bytes:
    """A segment of frames of records; None: a memo and an entry that is none."""
    head = segment.encode_header(HEADER)
    data, place = head, HEADER.start
    for frame in frames:
        if frame is None:
            data += segment.memo_frame(place, place.number, b"memo")
            place = Place(len(data), place.number + 1, place.first_index, place.first_record)
            data += segment.clear_frame(place, [POLICY])
            place = Place(len(data), place.number + 1, place.first_index + 1, place.first_record)
        else:
            made, _ = segment.seal_frame(head, OLD, place, frame, (3, 7), compress)
            data += made
            n = len(frame)
            place = Place(len(data), place.number + 1, place.first_index + n, place.first_record + n)
    return data


@settings(max_examples=50)
@given(
    st.lists(
        st.one_of(st.none(), st.lists(st.binary(min_size=9, max_size=40), min_size=1, max_size=4)), max_size=5
    ),
    st.randoms(use_true_random=False),
)
def test_any_records_can_be_removed_from_any_segment(frames: list[list[bytes] | None], chance: object) -> None:
    data = build(frames)
    known = rewrite.contents(data, OLD)
    choose = getattr(chance, "random")  # noqa: B009 - hypothesis gives no type
    removed = {index: f"why {index}" for index in known if choose() < 0.5}
    made = rewrite.without(data, OLD, removed, b"n" * 16, NEW, compress)
    assert rewrite.contents(made, NEW) == known | {index: Removed(why) for index, why in removed.items()}
    assert segment.parse_header(made) == replace(HEADER, dek_id=b"n" * 16, rewritten=True)
    before, after = list(segment.parse_frames(data, HEADER.start)), list(segment.parse_frames(made, HEADER.start))
    assert [frame.entries for frame in before] == [frame.entries for frame in after]
    assert [f.body for f in before if isinstance(f, Memo)] == [f.body for f in after if isinstance(f, Memo)]
    again = rewrite.without(made, NEW, removed, b"m" * 16, OLD, compress)
    assert rewrite.contents(again, OLD) == rewrite.contents(made, NEW)


def test_record_that_is_not_there_cannot_be_removed() -> None:
    data = build([[b"one"]])
    with pytest.raises(ValueError, match="not in this segment"):
        rewrite.without(data, OLD, {99: "why"}, b"n" * 16, NEW, compress)


def test_record_that_was_changed_on_the_way_is_not_sealed_anew() -> None:
    """Whoever wrote the segment must not be able to have other bytes vouched for."""
    head = segment.encode_header(replace(HEADER, rewritten=True))
    packed = compress(explicit.pack([Opened(bytes(32), b"another"), Opened(bytes(32), b"two")]))
    data = head + segment.seal(head, OLD, HEADER.start, [b"c" * 32, b"d" * 32], (3, 7), packed)
    with pytest.raises(Tampered, match="does not commit to"):
        rewrite.without(data, OLD, {71: "why"}, b"n" * 16, NEW, compress)


def test_large_segment_is_never_held_opened_as_a_whole() -> None:
    """It compresses well: its records have 64 MiB, its file a fraction of that."""
    data = build([[bytes(1 << 20)] * 4] * 16)
    tracemalloc.start()
    try:
        rewrite.without(data, OLD, {70: "why"}, b"n" * 16, NEW, compress)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 32 << 20


def test_key_that_opens_nothing_is_refused_before_anything_is_made() -> None:
    with pytest.raises(Tampered, match="its key does not open it"):
        rewrite.contents(build([[b"one"]]), NEW)
