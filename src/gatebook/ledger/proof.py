"""A proof as a file: that a record is in a signed tree, and the record itself (C2SP tlog-proof, format 8).

    c2sp.org/tlog-proof@v1
    extra <base64(salt 32 || record)>
    index 4711
    <base64 of a hash>                  the path: the leaf's neighbour first, then on up to the root
    …
    <empty line, then the checkpoint as it was signed>

`encode_proof` and `parse_proof` are exact opposites; whatever `encode_proof` would not give is refused. Nothing
that a proof says is believed before `check_proof`, which never reveals or needs anything of other records. Pure.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from gatebook.errors import Damaged, Tampered
from gatebook.ledger import segment
from gatebook.ledger.entry import RECORD_PREFIX
from gatebook.ledger.note import (
    MAX_NOTE_BYTES,
    MAX_SIZE,
    Checkpoint,
    SignatureLine,
    Verifier,
    decode64,
    open_note,
    parse_checkpoint,
)
from gatebook.ledger.tree import HASH_BYTES, leaf_hash, root_from_inclusion

HEAD: Final = b"c2sp.org/tlog-proof@v1\n"
SALT_BYTES: Final = 32
MAX_RECORD_BYTES: Final = 32 << 10
MAX_PATH: Final = 63
MAX_PROOF_BYTES: Final = (64 << 10) + MAX_NOTE_BYTES + 64 * (MAX_PATH + 3)


@dataclass(frozen=True, slots=True)
class Proof:
    """What is in the file. `path`: 32 bytes each; `checkpoint`: the signed note's bytes."""

    index: int
    path: tuple[bytes, ...]
    checkpoint: bytes
    salt: bytes
    record: bytes


@dataclass(frozen=True, slots=True)
class Proven:
    """A record that is in the tree of a checkpoint that its log has signed.

    `cosigned`: each other known key that signed the checkpoint -> the time of its signature, if it says one.
    """

    index: int
    record: bytes
    checkpoint: Checkpoint
    cosigned: dict[str, int | None]
    unknown: tuple[SignatureLine, ...]


def record_entry(salt: bytes, record: bytes) -> bytes:
    """The RECORD entry that commits to the record."""
    return RECORD_PREFIX + segment.commitment(salt, record)


def encode_proof(proof: Proof) -> bytes:
    extra = base64.b64encode(proof.salt + proof.record)
    lines = [b"extra " + extra, b"index %d" % proof.index, *map(base64.b64encode, proof.path)]
    return HEAD + b"\n".join(lines) + b"\n\n" + proof.checkpoint


def parse_proof(data: bytes) -> Proof:
    """Splits it; checks no signature and no hash. Raises Damaged on anything that `encode_proof` does not give."""
    if len(data) > MAX_PROOF_BYTES:
        raise Damaged(f"proof of {len(data)} bytes; at most {MAX_PROOF_BYTES} are read")
    if not data.startswith(HEAD):
        raise Damaged("no proof: does not begin with c2sp.org/tlog-proof@v1")
    head, separator, checkpoint = data.removeprefix(HEAD).partition(b"\n\n")
    try:
        lines = head.decode("ascii").split("\n")
    except UnicodeDecodeError:
        raise Damaged("a proof's lines are ASCII") from None
    if not separator or len(lines) < 2 or not lines[1].startswith("index "):
        raise Damaged("a proof is its extra line, its index, its path, an empty line and a checkpoint")
    if not lines[0].startswith("extra "):
        raise Damaged("discloses no record: there is no extra line in it")
    extra = decode64(lines[0].removeprefix("extra "))
    if not SALT_BYTES < len(extra) <= SALT_BYTES + MAX_RECORD_BYTES:
        raise Damaged(f"extra line of {len(extra)} bytes; expected a salt of {SALT_BYTES} and a record")
    index = lines[1].removeprefix("index ")
    if not (index.isdigit() and len(index) <= 19 and int(index) <= MAX_SIZE):
        raise Damaged(f"an index is a number of at most {MAX_SIZE}: {index[:100]!r}")
    if len(lines) - 2 > MAX_PATH:
        raise Damaged(f"path of {len(lines) - 2} hashes; no tree needs more than {MAX_PATH}")
    path = tuple(map(decode64, lines[2:]))
    if any(len(each) != HASH_BYTES for each in path):
        raise Damaged(f"a hash of the path has {HASH_BYTES} bytes")
    proof = Proof(int(index), path, checkpoint, extra[:SALT_BYTES], extra[SALT_BYTES:])
    if encode_proof(proof) != data:
        raise Damaged("a proof is spelt in one way only")
    return proof


def check_proof(proof: Proof, verifier: Verifier, others: Iterable[Verifier] = ()) -> Proven:
    """Raises Tampered when it proves nothing, Damaged when it cannot. `others`: keys of witnesses, if known."""
    checkpoint, cosigned, unknown = open_checkpoint(proof.checkpoint, verifier, others)
    leaf = leaf_hash(record_entry(proof.salt, proof.record))
    try:
        root = root_from_inclusion(proof.index, checkpoint.size, leaf, proof.path)
    except ValueError as error:
        raise Tampered(f"proves nothing: {error}") from None
    if root != checkpoint.root:
        raise Tampered(
            f"entry {proof.index} of the signed tree of {checkpoint.size} entries is another one: the record, its "
            f"salt, its index or the path was changed"
        )
    return Proven(proof.index, proof.record, checkpoint, cosigned, unknown)


def open_checkpoint(
    note: bytes, verifier: Verifier, others: Iterable[Verifier] = ()
) -> tuple[Checkpoint, dict[str, int | None], tuple[SignatureLine, ...]]:
    """A checkpoint signed by its log's key, who else signed it, and signatures of unknown keys."""
    checkpoint = parse_checkpoint(open_note(note, [verifier]).text)
    if checkpoint.origin != verifier.name:
        raise Tampered(f"is of the log {checkpoint.origin}; the key is of {verifier.name}")
    witnesses = [each for each in others if each != verifier]
    opened = open_note(note, [verifier, *witnesses])
    cosigned = {name: time_s for name, time_s in opened.by.items() if name != verifier.name}
    return checkpoint, cosigned, opened.unknown
