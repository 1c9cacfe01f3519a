"""What a leaf of the tree can be: entries, their fields and their exact bytes.

    "GB" 01 TT || body                  big-endian; every type has one fixed length
    TT  01 RECORD   02 SEGMENT  03 BOOT  04 HEARTBEAT  05 ERASE
        06 KEY      07 LOSS     08 ANCHOR  09 POLICY   0A CLOSE

Entries are public: never anything of a person or a request, only hashes, counts, times and positions.
`encode` and `parse` are exact opposites; whatever `encode` would not give is refused. Pure. See
docs/format.md.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import astuple, dataclass
from enum import IntEnum
from typing import Final

from gatebook.errors import Damaged

MAGIC: Final = b"GB\x01"
RECORD_PREFIX: Final = b"GB\x01\x01"
SEGMENT_PREFIX: Final = b"GB\x01\x02"
ERASE_PREFIX: Final = b"GB\x01\x05"
KEY_PREFIX: Final = b"GB\x01\x06"
PRODUCER: Final = b"ledger\0\0"  # of the LOSS entries that the ledger writes about itself
CLOCK: Final = b"clock\0\0\0"  # of those about seconds that the clock has left out
LINES: Final = b"gateway\0"  # of those about lines that nobody could read


class LossReason(IntEnum):
    """Why something is not there that was meant to be. 1 to 15 are the ledger's own."""

    TORN = 1  # a crash came before its sync: nobody was told that it was written
    NOT_WRITTEN = 2  # the disk refused it: nobody was told that it was written
    NO_LINE = 16  # the recorder's: the gateway's log has no line of it
    CLOCK_SET = 17  # the recorder's: these seconds since 1970 never were, the clock was set ahead over them
    UNREADABLE = 18  # the recorder's: so many lines of the gateway's log could not be read
    NO_DECISION = 19  # the recorder's: it was let through, and its decision was never written


@dataclass(frozen=True, slots=True)
class Record:
    """Commits to one record; the record's bytes are in a segment."""

    commitment: bytes


@dataclass(frozen=True, slots=True)
class Segment:
    """The segment before the one that holds this entry, as it was when it was closed.

    `entries`: how many it holds, records and others. `previous`: leaf hash of the SEGMENT entry before it,
    zeros for the first. Without records both times are the segment's creation.
    """

    segment_id: bytes
    first_index: int
    entries: int
    t_min_us: int
    t_max_us: int
    file_bytes: int
    file_sha256: bytes
    dek_id: bytes
    previous: bytes


@dataclass(frozen=True, slots=True)
class Boot:
    """A process began to write. `size` and `root`: the last checkpoint that it found signed."""

    boot_id: bytes
    digest: bytes
    size: int
    root: bytes
    clean: bool


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """Written every 60 s, idle or not, so that silence shows. Counts are since the last one."""

    t_us: int
    decisions: int
    outcomes: int
    open: int  # decisions that wait for their outcome now
    requests: int  # lines of the gateway's log
    lost: int


class Erased(IntEnum):
    """What was erased; `Erase.kind`."""

    SUBJECT = 1  # a person's row in the vault; the object is its pseudonym
    RECORD = 2  # the object is the first 16 bytes of its commitment
    SEGMENT = 3  # a segment's key and file; the object is the DEK's id


class EraseReason(IntEnum):
    """Why something was erased."""

    REQUEST = 1  # the person asked for it
    RETENTION = 2  # its time was over
    SECRET = 3  # it held a secret, by mistake
    OTHER = 4


@dataclass(frozen=True, slots=True)
class Erase:
    """Something was erased on purpose. `kind` is of Erased, `reason` of EraseReason.

    The files' hashes: of the segment before and after a record was removed from it; zeros where no file was
    written anew. `authorisation_sha256`: of the record that orders it, which lies before it in the log.
    """

    kind: int
    object_id: bytes
    old_file_sha256: bytes
    new_file_sha256: bytes
    reason: int
    authorisation_sha256: bytes


@dataclass(frozen=True, slots=True)
class Key:
    """A key took another's place, on the old one's signature."""

    kind: int
    old_id: bytes
    new_id: bytes
    public_sha256: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class Loss:
    """An honest gap: what `producer` numbered `first_seq` to `last_seq` is not here."""

    producer: bytes
    first_seq: int
    last_seq: int
    reason: int


@dataclass(frozen=True, slots=True)
class Anchor:
    """Somebody outside vouched for the tree of this size. `kind`: 1 RFC 3161, 2 witnesses, 3 WORM copy."""

    kind: int
    size: int
    receipt_sha256: bytes


@dataclass(frozen=True, slots=True)
class Policy:
    """This configuration is in force from here on."""

    digest: bytes
    version: int


@dataclass(frozen=True, slots=True)
class Close:
    """The log ends here; its successor has another origin."""

    successor_sha256: bytes


Entry = Record | Segment | Boot | Heartbeat | Erase | Key | Loss | Anchor | Policy | Close

_TYPES: Final[tuple[tuple[int, type[Entry], struct.Struct], ...]] = (
    (0x01, Record, struct.Struct(">32s")),
    (0x02, Segment, struct.Struct(">16sQIQQQ32s16s32s")),
    (0x03, Boot, struct.Struct(">16s32sQ32s?")),
    (0x04, Heartbeat, struct.Struct(">QIIIII")),
    (0x05, Erase, struct.Struct(">B16s32s32sH32s")),
    (0x06, Key, struct.Struct(">B16s16s32s64s")),
    (0x07, Loss, struct.Struct(">8sQQH")),
    (0x08, Anchor, struct.Struct(">BQ32s")),
    (0x09, Policy, struct.Struct(">32sQ")),
    (0x0A, Close, struct.Struct(">32s")),
)
_BY_CLASS: Final = {cls: (MAGIC + bytes([code]), form) for code, cls, form in _TYPES}
_BY_CODE: Final = {code: (cls, form) for code, cls, form in _TYPES}


def encode(entry: Entry) -> bytes:
    """The leaf's bytes. Raises ValueError when a field does not fit: nothing is padded, cut or wrapped."""
    head, form = _BY_CLASS[type(entry)]
    try:
        data = head + form.pack(*astuple(entry))
    except struct.error as error:
        raise ValueError(f"{entry!r}: {error}") from None
    if parse(data) != entry:  # a short hash would have been padded, a long one cut
        raise ValueError(f"{entry!r}: a hash or an id has a wrong length")
    return data


def encode_records(commitments: Iterable[bytes]) -> list[bytes]:
    """`encode(Record(c))` for each 32-byte commitment: the hot loop of sealing and of recovery."""
    return [RECORD_PREFIX + commitment for commitment in commitments]


def parse(data: bytes) -> Entry:
    """Raises Damaged on anything that `encode` does not give."""
    if len(data) < 4 or data[:3] != MAGIC:
        raise Damaged(f"not an entry of format 1: begins with {data[:4].hex()}")
    if data[3] not in _BY_CODE:
        raise Damaged(f"entry of unknown type {data[3]:02x}; a newer gatebook may have written it")
    cls, form = _BY_CODE[data[3]]
    if len(data) != 4 + form.size:
        raise Damaged(f"{cls.__name__} entry of {len(data)} bytes; expected {4 + form.size}")
    if cls is Boot and data[-1] > 1:  # struct takes any byte for true
        raise Damaged(f"Boot entry: clean is {data[-1]}; expected 0 or 1")
    return cls(*form.unpack_from(data, 4))
