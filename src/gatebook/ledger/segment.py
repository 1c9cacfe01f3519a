"""Segments: the bytes of their header and frames, sealed and opened (format 4, and decision 3).

    header 128 | frame | frame | ...
    "GBFR" sealed   n records, encrypted; their n commitments in the clear
    "GBFE" clear    n entries that are no records
    "GBFM" memo     bytes of the caller's, bound to the frame behind it
    all:   magic 4 | number u32 | first_index u64 | n u32 | length u32 | ... | SHA256 of the frame so far 32

Salts are derived, but for a segment that was written anew to remove a record (`explicit`). The tree can be rebuilt
from the clear parts: `parse_frames` never needs a key. `open_frame` never returns a record that its commitment
does not name. Counter nonces: a (DEK, number) pair is never used twice, which is the writer's to keep. Pure.
"""

from __future__ import annotations

import contextlib
import hashlib
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import zstandard
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from gatebook.errors import Damaged, Tampered
from gatebook.ledger import explicit
from gatebook.ledger.entry import MAGIC as ENTRY_MAGIC
from gatebook.ledger.entry import RECORD_PREFIX, encode_records
from gatebook.ledger.explicit import Opened, Removed
from gatebook.ledger.tiles import encode_bundle, parse_bundle

HEADER_BYTES: Final = 128
NO_DEK: Final = bytes(16)  # the dek_id of a segment that holds no record
MAX_PLAIN_BYTES: Final = 64 << 20  # of one frame's records together, before compression
MAX_FRAME_ENTRIES: Final = 1 << 16

SEALED, CLEAR, MEMO = b"GBFR", b"GBFE", b"GBFM"
_MAGIC = b"GBSEG\0\1\n"
# AES-256-GCM, zstd, JSON, how salts are had, u32 0
_DERIVED, _EXPLICIT = bytes([1, 1, 1, 0, 0, 0, 0, 0]), bytes([1, 1, 1, 1, 0, 0, 0, 0])
_HEADER = struct.Struct(">8s16s16sQQ8s32s")
_HEAD = struct.Struct(">4sIQII")
_TIMES = struct.Struct(">QQ")
_HASH = 32
_COMMITMENT_PREFIX = b"gatebook/record1"

_sha256 = hashlib.sha256


class FrameError(Damaged):
    """A frame that is not one. `short`: the bytes end within it, as when it is still being written.

    `offset`, `number` and `first_index` say where, and which frame was expected there.
    """

    def __init__(self, message: str, place: Place, *, short: bool) -> None:
        super().__init__(f"frame {place.number} at byte {place.offset}: {message}")
        self.place = place
        self.short = short


class Place(NamedTuple):
    """Where in a segment a frame begins, and what it has to be numbered."""

    offset: int
    number: int
    first_index: int  # of its first entry in the ledger
    first_record: int  # of its first record among the segment's records


@dataclass(frozen=True, slots=True)
class Header:
    """Who a segment is. `dek_id` NO_DEK: there is no key, and no record. `rewritten`: it has explicit salts."""

    segment_id: bytes
    dek_id: bytes
    first_index: int
    created_us: int
    origin_sha256: bytes
    rewritten: bool = False

    @property
    def file_name(self) -> str:
        return f"{self.first_index:016x}-{self.segment_id[:4].hex()}.gbseg"

    @property
    def start(self) -> Place:
        return Place(HEADER_BYTES, 0, self.first_index, 0)


def encode_header(header: Header) -> bytes:
    """128 bytes. Raises ValueError when a field does not fit."""
    sizes = (len(header.segment_id), len(header.dek_id), len(header.origin_sha256))
    if sizes != (16, 16, 32):
        raise ValueError(f"segment header: ids of {sizes[0]} and {sizes[1]} bytes, hash of {sizes[2]}")
    body = _HEADER.pack(
        _MAGIC,
        header.segment_id,
        header.dek_id,
        header.first_index,
        header.created_us,
        _EXPLICIT if header.rewritten else _DERIVED,
        header.origin_sha256,
    )
    return body + _sha256(body).digest()


