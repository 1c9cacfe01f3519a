"""A stop at any moment, or a hand on any byte: nothing acknowledged is lost, nothing false is signed again."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.ledger.caller import MINUTE, SIGNER, T0, VERIFIER, Caller, Contents, acked, check, published, shown
from tests.ledger.disk import Disk, Policy, after_crash

from gatebook.errors import Damaged, Tampered
from gatebook.ledger.entry import PRODUCER, LossReason
from gatebook.ledger.lock import Promise, encode_promise
from gatebook.ledger.note import Checkpoint, Cosigner, Signer, Verifier, sign_note
from gatebook.ledger.recovery import Found, recover
from gatebook.ledger.segment import Memo, Sealed, parse_frames, parse_header

Story = Callable[[Caller], None]


def groups(caller: Caller) -> None:
    """Group commits, some of several frames, with checkpoints between; ends in the middle of one."""
    caller.add(1)
    caller.append(2)
    caller.heartbeat()
    caller.append(3)
    caller.sync()
    caller.checkpoint()
    caller.add(2)
    caller.checkpoint()
    caller.append(4)
    caller.append(1)


def rolling(caller: Caller) -> None:
    """A segment grows too old between two frames of a group."""
    caller.add(2)
    caller.checkpoint()
    caller.append(1)
    caller.now_us += 5 * MINUTE
    caller.append(2)
    caller.append(1)
    caller.sync()
    caller.checkpoint()
    caller.now_us += 5 * MINUTE
    caller.writer.roll_if_due()
    caller.add(1)


def closing(caller: Caller) -> None:
    caller.add(3)
    caller.checkpoint()
    caller.add(1)
    caller.close()


def again(caller: Caller) -> None:
    """A clean end, and the next start."""
    closing(caller)
    following = Caller(caller.root, caller.files, now_us=T0 + MINUTE)
    following.add(2)
    following.checkpoint()


def settling(caller: Caller) -> None:
    """Enough entries for full tiles, and the watermark moving past them."""
    caller.add(200)
    caller.checkpoint()
    caller.add(100)
    caller.now_us += 2 * MINUTE
    caller.checkpoint()
    caller.add(5)
    caller.checkpoint()
    caller.add(2)


def cosigning(caller: Caller) -> None:
    """Witnesses' lines come for the newest checkpoint, for one that was overtaken, and again for the newest."""
    witness = Cosigner("witness.example/w1", b"w" * 32)
    for late in (0, 2, 0):
        caller.add(3)
        caller.checkpoint()
        promise = caller.writer.promise
        if late:
            caller.add(late)
            caller.checkpoint()
        note = promise.note + str(witness.cosign(promise.checkpoint.text(), 1)).encode()
        caller.writer.show_cosigned(promise.checkpoint, note, newest=True, receipt=not late)
    caller.close()


STORIES: dict[str, Story] = {
    story.__name__: story for story in (groups, rolling, closing, again, settling, cosigning)
}


