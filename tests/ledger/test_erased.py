"""What verification says of erasures: what the log explains passes, and each thing it does not is found."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest
import zstandard
from tests.ledger.caller import READER, RECIPIENT, VERIFIER, Caller, Contents
from tests.ledger.test_erase import redact

from gatebook.errors import Damaged
from gatebook.ledger import erase, rewrite, segment
from gatebook.ledger.deks import Deks
from gatebook.ledger.entry import Erase, Erased, EraseReason, encode
from gatebook.ledger.keys import wrap
from gatebook.ledger.read import unwrap
from gatebook.ledger.verify import Private, Report, verify


@pytest.fixture
def root(tmp_path: Path) -> Path:
    made = tmp_path / "state"
    made.mkdir()
    return made


def check(root: Path, *, key: bool = True) -> Report:
    private = Private(root / "deks", READER) if key else None
    return verify(root / "ledger", VERIFIER, lock=root / "lock", private=private)


def found(report: Report) -> list[tuple[int, str]]:
    return [(finding.level, finding.kind) for finding in report.findings]


def ordered(caller: Caller) -> bytes:
    """An order, on record; what an ERASE entry names of it."""
    caller.add(1)
    return hashlib.sha256(b"record %d" % (caller.count - 1)).digest()


def redacted(root: Path) -> Caller:
    caller = Caller(root)
    caller.add(4)
    redact(caller, 2, order=ordered(caller))
    return caller


def destroyed(root: Path) -> tuple[Caller, Path]:
    """A ledger whose first segment is destroyed; beside it, what it was before."""
    caller = Caller(root)
    caller.add(20)
    caller.writer.roll()
    caller.add(700)
    caller.close()
    caller = Caller(root)
    caller.writer._publisher.settle()
    before = root.parent / "before"
    shutil.copytree(root, before)
    old = examined(caller, erase.closed_segments(caller.writer)[0])
    assert old is not None
    erase.destroy(caller.writer, [old], EraseReason.RETENTION, ordered(caller))
    return caller, before


def examined(caller: Caller, path: Path) -> erase.Old | None:
    return erase.examine(caller.writer, path, caller.root / "ledger" / "log")


# -- one record -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", [True, False])
def test_redacted_ledger_passes_and_says_so(root: Path, key: bool) -> None:
    redacted(root).close()
    report = check(root, key=key)
    assert report.findings == []
    assert report.records == (4 if key else 0)
    assert any("1 ERASE entries: some records were erased" in text for text in report.notes)


def test_redaction_passes_while_the_writer_goes_on_and_after_another(root: Path) -> None:
    caller = redacted(root)
    assert check(root).findings == []
    caller.add(2)
    assert check(root).findings == []
    redact(caller, 1, 4, order=ordered(caller))
    assert check(root).findings == []
    caller.close()
    assert check(root).findings == []


def test_erasure_without_an_order_is_incomplete(root: Path) -> None:
    caller = Caller(root)
    caller.add(4)
    redact(caller, 2)
    caller.close()
    report = check(root)
    assert found(report) == [(2, "incomplete")]
    assert "not on record before it" in report.findings[0].what
    assert check(root, key=False).findings == []


def test_order_may_not_be_removed_itself(root: Path) -> None:
    caller = redacted(root)
    redact(caller, 5, order=ordered(caller))
    caller.close()
    assert found(check(root)) == [(2, "incomplete")]


def test_order_that_retention_has_destroyed_is_no_finding(root: Path) -> None:
    caller = redacted(root)
    caller.add(700)
    caller.close()
    caller = Caller(root)
    caller.writer._publisher.settle()
    for path in erase.closed_segments(caller.writer)[:1]:
        old = examined(caller, path)
        assert old is not None
        erase.destroy(caller.writer, [old], EraseReason.RETENTION, ordered(caller))
    caller.close()
    assert check(root).findings == []


def test_file_and_key_that_were_put_back_are_found_with_and_without_a_key(root: Path) -> None:
    caller = Caller(root)
    caller.add(4)
    order = ordered(caller)
    before = root.parent / "before"
    shutil.copytree(root, before)
    redact(caller, 2, order=order)
    caller.close()
    (path,) = (before / "ledger" / "segments").iterdir()
    (dek,) = (before / "deks").iterdir()
    shutil.copy(path, root / "ledger" / "segments" / path.name)
    report = check(root, key=False)
    assert found(report) == [(1, "incomplete")]
    assert "from before the erasure of entry 7" in report.findings[0].what
    shutil.copy(dek, root / "deks" / dek.name)
    assert found(check(root)) == [(1, "incomplete"), (2, "incomplete")]


def rewritten_by_a_thief(root: Path, index: int) -> None:
    """Somebody with the reader's key and write access takes a record out, as gatebook would."""
    paths = sorted((root / "ledger" / "segments").iterdir())
    path = next(p for p in reversed(paths) if int(p.name[:16], 16) <= index)
    old = erase.Closed.read(path)
    keys = unwrap(Deks(root / "deks"), old.header.dek_id, READER)
    dek_id, dek = b"t" * 16, b"T" * 32
    Deks(root / "deks").put(dek_id, [wrap(dek, dek_id, RECIPIENT)])
    compress = zstandard.ZstdCompressor().compress
    path.write_bytes(rewrite.without(old.data, keys, {index: "gone"}, dek_id, segment.derive(dek), compress))


def test_record_that_was_taken_out_without_an_entry_is_tampering(root: Path) -> None:
    caller = Caller(root)
    caller.add(4)
    caller.close()
    rewritten_by_a_thief(root, 2)
    assert found(check(root, key=False)) == [(1, "tampered")]
    assert found(check(root)) == [(1, "tampered"), (2, "tampered")]