def parse_header(data: bytes) -> Header:
    """From a segment's first 128 bytes or more. Raises Damaged on anything that `encode_header` does not give."""
    if len(data) < HEADER_BYTES:
        raise Damaged(f"segment of {len(data)} bytes; its header alone has {HEADER_BYTES}")
    body = bytes(data[:96])
    if _sha256(body).digest() != data[96:HEADER_BYTES]:
        raise Damaged("segment header does not match its own hash")
    magic, segment_id, dek_id, first_index, created_us, modes, origin = _HEADER.unpack(body)
    if magic != _MAGIC or modes not in (_DERIVED, _EXPLICIT):
        raise Damaged(f"segment of an unknown format: {magic.hex()}, {modes.hex()}; a newer gatebook may know it")
    return Header(segment_id, dek_id, first_index, created_us, origin, modes == _EXPLICIT)


# -- keys, salts, commitments ---------------------------------------------------------------------------


class Keys(NamedTuple):
    """What a segment's DEK gives. Secret."""

    aead: AESGCM
    salt: bytes


def derive(dek: bytes) -> Keys:
    """From the 32 bytes of a segment's DEK."""
    if len(dek) != 32:
        raise ValueError(f"a DEK has 32 bytes, not {len(dek)}")
    return Keys(AESGCM(_expand(dek, b"gatebook/seg/v1/enc")), _expand(dek, b"gatebook/seg/v1/salt"))


def _expand(dek: bytes, info: bytes) -> bytes:
    return HKDFExpand(SHA256(), 32, info).derive(dek)


def salts(keys: Keys, record: int, n: int) -> list[bytes]:
    """The salts of the segment's records `record` to `record + n - 1`: two counter blocks each."""
    counter = (2 * record).to_bytes(16, "big")
    stream = Cipher(algorithms.AES256(keys.salt), modes.CTR(counter)).encryptor().update(bytes(32 * n))
    return [stream[at : at + 32] for at in range(0, 32 * n, 32)]


def commitment(salt: bytes, record: bytes) -> bytes:
    """What a RECORD entry holds. Without the salt nothing about the record can be guessed from it."""
    return _sha256(_COMMITMENT_PREFIX + salt + record).digest()


def _commitments(keys: Keys, record: int, records: Sequence[bytes]) -> list[bytes]:
    sha256, prefix = _sha256, _COMMITMENT_PREFIX
    pairs = zip(salts(keys, record, len(records)), records, strict=True)
    return [sha256(prefix + salt + data).digest() for salt, data in pairs]


# -- frames ---------------------------------------------------------------------------------------------


class Sealed(NamedTuple):
    """A frame of records."""

    place: Place
    end: int
    commitments: list[bytes]
    t_min_us: int
    t_max_us: int
    ciphertext: bytes

    @property
    def entries(self) -> list[bytes]:
        return encode_records(self.commitments)


class Clear(NamedTuple):
    """A frame of entries that are no records."""

    place: Place
    end: int
    entries: list[bytes]


class Memo(NamedTuple):
    """Bytes that count exactly if the frame behind them is whole.

    `durable`: how many frames of this segment, counted from its first, were synced when this was written.
    """

    place: Place
    end: int
    durable: int
    body: bytes

    @property
    def entries(self) -> list[bytes]:
        return []


Frame = Sealed | Clear | Memo


def seal_frame(
    header: bytes,
    keys: Keys,
    place: Place,
    records: Sequence[bytes],
    times_us: tuple[int, int],
    compress: Callable[[bytes], bytes],
) -> tuple[bytes, list[bytes]]:
    """The frame's bytes and its records' commitments. `header`: the segment's; `place.offset` is not used."""
    made = _commitments(keys, place.first_record, records)
    return seal(header, keys, place, made, times_us, compress(_pack(records))), made