def tell(story: str, root: Path) -> Disk:
    disk = Disk(root)
    root.mkdir()
    STORIES[story](Caller(root, disk))
    return disk


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory, where there is one: thousands of ledgers are built and thrown away here."""
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared if os.access(shared, os.W_OK) else tmp_path) as folder:
        yield Path(folder)


def crashes(disk: Disk, folder: Path, policy: Policy, every: int, before: Path | None = None) -> None:
    """Crash after each `every`th step that did something, and check what is left."""
    ends = [at for at, step in enumerate(disk.steps, 1) if step.name != "acked"]
    for upto in ends[ends[0] % every :: every]:
        steps = disk.steps[:upto]
        left = folder / f"left-{upto}"
        after_crash(left, steps, policy, before=before, seed=upto)
        try:
            check(left, at_least=acked(steps), seen=shown(steps), thorough=upto % 4 == 0)
        except Exception as error:
            error.add_note(f"after step {upto}, {steps[-1].name} {steps[-1].path} {steps[-1].to}")
            raise
        shutil.rmtree(left)


@pytest.mark.parametrize(("policy", "every"), [("kept", 1), ("lost", 1), ("names", 3), ("zeros", 3), ("mixed", 2)])
@pytest.mark.parametrize("story", STORIES)
def test_crash_after_any_step_loses_nothing_acknowledged(
    memory: Path, story: str, policy: Policy, every: int
) -> None:
    crashes(tell(story, memory / "run"), memory, policy, every)


def test_group_torn_at_any_byte_is_cut_and_said(memory: Path) -> None:
    """The last group, of two frames; each cut leaves whole frames only, and LOSS for what was begun."""
    disk = Disk(memory / "run")
    disk.root.mkdir()
    caller = Caller(disk.root, disk)
    caller.add(1)
    caller.checkpoint()
    begin = len(disk.steps)
    caller.append(2)
    caller.append(1)
    writes = [at for at, step in enumerate(disk.steps) if at >= begin and step.name == "write"]
    assert len(writes) == 2
    for at, before, n in ((writes[0], 1, 2), (writes[1], 3, 1)):
        for torn in range(len(disk.steps[at].data) + 1):
            left = memory / f"left-{at}-{torn}"
            after_crash(left, disk.steps[: at + 1], "kept", torn=torn)
            recovered = check(left, at_least=1, thorough=torn == 100).writer.recovered
            contents = Contents(left)
            whole = torn == len(disk.steps[at].data)
            there = len(contents.records) - 1  # `check` adds one
            assert there == before + (n if whole else 0)
            assert not recovered.clean
            if torn in (0, len(disk.steps[at].data)):
                assert (recovered.cut, contents.losses) == (None, [])
            else:
                (loss,) = contents.losses
                assert recovered.cut is not None
                assert recovered.cut.torn.bytes == torn
                assert (loss.producer, loss.reason) == (PRODUCER, LossReason.TORN)
                assert loss.first_seq == recovered.size
                assert loss.last_seq in (loss.first_seq, loss.first_seq + n - 1)
            shutil.rmtree(left)


def torn_tail(root: Path) -> None:
    """A segment that ends in half a frame."""
    disk = Disk(root / "run")
    disk.root.mkdir()
    caller = Caller(disk.root, disk)
    caller.add(3)
    caller.checkpoint()
    caller.append(1)
    after_crash(root / "broken", disk.steps, "kept", torn=60)


def unborn_segment(root: Path) -> None:
    """A new segment without one whole frame."""
    disk = Disk(root / "run")
    disk.root.mkdir()
    caller = Caller(disk.root, disk)
    caller.add(3)
    caller.checkpoint()
    caller.now_us += 5 * MINUTE
    begin = len(disk.steps)
    caller.writer.roll_if_due()
    at = next(at for at, step in enumerate(disk.steps) if at >= begin and len(step.data) > 200)
    after_crash(root / "broken", disk.steps[: at + 1], "kept", torn=200)


def many_tiles(root: Path) -> None:
    """More full tiles than are durable."""
    disk = Disk(root / "run")
    disk.root.mkdir()
    settling(Caller(disk.root, disk))
    after_crash(root / "broken", disk.steps, "lost")


@pytest.mark.parametrize("policy", ["kept", "lost", "mixed"])
@pytest.mark.parametrize("break_it", [torn_tail, unborn_segment, many_tiles])
def test_crash_while_recovering_from_a_crash(
    memory: Path, break_it: Callable[[Path], None], policy: Policy
) -> None:
    break_it(memory)
    shutil.copytree(memory / "broken", memory / "again")
    disk = Disk(memory / "again")
    Caller(disk.root, disk, now_us=T0 + MINUTE)
    crashes(disk, memory, policy, 1, before=memory / "broken")


# -- a hand on the files --------------------------------------------------------------------------------


@pytest.fixture
def ledger(memory: Path) -> Path:
    """Two closed segments and one open, all below the lock; two synced groups and an open one above it."""
    root = memory / "ledger"
    root.mkdir()
    caller = Caller(root)
    caller.add(2)
    caller.now_us += 5 * MINUTE
    caller.add(1)
    caller.close()
    caller = Caller(root, now_us=T0 + 6 * MINUTE)
    caller.add(2)
    caller.checkpoint()
    caller.add(1)
    caller.append(2)
    caller.append(1)
    caller.writer._let_go()
    return root


def found(root: Path) -> Found:
    return recover(root / "ledger", root / "lock", VERIFIER)


def last_segment(root: Path) -> Path:
    return sorted((root / "ledger" / "segments").iterdir())[-1]


def test_every_flipped_byte_of_a_segment_is_refused_or_torn_off_where_nothing_was_promised(ledger: Path) -> None:
    before = found(ledger)
    assert before.recovered.cut is None
    segments = sorted((ledger / "ledger" / "segments").iterdir())
    data = last_segment(ledger).read_bytes()
    frames = list(parse_frames(data, parse_header(data).start))
    # The last memo counts the frames that were synced before it; what it does not count may be torn.
    synced = max(frame.durable for frame in frames if isinstance(frame, Memo))
    safe = frames[synced].place.offset
    outcomes = Counter[str]()
    for path in segments:
        data = path.read_bytes()
        for at in range(len(data)):
            path.write_bytes(data[:at] + bytes([data[at] ^ 0x41]) + data[at + 1 :])
            try:
                recovered = found(ledger).recovered
            except (Damaged, Tampered) as error:
                outcomes[type(error).__name__] += 1
                continue
            assert path == segments[-1], (path.name, at)
            assert at >= safe, at
            assert recovered.cut is not None
            assert recovered.cut.torn.keep <= at
            assert recovered.cut.torn.lost is not None
            assert recovered.cut.torn.lost[1] >= recovered.size
            assert not recovered.clean
            outcomes["cut"] += 1
        path.write_bytes(data)
    assert outcomes["Damaged"] > 1000
    assert outcomes["cut"] == len(segments[-1].read_bytes()) - safe


def test_every_flipped_byte_of_the_lock_or_the_checkpoint_is_refused(ledger: Path) -> None:
    for path in (ledger / "lock", ledger / "ledger" / "log" / "checkpoint"):
        data = path.read_bytes()
        for at in range(len(data)):
            path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
            with pytest.raises((Damaged, Tampered)):
                found(ledger)
            path.write_bytes(data[:at])
            with pytest.raises((Damaged, Tampered)):
                found(ledger)
        path.write_bytes(data)
    assert found(ledger).recovered.size


def rehash(data: bytes, at: int) -> bytes:
    """The frame around byte `at` gets its hash right again, as an attacker would."""
    frames = list(parse_frames(data, parse_header(data).start))
    (hit,) = [frame for frame in frames if frame.place.offset <= at < frame.end - 32]
    changed = bytearray(data)
    changed[at] ^= 1
    changed[hit.end - 32 : hit.end] = hashlib.sha256(changed[hit.place.offset : hit.end - 32]).digest()
    return bytes(changed)


def sealed(path: Path) -> Sealed:
    data = path.read_bytes()
    return next(one for one in parse_frames(data, parse_header(data).start) if isinstance(one, Sealed))


def test_changed_commitment_with_a_right_frame_hash_breaks_the_signed_root(ledger: Path) -> None:
    path = last_segment(ledger)
    path.write_bytes(rehash(path.read_bytes(), sealed(path).place.offset + 50))
    with pytest.raises(Tampered, match="root"):
        found(ledger)


def test_changed_ciphertext_with_a_right_frame_hash_contradicts_the_next_segments_statement(ledger: Path) -> None:
    first = sorted((ledger / "ledger" / "segments").iterdir())[0]
    first.write_bytes(rehash(first.read_bytes(), sealed(first).end - 40))
    with pytest.raises(Tampered, match="states another segment"):
        found(ledger)


def test_forger_who_restates_the_segment_breaks_the_signed_root(ledger: Path) -> None:
    """He changes a ciphertext, its frame's hash, and the SEGMENT entry that follows, and its frame's hash."""
    first, second = sorted((ledger / "ledger" / "segments").iterdir())[:2]
    old = hashlib.sha256(first.read_bytes()).digest()
    first.write_bytes(rehash(first.read_bytes(), sealed(first).end - 40))
    data = second.read_bytes()
    at = data.index(old)
    changed = data.replace(old, hashlib.sha256(first.read_bytes()).digest())
    (frame,) = [one for one in parse_frames(data, parse_header(data).start) if one.place.offset <= at < one.end]
    fixed = hashlib.sha256(changed[frame.place.offset : frame.end - 32]).digest()
    second.write_bytes(changed[: frame.end - 32] + fixed + changed[frame.end :])
    with pytest.raises(Tampered, match=r"root|states"):
        found(ledger)


@pytest.mark.parametrize("which", [0, 1, 2, 3])
def test_missing_segment_is_refused(ledger: Path, which: int) -> None:
    sorted((ledger / "ledger" / "segments").iterdir())[which].unlink()
    with pytest.raises(Damaged, match=r"segment|signed for"):
        found(ledger)


def test_missing_segments_are_refused_even_all_of_them(ledger: Path) -> None:
    shutil.rmtree(ledger / "ledger" / "segments")
    with pytest.raises(Damaged, match="end at entry 0"):
        found(ledger)


def test_segment_cut_below_the_signed_size_is_refused(ledger: Path) -> None:
    path = last_segment(ledger)
    for end in (sealed(path).end - 1, 200, 128, 100, 1, 0):
        os.truncate(path, end)
        with pytest.raises(Damaged):
            found(ledger)


def test_segment_under_another_ones_name_is_refused(ledger: Path) -> None:
    first, second = sorted((ledger / "ledger" / "segments").iterdir())[:2]
    data = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(data)
    with pytest.raises(Damaged, match="its name back"):
        found(ledger)


def test_segment_copied_in_twice_is_refused(ledger: Path) -> None:
    first = sorted((ledger / "ledger" / "segments").iterdir())[0]
    (first.parent / f"{0:016x}-ffffffff.gbseg").write_bytes(first.read_bytes())
    with pytest.raises(Damaged):
        found(ledger)


@pytest.mark.parametrize("name", ["notes.gbseg", "0000000000000000-0000000g.gbseg"])
def test_file_that_calls_itself_a_segment_is_refused(ledger: Path, name: str) -> None:
    (ledger / "ledger" / "segments" / name).touch()
    with pytest.raises(Damaged, match="not a segment's name"):
        found(ledger)


def test_segment_of_another_log_is_refused(ledger: Path, memory: Path) -> None:
    other = Signer.generate("acme/node-2", b"s" * 32)
    (memory / "other").mkdir()
    with pytest.raises(Tampered):
        recover(ledger / "ledger", ledger / "lock", Verifier.from_vkey(other.vkey))
    (ledger / "lock").unlink()
    (ledger / "ledger" / "log" / "checkpoint").unlink()
    with pytest.raises(Damaged, match="another log"):
        recover(ledger / "ledger", ledger / "lock", Verifier.from_vkey(other.vkey))


def test_huge_segment_is_not_read_into_memory(ledger: Path) -> None:
    os.truncate(last_segment(ledger), 1 << 40)
    with pytest.raises(Damaged, match="longer than any"):
        found(ledger)


def test_bad_frame_that_a_later_group_vouches_for_is_no_torn_one(ledger: Path) -> None:
    """Beyond the lock, but synced: a later group's memo says so, although more frames follow it."""
    path = last_segment(ledger)
    data = path.read_bytes()
    frames = list(parse_frames(data, parse_header(data).start))
    beyond = [frame for frame in frames if isinstance(frame, Sealed)][1]
    path.write_bytes(data[: beyond.end - 50] + bytes(20) + data[beyond.end - 30 :])
    with pytest.raises(Damaged, match="had been synced"):
        found(ledger)


