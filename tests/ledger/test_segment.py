"""Segments: sealed as the vectors say, opened only when nothing was touched."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from gatebook.errors import Damaged, Tampered
from gatebook.ledger import segment
from gatebook.ledger.entry import Policy, Record, encode, encode_records
from gatebook.ledger.segment import (
    HEADER_BYTES,
    Clear,
    FrameError,
    Header,
    Memo,
    Place,
    Sealed,
    after,
    clear_frame,
    commitment,
    derive,
    encode_header,
    memo_frame,
    open_frame,
    parse_frames,
    parse_header,
    salts,
    seal_frame,
)

VECTORS: dict[str, Any] = json.loads((Path(__file__).parent / "vectors" / "ledger-v1.json").read_text())
KAT: dict[str, str] = VECTORS["aead_kat"]
DEK = bytes.fromhex(VECTORS["dek"])
KEYS = derive(DEK)
HEADER = Header(
    bytes.fromhex(VECTORS["segment_id"]),
    bytes.fromhex(VECTORS["dek_id"]),
    VECTORS["first_index"],
    VECTORS["created_us"],
    segment._sha256(VECTORS["origin"].encode()).digest(),
)
HEADER_DATA = encode_header(HEADER)
RECORDS = [record["bytes"].encode() for record in VECTORS["records"]]
TIMES = (1_700_000_000_000_000, 1_700_000_000_000_001)
POLICY = encode(Policy(bytes(32), 1))


def same(data: bytes) -> bytes:
    return data


compress = zstandard.ZstdCompressor(level=1).compress


def build(*frames: bytes | list[bytes]) -> bytes:
    """A segment: a list of records is sealed, bytes beginning with "GB" are an entry, others a memo."""
    data, place = HEADER_DATA, HEADER.start
    for frame in frames:
        if isinstance(frame, list):
            made = seal_frame(HEADER_DATA, KEYS, place, frame, TIMES, compress)[0]
        else:
            made = clear_frame(place, [frame]) if frame[:2] == b"GB" else memo_frame(place, 0, frame)
        data += made
        place = after(segment.parse_frame(memoryview(data), place))
    return data


# -- the vectors ----------------------------------------------------------------------------------------


def test_header_vector_both_ways() -> None:
    data = bytes.fromhex(VECTORS["segment_header"])
    assert data == HEADER_DATA
    assert parse_header(data + b"frames") == HEADER


def test_salts_and_commitments_are_the_vectors() -> None:
    made = salts(KEYS, 0, len(RECORDS))
    assert [salt.hex() for salt in made] == [record["salt"] for record in VECTORS["records"]]
    found = [commitment(salt, record).hex() for salt, record in zip(made, RECORDS, strict=True)]
    assert found == [record["commitment"] for record in VECTORS["records"]]


@pytest.mark.parametrize("start", [1, 2])
def test_salts_from_the_middle_are_those_of_the_whole(start: int) -> None:
    assert salts(KEYS, start, 3 - start) == salts(KEYS, 0, 3)[start:]


def test_sealed_frame_is_the_known_answer_and_opens() -> None:
    data, made = seal_frame(HEADER_DATA, KEYS, HEADER.start, RECORDS, TIMES, same)
    joined = b"".join(made)
    assert data[:40].hex() == KAT["frame_header"]
    assert data[40 : 40 + len(joined)] == joined
    assert data[40 + len(joined) : -32].hex() == KAT["ciphertext"]
    assert data[-32:] == segment._sha256(data[:-32]).digest()
    (frame,) = parse_frames(HEADER_DATA + data, HEADER.start)
    assert isinstance(frame, Sealed)
    assert frame.entries == [bytes.fromhex(record["entry"]) for record in VECTORS["records"]]
    assert open_frame(HEADER_DATA, KEYS, frame, decompress=same) == RECORDS


# -- both ways ------------------------------------------------------------------------------------------


@given(
    st.lists(
        st.one_of(
            st.lists(st.binary(max_size=50), min_size=1, max_size=5),
            st.just(POLICY),
        ),
        max_size=6,
    ),
    st.booleans(),
)
def test_what_is_sealed_is_what_is_read(frames: list[bytes | list[bytes]], with_memos: bool) -> None:
    written: list[bytes | list[bytes]] = []
    for frame in frames:
        written += [b"memo", frame] if with_memos else [frame]
    data = build(*written)
    found = list(parse_frames(data, HEADER.start))
    read: list[object] = []
    for at in found:
        match at:
            case Sealed():
                read.append(open_frame(HEADER_DATA, KEYS, at))
            case Clear():
                read += at.entries
            case Memo():
                read.append(at.body)
    assert read == written
    assert [at.place.number for at in found] == list(range(len(found)))
    assert sum(len(at.entries) for at in found) == sum(
        len(frame) if isinstance(frame, list) else 1 for frame in frames
    )


def test_reading_can_go_on_where_it_stopped() -> None:
    data = build([b"a", b"b"], POLICY, b"memo", [b"c"])
    frames = list(parse_frames(data, HEADER.start))
    for at, frame in enumerate(frames[:-1], 1):
        if not isinstance(frame, Memo):
            assert list(parse_frames(data, after(frame))) == frames[at:]
    last = frames[-1]
    assert isinstance(last, Sealed)
    assert last.place.first_record == 2
    assert last.place.first_index == 3


def test_keyless_frame_bytes_are_those_of_the_decision() -> None:
    place = Place(500, 7, 9, 3)
    entry = clear_frame(place, [POLICY])
    assert entry[:24].hex() == "47424645000000070000000000000009000000010000002e"
    assert entry[24:-32] == b"\x00\x2c" + POLICY
    memo = memo_frame(place, 5, b"abc")
    assert memo[:24].hex() == "4742464d0000000700000000000000090000000500000003"
    assert memo[24:-32] == b"abc"
    assert memo[-32:] == segment._sha256(memo[:-32]).digest()


# -- attacks and accidents ------------------------------------------------------------------------------


def test_every_flipped_bit_of_a_header_is_seen() -> None:
    for bit in range(8 * HEADER_BYTES):
        data = bytearray(HEADER_DATA)
        data[bit // 8] ^= 1 << bit % 8
        with pytest.raises(Damaged):
            parse_header(bytes(data))


@pytest.mark.parametrize("at", [0, 5, 56, 57, 58, 59, 63])
def test_header_of_another_format_is_refused_even_with_its_hash_right(at: int) -> None:
    body = bytearray(HEADER_DATA[:96])
    body[at] ^= 2
    with pytest.raises(Damaged, match="unknown format"):
        parse_header(bytes(body) + segment._sha256(body).digest())


def test_every_flipped_byte_of_a_frame_is_seen_without_a_key() -> None:
    data = build([b"one", b"two"], b"memo", POLICY)
    for at in range(HEADER_BYTES, len(data)):
        bad = bytearray(data)
        bad[at] ^= 0x10
        with pytest.raises(FrameError):
            list(parse_frames(bytes(bad), HEADER.start))


def test_every_cut_is_seen_and_is_short() -> None:
    data = build(POLICY, [b"one", b"two"])
    first = next(parse_frames(data, HEADER.start))
    for length in range(first.end + 1, len(data)):
        frames = parse_frames(data[:length], HEADER.start)
        assert next(frames) == first
        with pytest.raises(FrameError) as caught:
            next(frames)
        assert caught.value.short
        assert caught.value.place == after(first)


def test_corrupt_is_not_short() -> None:
    data = bytearray(build([b"one"], [b"two"]))
    data[HEADER_BYTES + 60] ^= 1
    with pytest.raises(FrameError) as caught:
        list(parse_frames(bytes(data), HEADER.start))
    assert not caught.value.short


def forged(data: bytes, start: int) -> bytes:
    """The same bytes with the hash of the one frame from `start` on made right again."""
    return data[:-32] + segment._sha256(data[start:-32]).digest()


@pytest.mark.parametrize("at", [7, 15], ids=["number", "index"])
def test_frame_out_of_its_place_is_refused(at: int) -> None:
    data = bytearray(build([b"one"]))
    data[HEADER_BYTES + at] += 1
    with pytest.raises(FrameError, match="is numbered"):
        list(parse_frames(forged(bytes(data), HEADER_BYTES), HEADER.start))


def test_repeated_frame_is_refused() -> None:
    data = build([b"one"])
    with pytest.raises(FrameError, match="is numbered"):
        list(parse_frames(data + data[HEADER_BYTES:], HEADER.start))


def test_two_memos_in_a_row_are_refused() -> None:
    with pytest.raises(FrameError, match="behind a memo"):
        list(parse_frames(build(b"one", b"two"), HEADER.start))


def test_memo_that_claims_syncs_that_cannot_have_been_is_refused() -> None:
    with pytest.raises(FrameError, match="synced"):
        list(parse_frames(HEADER_DATA + memo_frame(HEADER.start, 1, b""), HEADER.start))


def test_frame_without_entries_is_refused() -> None:
    with pytest.raises(FrameError, match="0 entries"):
        list(parse_frames(HEADER_DATA + clear_frame(HEADER.start, []), HEADER.start))


def test_record_entry_without_its_record_is_refused() -> None:
    data = HEADER_DATA + clear_frame(HEADER.start, [encode(Record(bytes(32)))])
    with pytest.raises(FrameError, match="holds an entry"):
        list(parse_frames(data, HEADER.start))


def test_claimed_entry_count_must_be_the_bundles() -> None:
    data = bytearray(build(POLICY))
    data[HEADER_BYTES + 19] = 2
    with pytest.raises(FrameError, match="2"):
        list(parse_frames(forged(bytes(data), HEADER_BYTES), HEADER.start))


@pytest.mark.parametrize("at", [24, 32, 40, 41, 72, 73, 90])
def test_forger_without_the_key_cannot_change_times_commitments_or_content(at: int) -> None:
    """His frame hash is right, so it takes the key to see; the file's hash in SEGMENT tells without."""
    data = bytearray(build([b"one"]))
    data[HEADER_BYTES + at] ^= 1
    (frame,) = parse_frames(forged(bytes(data), HEADER_BYTES), HEADER.start)
    assert isinstance(frame, Sealed)
    with pytest.raises(Tampered, match="key does not open"):
        open_frame(HEADER_DATA, KEYS, frame)


