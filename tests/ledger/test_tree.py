"""The tree, against RFC 9162's definition written out naively, and against the vectors."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatebook.ledger.tree import (
    EMPTY_ROOT,
    TILE_WIDTH,
    Builder,
    leaf_hash,
    leaf_hashes,
    node_hash,
    peaks,
    perfect_root,
    prove_inclusion,
    root_from_inclusion,
)

VECTORS: Any = json.loads((Path(__file__).parent / "vectors/ledger-v1.json").read_text("utf-8"))


def naive_root(hashes: list[bytes]) -> bytes:
    """MTH of RFC 9162, 2.1.1."""
    if not hashes:
        return hashlib.sha256(b"").digest()
    if len(hashes) == 1:
        return hashes[0]
    split = 1
    while split * 2 < len(hashes):
        split *= 2
    return node_hash(naive_root(hashes[:split]), naive_root(hashes[split:]))


def leaves(count: int) -> list[bytes]:
    return leaf_hashes([b"entry %d" % number for number in range(count)])


def subtree_of(hashes: list[bytes]) -> Any:
    return lambda level, k: perfect_root(hashes[k << level : (k + 1) << level])


def test_vector_of_leaf_hashes_and_root() -> None:
    entries = [bytes.fromhex(record["entry"]) for record in VECTORS["records"]]
    assert [leaf_hash(entry).hex() for entry in entries] == [record["leaf_hash"] for record in VECTORS["records"]]
    builder = Builder()
    builder.extend(leaf_hashes(entries))
    assert builder.root().hex() == VECTORS["root_hex"]


def test_vector_of_an_inclusion_proof() -> None:
    lines = VECTORS["tlog_proof_index_1"].split("\n")
    path = [base64.b64decode(line) for line in lines[3:5]]
    hashes = [bytes.fromhex(record["leaf_hash"]) for record in VECTORS["records"]]
    assert prove_inclusion(1, 3, subtree_of(hashes)) == path
    assert root_from_inclusion(1, 3, hashes[1], path).hex() == VECTORS["root_hex"]


def test_empty_tree_has_the_hash_of_nothing() -> None:
    assert Builder().root() == EMPTY_ROOT == hashlib.sha256(b"").digest()


@pytest.mark.parametrize("size", [*range(1, 70), 255, 256, 257, 511, 512, 513, 1000])
def test_root_of_every_shape_is_that_of_the_definition(size: int) -> None:
    hashes = leaves(size)
    builder = Builder()
    builder.extend(hashes)
    assert builder.size == size
    assert builder.root() == naive_root(hashes)


def test_root_is_right_beyond_two_tile_levels() -> None:
    hashes = leaves(TILE_WIDTH * TILE_WIDTH + 300)
    builder = Builder()
    builder.extend(iter(hashes))
    assert builder.root() == naive_root(hashes)
    assert [(level, number, len(part)) for level, number, part in builder.unfinished()] == [
        (0, 257, 44),
        (1, 1, 1),
        (2, 0, 1),
    ]


@given(st.lists(st.integers(0, 400), max_size=8))
def test_how_leaves_are_batched_changes_nothing(batches: list[int]) -> None:
    hashes = leaves(sum(batches))
    whole, parts = Builder(), Builder()
    whole.extend(hashes)
    at = 0
    for count in batches:
        parts.extend(hashes[at : at + count])
        at += count
    assert parts.root() == whole.root()
    assert list(parts.unfinished()) == list(whole.unfinished())


def test_each_full_tile_is_reported_once_and_in_order() -> None:
    seen: list[tuple[int, int, bytes]] = []
    builder = Builder(lambda level, number, hashes: seen.append((level, number, perfect_root(hashes))))
    hashes = leaves(TILE_WIDTH * TILE_WIDTH)
    builder.extend(hashes)
    assert [(level, number) for level, number, _ in seen] == [*((0, n) for n in range(256)), (1, 0)]
    assert seen[-1][2] == naive_root(hashes)


def test_leaf_cannot_pass_for_a_node() -> None:
    left, right = leaves(2)
    assert leaf_hash(left + right) != node_hash(left, right)


@given(st.integers(1, 700), st.data())
def test_every_inclusion_proof_leads_to_the_root(size: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, size - 1))
    hashes = leaves(size)
    path = prove_inclusion(index, size, subtree_of(hashes))
    assert root_from_inclusion(index, size, hashes[index], path) == naive_root(hashes)


@given(st.integers(2, 300), st.data())
def test_proof_of_one_leaf_proves_no_other(size: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, size - 1))
    other = data.draw(st.integers(0, size - 1).filter(lambda n: n != index))
    hashes = leaves(size)
    path = prove_inclusion(index, size, subtree_of(hashes))
    assert root_from_inclusion(index, size, hashes[other], path) != naive_root(hashes)


def test_proof_with_a_hash_too_many_or_too_few_is_refused() -> None:
    hashes = leaves(5)
    path = prove_inclusion(2, 5, subtree_of(hashes))
    with pytest.raises(ValueError, match="too short"):
        root_from_inclusion(2, 5, hashes[2], path[:-1])
    with pytest.raises(ValueError, match="too long"):
        root_from_inclusion(2, 5, hashes[2], [*path, hashes[0]])
    with pytest.raises(ValueError, match="wrong length"):
        root_from_inclusion(2, 5, hashes[2], [path[0][:31], *path[1:]])


@pytest.mark.parametrize("index", [-1, 5, 6])
def test_proof_for_a_leaf_outside_the_tree_is_refused(index: int) -> None:
    hashes = leaves(5)
    with pytest.raises(ValueError, match="no leaf"):
        prove_inclusion(index, 5, subtree_of(hashes))
    with pytest.raises(ValueError, match="no leaf"):
        root_from_inclusion(index, 5, hashes[0], [])


@given(st.integers(0, 1 << 62))
def test_peaks_cover_the_leaves_without_gap_or_overlap(size: int) -> None:
    at = 0
    for level, k in peaks(size):
        assert k << level == at
        at += 1 << level
    assert at == size