def test_hole_in_the_last_group_is_torn_with_all_behind_it(ledger: Path) -> None:
    """A crash keeps what it likes: the group's second frame is there, the first is not."""
    path = last_segment(ledger)
    data = path.read_bytes()
    frames = [frame for frame in parse_frames(data, parse_header(data).start) if isinstance(frame, Sealed)]
    hole = frames[-2]
    path.write_bytes(data[: hole.place.offset] + bytes(hole.end - hole.place.offset) + data[hole.end :])
    recovered = found(ledger).recovered
    assert recovered.size == hole.place.first_index
    assert recovered.cut is not None
    assert recovered.cut.torn.lost == (recovered.size, recovered.size + 2)
    check(ledger, at_least=6)


def test_lock_put_back_below_the_published_checkpoint_is_refused(ledger: Path) -> None:
    old = (ledger / "lock").read_bytes()
    caller = Caller(ledger)
    caller.close()
    (ledger / "lock").write_bytes(old)
    with pytest.raises(Tampered, match="older state"):
        found(ledger)
    (ledger / "lock").unlink()
    with pytest.raises(Tampered, match="is missing"):
        found(ledger)


def test_lock_and_checkpoint_removed_do_not_make_a_new_log_of_old_records(ledger: Path) -> None:
    (ledger / "lock").unlink()
    (ledger / "ledger" / "log" / "checkpoint").unlink()
    with pytest.raises(Tampered, match="no lock"):
        found(ledger)


