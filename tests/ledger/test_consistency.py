"""Consistency proofs, against RFC 9162's definition written out naively, and against every lie about a tree."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.ledger.test_tree import leaves, naive_root, subtree_of

from gatebook.errors import Damaged, Tampered
from gatebook.ledger.consistency import (
    MAX_PATH,
    check_consistency,
    consistency_from_tiles,
    prove_consistency,
)
from gatebook.ledger.note import Checkpoint
from gatebook.ledger.tiles import Tiler
from gatebook.ledger.tree import EMPTY_ROOT, leaf_hash

OTHER = bytes(32)


def naive_proof(old: int, hashes: list[bytes], *, whole: bool = True) -> list[bytes]:
    """SUBPROOF of RFC 9162, 2.1.4.1."""
    new = len(hashes)
    if old == new:
        return [] if whole else [naive_root(hashes)]
    split = 1
    while split * 2 < new:
        split *= 2
    if old <= split:
        return [*naive_proof(old, hashes[:split], whole=whole), naive_root(hashes[split:])]
    return [*naive_proof(old - split, hashes[split:], whole=False), naive_root(hashes[:split])]


def test_every_pair_of_small_trees_as_the_definition_has_it() -> None:
    hashes = leaves(40)
    roots = [naive_root(hashes[:size]) for size in range(41)]
    for new in range(1, 41):
        for old in range(1, new + 1):
            proof = prove_consistency(old, new, subtree_of(hashes[:new]))
            assert proof == naive_proof(old, hashes[:new])
            check_consistency(old, roots[old], new, roots[new], proof)


@given(st.data())
def test_one_lie_anywhere_is_refused(data: st.DataObject) -> None:
    new = data.draw(st.integers(2, 200))
    old = data.draw(st.integers(1, new))
    hashes = leaves(new)
    proof = prove_consistency(old, new, subtree_of(hashes))
    roots = naive_root(hashes[:old]), naive_root(hashes)
    lies = [(OTHER, roots[1], proof), (roots[0], OTHER, proof), (*roots, [*proof, OTHER])]
    if old != new:
        at = data.draw(st.integers(0, len(proof) - 1))
        lies.append((*roots, proof[:-1]))
        lies.append((*roots, [*proof[:at], OTHER, *proof[at + 1 :]]))
        lies.append((*roots, [*proof[:at], proof[at][:-1], *proof[at + 1 :]]))
    for old_root, new_root, told in lies:
        with pytest.raises(ValueError, match=r"."):
            check_consistency(old, old_root, new, new_root, told)


def test_rewritten_history_has_no_proof() -> None:
    honest = leaves(100)
    forked = [*honest[:49], leaf_hash(b"another"), *honest[50:]]
    proof = prove_consistency(50, 100, subtree_of(forked))
    with pytest.raises(ValueError, match="older root"):
        check_consistency(50, naive_root(honest[:50]), 100, naive_root(forked), proof)


def test_nothing_proves_a_tree_that_shrank() -> None:
    with pytest.raises(ValueError, match="no tree of 5"):
        check_consistency(5, OTHER, 4, OTHER, [])
    with pytest.raises(ValueError, match="no tree of 5"):
        prove_consistency(5, 4, subtree_of(leaves(4)))


def test_no_leaves_are_the_beginning_of_any_tree_and_have_one_root() -> None:
    check_consistency(0, EMPTY_ROOT, 3, naive_root(leaves(3)), [])
    check_consistency(0, EMPTY_ROOT, 0, EMPTY_ROOT, [])
    for old_root, new, new_root, proof in [
        (EMPTY_ROOT, 3, naive_root(leaves(3)), [OTHER]),
        (EMPTY_ROOT, 0, OTHER, []),
        (OTHER, 3, naive_root(leaves(3)), []),
    ]:
        with pytest.raises(ValueError, match=r"."):
            check_consistency(0, old_root, new, new_root, proof)


def test_proof_is_never_longer_than_the_protocol_takes() -> None:
    proof = prove_consistency((1 << 61) + 1, (1 << 62) - 1, lambda _level, _k: OTHER)
    assert 60 < len(proof) <= MAX_PATH


def written(folder: Path, count: int) -> Checkpoint:
    tiler = Tiler()
    tiler.extend([b"entry %d" % number for number in range(count)])
    for name, data in tiler.files(0):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return Checkpoint("acme/node-1", count, tiler.root())


def test_tiles_on_disk_prove_every_older_size(tmp_path: Path) -> None:
    checkpoint = written(tmp_path, 600)
    hashes = leaves(600)
    for old in (0, 1, 255, 256, 257, 300, 511, 512, 513, 599, 600):
        old_root, proof = consistency_from_tiles(tmp_path, old, checkpoint)
        assert old_root == naive_root(hashes[:old])
        check_consistency(old, old_root, 600, checkpoint.root, proof)


def test_tiles_that_were_changed_or_are_gone_prove_nothing(tmp_path: Path) -> None:
    checkpoint = written(tmp_path, 600)
    tile = tmp_path / "tile/0/000"
    whole = tile.read_bytes()
    tile.write_bytes(OTHER + whole[32:])
    with pytest.raises(Tampered):
        consistency_from_tiles(tmp_path, 100, checkpoint)
    tile.unlink()
    with pytest.raises(Damaged):
        consistency_from_tiles(tmp_path, 100, checkpoint)
