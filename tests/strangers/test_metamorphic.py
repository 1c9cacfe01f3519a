"""A Rust library for transparency logs, PyPI's metamorphic-log, accepts our checkpoints and proofs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import metamorphic_log as rust
import pytest
from tests.strangers.log import VKEY, Log, entry, proof

from gatebook.ledger.tree import leaf_hash

SIZES = (1, 2, 255, 256, 257, 511, 512, 513, 65535, 65536, 65537)


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Log]:
    made = Log(tmp_path_factory.mktemp("log"))
    yield made
    made.close()


def flipped(data: bytes, bit: int) -> bytes:
    bad = bytearray(data)
    bad[bit // 8] ^= 1 << bit % 8
    return bytes(bad)


def test_checkpoints_and_proofs_at_every_edge_are_accepted_and_one_changed_bit_is_not(log: Log) -> None:
    for size in SIZES:
        if size > log.size:
            log.grow(size)
        note = (log.folder / "checkpoint").read_text("utf-8")
        head = rust.checkpoint_verify(note, [VKEY])
        assert (head.origin, head.size) == ("acme/node-1", size)
        for index in sorted({0, size // 2, size - 1}):
            path = proof(log.root / "ledger", index, size).path
            leaf = leaf_hash(entry(log.folder, index, size))
            rust.checkpoint_verify_inclusion(note, [VKEY], index, leaf, path)
            with pytest.raises(rust.VerifyError):
                rust.checkpoint_verify_inclusion(note, [VKEY], index, flipped(leaf, 77), path)
            for at, one in enumerate(path):
                bad = [*path[:at], flipped(one, 8 * at), *path[at + 1 :]]
                with pytest.raises(rust.VerifyError):
                    rust.checkpoint_verify_inclusion(note, [VKEY], index, leaf, bad)


def test_checkpoint_with_one_changed_character_is_refused(log: Log) -> None:
    note = (log.folder / "checkpoint").read_text("utf-8")
    assert rust.verify_signed_note(note, [VKEY]) == 1
    for at in range(len(note)):
        other = "B" if note[at] == "A" else "A"
        with pytest.raises(rust.VerifyError):
            rust.checkpoint_verify(note[:at] + other + note[at + 1 :], [VKEY])


def test_checkpoint_of_another_key_is_refused(log: Log, tmp_path: Path) -> None:
    note = (log.folder / "checkpoint").read_text("utf-8")
    origin, _, rest = VKEY.partition("+")
    key_id, _, key = rest.partition("+")
    with pytest.raises(rust.VerifyError):
        rust.checkpoint_verify(note, [f"{origin}+{flipped(bytes.fromhex(key_id), 3).hex()}+{key}"])
