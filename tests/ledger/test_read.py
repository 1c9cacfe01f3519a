"""Reading beside the writer: what is there is shown, what is not is said, and nothing false is given out."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from tests.ledger.forge import ORIGIN, Forge

from gatebook.errors import Damaged, Tampered
from gatebook.ledger import keys
from gatebook.ledger.proof import record_entry
from gatebook.ledger.prove import Tree
from gatebook.ledger.read import Reader
from gatebook.ledger.tree import leaf_hash, root_from_inclusion


@pytest.fixture
def forge(tmp_path: Path) -> Forge:
    """0 BOOT, 1-3 records, 4 heartbeat, 5-6 records | 7 SEGMENT, 8 BOOT, 9-10 records | 11 SEGMENT."""
    made = Forge(tmp_path)
    made.boot()
    made.records(b"one", b"two")
    made.records(b"three")
    made.heartbeat()
    made.memo(b"memo")
    made.records(b"five", b"six")
    made.publish()
    made.boot()
    made.records(b"nine", b"ten")
    made.stop()
    return made


ALL = [(1, b"one"), (2, b"two"), (3, b"three"), (5, b"five"), (6, b"six"), (9, b"nine"), (10, b"ten")]


def reader(forge: Forge) -> Reader:
    return Reader(forge.ledger, ORIGIN, forge.deks, forge.reader)


def test_records_are_read_both_ways_and_from_anywhere(forge: Forge) -> None:
    found = reader(forge)
    assert found.size == 12
    assert list(found.forwards()) == ALL
    assert list(found.backwards()) == ALL[::-1]
    for start in range(14):
        assert list(found.forwards(start)) == [pair for pair in ALL if pair[0] >= start]
    assert {index: found.record(index) for index in range(-1, 13) if found.record(index)} == dict(ALL)
    assert found.gaps == []


def test_entries_are_read_without_a_key(forge: Forge) -> None:
    found = reader(forge)
    assert [found.entry(index) for index in range(12)] == forge.entries
    assert found.entry(12) is None
    assert found.entry(-1) is None


def test_empty_or_missing_ledger_has_nothing(tmp_path: Path) -> None:
    forge = Forge(tmp_path)
    assert list(reader(forge).forwards()) == []
    assert not reader(forge).refresh()
    shutil.rmtree(forge.ledger)
    assert list(reader(forge).backwards()) == []


def test_growing_tail_is_seen_at_refresh_and_not_before(tmp_path: Path) -> None:
    forge = Forge(tmp_path)
    forge.boot()
    found = reader(forge)
    assert found.size == 1
    forge.records(b"one")
    assert list(found.forwards()) == []
    assert found.refresh()
    assert not found.refresh()
    assert list(found.forwards(1)) == [(1, b"one")]
    forge.begin()
    forge.records(b"three", b"four")
    assert found.refresh()
    assert list(found.forwards(2)) == [(3, b"three"), (4, b"four")]
    assert list(found.forwards()) == [(1, b"one"), (3, b"three"), (4, b"four")]


def test_frame_that_is_being_written_is_no_gap(tmp_path: Path) -> None:
    forge = Forge(tmp_path)
    forge.boot()
    forge.records(b"one")
    whole = forge.path.read_bytes()
    forge.records(b"two")
    more = forge.path.read_bytes()
    for end in range(len(whole), len(more)):
        forge.path.write_bytes(more[:end])
        found = reader(forge)
        assert list(found.forwards()) == [(1, b"one")]
        assert found.gaps == []
    forge.path.write_bytes(more)
    assert found.refresh()
    assert list(found.forwards()) == [(1, b"one"), (2, b"two")]


def test_segment_that_is_being_made_is_no_gap(forge: Forge) -> None:
    path = forge.ledger / "segments" / f"{12:016x}-00000000.gbseg"
    found = reader(forge)
    for content in (b"", b"GBSEG", forge.path.read_bytes()[:100]):
        path.write_bytes(content)
        found.refresh()
        assert list(found.forwards()) == ALL
        assert list(reader(forge).backwards()) == ALL[::-1]
    assert found.gaps == []


def test_missing_segment_is_a_gap(forge: Forge) -> None:
    forge.segments[0].unlink()
    found = reader(forge)
    assert list(found.forwards()) == ALL[-2:]
    assert found.record(1) is None
    forge.segments[1].unlink()
    found = reader(forge)
    assert list(found.forwards()) == []


def test_damaged_segment_is_a_gap_and_the_others_are_read(forge: Forge) -> None:
    path = forge.segments[0]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    found = reader(forge)
    read = list(found.backwards())
    assert read[:2] == [(10, b"ten"), (9, b"nine")]
    assert set(read) < set(ALL)
    (gap,) = found.gaps
    assert gap.first_index + gap.n == 7
    assert "does not match its own hash" in gap.why


def test_record_that_its_commitment_does_not_name_is_never_given_out(forge: Forge, tmp_path: Path) -> None:
    other = Forge(tmp_path / "other")
    other.boot()
    other.records(b"ONE", b"two")
    shutil.copy(other.segments[0], forge.segments[0])
    found = reader(forge)
    assert (1, b"one") not in list(found.forwards())
    shutil.rmtree(forge.deks)
    shutil.copytree(other.deks, forge.deks)
    assert all(record != b"one" for _, record in reader(forge).forwards())


@pytest.mark.parametrize("what", ["destroyed", "other reader", "torn", "swapped"])
def test_segment_whose_key_is_gone_is_a_gap(forge: Forge, what: str) -> None:
    path = forge.deks / f"{1:032x}.dek"
    key = forge.reader
    if what == "destroyed":
        path.unlink()
    elif what == "torn":
        path.write_bytes(path.read_bytes()[:-1])
    elif what == "swapped":
        path.write_bytes((forge.deks / f"{2:032x}.dek").read_bytes())
    else:
        private = X25519PrivateKey.generate()
        key = keys.Reader(keys.key_id(private.public_key()), private)
    found = Reader(forge.ledger, ORIGIN, forge.deks, key)
    assert not {index for index, _ in found.forwards()} & {1, 2, 3, 5, 6}
    assert found.record(1) is None
    assert any(gap.first_index == 1 for gap in found.gaps)
    assert found.entry(1) == forge.entries[1]


def test_file_that_vanishes_while_reading_is_a_gap(forge: Forge) -> None:
    found = reader(forge)
    walk = found.forwards()
    assert next(walk) == (1, b"one")
    forge.segments[1].unlink()
    assert list(walk) == ALL[1:5]
    assert [(gap.first_index, gap.n) for gap in found.gaps] == [(7, 4)]


def test_other_files_in_the_folder_are_passed_over(forge: Forge) -> None:
    for name in (
        "notes.txt",
        "x.gbseg",
        "0000000000000000-zzzzzzzz.gbseg~",
        "g" * 16 + "-00000000.gbseg",
        ".DS_Store",
    ):
        (forge.ledger / "segments" / name).write_bytes(b"?")
    found = reader(forge)
    assert list(found.forwards()) == ALL
    assert found.gaps == []


# -- inclusion --------------------------------------------------------------------------------------------


@pytest.fixture
def large(tmp_path: Path) -> Forge:
    made = Forge(tmp_path)
    made.boot()
    for start in range(0, 600, 100):
        made.records(*(b"record %d" % n for n in range(start, start + 100)))
        made.publish()
    return made


def test_every_entry_is_proven_from_the_public_files(large: Forge) -> None:
    tree = Tree(large.ledger, large.verifier)
    for index, entry in enumerate(large.entries):
        found = tree.inclusion(index, entry)
        assert found is not None
        assert found.checkpoint == large.promised
    assert tree.inclusion(len(large.entries), b"") is None


def test_proof_convinces_somebody_who_has_only_the_checkpoint(large: Forge) -> None:
    found = Tree(large.ledger, large.verifier).inclusion(300, large.entries[300])
    assert found is not None
    checkpoint = found.checkpoint
    assert root_from_inclusion(300, checkpoint.size, leaf_hash(large.entries[300]), found.path) == checkpoint.root


def test_changed_entry_or_tile_is_not_proven(large: Forge) -> None:
    tree = Tree(large.ledger, large.verifier)
    with pytest.raises(Tampered, match="entry 300 is not in the signed tree"):
        tree.inclusion(300, large.entries[301])
    path = large.ledger / "log" / "tile/0/001"
    data = bytearray(path.read_bytes())
    data[32 * 100] ^= 1
    path.write_bytes(data)
    with pytest.raises(Tampered):
        tree.inclusion(300, large.entries[300])
    path.write_bytes(data[:-1])
    with pytest.raises(Damaged, match="tile"):
        tree.inclusion(300, large.entries[300])
    path.unlink()
    with pytest.raises(Damaged, match="missing"):
        tree.inclusion(300, large.entries[300])


def test_full_tile_serves_for_a_partial_one_that_has_gone(large: Forge, tmp_path: Path) -> None:
    checkpoint = (large.ledger / "log/checkpoint").read_bytes()
    large.records(*(b"more %d" % n for n in range(300)))
    large.publish()
    (large.ledger / "log/checkpoint").write_bytes(checkpoint)
    shutil.rmtree(large.ledger / "log/tile/0/002.p")
    found = Tree(large.ledger, large.verifier).inclusion(590, large.entries[590])
    assert found is not None
    assert found.checkpoint.size == 601


def test_checkpoint_of_another_key_or_none_is_refused(large: Forge, tmp_path: Path) -> None:
    with pytest.raises(Tampered, match="not signed by any key"):
        Tree(large.ledger, Forge(tmp_path / "other", seed=2).verifier).checkpoint()
    (large.ledger / "log/checkpoint").unlink()
    with pytest.raises(Damaged, match="checkpoint"):
        Tree(large.ledger, large.verifier).checkpoint()


def test_segment_that_cannot_be_opened_is_one_gap_however_many_frames_it_has(forge: Forge) -> None:
    for path in forge.deks.iterdir():
        path.unlink()
    opened = reader(forge)
    pieces = list(opened.pieces(0, opened.size))
    assert [piece.records for piece in pieces if piece.sealed_us is not None] == [[]] * 4
    assert len(opened.gaps) == 2
    assert sum(len(piece.entries) for piece in pieces) == opened.size


def test_entries_that_are_no_records_are_given_without_any_key(forge: Forge) -> None:
    for path in forge.deks.iterdir():
        path.unlink()
    opened = reader(forge)
    assert [index for index, _ in opened.others(0, opened.size)] == [0, 4, 7, 8, 11]
    assert [index for index, _ in opened.others(5, 8)] == [7]
    assert opened.gaps == []


def test_records_are_disclosed_with_the_salts_that_their_entries_commit_to(forge: Forge) -> None:
    opened = reader(forge)
    found = list(opened.disclosed(2, 10))
    assert [(index, data) for index, _, data in found] == [each for each in ALL if 2 <= each[0] < 10]
    assert [record_entry(salt, data) for _, salt, data in found] == [opened.entry(index) for index, _, _ in found]