def test_two_signed_roots_for_one_size_are_a_fork(ledger: Path) -> None:
    size = published(ledger).size
    fork = Checkpoint(SIGNER.name, size, bytes(32))
    note = sign_note(fork.text(), SIGNER)
    (ledger / "ledger" / "log" / "checkpoint").write_bytes(note)
    with pytest.raises(Tampered, match="fork"):
        found(ledger)
    (ledger / "lock").write_bytes(encode_promise(Promise(fork, note, 0)))
    with pytest.raises(Tampered, match="root over the first"):
        found(ledger)


def test_older_published_checkpoint_is_checked_against_the_entries_too(ledger: Path) -> None:
    note = sign_note(Checkpoint(SIGNER.name, 3, bytes(32)).text(), SIGNER)
    (ledger / "ledger" / "log" / "checkpoint").write_bytes(note)
    with pytest.raises(Tampered, match="first 3 entries"):
        found(ledger)


def test_nothing_is_changed_by_a_refusal(ledger: Path) -> None:
    (ledger / "ledger" / "log" / "checkpoint").write_bytes(b"garbage")
    before = {path: path.read_bytes() for path in ledger.rglob("*") if path.is_file() and path.suffix != ".held"}
    with pytest.raises(Damaged):
        Caller(ledger)
    after = {path: path.read_bytes() for path in ledger.rglob("*") if path.is_file() and path.suffix != ".held"}
    assert after == before


