"""A receipt of an erasure: ERASE entries, each with the proof that it is in the signed tree.

    {"format": "gatebook erasure receipt 1", "origin": …, "erased": [{"index", "pseudonym", "entry", "proof"}, …]}

`entry` is the entry's bytes in hex, `proof` a C2SP tlog-proof without an extra line. It proves that the log says
so, for good, and reveals nothing of any record; that the bytes are gone it cannot prove. `encode_receipt` and
`check_receipt` are partners. Never believes an entry that the signed tree does not hold. Pure.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from gatebook.errors import Damaged, Tampered
from gatebook.ledger.entry import Erase, Erased, parse
from gatebook.ledger.note import Checkpoint, Verifier, open_note, parse_checkpoint
from gatebook.ledger.proof import HEAD
from gatebook.ledger.prove import Inclusion
from gatebook.ledger.tree import leaf_hash, root_from_inclusion

FORMAT: Final = "gatebook erasure receipt 1"
BEGINS: Final = b'{"format":"gatebook erasure receipt 1"'
MAX_RECEIPT_BYTES: Final = 64 << 20

Hex = Annotated[str, Meta(pattern=r"\A([0-9a-f]{2})+\Z")]


class Line(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    index: Annotated[int, Meta(ge=0)]
    pseudonym: Hex
    entry: Hex
    proof: str


class Receipt(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    format: Literal["gatebook erasure receipt 1"]
    origin: str
    erased: Annotated[list[Line], Meta(min_length=1)]


def line(index: int, entry: bytes, inclusion: Inclusion) -> Line:
    """One ERASE entry with its proof."""
    erase = parse(entry)
    if not isinstance(erase, Erase):
        raise ValueError(f"entry {index} erases nothing")
    path = [base64.b64encode(each).decode() for each in inclusion.path]
    lines = [HEAD.decode().rstrip("\n"), f"index {index}", *path]
    proof = "\n".join(lines) + "\n\n" + inclusion.note.decode()
    return Line(index=index, pseudonym=erase.object_id.hex(), entry=entry.hex(), proof=proof)


def encode_receipt(origin: str, lines: Sequence[Line]) -> bytes:
    return msgspec.json.encode(Receipt(format=FORMAT, origin=origin, erased=list(lines))) + b"\n"


def check_receipt(data: bytes, verifier: Verifier) -> list[tuple[Line, Erase, Checkpoint]]:
    """What it proves. Raises Tampered when it proves nothing, Damaged for what is no receipt."""
    try:
        receipt = msgspec.json.decode(data, type=Receipt, strict=True)
    except msgspec.DecodeError as error:
        raise Damaged(f"no receipt of an erasure: {error}") from None
    if receipt.origin != verifier.name:
        raise Tampered(f"is of the log {receipt.origin}; the key is of {verifier.name}")
    return [_check(each, verifier) for each in receipt.erased]


def _check(told: Line, verifier: Verifier) -> tuple[Line, Erase, Checkpoint]:
    entry = bytes.fromhex(told.entry)
    erase = parse(entry)
    if not isinstance(erase, Erase) or erase.kind != Erased.SUBJECT or erase.object_id.hex() != told.pseudonym:
        raise Tampered(f"entry {told.index} does not say that {told.pseudonym} was erased")
    head, separator, note = told.proof.encode().partition(b"\n\n")
    if not head.startswith(HEAD) or not separator:
        raise Damaged(f"entry {told.index}: its proof is no tlog-proof")
    index, *path = head.removeprefix(HEAD).decode("utf-8", "replace").split("\n")
    if index != f"index {told.index}":
        raise Tampered(f"entry {told.index}: its proof is of another entry")
    checkpoint = parse_checkpoint(open_note(note, [verifier]).text)
    if checkpoint.origin != verifier.name:
        raise Tampered(f"is of the log {checkpoint.origin}; the key is of {verifier.name}")
    try:
        hashes = [base64.b64decode(each, validate=True) for each in path]
        root = root_from_inclusion(told.index, checkpoint.size, leaf_hash(entry), hashes)
    except ValueError as error:
        raise Tampered(f"entry {told.index}: proves nothing: {error}") from None
    if root != checkpoint.root:
        raise Tampered(f"entry {told.index} of the signed tree of {checkpoint.size} entries is another one")
    return told, erase, checkpoint