def seal(
    header: bytes, keys: Keys, place: Place, made: list[bytes], times_us: tuple[int, int], payload: bytes
) -> bytes:
    """The frame's bytes around what is packed and compressed already. `made`: its commitments."""
    joined = b"".join(made)
    times = _TIMES.pack(*times_us)
    head = _HEAD.pack(SEALED, place.number, place.first_index, len(made), len(payload) + 16) + times
    ciphertext = keys.aead.encrypt(_nonce(place.number), payload, _aad(header, head, joined))
    frame = b"".join((head, joined, ciphertext))
    return frame + _sha256(frame).digest()


def clear_frame(place: Place, entries: Sequence[bytes]) -> bytes:
    """Entries that are no records: they need no key, so recovery needs none."""
    body = encode_bundle(entries)
    return _finish(_HEAD.pack(CLEAR, place.number, place.first_index, len(entries), len(body)) + body)


def memo_frame(place: Place, durable: int, body: bytes) -> bytes:
    """Belongs in front of another frame; takes no index."""
    return _finish(_HEAD.pack(MEMO, place.number, place.first_index, durable, len(body)) + body)


def _finish(frame: bytes) -> bytes:
    return frame + _sha256(frame).digest()


def _nonce(number: int) -> bytes:
    return number.to_bytes(12, "big")


def _aad(header: bytes, head: bytes, commitments: bytes) -> bytes:
    return header[:96] + head + _sha256(commitments).digest()


def _pack(records: Sequence[bytes]) -> bytes:
    lengths = struct.pack(f"<{len(records)}I", *map(len, records))
    return lengths + b"".join(records)


def open_frame(
    header: bytes,
    keys: Keys,
    frame: Sealed,
    decompress: Callable[[bytes], bytes] | None = None,
) -> list[bytes | Removed]:
    """The frame's records, each checked against its commitment. Raises Tampered."""
    found = open_with_salts(header, keys, frame, decompress)
    return [one if isinstance(one, Removed) else one.record for one in found]


def open_with_salts(
    header: bytes,
    keys: Keys,
    frame: Sealed,
    decompress: Callable[[bytes], bytes] | None = None,
) -> list[Opened | Removed]:
    """As `open_frame`, with each record's salt: what shows others that its commitment is to it."""
    data, n = _decrypt(header, keys, frame, decompress), len(frame.commitments)
    with _blaming(frame):
        if parse_header(header).rewritten:
            contents = explicit.unpack(data, n)
        else:
            made = salts(keys, frame.place.first_record, n)
            contents = [Opened(salt, one) for salt, one in zip(made, _unpack(data, n), strict=True)]
    for one, committed in zip(contents, frame.commitments, strict=True):
        if isinstance(one, Opened) and commitment(*one) != committed:
            where = f"frame {frame.place.number} at byte {frame.place.offset}"
            raise Tampered(f"{where}: holds records it does not commit to")
    return contents


@contextlib.contextmanager
def _blaming(frame: Sealed) -> Iterator[None]:
    """Whatever its content is wrong with is Tampered: it was encrypted by somebody who had the key."""
    try:
        yield
    except (InvalidTag, ValueError, zstandard.ZstdError) as error:
        said = "its key does not open it" if isinstance(error, InvalidTag) else str(error)
        raise Tampered(f"frame {frame.place.number} at byte {frame.place.offset}: {said}") from None


def _decrypt(
    header: bytes, keys: Keys, frame: Sealed, decompress: Callable[[bytes], bytes] | None = None
) -> bytes:
    place, n = frame.place, len(frame.commitments)
    head = _HEAD.pack(SEALED, place.number, place.first_index, n, len(frame.ciphertext))
    head += _TIMES.pack(frame.t_min_us, frame.t_max_us)
    with _blaming(frame):
        payload = keys.aead.decrypt(
            _nonce(place.number), frame.ciphertext, _aad(header, head, b"".join(frame.commitments))
        )
        return (decompress or _decompress)(payload)