def test_frame_of_another_segment_does_not_open() -> None:
    (frame,) = parse_frames(build([b"one"]), HEADER.start)
    assert isinstance(frame, Sealed)
    other = encode_header(Header(bytes(16), HEADER.dek_id, 0, HEADER.created_us, HEADER.origin_sha256))
    with pytest.raises(Tampered):
        open_frame(other, KEYS, frame)
    with pytest.raises(Tampered):
        open_frame(HEADER_DATA, derive(bytes(32)), frame)


def test_key_holder_who_seals_other_records_than_he_commits_to_is_caught() -> None:
    data, made = seal_frame(HEADER_DATA, KEYS, HEADER.start, [b"told"], TIMES, compress)
    joined, payload = b"".join(made), compress(segment._pack([b"kept"]))
    head = data[:20] + (len(payload) + 16).to_bytes(4, "big") + data[24:40]
    ciphertext = KEYS.aead.encrypt(bytes(12), payload, segment._aad(HEADER_DATA, head, joined))
    (frame,) = parse_frames(HEADER_DATA + segment._finish(head + joined + ciphertext), HEADER.start)
    assert isinstance(frame, Sealed)
    with pytest.raises(Tampered, match="does not commit"):
        open_frame(HEADER_DATA, KEYS, frame)


@pytest.mark.parametrize(
    "payload",
    [
        b"not zstd",
        compress(b""),
        compress(segment._pack([b"one"]) + b"x"),
        compress(segment._pack([b"one"])[:-1]),
        compress(segment._pack([b"one"])) + b"x",
        zstandard.ZstdCompressor(write_content_size=False).compress(segment._pack([b"one"])),
        compress(bytes(segment.MAX_PLAIN_BYTES + 1)),
    ],
    ids=["garbage", "empty", "too long", "too short", "extra", "no size", "bomb"],
)
def test_key_holders_malformed_payload_is_refused_in_bounds(payload: bytes) -> None:
    data = seal_frame(HEADER_DATA, KEYS, HEADER.start, [b"one"], TIMES, lambda _: payload)[0]
    (frame,) = parse_frames(HEADER_DATA + data, HEADER.start)
    assert isinstance(frame, Sealed)
    with pytest.raises(Tampered):
        open_frame(HEADER_DATA, KEYS, frame)