# -- the watermark --------------------------------------------------------------------------------------


@pytest.fixture
def settled(memory: Path) -> Path:
    """Some 800 entries in three segments; the watermark is at 512 or behind, in the second or third."""
    root = memory / "settled"
    root.mkdir()
    caller = Caller(root)
    for _ in range(3):
        caller.add(260)
        caller.now_us += 5 * MINUTE
        caller.checkpoint()
    caller.add(1)
    caller.close()
    return root


def test_segments_below_the_watermark_are_not_read(settled: Path) -> None:
    segments = sorted((settled / "ledger" / "segments").iterdir())
    assert found(settled).base.size == 768
    segments[0].unlink()
    assert found(settled).recovered.clean


@pytest.mark.parametrize("harm", ["missing", "flipped", "short"])
def test_tiles_below_the_watermark_are_proven_or_made_again_from_the_segments(settled: Path, harm: str) -> None:
    tile = settled / "ledger" / "log" / "tile" / "0" / "001"
    data = tile.read_bytes()
    tile.unlink()
    if harm == "flipped":
        tile.write_bytes(data[:40] + b"!" + data[41:])
    elif harm == "short":
        tile.write_bytes(data[:32])
    assert found(settled).base.size == 0
    check(settled)
    assert tile.read_bytes() == data


def test_watermark_that_somebody_raised_is_not_believed(settled: Path) -> None:
    lock = settled / "lock"
    data = lock.read_bytes()
    for path in (settled / "ledger" / "log" / "tile" / "0").glob("*"):
        if path.is_file():
            path.write_bytes(bytes(8192))
    lock.write_bytes(data.replace(b"tiles_durable 768", b"tiles_durable 256"))
    assert found(settled).base.size == 0
    check(settled)


def test_changed_entry_above_the_watermark_is_tampering_whatever_the_tiles_say(settled: Path) -> None:
    path = [one for one in sorted((settled / "ledger" / "segments").iterdir()) if one.stat().st_size > 5000][-1]
    path.write_bytes(rehash(path.read_bytes(), sealed(path).place.offset + 45))
    with pytest.raises(Tampered):
        found(settled)