def test_record_that_was_taken_out_of_a_segment_redacted_before_is_tampering(root: Path) -> None:
    redacted(root).close()
    rewritten_by_a_thief(root, 3)
    assert found(check(root, key=False)) == [(1, "tampered")]
    assert (2, "tampered") in found(check(root))


def test_entry_that_nobody_signed_for_explains_nothing(root: Path) -> None:
    """Without the log's key anybody can write an ERASE entry behind the signed ones."""
    caller = Caller(root)
    caller.add(4)
    caller.close()
    old = sorted((root / "ledger" / "segments").iterdir())[0]
    before = hashlib.sha256(old.read_bytes()).digest()
    commitment = Contents(root).entries[2][4:20]
    rewritten_by_a_thief(root, 2)
    after = hashlib.sha256(old.read_bytes()).digest()
    last = sorted((root / "ledger" / "segments").iterdir())[-1]
    data = last.read_bytes()
    header = segment.parse_header(data)
    *_, frame = segment.parse_frames(data, header.start)
    forged = encode(Erase(Erased.RECORD, commitment, before, after, 1, bytes(32)))
    last.write_bytes(data + segment.clear_frame(segment.after(frame), [forged]))
    report = check(root)
    assert {(1, "incomplete"), (2, "incomplete")} <= set(found(report))
    assert all("not signed for yet" in each.what for each in report.findings if each.level == 1)


def test_erasure_of_a_segment_that_the_log_does_not_know_is_tampering(root: Path) -> None:
    caller = Caller(root)
    caller.add(2)
    order = ordered(caller)
    for entry in (
        Erase(Erased.RECORD, bytes(16), bytes(32), bytes(32), 1, order),
        Erase(Erased.SEGMENT, b"x" * 16, bytes(32), bytes(32), 1, order),
    ):
        caller.writer.append_entry(entry)
    caller.sync()
    caller.close()
    assert found(check(root, key=False)) == [(1, "tampered"), (1, "tampered")]


# -- whole segments -------------------------------------------------------------------------------------------


def test_destroyed_segment_passes_and_its_entries_stay_provable(root: Path) -> None:
    caller, _ = destroyed(root)
    caller.close()
    report = check(root)
    assert report.findings == []
    assert any("some segments were erased" in text and "entries 0 to 20" in text for text in report.notes)


def test_missing_segment_stays_damage_beside_a_destroyed_one(root: Path) -> None:
    caller, _ = destroyed(root)
    caller.close()
    paths = [path for path in sorted((root / "ledger" / "segments").iterdir()) if path.stat().st_size > 4096]
    paths[0].unlink()
    assert found(check(root, key=False)) == [(1, "damaged")]


def test_destroyed_segment_whose_key_was_put_back_is_found(root: Path) -> None:
    caller, before = destroyed(root)
    caller.close()
    for folder in ("ledger/segments", "deks"):
        for path in (before / folder).iterdir():
            if not (root / folder / path.name).exists():
                shutil.copy(path, root / folder / path.name)
    assert (2, "incomplete") in found(check(root))


def test_destroyed_segments_need_not_be_there_at_a_start(root: Path) -> None:
    caller, _ = destroyed(root)
    count = caller.count
    caller.close()
    for _ in range(2):
        again = Caller(root)
        assert again.count == count
        again.close()
    assert check(root).findings == []


@pytest.mark.parametrize("spoilt", ["tile/1", "tile/0", "checkpoint"])
def test_tiles_are_made_again_from_bundles_where_segments_were_destroyed(root: Path, spoilt: str) -> None:
    caller, _ = destroyed(root)
    caller.close()
    path = root / "ledger" / "log" / spoilt
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    Caller(root).close()
    assert check(root).findings == []
    Caller(root).close()


def test_start_without_segment_or_bundle_is_refused_and_says_what_to_bring_back(root: Path) -> None:
    caller, _ = destroyed(root)
    caller.close()
    shutil.rmtree(root / "ledger" / "log" / "tile")
    with pytest.raises(Damaged, match=r"bring back .*tile/entries/000"):
        Caller(root)


def test_segment_that_was_lost_is_not_taken_for_a_destroyed_one(root: Path) -> None:
    caller, _ = destroyed(root)
    caller.close()
    shutil.rmtree(root / "ledger" / "log" / "tile" / "1", ignore_errors=True)
    shutil.rmtree(root / "ledger" / "log" / "tile" / "0")
    big = [path for path in sorted((root / "ledger" / "segments").iterdir()) if path.stat().st_size > 4096]
    big[0].unlink()
    with pytest.raises(Damaged, match=r"but the segment before ends at|not the log's first"):
        Caller(root)


def test_segment_is_not_destroyed_before_its_bundles_are_durable(root: Path) -> None:
    caller = Caller(root)
    caller.add(10)
    caller.writer.roll()
    caller.checkpoint()
    assert examined(caller, erase.closed_segments(caller.writer)[0]) is None
    caller.close()


def test_segment_is_not_destroyed_where_its_bundle_is_wrong(root: Path) -> None:
    caller = Caller(root)
    caller.add(20)
    caller.writer.roll()
    caller.add(700)
    caller.close()
    caller = Caller(root)
    caller.writer._publisher.settle()
    bundle = root / "ledger" / "log" / "tile" / "entries" / "000"
    data = bytearray(bundle.read_bytes())
    data[7] ^= 1
    bundle.write_bytes(data)
    path = erase.closed_segments(caller.writer)[0]
    with pytest.raises(Damaged, match="is not what the segment holds"):
        examined(caller, path)
    caller.close()
