"""Verification, by attack: whatever is changed, left out, swapped, put back or added is found, and named."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from tests.ledger.forge import MINUTE, ORIGIN, T0, Forge

from gatebook.errors import EnvironmentFault
from gatebook.ledger import keys, segment
from gatebook.ledger.entry import (
    CLOCK,
    Anchor,
    Boot,
    Close,
    Entry,
    Erase,
    Heartbeat,
    Loss,
    LossReason,
    Policy,
    Segment,
)
from gatebook.ledger.lock import Promise, encode_promise
from gatebook.ledger.note import Checkpoint, Signer, sign_note
from gatebook.ledger.tiles import Tiler
from gatebook.ledger.verify import Private, Remark, Report, verify
from gatebook.ledger.verify.public import can_hold


def small(folder: Path) -> Forge:
    """0 BOOT, 1-3 records, 4 heartbeat, 5 record | 6 SEGMENT, 7 BOOT, 8 record | 9 SEGMENT; two checkpoints."""
    made = Forge(folder)
    made.boot()
    made.records(b'{"a":1}', b'{"b":2}')
    made.records(b'{"c":3}')
    made.now_us += MINUTE
    made.heartbeat()
    made.memo(b"memo")
    made.records(b'{"d":4}')
    made.publish()
    made.boot()
    made.records(b'{"e":5}')
    made.stop()
    return made


def large(folder: Path) -> Forge:
    """Three segments, 66,000 entries and more: two tile levels above the first."""
    made = Forge(folder)
    made.boot()
    for part in range(3):
        for start in range(0, 22_000, 2_000):
            made.records(*(b"%d/%d" % (part, n) for n in range(start, start + 2_000)))
            if part == 0:
                made.publish()
        made.begin()
    made.stop()
    return made


@pytest.fixture
def forge(tmp_path: Path) -> Forge:
    return small(tmp_path)


@pytest.fixture(scope="module")
def large_once(tmp_path_factory: pytest.TempPathFactory) -> Forge:
    return large(tmp_path_factory.mktemp("large"))


@pytest.fixture
def big(large_once: Forge, tmp_path: Path) -> Forge:
    """A copy of the large one, to be spoilt."""
    copy = tmp_path / "copy"
    shutil.copytree(large_once.ledger.parent, copy)
    made = Forge.__new__(Forge)
    made.__dict__ |= large_once.__dict__
    made.ledger, made.deks, made.lock = copy / "ledger", copy / "deks", copy / "lock"
    made.segments = [made.ledger / "segments" / path.name for path in large_once.segments]
    return made


def check(forge: Forge, *, lock: bool = True, key: bool = True) -> Report:
    return verify(
        forge.ledger,
        forge.verifier,
        lock=forge.lock if lock else None,
        private=Private(forge.deks, forge.reader) if key else None,
    )


def flip(path: Path, at: int, bits: int = 1) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= bits
    path.write_bytes(data)


def found(report: Report) -> list[tuple[int, str, str]]:
    return [(finding.level, finding.kind, finding.place) for finding in report.findings]


def one(report: Report) -> tuple[int, str, str]:
    (finding,) = found(report)
    return finding


# -- all is well --------------------------------------------------------------------------------------------


def test_ledger_as_it_was_written_passes_at_all_levels(forge: Forge) -> None:
    report = check(forge)
    assert report.findings == []
    assert (report.exit_code, report.worst) == (0, None)
    assert report.levels == {0: "passed", 1: "passed", 2: "passed", 3: "not tried"}
    assert (report.size, report.tail, report.segments, report.records) == (10, 0, 3, 5)
    assert report.checkpoint == forge.promised
    assert any("verified up to size 10" in text for text in report.rests_on)


def test_large_ledger_passes_and_tells_how_far_it_is(large_once: Forge) -> None:
    told: list[tuple[int, int]] = []
    report = verify(
        large_once.ledger, large_once.verifier, progress=lambda done, total: told.append((done, total))
    )
    assert report.findings == []
    assert report.size == len(large_once.entries)
    assert told[-1] == (report.size, report.size)
    assert [done for done, _ in told] == sorted({done for done, _ in told})


@pytest.mark.parametrize("count", [0, 1, 254, 255, 256, 257, 511, 512, 600])
def test_every_shape_of_the_tree_passes(tmp_path: Path, count: int) -> None:
    forge = Forge(tmp_path)
    forge.boot()
    if count:
        forge.records(*(b"%d" % n for n in range(count)))
    forge.publish()
    assert check(forge).findings == []


def test_without_a_key_the_records_are_not_looked_at_and_that_is_said(forge: Forge) -> None:
    report = check(forge, key=False)
    assert report.findings == []
    assert report.levels == {0: "passed", 1: "passed", 2: "not tried", 3: "not tried"}
    assert report.records == 0
    assert "no reader's key" in report.why_not[2]


def test_public_files_alone_are_checked_at_level_0(forge: Forge) -> None:
    shutil.rmtree(forge.ledger / "segments")
    report = check(forge, lock=False)
    assert report.findings == []
    assert report.levels == {0: "passed", 1: "not tried", 2: "not tried", 3: "not tried"}
    flip(forge.ledger / "log/tile/entries/000.p/10", 100)
    assert check(forge, lock=False).worst == "tampered"


def test_own_ledger_without_its_segments_is_damaged_not_untried(forge: Forge) -> None:
    shutil.rmtree(forge.ledger / "segments")
    report = check(forge)
    assert report.worst == "damaged"
    assert report.levels[1] == "failed"


def test_nothing_is_written_and_no_lock_is_taken(forge: Forge) -> None:
    root = forge.ledger.parent

    def state() -> dict[Path, tuple[int, bytes]]:
        return {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in root.rglob("*") if p.is_file()}

    before = state()
    check(forge)
    assert state() == before


def test_folder_without_a_ledger_is_no_ledger(tmp_path: Path) -> None:
    forge = Forge(tmp_path)
    shutil.rmtree(forge.ledger)
    with pytest.raises(EnvironmentFault, match="no ledger"):
        check(forge)


def test_ledger_without_any_checkpoint_proves_nothing(forge: Forge) -> None:
    (forge.ledger / "log/checkpoint").unlink()
    report = check(forge, lock=False)
    assert report.worst == "damaged"
    assert report.levels == {0: "failed", 1: "not tried", 2: "not tried", 3: "not tried"}
    assert report.rests_on[0].startswith("nothing")


# -- a byte --------------------------------------------------------------------------------------------------


def files(forge: Forge) -> list[Path]:
    return sorted(path for path in forge.ledger.parent.rglob("*") if path.is_file())


@pytest.mark.parametrize("part", ["ledger/log", "ledger/segments", "deks", "lock"])
def test_every_flipped_byte_of_every_file_is_found(tmp_path: Path, part: str) -> None:
    forge = small(tmp_path)
    unnoticed = []
    kinds: set[str] = set()
    for path in files(forge):
        if not path.is_relative_to(tmp_path / part):
            continue
        whole = path.read_bytes()
        for at in range(len(whole)):
            flip(path, at, 1 << at % 8)
            report = check(forge)
            kinds |= {finding.kind for finding in report.findings}
            if not report.findings:
                unnoticed.append(f"{path.name} byte {at}")
            path.write_bytes(whole)
    assert unnoticed == []
    assert "incomplete" not in kinds
    assert check(forge).findings == []


@pytest.mark.parametrize("name", ["tile/0/000", "tile/entries/001", "tile/1/000", "tile/2/000.p/1"])
def test_tile_or_bundle_that_was_changed_is_named_and_no_other(big: Forge, name: str) -> None:
    flip(big.ledger / "log" / name, 5)
    assert one(check(big)) == (0, "tampered", f"log/{name}")


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("tile/0/000", "missing"),
        ("tile/entries/001", "missing"),
        ("tile/1/000", "missing"),
        ("tile/2/000.p/1", "missing"),
        ("tile/0/000", "shorter"),
        ("tile/entries/001", "shorter"),
        ("tile/1/000", "longer"),
        ("tile/entries/001", "huge"),
        ("tile/0/000", "a folder"),
        ("tile/entries/001", "a link to itself"),
    ],
)
def test_tile_or_bundle_that_cannot_be_read_is_damaged(big: Forge, name: str, how: str) -> None:
    path = big.ledger / "log" / name
    data = path.read_bytes()
    path.unlink()
    if how == "a folder":
        path.mkdir()
    elif how == "a link to itself":
        path.symlink_to(path)
    elif how != "missing":
        path.write_bytes({"shorter": data[:-1], "longer": data + b"\0", "huge": bytes(20 << 20)}[how])
    assert one(check(big)) == (0, "damaged", f"log/{name}")


def test_two_faults_in_one_tree_are_both_named(big: Forge) -> None:
    flip(big.ledger / "log/tile/0/000", 5)
    (big.ledger / "log/tile/1/000").unlink()
    flip(big.ledger / "log/tile/entries/100", 5)
    places = {place for _, _, place in found(check(big))}
    assert places == {"log/tile/0/000", "log/tile/1/000", "log/tile/entries/100"}


def test_bundle_tile_and_segment_changed_alike_do_not_outvote_the_root(big: Forge, tmp_path: Path) -> None:
    other = Forge(tmp_path / "other")
    other.boot()
    other.records(*(b"forged %d" % n for n in range(2000)))
    other.publish()
    for name in ("tile/0/001", "tile/entries/001"):
        shutil.copy(other.ledger / "log" / name, big.ledger / "log" / name)
    shutil.copy(other.segments[0], big.segments[0])
    report = check(big, key=False)
    assert (0, "tampered", "entries 256 to 511") in found(report)
    assert report.worst == "tampered"


def test_older_partial_tile_that_was_changed_misleads_who_holds_an_older_checkpoint(big: Forge) -> None:
    partial = sorted((big.ledger / "log").rglob("*.p/*"))
    older = next(path for path in partial if path.parent.name == "007.p" and path.parent.parent.name == "0")
    flip(older, 3)
    level, kind, place = one(check(big))
    assert (level, kind) == (0, "tampered")
    assert place == f"log/tile/0/007.p/{older.name}"


# -- checkpoint and lock -------------------------------------------------------------------------------------


def test_checkpoint_signed_by_another_key_is_refused(forge: Forge) -> None:
    assert forge.promised is not None
    other = Signer.generate(ORIGIN, b"\x09" * 32)
    (forge.ledger / "log/checkpoint").write_bytes(sign_note(forge.promised.text(), other))
    assert one(check(forge)) == (0, "tampered", "log/checkpoint")


def test_whole_ledger_signed_anew_by_another_key_is_refused(tmp_path: Path, forge: Forge) -> None:
    forged = Forge(tmp_path / "forged", seed=7)
    forged.boot()
    forged.records(b"another history")
    forged.publish()
    report = verify(forged.ledger, forge.verifier, lock=forged.lock)
    assert {kind for _, kind, _ in found(report)} == {"tampered"}
    assert report.levels[1] == "not tried"


def test_checkpoint_of_another_log_is_refused(forge: Forge) -> None:
    note = sign_note(Checkpoint("acme/node-2", 10, bytes(32)).text(), forge.signer)
    (forge.ledger / "log/checkpoint").write_bytes(note)
    assert one(check(forge)) == (0, "tampered", "log/checkpoint")


def test_truth_signed_over_changed_entries_is_found(forge: Forge) -> None:
    note = sign_note(Checkpoint(ORIGIN, 10, bytes(32)).text(), forge.signer)
    (forge.ledger / "log/checkpoint").write_bytes(note)
    report = check(forge, lock=False)
    assert found(report) == [(0, "tampered", "log/checkpoint")]


def test_published_checkpoint_put_back_to_an_older_one_is_told_and_the_locks_counts(tmp_path: Path) -> None:
    forge = small(tmp_path)
    newest = (forge.ledger / "log/checkpoint").read_bytes()
    older = small(tmp_path / "again")
    tiler = Tiler()
    tiler.extend(older.entries[:6])
    note = sign_note(Checkpoint(ORIGIN, 6, tiler.root()).text(), forge.signer)
    (forge.ledger / "log/checkpoint").write_bytes(note)
    report = check(forge)
    assert report.findings == []
    assert report.size == 10
    assert any("an older one was put back" in text for text in report.notes)
    (forge.ledger / "log/checkpoint").write_bytes(newest)
    assert check(forge).notes == []


def test_published_checkpoint_of_another_history_is_a_fork(forge: Forge) -> None:
    note = sign_note(Checkpoint(ORIGIN, 6, bytes(32)).text(), forge.signer)
    (forge.ledger / "log/checkpoint").write_bytes(note)
    assert one(check(forge)) == (0, "tampered", "log/checkpoint")
    note = sign_note(Checkpoint(ORIGIN, 10, bytes(32)).text(), forge.signer)
    (forge.ledger / "log/checkpoint").write_bytes(note)
    assert (0, "tampered", "lock") in found(check(forge))


def test_lock_put_back_to_an_older_state_is_found(forge: Forge) -> None:
    tiler = Tiler()
    tiler.extend(forge.entries[:6])
    checkpoint = Checkpoint(ORIGIN, 6, tiler.root())
    forge.lock.write_bytes(encode_promise(Promise(checkpoint, sign_note(checkpoint.text(), forge.signer), 0)))
    assert one(check(forge)) == (0, "tampered", "lock")


@pytest.mark.parametrize("content", [b"", b"gatebook-lock 2\n", None])
def test_lock_that_is_missing_or_none_is_damaged(forge: Forge, content: bytes | None) -> None:
    forge.lock.unlink()
    if content is not None:
        forge.lock.write_bytes(content)
    assert one(check(forge)) == (0, "damaged", "lock")


def test_ledger_cut_back_below_what_the_lock_promised_is_found(forge: Forge, tmp_path: Path) -> None:
    """Everything but the lock is put back to the first checkpoint."""
    older = Forge(tmp_path / "older")
    older.boot()
    older.records(b'{"a":1}', b'{"b":2}')
    older.publish()
    shutil.rmtree(forge.ledger)
    shutil.copytree(older.ledger, forge.ledger)
    report = check(forge)
    assert report.worst is not None
    assert any("segments" in place for _, _, place in found(report))


def test_extra_signatures_are_named_and_never_counted(forge: Forge) -> None:
    assert forge.promised is not None
    other = Signer.generate("witness.example/w1", b"\x09" * 32)
    note = sign_note(forge.promised.text(), forge.signer, other)
    (forge.ledger / "log/checkpoint").write_bytes(note)
    report = check(forge)
    assert report.findings == []
    assert any("witness.example/w1" in text for text in report.notes)


# -- segments ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [0, 1])
def test_deleted_segment_is_named_with_what_it_held(forge: Forge, number: int) -> None:
    forge.segments[number].unlink()
    assert one(check(forge)) == (1, "damaged", f"segments/{forge.segments[number].name}")


def test_deleted_last_segment_is_found_though_nothing_states_it(forge: Forge) -> None:
    forge.segments[2].unlink()
    level, kind, place = one(check(forge))
    assert (level, kind, place) == (1, "damaged", "segments")


def test_all_segments_deleted_is_found(forge: Forge) -> None:
    for path in forge.segments:
        path.unlink()
    report = check(forge)
    assert {kind for _, kind, _ in found(report)} == {"damaged"}
    assert len(report.findings) == 3


def test_truncated_segment_is_damaged_at_every_length(forge: Forge) -> None:
    for path in forge.segments:
        whole = path.read_bytes()
        for end in range(0, len(whole), 7):
            path.write_bytes(whole[:end])
            report = check(forge, key=False)
            assert report.worst in ("damaged", "tampered"), f"{path.name} cut to {end} bytes"
        path.write_bytes(whole)


def test_swapped_segments_are_found(forge: Forge) -> None:
    first, second = forge.segments[:2]
    one_, two = first.read_bytes(), second.read_bytes()
    first.write_bytes(two)
    second.write_bytes(one_)
    report = check(forge)
    assert set(found(report)) == {
        (1, "tampered", f"segments/{first.name}"),
        (1, "tampered", f"segments/{second.name}"),
    }
    assert report.records == 5  # what they hold is genuine, and is read


def test_segment_copied_under_another_name_is_found(forge: Forge) -> None:
    shutil.copy(forge.segments[0], forge.ledger / "segments" / f"{20:016x}-00000000.gbseg")
    assert "tampered" in {kind for _, kind, _ in found(check(forge))}


def test_segment_of_another_log_is_found(forge: Forge, tmp_path: Path) -> None:
    header = segment.Header(b"x" * 16, b"y" * 16, 3, T0, hashlib.sha256(b"other/log").digest())
    (forge.ledger / "segments" / header.file_name).write_bytes(segment.encode_header(header))
    assert one(check(forge)) == (1, "tampered", f"segments/{header.file_name}")


def test_segment_that_the_log_does_not_know_is_found(forge: Forge, tmp_path: Path) -> None:
    other = Forge(tmp_path / "other")
    other.boot()
    for number in range(4):
        other.begin()
        other.records(b"unknown %d" % number)
    shutil.copy(other.path, forge.ledger / "segments")
    assert "tampered" in {kind for _, kind, _ in found(check(forge))}


def test_bytes_added_behind_a_closed_segment_are_found(forge: Forge) -> None:
    path = forge.segments[0]
    whole = path.read_bytes()
    path.write_bytes(whole + b"GBFR")
    assert check(forge).worst == "damaged"
    header = segment.parse_header(whole)
    place = header.start
    for frame in segment.parse_frames(whole, place):
        place = segment.after(frame)
    path.write_bytes(whole + segment.memo_frame(place, 0, b"more"))
    assert one(check(forge)) == (1, "tampered", f"segments/{path.name}")


def rewrite(path: Path, change: Callable[[bytes], bytes]) -> None:
    path.write_bytes(change(path.read_bytes()))


def test_memo_changed_with_its_check_sum_made_anew_is_found(forge: Forge) -> None:
    path = forge.segments[0]
    whole = path.read_bytes()
    header = segment.parse_header(whole)
    (memo,) = [
        f for f in segment.parse_frames(whole, header.start) if isinstance(f, segment.Memo) and f.body == b"memo"
    ]
    changed = segment.memo_frame(memo.place, memo.durable, b"MEMO")
    path.write_bytes(whole[: memo.place.offset] + changed + whole[memo.end :])
    assert one(check(forge)) == (1, "tampered", f"segments/{path.name}")


def test_record_sealed_anew_under_its_key_is_found_without_any_key(forge: Forge, tmp_path: Path) -> None:
    other = Forge(tmp_path / "other")  # has the same DEKs
    other.boot()
    other.records(b'{"a":1}', b'{"b":9}')
    other.records(b'{"c":3}')
    other.now_us += MINUTE
    other.heartbeat()
    other.memo(b"memo")
    other.records(b'{"d":4}')
    shutil.copy(other.path, forge.segments[0])
    report = check(forge, key=False)
    assert (1, "tampered", "segments, entry 2") in found(report)
    assert (1, "tampered", f"segments/{forge.segments[0].name}") in found(report)


def test_ciphertext_swapped_for_another_of_the_same_commitments_is_found_with_the_key(forge: Forge) -> None:
    """The closed segment's hash shows it without a key too; in an open one only the key does."""
    forge = Forge(forge.ledger.parent / "open")
    forge.boot()
    forge.records(b"secret")
    forge.publish()
    whole = forge.path.read_bytes()
    header = segment.parse_header(whole)
    (frame,) = [f for f in segment.parse_frames(whole, header.start) if isinstance(f, segment.Sealed)]
    start = frame.end - 32 - len(frame.ciphertext)
    body = bytearray(whole[frame.place.offset : frame.end - 32])
    body[start - frame.place.offset] ^= 1
    forge.path.write_bytes(whole[: frame.place.offset] + body + hashlib.sha256(body).digest())
    assert check(forge, key=False).findings == []
    level, kind, place = one(check(forge))
    assert (level, kind) == (2, "tampered")
    assert forge.path.name in place


