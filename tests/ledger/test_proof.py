"""Proofs of one record: what was signed is proven, and each way to lie with one is refused."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatebook.errors import Damaged, LedgerError, Tampered
from gatebook.ledger.note import Checkpoint, Signer, Verifier, sign_note
from gatebook.ledger.proof import (
    MAX_PROOF_BYTES,
    Proof,
    check_proof,
    encode_proof,
    parse_proof,
    record_entry,
)
from gatebook.ledger.tree import Builder, leaf_hash, leaf_hashes, perfect_root, prove_inclusion

ORIGIN = "acme/node-1"
SIGNER = Signer(ORIGIN, b"k" * 32)
KEY = Verifier.from_vkey(SIGNER.vkey)
SIZES = (1, 2, 3, 7, 255, 256, 257, 300)


def records(size: int) -> list[tuple[bytes, bytes]]:
    return [(hashlib.sha256(b"%d" % n).digest(), b'{"v":1,"kind":"system","n":%d}' % n) for n in range(size)]


def proof_of(index: int, size: int, signer: Signer = SIGNER) -> Proof:
    held = records(size)
    hashes = leaf_hashes([record_entry(*each) for each in held])
    builder = Builder()
    builder.extend(hashes)
    path = prove_inclusion(index, size, lambda level, k: perfect_root(hashes[k << level : (k + 1) << level]))
    note = sign_note(Checkpoint(signer.name, size, builder.root()).text(), signer)
    return Proof(index, tuple(path), note, *held[index])


@pytest.mark.parametrize("size", SIZES)
def test_each_record_of_a_tree_is_proven(size: int) -> None:
    for index in {0, size // 2, size - 1}:
        data = encode_proof(proof_of(index, size))
        proven = check_proof(parse_proof(data), KEY)
        assert (proven.index, proven.record) == (index, records(size)[index][1])
        assert proven.checkpoint.size == size
        assert proven.cosigned == {}


def test_file_is_laid_out_as_the_standard_says() -> None:
    salt, record = records(3)[1]
    lines = encode_proof(proof_of(1, 3)).decode().split("\n")
    assert lines[0] == "c2sp.org/tlog-proof@v1"
    assert lines[1] == "extra " + base64.b64encode(salt + record).decode()
    assert lines[2] == "index 1"
    assert [len(base64.b64decode(line)) for line in lines[3:5]] == [32, 32]
    assert lines[5:8] == ["", ORIGIN, "3"]


def altered(change: Callable[[Proof], Proof]) -> bytes:
    return encode_proof(change(proof_of(5, 300)))


LIES: dict[str, Callable[[Proof], Proof]] = {
    "another record": lambda p: dataclasses.replace(p, record=p.record.replace(b"5", b"6")),
    "a record with a space more": lambda p: dataclasses.replace(p, record=p.record.replace(b":", b": ", 1)),
    "a salt cut off": lambda p: dataclasses.replace(p, salt=p.salt[:31]),
    "another salt": lambda p: dataclasses.replace(p, salt=bytes(32)),
    "another index": lambda p: dataclasses.replace(p, index=4),
    "an index behind the tree": lambda p: dataclasses.replace(p, index=300),
    "an index of the same path bits": lambda p: dataclasses.replace(p, index=5 + 512),
    "a path cut short": lambda p: dataclasses.replace(p, path=p.path[:-1]),
    "a path too long": lambda p: dataclasses.replace(p, path=(*p.path, bytes(32))),
    "a path in another order": lambda p: dataclasses.replace(p, path=p.path[::-1]),
    "a hash flipped": lambda p: dataclasses.replace(p, path=(bytes(32), *p.path[1:])),
    "an inner node for a leaf": lambda p: dataclasses.replace(p, index=2, path=p.path[1:]),
    "another tree's checkpoint": lambda p: dataclasses.replace(p, checkpoint=proof_of(5, 257).checkpoint),
    "a size changed after signing": lambda p: dataclasses.replace(
        p, checkpoint=p.checkpoint.replace(b"\n300\n", b"\n301\n")
    ),
    "a signature cut off": lambda p: dataclasses.replace(
        p, checkpoint=p.checkpoint.rpartition(b"\xe2\x80\x94")[0]
    ),
}


@pytest.mark.parametrize("lie", LIES)
def test_proof_that_lies_is_refused(lie: str) -> None:
    with pytest.raises(LedgerError):
        check_proof(parse_proof(altered(LIES[lie])), KEY)


def test_proof_of_another_log_with_a_key_of_the_same_name_is_refused() -> None:
    other = Signer(ORIGIN, b"x" * 32)
    with pytest.raises(Tampered, match="not signed by any key that is known here"):
        check_proof(proof_of(5, 300, other), KEY)


def test_checkpoint_of_another_log_that_this_key_signed_is_refused() -> None:
    proof = proof_of(0, 1)
    text = Checkpoint("acme/node-2", 1, leaf_hash(record_entry(*records(1)[0]))).text()
    with pytest.raises(Tampered, match="is of the log acme/node-2"):
        check_proof(dataclasses.replace(proof, checkpoint=sign_note(text, SIGNER)), KEY)


def test_witness_that_is_called_like_the_log_does_not_stand_in_for_it() -> None:
    impostor = Signer(ORIGIN, b"w" * 32)
    with pytest.raises(Tampered):
        check_proof(proof_of(5, 300, impostor), KEY, [Verifier.from_vkey(impostor.vkey)])


def replaced(old: bytes, new: bytes) -> bytes:
    data = encode_proof(proof_of(5, 300))
    assert old in data
    return data.replace(old, new, 1)


MISSPELT: dict[str, Callable[[], bytes]] = {
    "another version": lambda: replaced(b"proof@v1", b"proof@v2"),
    "a line too many": lambda: replaced(b"index 5\n", b"index 5\nindex 5\n"),
    "a second extra line": lambda: replaced(b"index 5", b"extra AAAA\nindex 5"),
    "no extra line": lambda: replaced(encode_proof(proof_of(5, 300)).split(b"\n")[1] + b"\n", b""),
    "a leading zero": lambda: replaced(b"index 5", b"index 05"),
    "a sign": lambda: replaced(b"index 5", b"index +5"),
    "an index in other digits": lambda: replaced(b"index 5", "index \u0665".encode()),
    "an index that no tree has": lambda: replaced(b"index 5", b"index 99999999999999999999999999"),
    "line ends of Windows": lambda: encode_proof(proof_of(5, 300)).replace(b"\n", b"\r\n"),
    "a blank in front": lambda: b" " + encode_proof(proof_of(5, 300)),
    "something behind": lambda: encode_proof(proof_of(5, 300)) + b"\n",
    "base64 with bits left over": lambda: replaced(b"=\n", b"=\n").replace(
        base64.b64encode(proof_of(5, 300).path[0]),
        base64.b64encode(proof_of(5, 300).path[0])[:-2] + b"B=",
    ),
    "base64 without its padding": lambda: encode_proof(proof_of(5, 300)).replace(b"=\n", b"\n", 1),
    "a hash of 31 bytes": lambda: encode_proof(dataclasses.replace(proof_of(5, 300), path=(bytes(31),))),
    "a path without end": lambda: encode_proof(dataclasses.replace(proof_of(5, 300), path=(bytes(32),) * 64)),
    "no record behind the salt": lambda: encode_proof(dataclasses.replace(proof_of(5, 300), record=b"")),
    "a salt of 31 bytes and no record": lambda: encode_proof(
        dataclasses.replace(proof_of(5, 300), salt=bytes(31), record=b"")
    ),
    "a record that no log takes": lambda: encode_proof(
        dataclasses.replace(proof_of(5, 300), record=b"r" * (32 << 10) + b"r")
    ),
    "a file without end": lambda: b"c2sp.org/tlog-proof@v1\n" + b"A" * MAX_PROOF_BYTES,
    "a file that ends early": lambda: encode_proof(proof_of(5, 300))[:200],
    "no checkpoint": lambda: encode_proof(proof_of(5, 300)).partition(b"\n\n")[0],
    "nothing": lambda: b"",
}


@pytest.mark.parametrize("spelling", MISSPELT)
def test_proof_that_is_spelt_otherwise_is_refused(spelling: str) -> None:
    with pytest.raises(LedgerError):
        check_proof(parse_proof(MISSPELT[spelling]()), KEY)


def test_longest_record_still_fits_a_line_of_64_kib() -> None:
    data = encode_proof(dataclasses.replace(proof_of(5, 300), record=b"r" * (32 << 10)))
    assert max(map(len, data.split(b"\n"))) < 64 << 10
    assert len(parse_proof(data).record) == 32 << 10


@given(st.integers(0, 400), st.binary(min_size=1, max_size=8))
def test_bytes_written_over_a_proof_never_change_what_it_proves(at: int, noise: bytes) -> None:
    data = encode_proof(proof_of(5, 300))
    changed = data[:at] + noise + data[at + len(noise) :]
    try:
        proven = check_proof(parse_proof(changed), KEY)
    except LedgerError:
        return
    assert changed == data
    assert proven.record == records(300)[5][1]


@given(st.binary(max_size=300))
def test_any_bytes_are_refused_with_an_error_of_ours(data: bytes) -> None:
    for whole in (data, b"c2sp.org/tlog-proof@v1\n" + data):
        with pytest.raises(Damaged):
            parse_proof(whole)
