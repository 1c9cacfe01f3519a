"""Entries: what is read is exactly what would be written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatebook.errors import Damaged
from gatebook.ledger import entry
from gatebook.ledger.entry import (
    Anchor,
    Boot,
    Close,
    Entry,
    Erase,
    Heartbeat,
    Key,
    Loss,
    Policy,
    Record,
    Segment,
    encode,
    parse,
)

VECTORS: dict[str, Any] = json.loads((Path(__file__).parent / "vectors" / "ledger-v1.json").read_text())

U8, U16, U32, U64 = (st.integers(0, (1 << bits) - 1) for bits in (8, 16, 32, 64))


def raw(length: int) -> st.SearchStrategy[bytes]:
    return st.binary(min_size=length, max_size=length)


ENTRIES: st.SearchStrategy[Entry] = st.one_of(
    st.builds(Record, raw(32)),
    st.builds(Segment, raw(16), U64, U32, U64, U64, U64, raw(32), raw(16), raw(32)),
    st.builds(Boot, raw(16), raw(32), U64, raw(32), st.booleans()),
    st.builds(Heartbeat, U64, U32, U32, U32, U32, U32),
    st.builds(Erase, U8, raw(16), raw(32), raw(32), U16, raw(32)),
    st.builds(Key, U8, raw(16), raw(16), raw(32), raw(64)),
    st.builds(Loss, raw(8), U64, U64, U16),
    st.builds(Anchor, U8, U64, raw(32)),
    st.builds(Policy, raw(32), U64),
    st.builds(Close, raw(32)),
)

# One of each type, with its length: 4 bytes of header and the widths of its fields.
EXAMPLES: list[tuple[Entry, int, int]] = [
    (Record(b"c" * 32), 0x01, 36),
    (Segment(b"s" * 16, 1, 2, 3, 4, 5, b"f" * 32, b"d" * 16, b"p" * 32), 0x02, 136),
    (Boot(b"b" * 16, b"d" * 32, 7, b"r" * 32, True), 0x03, 93),
    (Heartbeat(1, 2, 3, 4, 5, 6), 0x04, 32),
    (Erase(1, b"o" * 16, b"a" * 32, b"b" * 32, 9, b"c" * 32), 0x05, 119),
    (Key(1, b"o" * 16, b"n" * 16, b"p" * 32, b"s" * 64), 0x06, 133),
    (Loss(b"recovery", 5, 6, 1), 0x07, 30),
    (Anchor(2, 8, b"r" * 32), 0x08, 45),
    (Policy(b"p" * 32, 3), 0x09, 44),
    (Close(b"o" * 32), 0x0A, 36),
]


@pytest.mark.parametrize("record", VECTORS["records"], ids=lambda record: str(record["index"]))
def test_vectors_both_ways(record: dict[str, Any]) -> None:
    data = bytes.fromhex(record["entry"])
    commitment = bytes.fromhex(record["commitment"])
    assert encode(Record(commitment)) == data
    assert parse(data) == Record(commitment)
    assert entry.encode_records([commitment]) == [data]


@pytest.mark.parametrize(("example", "code", "length"), EXAMPLES, ids=lambda value: type(value).__name__)
def test_type_byte_and_length_are_those_of_the_format(example: Entry, code: int, length: int) -> None:
    data = encode(example)
    assert data[:4] == b"GB\x01" + bytes([code])
    assert len(data) == length
    assert parse(data) == example
    assert type(parse(data)) is type(example)


def test_numbers_are_big_endian() -> None:
    assert encode(Policy(bytes(32), 0x0102))[-8:] == bytes.fromhex("0000000000000102")


@given(ENTRIES)
def test_every_entry_survives_both_ways(example: Entry) -> None:
    assert parse(encode(example)) == example


@given(st.one_of(st.binary(max_size=200), ENTRIES.map(encode).flatmap(lambda d: st.just(d + b"\0"))))
def test_hostile_bytes_are_refused_or_are_the_one_spelling(data: bytes) -> None:
    try:
        found = parse(data)
    except Damaged:
        return
    assert encode(found) == data


@pytest.mark.parametrize(("example", "code", "length"), EXAMPLES, ids=lambda value: type(value).__name__)
def test_cut_or_lengthened_entry_is_refused(example: Entry, code: int, length: int) -> None:
    data = encode(example)
    for wrong in (data[:-1], data + b"\0", data[:4], data[:3], b""):
        with pytest.raises(Damaged):
            parse(wrong)


@pytest.mark.parametrize("head", ["47420001", "47420201", "47430101", "47420100", "4742010b", "474201ff"])
def test_other_magic_version_or_type_is_refused(head: str) -> None:
    with pytest.raises(Damaged):
        parse(bytes.fromhex(head) + bytes(32))


def test_boolean_has_one_spelling() -> None:
    data = encode(EXAMPLES[2][0])
    with pytest.raises(Damaged, match="clean"):
        parse(data[:-1] + b"\x02")


@pytest.mark.parametrize(
    "wrong",
    [
        Record(b"short"),
        Record(b"x" * 33),
        Policy(bytes(32), -1),
        Policy(bytes(32), 1 << 64),
        Heartbeat(0, 1 << 32, 0, 0, 0, 0),
        Loss(b"recorder9", 0, 0, 1),
        Erase(256, bytes(16), bytes(32), bytes(32), 0, bytes(32)),
    ],
    ids=repr,
)
def test_field_that_does_not_fit_is_refused_not_cut(wrong: Entry) -> None:
    with pytest.raises(ValueError, match=type(wrong).__name__):
        encode(wrong)