def test_damaged_frame_hides_its_own_records_only(big: Forge) -> None:
    path = big.segments[1]
    flip(path, path.stat().st_size // 2)
    report = check(big)
    level, kind, place = one(report)
    assert (level, kind) == (1, "damaged")
    assert place.startswith(f"segments/{path.name}, byte ")
    assert report.records == 66_000 - 2_000
    assert (
        "entries 34003 to 36002" in report.findings[0].consequence
        or "cannot be read" in report.findings[0].consequence
    )


def test_damaged_memo_is_said_to_lose_no_entry(forge: Forge) -> None:
    path = forge.segments[0]
    flip(path, path.read_bytes().index(b"snapshot"))
    report = check(forge)
    assert one(report)[:2] == (1, "damaged")
    assert report.findings[0].consequence == "no entry is lost with it"


def test_tiles_that_were_swapped_are_told_by_their_first_and_last_entry(big: Forge) -> None:
    one_tile, other = (big.ledger / "log/tile/entries" / name for name in ("001", "002"))
    held = one_tile.read_bytes()
    one_tile.write_bytes(other.read_bytes())
    other.write_bytes(held)
    said = [finding.what for finding in check(big, key=False).findings]
    assert said == [f"entries {n} to {n + 255} are not what was signed" for n in (256, 512)]


def test_header_that_was_changed_is_damaged(forge: Forge) -> None:
    flip(forge.segments[1], 30)
    report = check(forge)
    assert (1, "damaged", f"segments/{forge.segments[1].name}") in found(report)


def test_other_files_among_the_segments_are_told(forge: Forge) -> None:
    (forge.ledger / "segments/notes.txt").write_text("?")
    (forge.ledger / "log/notes.txt").write_text("?")
    report = check(forge)
    assert report.findings == []
    assert any("notes.txt" in text for text in report.notes)


# -- beside a writer -----------------------------------------------------------------------------------------


def test_tail_beyond_the_checkpoint_is_normal(forge: Forge) -> None:
    forge.boot()
    forge.records(b"new")
    report = check(forge)
    assert report.findings == []
    assert report.tail == 3
    assert any("nothing is signed for yet" in text for text in report.rests_on)


def test_frame_that_is_being_written_is_no_finding_at_any_length(tmp_path: Path) -> None:
    forge = Forge(tmp_path)
    forge.boot()
    forge.records(b"old")
    forge.publish()
    before = forge.path.read_bytes()
    forge.memo(b"memo")
    forge.records(b"new")
    after = forge.path.read_bytes()
    for end in range(len(before), len(after), 3):
        forge.path.write_bytes(after[:end])
        assert check(forge).findings == [], f"{end - len(before)} bytes of the new frame"


def test_bad_frame_beyond_the_checkpoint_is_a_finding_only_if_it_had_been_synced(tmp_path: Path) -> None:
    forge = Forge(tmp_path)
    forge.boot()
    forge.publish()
    at = forge.path.stat().st_size
    forge.records(b"one")
    middle = forge.path.stat().st_size
    forge.records(b"two")
    flip(forge.path, at + 50)
    assert check(forge).findings == []  # a crash may keep the second frame and tear the first
    forge.memo(b"counts the frames before it as synced")
    level, kind, place = one(check(forge))
    assert (level, kind) == (1, "damaged")
    assert f"byte {at}" in place
    assert middle > at


def test_segment_that_is_being_made_is_no_finding(forge: Forge) -> None:
    whole = forge.path.read_bytes()
    path = forge.ledger / "segments" / f"{10:016x}-00000000.gbseg"
    for end in (0, 1, 127):
        path.write_bytes(whole[:end])
        assert check(forge).findings == []


def test_wider_tile_serves_when_the_writer_went_on_meanwhile(tmp_path: Path) -> None:
    forge = Forge(tmp_path)
    forge.boot()
    forge.records(*(b"%d" % n for n in range(100)))
    forge.publish()
    checkpoint = (forge.ledger / "log/checkpoint").read_bytes()
    lock = forge.lock.read_bytes()
    for more in (100, 200):
        for path in list((forge.ledger / "log").rglob("*.p/*")):
            path.unlink()
        forge.records(*(b"more %d" % n for n in range(more)))
        forge.written = 0
        forge.publish()
        (forge.ledger / "log/checkpoint").write_bytes(checkpoint)
        forge.lock.write_bytes(lock)
        report = check(forge)
        assert report.findings == []
        assert report.size == 101


# -- what entries state ---------------------------------------------------------------------------------------


def history(tmp_path: Path, act: Callable[[Forge], None]) -> Report:
    forge = Forge(tmp_path)
    forge.boot()
    forge.records(b"one")
    act(forge)
    forge.publish()
    return check(forge)


def test_silence_without_heartbeats_is_incomplete(tmp_path: Path) -> None:
    def act(forge: Forge) -> None:
        forge.heartbeat()
        forge.now_us += 10 * MINUTE
        forge.heartbeat()

    report = history(tmp_path, act)
    assert one(report) == (1, "incomplete", "entry 3")
    assert report.exit_code == 13


def test_records_that_go_on_without_heartbeats_are_incomplete(tmp_path: Path) -> None:
    def act(forge: Forge) -> None:
        for _ in range(8):
            forge.now_us += MINUTE
            forge.records(b"more")

    assert {kind for _, kind, _ in found(history(tmp_path, act))} == {"incomplete"}


def test_stop_and_start_explain_silence(tmp_path: Path) -> None:
    def act(forge: Forge) -> None:
        forge.heartbeat()
        forge.now_us += 1000 * MINUTE
        forge.boot(clean=False)
        forge.heartbeat()

    report = history(tmp_path, act)
    assert report.findings == []
    assert any("not clean" in text for text in report.notes)


def test_lines_that_were_lost_are_incomplete(tmp_path: Path) -> None:
    assert one(history(tmp_path, lambda forge: forge.heartbeat(lost=3))) == (1, "incomplete", "entry 2")


def test_clock_that_went_back_is_told(tmp_path: Path) -> None:
    def act(forge: Forge) -> None:
        forge.heartbeat()
        forge.now_us -= 100 * MINUTE
        forge.heartbeat()

    report = history(tmp_path, act)
    assert report.findings == []
    assert any("clock went back by 6000 s" in text for text in report.notes)


def set_ahead(forge: Forge, silent_us: int, ahead_us: int, producer: bytes = CLOCK) -> None:
    """The clock is set ahead, `silent_us` behind the last heartbeat."""
    forge.heartbeat()
    first = (forge.now_us + silent_us) // 1_000_000
    forge.now_us += silent_us + ahead_us
    forge.clear([Loss(producer, first, forge.now_us // 1_000_000, LossReason.CLOCK_SET)])
    forge.records(b"one")
    forge.heartbeat()


def test_clock_that_was_set_ahead_is_no_silence(tmp_path: Path) -> None:
    report = history(tmp_path, lambda forge: set_ahead(forge, MINUTE, 1_000_000 * MINUTE))
    assert report.findings == []
    assert any("clock was set ahead by 60000000 s" in text for text in report.notes)


def test_silence_is_found_though_the_clock_was_set_behind_it(tmp_path: Path) -> None:
    report = history(tmp_path, lambda forge: set_ahead(forge, 9 * MINUTE, 1_000_000 * MINUTE))
    assert one(report) == (1, "incomplete", "entry 3")


def test_nobody_but_the_clock_explains_silence(tmp_path: Path) -> None:
    report = history(tmp_path, lambda forge: set_ahead(forge, MINUTE, 60 * MINUTE, b"guard--1"))
    assert {(found.kind, found.place) for found in report.findings} == {
        ("incomplete", "entry 3"),
        ("incomplete", "entry 4"),
    }


def test_loss_that_nobody_was_told_of_is_told_and_any_other_is_incomplete(tmp_path: Path) -> None:
    report = history(tmp_path / "own", lambda forge: forge.clear([Loss(bytes(8), 3, 5, 1)]))
    assert report.findings == []
    assert any("LOSS of 3 entries" in text for text in report.notes)
    report = history(tmp_path / "other", lambda forge: forge.clear([Loss(b"guard--1", 3, 5, 77)]))
    assert one(report) == (1, "incomplete", "entry 2")


def test_boot_on_another_history_is_a_fork(tmp_path: Path) -> None:
    for size, root in ((1, bytes(32)), (99, bytes(32)), (0, bytes(32))):
        boot = Boot(b"b" * 16, bytes(32), size, root, True)
        report = history(tmp_path / str(size), lambda forge, boot=boot: forge.clear([boot]))  # type: ignore[misc]
        assert one(report) == (1, "tampered", "entry 2")


def test_boot_on_any_earlier_checkpoint_is_none(tmp_path: Path) -> None:
    forge = Forge(tmp_path)
    forge.boot()
    for count in (3, 200, 300, 500):
        forge.records(*(b"%d" % n for n in range(count)))
        forge.publish()
        forge.boot()
    forge.publish()
    assert check(forge).findings == []


@pytest.mark.parametrize(
    "field", ["first_index", "entries", "file_bytes", "file_sha256", "dek_id", "t_max_us", "previous"]
)
def test_statement_that_does_not_fit_its_segment_is_found(tmp_path: Path, field: str) -> None:
    forge = Forge(tmp_path)
    forge.boot()
    forge.records(b"one")
    true = forge.closing

    def lie() -> Segment:
        stated = true()
        values = {name: getattr(stated, name) for name in Segment.__slots__}
        old = values[field]
        values[field] = old + 1 if isinstance(old, int) else b"\1" * len(old)
        return Segment(**values)

    forge.closing = lie  # type: ignore[method-assign]
    forge.boot()
    forge.publish()
    assert {kind for _, kind, _ in found(check(forge))} == {"tampered"}


def test_erased_segment_is_told_and_no_finding(forge: Forge) -> None:
    path = forge.segments[0]
    header = segment.parse_header(path.read_bytes())
    forge.begin()
    forge.records(b"order 3")
    forge.clear([Erase(3, header.dek_id, bytes(32), bytes(32), 1, hashlib.sha256(b"order 3").digest())])
    forge.publish()
    path.unlink()
    (forge.deks / f"{header.dek_id.hex()}.dek").unlink()
    report = check(forge)
    assert report.findings == []
    assert any("erased" in text for text in report.notes)


def test_destroyed_key_is_damage_unless_its_erasure_is_on_record(forge: Forge) -> None:
    dek_id = segment.parse_header(forge.segments[0].read_bytes()).dek_id
    (forge.deks / f"{dek_id.hex()}.dek").unlink()
    assert one(check(forge)) == (2, "damaged", f"deks/{dek_id.hex()}.dek")
    forge.begin()
    forge.records(b"order 3")
    forge.clear([Erase(3, dek_id, bytes(32), bytes(32), 1, hashlib.sha256(b"order 3").digest())])
    forge.publish()
    assert check(forge).findings == []


def test_readers_key_that_opens_nothing_is_told_as_such(forge: Forge) -> None:
    private = X25519PrivateKey.generate()
    forge.reader = keys.Reader(keys.key_id(private.public_key()), private)
    report = check(forge)
    assert {(level, kind) for level, kind, _ in found(report)} == {(2, "damaged")}
    assert "not wrapped for this reader" in report.findings[0].what


def test_anything_behind_close_is_found(tmp_path: Path) -> None:
    def act(forge: Forge) -> None:
        forge.clear([Policy(bytes(32), 1), Anchor(1, 1, bytes(32)), Close(bytes(32))])
        forge.clear([Policy(bytes(32), 2)])

    assert one(history(tmp_path, act)) == (1, "tampered", "entry 5")


def test_entry_of_an_unknown_type_is_damaged(tmp_path: Path) -> None:
    forge = Forge(tmp_path)
    forge.boot()
    entry = b"GB\x01\x7f" + bytes(10)
    forge._put(segment.clear_frame(forge.place, [entry]), [entry], 0)
    forge.publish()
    assert (1, "damaged", "entry 1") in found(check(forge))


# -- what records say ------------------------------------------------------------------------------------------


class Strict:
    """Accepts no record that says `bad`; counts what it is given."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, bytes]] = []
        self.holes: list[tuple[int, int]] = []
        self.beats: list[tuple[int, int]] = []

    def record(self, index: int, data: bytes) -> Remark | None:
        self.seen.append((index, data))
        return Remark("incomplete", "is bad", "so be it") if data == b"bad" else None

    def entry(self, index: int, entry: Entry) -> list[Remark]:
        if isinstance(entry, Heartbeat):
            self.beats.append((index, entry.open))
        return []

    def removed(self, index: int) -> None:
        self.holes.append((index, index + 1))

    def erasure(self, index: int, kind: int, order: bytes) -> Remark | None:
        return None if order == b"order %d" % kind else Remark("incomplete", f"{index} is no order", "so be it")

    def hole(self, first: int, end: int) -> None:
        self.holes.append((first, end))

    def summary(self) -> list[str]:
        return [f"{len(self.seen)} seen"]


def test_records_are_judged_in_order_and_holes_are_told(tmp_path: Path) -> None:
    forge = Forge(tmp_path)
    forge.boot()
    forge.records(b"good", b"bad")
    forge.heartbeat(open_=7)
    forge.begin()
    forge.records(b"gone")
    forge.begin()
    forge.records(b"last")
    forge.publish()
    forge.segments[1].unlink()
    reading = Strict()
    report = verify(forge.ledger, forge.verifier, private=Private(forge.deks, forge.reader, reading))
    assert reading.seen == [(1, b"good"), (2, b"bad"), (7, b"last")]
    assert reading.beats == [(3, 7)]
    assert reading.holes == [(4, 6)]
    assert (2, "incomplete", "entry 2") in found(report)
    assert "3 seen" in report.notes
    assert report.worst == "damaged"


@pytest.mark.parametrize("bits", [35, 38, 62])
def test_checkpoint_for_more_entries_than_the_files_can_hold_is_not_walked(forge: Forge, bits: int) -> None:
    """Whoever has a log's key can sign any size; nobody could walk it, nor hold its blocks in memory."""
    size = 1 << bits
    note = sign_note(Checkpoint(ORIGIN, size, bytes(32)).text(), forge.signer)
    (forge.ledger / "log" / "checkpoint").write_bytes(note)
    report = verify(forge.ledger, forge.signer.verifier)
    (found,) = report.findings
    assert (found.kind, found.place) == ("damaged", f"entries 0 to {size - 1}")
    assert report.levels[1] == "not tried"


def test_files_that_are_nothing_but_a_hole_hold_no_entries(forge: Forge) -> None:
    for number in range(100):
        with (forge.ledger / "segments" / f"{number}").open("wb") as stream:
            stream.truncate(200 << 20)
    assert not can_hold(forge.ledger, 1 << 30)
