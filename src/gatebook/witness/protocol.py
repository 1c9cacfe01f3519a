"""What goes over the wire between a log and a witness (c2sp.org/tlog-witness), as bytes.

    old 3                                           the size that the witness cosigned last
    Fhv5Y2xHMhk5vs9Vsm4cu6lJKHQ7mfO0QiMSmx3cMhg=    a consistency proof from there, up to 63 lines
                                                    an empty line, then the signed checkpoint
    acme/node-1
    ...

`encode_request` and `parse_request` are exact opposites. Answers are read with more patience, since there are
many witnesses; what counts of one is never anything but a cosignature that verifies. Pure.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Final, NamedTuple

from cryptography.exceptions import InvalidSignature

from gatebook.errors import Damaged
from gatebook.ledger.consistency import MAX_PATH
from gatebook.ledger.note import MAX_NOTE_BYTES, MAX_SIZE, SignatureLine, Verifier, parse_note
from gatebook.ledger.tree import HASH_BYTES

MAX_REQUEST_BYTES: Final = MAX_NOTE_BYTES + 64 * (MAX_PATH + 1)
MAX_ANSWER_BYTES: Final = 64 << 10
SIZE_TYPE: Final = "text/x.tlog.size"
FUTURE_S: Final = 300  # by how much a witness's clock may be ahead of ours

_OLD: Final = re.compile(r"old (0|[1-9][0-9]{0,18})")
_SIZE: Final = re.compile(rb"(0|[1-9][0-9]{0,18})\r?\n?")


class Request(NamedTuple):
    """What add-checkpoint is asked. `note` is a signed note; nothing of it is checked here."""

    old: int
    proof: tuple[bytes, ...]
    note: bytes


def encode_request(request: Request) -> bytes:
    lines = [f"old {request.old}", *(base64.b64encode(each).decode() for each in request.proof), "", ""]
    return "\n".join(lines).encode() + request.note


def parse_request(data: bytes) -> Request:
    """Raises Damaged on anything that `encode_request` does not give."""
    head, separator, note = data.partition(b"\n\n")
    first, *proof = head.decode("ascii", "replace").split("\n", MAX_PATH + 1)
    old = _OLD.fullmatch(first)
    if not separator or old is None or int(old[1]) > MAX_SIZE:
        raise Damaged("a request is a line `old <size>`, a proof, an empty line, and a signed checkpoint")
    if len(proof) > MAX_PATH:
        raise Damaged(f"a consistency proof has at most {MAX_PATH} lines")
    return Request(int(old[1]), tuple(_hash(line) for line in proof), note)


def _hash(line: str) -> bytes:
    try:
        data = base64.b64decode(line, validate=True)
    except (binascii.Error, ValueError):
        data = b""
    if len(data) != HASH_BYTES or base64.b64encode(data).decode() != line:
        raise Damaged(f"no hash of 32 bytes in base64: {line[:60]!r}")
    return data


def parse_size(body: bytes) -> int | None:
    """What a witness says that it cosigned last, in a 409's body; None when it says no such thing."""
    found = _SIZE.fullmatch(body)
    return int(found[1]) if found and int(found[1]) <= MAX_SIZE else None


class Cosigned(NamedTuple):
    """A cosignature that verifies, and the time that it states, in seconds since 1970."""

    line: SignatureLine
    time_s: int


def parse_cosignatures(body: bytes, text: str, witness: Verifier, now_s: float) -> Cosigned:
    """The witness's own cosignature of `text` out of its answer; the newest, if there are several.

    Lines of other keys and of kinds that are not known here are passed over, as the protocol wants it, and so are
    line ends that are too many or missing. Raises Damaged, saying why, where none is left that counts.
    """
    newest: Cosigned | None = None
    why = "its answer has no cosignature of its key"
    for line in _lines(body, text):
        if (line.name, line.key_id) != (witness.name, witness.key_id):
            continue
        try:
            time_s = witness.check(text, line.signature)
        except InvalidSignature:
            why = "its cosignature is not for this checkpoint"
            continue
        if not time_s:
            why = "its cosignature states no time"
        elif time_s > now_s + FUTURE_S:
            why = f"its cosignature is of a time {int(time_s - now_s)} s ahead of this machine's clock"
        elif newest is None or time_s > newest.time_s:
            newest = Cosigned(line, time_s)
    if newest is None:
        raise Damaged(why)
    return newest


def _lines(body: bytes, text: str) -> list[SignatureLine]:
    """Each line of an answer that is a signature line."""
    found: list[SignatureLine] = []
    for each in body.split(b"\n")[:1000]:
        try:
            found += parse_note(text.encode() + b"\n" + each.strip(b"\r") + b"\n").lines
        except Damaged:
            continue
    return found