def _decompress(payload: bytes) -> bytes:
    size = zstandard.frame_content_size(payload)
    if not 0 <= size <= MAX_PLAIN_BYTES:
        raise ValueError(f"claims to hold {size} bytes")
    return zstandard.ZstdDecompressor().decompress(payload, allow_extra_data=False)


def _unpack(data: bytes, n: int) -> list[bytes]:
    if len(data) < 4 * n:
        raise ValueError(f"{len(data)} bytes hold no {n} lengths")
    records, at = [], 4 * n
    for length in struct.unpack_from(f"<{n}I", data):
        records.append(data[at : at + length])
        at += length
    if at != len(data):
        raise ValueError(f"lengths add up to {at} bytes; there are {len(data)}")
    return records


def parse_frames(data: bytes | memoryview, place: Place) -> Iterator[Frame]:
    """All frames from `place` on (`header.start` for all there are), which must follow each other without a gap.

    Raises FrameError at the first that does not; `short` when the bytes end within it. Needs no key.
    """
    view = memoryview(data)
    pending: Place | None = None
    while place.offset < len(view):
        frame = parse_frame(view, place)
        if isinstance(frame, Memo):
            if pending is not None:
                raise FrameError("a memo behind a memo", place, short=False)
            pending = place
        else:
            pending = None
        yield frame
        place = after(frame)


def after(frame: Frame) -> Place:
    """Where the frame behind this one begins."""
    at = frame.place
    records = len(frame.commitments) if isinstance(frame, Sealed) else 0
    taken = len(frame.entries) if isinstance(frame, Clear) else records
    return Place(frame.end, at.number + 1, at.first_index + taken, at.first_record + records)


def parse_frame(view: memoryview, place: Place) -> Frame:
    """The one frame at `place`. Raises FrameError."""
    start = place.offset
    if len(view) - start < _HEAD.size:
        raise FrameError("cut off within its head", place, short=True)
    magic, number, index, n, length = _HEAD.unpack_from(view, start)
    extra = _TIMES.size + _HASH * n if magic == SEALED else 0
    body = start + _HEAD.size
    end = body + extra + length + _HASH
    if magic not in (SEALED, CLEAR, MEMO):
        raise FrameError(f"begins with {magic.hex()}", place, short=False)
    if end > len(view):
        raise FrameError(f"cut off: {end - start} bytes long, {len(view) - start} there", place, short=True)
    if _sha256(view[start : end - _HASH]).digest() != view[end - _HASH : end]:
        raise FrameError("does not match its own hash", place, short=False)
    if (number, index) != (place.number, place.first_index):
        raise FrameError(
            f"is numbered {number} with first entry {index}; expected {place.number} and {place.first_index}",
            place,
            short=False,
        )
    if magic == MEMO:
        if n > number:
            raise FrameError(f"claims {n} synced frames before it", place, short=False)
        return Memo(place, end, n, bytes(view[body : end - _HASH]))
    if not 1 <= n <= MAX_FRAME_ENTRIES:
        raise FrameError(f"claims {n} entries", place, short=False)
    if magic == CLEAR:
        return Clear(place, end, _clear_entries(bytes(view[body : end - _HASH]), n, place))
    t_min, t_max = _TIMES.unpack_from(view, body)
    middle = body + extra
    joined = bytes(view[body + _TIMES.size : middle])
    made = [joined[at : at + _HASH] for at in range(0, len(joined), _HASH)]
    return Sealed(place, end, made, t_min, t_max, bytes(view[middle : end - _HASH]))


def _clear_entries(body: bytes, n: int, place: Place) -> list[bytes]:
    try:
        entries = parse_bundle(body, n)
    except Damaged as error:
        raise FrameError(str(error), place, short=False) from None
    for entry in entries:
        # A RECORD entry here would be a record without content, whose loss nobody would see.
        if entry[:3] != ENTRY_MAGIC or entry[:4] == RECORD_PREFIX:
            raise FrameError(f"holds an entry that begins with {entry[:4].hex()}", place, short=False)
    return entries