@settings(max_examples=300)
@given(st.binary(max_size=300), st.sampled_from([b"", b"GBFR", b"GBFE", b"GBFM"]))
def test_hostile_bytes_end_in_an_error_of_ours(tail: bytes, magic: bytes) -> None:
    with pytest.raises(FrameError):
        list(parse_frames(HEADER_DATA + magic + tail + b"!", HEADER.start))


def test_entries_of_records_are_encoded_as_entry_does() -> None:
    (frame,) = parse_frames(build([b"one"]), HEADER.start)
    assert isinstance(frame, Sealed)
    assert frame.entries == [encode(Record(frame.commitments[0]))] == encode_records(frame.commitments)


def test_file_name_says_where_it_begins_and_who_it_is() -> None:
    header = Header(bytes.fromhex("00010203") + bytes(12), bytes(16), 0x1234, 0, bytes(32))
    assert header.file_name == "0000000000001234-00010203.gbseg"


@pytest.mark.parametrize(
    "header", [Header(b"short", bytes(16), 0, 0, bytes(32)), Header(bytes(16), bytes(16), 0, 0, b"")]
)
def test_header_with_a_short_id_is_refused(header: Header) -> None:
    with pytest.raises(ValueError, match="segment header"):
        encode_header(header)


def test_short_dek_is_refused() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        derive(bytes(16))
