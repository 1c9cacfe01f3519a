"""Tiles and bundles: names, bytes, and that no file a checkpoint needs is ever left out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatebook.errors import Damaged
from gatebook.ledger.tiles import Tiler, bundle_path, encode_bundle, parse_bundle, parse_tile, tile_path
from gatebook.ledger.tree import Builder, leaf_hashes, perfect_root

VECTORS: Any = json.loads((Path(__file__).parent / "vectors/ledger-v1.json").read_text("utf-8"))


def entries(start: int, end: int) -> list[bytes]:
    return [b"entry %d" % number for number in range(start, end)]


def test_vector_of_a_bundle_both_ways() -> None:
    inside = [bytes.fromhex(record["entry"]) for record in VECTORS["records"]]
    assert encode_bundle(inside).hex() == VECTORS["bundle"]
    assert parse_bundle(bytes.fromhex(VECTORS["bundle"]), 3) == inside


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (tile_path(0, 0), "tile/0/000"),
        (tile_path(0, 999), "tile/0/999"),
        (tile_path(0, 1000), "tile/0/x001/000"),
        (tile_path(1, 1234067), "tile/1/x001/x234/067"),
        (tile_path(0, 1234067, 5), "tile/0/x001/x234/067.p/5"),
        (bundle_path(1234, 255), "tile/entries/x001/234.p/255"),
        (bundle_path(7, 256), "tile/entries/007"),
    ],
)
def test_names_are_those_of_the_standard(path: str, expected: str) -> None:
    assert path == expected


@pytest.mark.parametrize(
    ("level", "number", "width"), [(0, -1, 256), (0, 0, 0), (0, 0, 257), (8, 0, 1), (-1, 0, 1)]
)
def test_tile_that_cannot_be_has_no_name(level: int, number: int, width: int) -> None:
    with pytest.raises(ValueError, match="no tile"):
        tile_path(level, number, width)


@given(st.lists(st.binary(max_size=300), max_size=256))
def test_bundle_survives_both_ways(inside: list[bytes]) -> None:
    assert parse_bundle(encode_bundle(inside), len(inside)) == inside


@given(st.binary(max_size=600))
def test_any_bytes_are_exactly_a_bundle_or_damaged(data: bytes) -> None:
    try:
        inside = parse_bundle(data)
    except Damaged:
        return
    assert encode_bundle(inside) == data


def test_truncated_bundle_is_damaged_at_every_length() -> None:
    data = encode_bundle([b"abc", b"defg"])
    for end in range(1, len(data)):
        if end == 5:
            continue  # the end of the first entry
        with pytest.raises(Damaged):
            parse_bundle(data[:end])
    with pytest.raises(Damaged, match="expected 2"):
        parse_bundle(data[:5], 2)


def test_entry_longer_than_its_length_field_is_refused() -> None:
    with pytest.raises(ValueError, match="65535"):
        encode_bundle([b"x" * 65536])
    assert len(encode_bundle([b"x" * 65535])) == 65537


def test_tile_of_another_width_is_damaged() -> None:
    assert parse_tile(b"a" * 32 + b"b" * 32, 2) == [b"a" * 32, b"b" * 32]
    for data in (b"", b"a" * 63, b"a" * 65, b"a" * 96):
        with pytest.raises(Damaged):
            parse_tile(data, 2)


def expected_files(size: int) -> dict[str, bytes]:
    """Every file of a tree of that size, from the standard's words: tile (L, N) holds hashes of level 8L."""
    inside = entries(0, size)
    hashes = leaf_hashes(inside)
    files: dict[str, bytes] = {}
    for number in range(0, size, 256):
        part = inside[number : number + 256]
        files[bundle_path(number // 256, len(part))] = encode_bundle(part)
    level = 0
    while hashes:
        for number in range(0, len(hashes), 256):
            tile = hashes[number : number + 256]
            files[tile_path(level, number // 256, len(tile))] = b"".join(tile)
        hashes = [perfect_root(hashes[n : n + 256]) for n in range(0, len(hashes) - 255, 256)]
        level += 1
    return files


@pytest.mark.parametrize("sizes", [[1], [256], [255, 257], [1, 2, 300, 511, 512, 1025], [65536, 65537, 66000]])
def test_files_of_successive_checkpoints_are_all_that_each_needs(sizes: list[int]) -> None:
    tiler = Tiler()
    disk: dict[str, bytes] = {}
    needed: dict[str, bytes] = {}
    since = 0
    for size in sizes:
        tiler.extend(entries(tiler.size, size))
        disk |= dict(tiler.files(since))
        tiler.forget(size)
        since = size
        needed = expected_files(size)
        assert {path: disk.get(path) for path in needed} == needed
        builder = Builder()
        builder.extend(leaf_hashes(entries(0, size)))
        assert tiler.root() == builder.root()
    leftover = {path for path in disk if path not in needed}
    assert all(".p/" in path for path in leftover)


def test_written_files_are_not_kept_and_unwritten_ones_are() -> None:
    tiler = Tiler()
    tiler.extend(entries(0, 512))
    tiler.forget(256)
    assert {path for path, _ in tiler.files(0)} == {"tile/0/001", "tile/entries/001", "tile/1/000.p/2"}
    tiler.extend(entries(512, 600))
    assert dict(tiler.files(256))["tile/0/001"] == b"".join(leaf_hashes(entries(256, 512)))
    assert "tile/0/001" not in dict(tiler.files(512))


def test_empty_tree_has_no_files() -> None:
    assert Tiler().files(0) == []
