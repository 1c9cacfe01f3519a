"""Frames with explicit salts: what was packed is read, and a removed record leaves nothing."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatebook.ledger.explicit import MAX_WHY_BYTES, Opened, Removed, pack, unpack

SALTS = st.binary(min_size=32, max_size=32)
CONTENTS = st.one_of(st.builds(Opened, SALTS, st.binary(max_size=60)), st.builds(Removed, st.text(max_size=40)))


@given(st.lists(CONTENTS, max_size=8))
def test_what_is_packed_is_read(contents: list[Opened | Removed]) -> None:
    assert unpack(pack(contents), len(contents)) == contents


@given(st.binary(max_size=200), st.integers(0, 5))
def test_bytes_of_anybody_are_read_exactly_or_refused(data: bytes, n: int) -> None:
    try:
        found = unpack(data, n)
    except ValueError:
        return
    assert pack(found) == data


def test_removed_record_has_no_salt_beside_it() -> None:
    data = pack([Opened(b"a" * 32, b"one"), Removed("gone")])
    assert data == struct.pack("<2I", 3, 4 | 1 << 31) + b"a" * 32 + bytes(32) + b"onegone"


def test_removed_record_that_has_left_its_salt_is_refused() -> None:
    data = bytearray(pack([Removed("gone")]))
    data[4:36] = b"s" * 32
    with pytest.raises(ValueError, match="has left something"):
        unpack(bytes(data), 1)


def test_no_record_is_smuggled_in_as_words_about_a_removed_one() -> None:
    with pytest.raises(ValueError, match="bytes are said of a removed record"):
        pack([Removed("x" * (MAX_WHY_BYTES + 1))])
    data = struct.pack("<I", MAX_WHY_BYTES + 1 | 1 << 31) + bytes(32) + b"x" * (MAX_WHY_BYTES + 1)
    with pytest.raises(ValueError, match="has left something"):
        unpack(data, 1)


@pytest.mark.parametrize("cut", [1, 3, 30, 36, 39])
def test_bytes_that_are_cut_short_or_go_on_are_refused(cut: int) -> None:
    data = pack([Opened(b"a" * 32, b"record")])
    with pytest.raises(ValueError, match=r"hold no|add up"):
        unpack(data[:-cut], 1)
    with pytest.raises(ValueError, match="add up"):
        unpack(data + bytes(cut), 1)
