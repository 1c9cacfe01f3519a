"""The writer: nothing acknowledged before its sync, one writer, and at the first failure a full stop."""

from __future__ import annotations

import errno
import multiprocessing
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.ledger.caller import (
    MINUTE,
    SIGNER,
    T0,
    Caller,
    Contents,
    acked,
    check,
    check_tiles,
    published,
    record,
    shown,
)
from tests.ledger.disk import Disk, Quick, Step

from gatebook.errors import LedgerBusy, LedgerError, LedgerFull, Tampered
from gatebook.ledger import growing
from gatebook.ledger.entry import (
    PRODUCER,
    Boot,
    Close,
    Entry,
    Loss,
    LossReason,
    Policy,
    Record,
    Segment,
)
from gatebook.ledger.files import Files
from gatebook.ledger.segment import MAX_PLAIN_BYTES, NO_DEK, parse_header
from gatebook.ledger.writer import Writer


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory, where there is one."""
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared if os.access(shared, os.W_OK) else tmp_path) as folder:
        yield Path(folder)


@pytest.fixture
def root(memory: Path) -> Path:
    made = memory / "state"
    made.mkdir()
    return made


@pytest.fixture
def disk(root: Path) -> Disk:
    return Disk(root)


# -- what it gives --------------------------------------------------------------------------------------


def test_indices_and_sizes(root: Path) -> None:
    caller = Caller(root)
    writer = caller.writer
    assert (writer.size, writer.synced) == (1, 1)  # BOOT
    assert caller.append(3) == 1
    assert caller.append(2) == 4
    assert caller.heartbeat() == 6
    assert (writer.size, writer.synced) == (7, 1)
    writer.sync()
    assert (writer.size, writer.synced) == (7, 7)
    caller.close()
    contents = Contents(root)
    assert contents.records == {1 + at: record(at) for at in range(5)}
    check_tiles(root, contents)


def test_first_start_is_clean_and_says_boot(root: Path) -> None:
    caller = Caller(root)
    assert caller.writer.recovered.clean
    assert caller.restored == []
    boot = Contents(root).parsed[0]
    assert isinstance(boot, Boot)
    assert (boot.digest, boot.size, boot.clean) == (b"b" * 32, 0, True)
    assert published(root).size == 1
    caller.close()


def test_next_start_names_the_last_checkpoint_and_gets_the_memos_of_the_last_segment(root: Path) -> None:
    caller = Caller(root)
    caller.add(2)
    caller.now_us += 5 * MINUTE
    caller.add(1)
    caller.add(1)
    last = published(root)
    caller.writer._let_go()  # as a kill does
    caller = Caller(root)
    assert caller.restored == [(3, b"=2"), (4, b"+1"), (5, b"+1")]
    assert not caller.writer.recovered.clean
    boot = Contents(root).boots[-1]
    assert (boot.size, boot.root, boot.clean) == (last.size, last.root, False)
    caller.close()
    caller = Caller(root)
    assert caller.restored[0][1] == b"=4"
    assert caller.writer.recovered.clean
    caller.close()


def test_clean_end_states_every_segment_but_the_one_that_states(root: Path) -> None:
    caller = Caller(root)
    caller.add(2)
    caller.close()
    contents = Contents(root)
    assert len(contents.segments) == 2
    assert len(contents.statements) == 1
    assert isinstance(contents.parsed[-1], Segment)
    assert parse_header(contents.segments[-1].read_bytes()).dek_id == NO_DEK
    assert contents.statements[0].file_bytes == contents.segments[0].stat().st_size


def test_statements_tile_the_log(root: Path) -> None:
    caller = Caller(root)
    for _ in range(3):
        caller.add(2)
        caller.now_us += 5 * MINUTE
    caller.close()
    caller = Caller(root)
    caller.close()
    at = 0
    for statement in Contents(root).statements:
        assert statement.first_index == at
        at += statement.entries
    assert at == len(Contents(root).entries) - 1  # the last segment only states


# -- segments -------------------------------------------------------------------------------------------


def keyed(root: Path) -> int:
    paths = (root / "ledger" / "segments").iterdir()
    return sum(parse_header(path.read_bytes()).dek_id != NO_DEK for path in paths)


def test_segment_is_rolled_when_it_has_its_records(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growing, "MAX_RECORDS", 5)
    caller = Caller(root)
    caller.add(3)
    caller.add(2)
    assert keyed(root) == 1
    assert caller.append(1) == 7  # 6 is the SEGMENT entry
    assert keyed(root) == 2
    assert caller.append(5) == 9
    caller.close()
    assert keyed(root) == 3
    check(root, at_least=11)


def test_segment_is_rolled_when_it_has_its_bytes(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growing, "MAX_BYTES", 700)
    caller = Caller(root)
    for _ in range(6):
        caller.add(1)
    assert keyed(root) == 3
    caller.close()
    check(root, at_least=6)


@pytest.mark.parametrize("minutes", [5, -5, -1_000_000])
def test_segment_is_rolled_when_it_is_old_or_the_clock_jumped(root: Path, minutes: int) -> None:
    caller = Caller(root)
    caller.now_us += minutes * MINUTE
    caller.heartbeat()
    assert keyed(root) == 2
    caller.add(1)
    caller.heartbeat()
    assert keyed(root) == 2
    caller.close()
    check(root, at_least=1)


def test_clock_before_1970_stops_nobody(root: Path) -> None:
    caller = Caller(root, now_us=-5)
    caller.add(1)
    caller.close()
    check(root, at_least=1)


def test_every_segment_has_a_dek_and_ids_of_its_own_that_were_durable_before_it(root: Path, disk: Disk) -> None:
    caller = Caller(root, disk)
    caller.add(1)
    caller.now_us += 5 * MINUTE
    caller.add(1)
    caller.close()
    headers = [parse_header(path.read_bytes()) for path in (root / "ledger" / "segments").iterdir()]
    deks = {path.stem for path in (root / "deks").iterdir()}
    assert {header.dek_id.hex() for header in headers if header.dek_id != NO_DEK} == deks
    assert len({header.segment_id for header in headers}) == 3
    steps = [(step.name, step.path) for step in disk.steps]
    for header in headers:
        if header.dek_id != NO_DEK:
            created = steps.index(("create", f"deks/{header.dek_id.hex()}.dek"))
            synced = steps.index(("sync_folder", "deks"), created)
            named = steps.index(("create", f"ledger/segments/{header.file_name}"))
            assert "sync" in [name for name, _ in steps[created:synced]]
            assert created < synced < named


@pytest.mark.parametrize(
    "records", [[], [b"x"] * 65_537, [bytes(MAX_PLAIN_BYTES), b"x"]], ids=["none", "too many", "too large"]
)
def test_frame_that_cannot_be_is_refused_and_changes_nothing(root: Path, records: list[bytes]) -> None:
    caller = Caller(root)
    with pytest.raises(ValueError, match="a frame has"):
        caller.writer.append(records)
    with pytest.raises(ValueError, match="a frame has"):
        caller.writer.append([b"x"], bytes(MAX_PLAIN_BYTES))
    caller.add(1)
    caller.close()
    check(root, at_least=1)


@pytest.mark.parametrize(
    "wrong",
    [
        Record(bytes(32)),
        Segment(bytes(16), 0, 0, 0, 0, 0, bytes(32), bytes(16), bytes(32)),
        Boot(bytes(16), bytes(32), 0, bytes(32), True),
        Policy(b"short", 1),
    ],
    ids=lambda one: type(one).__name__,
)
def test_entries_that_are_not_the_callers_to_make_are_refused(root: Path, wrong: Entry) -> None:
    caller = Caller(root)
    with pytest.raises(ValueError, match=type(wrong).__name__):
        caller.writer.append_entry(wrong)
    assert caller.writer.append_entry(Close(bytes(32))) == 1
    caller.sync()
    caller.close()
    check(root)


def test_memo_with_an_entry_is_as_durable_as_the_entry(root: Path) -> None:
    caller = Caller(root)
    caller.writer.append_entry(Policy(bytes(32), 1), b"=7")
    caller.writer.sync()
    caller.writer._let_go()
    assert Caller(root).count == 7


def test_failing_snapshot_breaks_nothing(root: Path) -> None:
    caller = Caller(root)
    caller.add(1)
    good, caller.writer._snapshot = caller.writer._snapshot, lambda: 1 // 0  # type: ignore[assignment,return-value]
    caller.now_us += 5 * MINUTE
    with pytest.raises(ZeroDivisionError):
        caller.append(1)
    caller.writer._snapshot = good
    caller.add(1)
    caller.close()
    check(root, at_least=2)


# -- order of writes ------------------------------------------------------------------------------------


def test_nothing_counts_as_synced_before_its_sync(root: Path, disk: Disk) -> None:
    caller = Caller(root, disk)
    begin = len(disk.steps)
    caller.append(1)
    caller.append(1)
    assert [step.name for step in disk.steps[begin:]] == ["write", "write"]
    assert caller.writer.synced == 1
    assert caller.writer.plan_checkpoint() is None
    caller.writer.sync()
    assert [step.name for step in disk.steps[begin:]] == ["write", "write", "sync"]
    assert caller.writer.synced == 3
    caller.writer.sync()
    assert len(disk.steps) == begin + 3, "nothing to sync, so no sync"
    caller.close()


def test_tiles_then_lock_then_checkpoint(root: Path, disk: Disk) -> None:
    caller = Caller(root, disk)
    caller.add(300)
    begin = len(disk.steps)
    caller.checkpoint()
    steps = [f"{step.name} {step.to or step.path}".strip() for step in disk.steps[begin:]]
    tiles = [at for at, step in enumerate(steps) if step.startswith("rename ledger/log/tile/")]
    lock, seen = steps.index("rename lock"), steps.index("rename ledger/log/checkpoint")
    assert len(tiles) == 5  # one full and one partial of tiles and of bundles, one hash above
    assert max(tiles) < lock < seen
    assert steps[lock - 1 : lock + 2] == ["sync", "rename lock", "sync_folder ."]
    assert steps[seen - 1 : seen + 2] == ["sync", "rename ledger/log/checkpoint", "sync_folder ledger/log"]
    assert steps.count("sync") == 2, "no sync for each tile"
    caller.close()


def test_plans_may_be_written_late_twice_or_never(root: Path) -> None:
    caller = Caller(root)
    caller.add(1)
    never = caller.writer.plan_checkpoint()
    caller.add(300)
    late = caller.writer.plan_checkpoint()
    caller.add(1)
    newest = caller.writer.plan_checkpoint()
    assert never
    assert late
    assert newest
    newest.write()
    late.write()
    newest.write()
    assert published(root).size == newest.size
    assert caller.writer.plan_checkpoint() is None
    caller.close()
    check_tiles(root, Contents(root))


def test_plans_are_written_in_a_thread_while_appending_goes_on(root: Path) -> None:
    caller = Caller(root)
    for _ in range(20):
        caller.add(100)
        plan = caller.writer.plan_checkpoint()
        assert plan
        thread = threading.Thread(target=plan.write)
        thread.start()
        caller.add(30)
        thread.join()
    caller.close()
    check(root, at_least=2600)


def test_partial_tiles_go_when_the_full_one_is_durable(root: Path) -> None:
    caller = Caller(root)
    for _ in range(5):
        caller.add(51)
        caller.checkpoint()
    partial = root / "ledger" / "log" / "tile" / "0" / "000.p"
    assert len(list(partial.iterdir())) == 5
    caller.now_us += 2 * MINUTE
    caller.add(51)
    caller.checkpoint()
    assert not partial.exists()
    assert not (root / "ledger" / "log" / "tile" / "entries" / "000.p").exists()
    caller.close()
    check(root, at_least=306)


# -- one writer -----------------------------------------------------------------------------------------


def test_second_writer_is_refused_and_told_who_has_it(root: Path) -> None:
    caller = Caller(root)
    with pytest.raises(LedgerBusy, match=str(os.getpid())):
        Caller(root)
    caller.add(1)
    caller.close()
    Caller(root).close()


def test_writer_in_another_process_is_refused(root: Path) -> None:
    caller = Caller(root)
    code = (
        "import sys; from pathlib import Path; from tests.ledger.caller import Caller; Caller(Path(sys.argv[1]))"
    )
    ran = subprocess.run([sys.executable, "-c", code, str(root)], capture_output=True, text=True, check=False)
    assert "LedgerBusy" in ran.stderr
    caller.add(1)
    caller.close()
    check(root, at_least=1)


def test_refused_start_lets_go_of_the_lock(root: Path) -> None:
    Caller(root).close()
    lock = (root / "lock").read_bytes()
    (root / "lock").write_bytes(b"garbage")
    for _ in range(2):
        with pytest.raises(LedgerError, match="lock"):
            Caller(root)
    (root / "lock").write_bytes(lock)
    Caller(root).close()


@pytest.mark.parametrize("removed", [True, False])
def test_lost_lock_stops_signing_and_appending(root: Path, removed: bool) -> None:
    caller = Caller(root)
    caller.add(1)
    size = published(root).size
    (root / "lock.held").unlink()
    if not removed:
        (root / "lock.held").touch()
    with pytest.raises(LedgerBusy, match="under us"):
        caller.checkpoint()
    with pytest.raises(LedgerBusy):
        caller.append(1)
    caller.close()
    assert published(root).size == size


@pytest.mark.parametrize("data", [None, b"garbage"])
def test_lock_that_somebody_else_changed_stops_signing(root: Path, data: bytes | None) -> None:
    caller = Caller(root)
    caller.add(1)
    (root / "lock").unlink()
    if data:
        (root / "lock").write_bytes(data)
    with pytest.raises(Tampered, match="somebody else"):
        caller.checkpoint()
    with pytest.raises(Tampered):
        caller.sync()
    caller.close()


def test_closed_writer_is_of_no_more_use(root: Path) -> None:
    caller = Caller(root)
    plan = caller.writer.plan_checkpoint()
    assert plan is None
    caller.add(1)
    plan = caller.writer.plan_checkpoint()
    assert plan
    caller.close()
    caller.close()
    for use in (caller.sync, caller.append, caller.heartbeat, caller.checkpoint, caller.writer.roll_if_due):
        with pytest.raises(ValueError, match="closed"):
            use()
    with pytest.raises(LedgerFull, match="closed"):
        plan.write()
    check(root, at_least=1)


# -- failures -------------------------------------------------------------------------------------------


def story(caller: Caller) -> None:
    """All that a writer does: groups, checkpoints, a roll, full tiles, settling, closing."""
    caller.add(2)
    caller.append(1)
    caller.append(1)
    caller.sync()
    caller.checkpoint()
    caller.now_us += 5 * MINUTE
    caller.add(280)
    caller.checkpoint()
    caller.add(1)
    caller.close()


class Fault:
    """Fails the `at`th step; afterwards `forever`, or never again."""

    def __init__(self, at: int, code: int, *, forever: bool) -> None:
        self.left = at
        self.code = code
        self.forever = forever

    def __call__(self, step: Step) -> None:
        self.left -= 1
        if self.left == 0 or (self.left < 0 and self.forever and step.name not in ("remove", "truncate")):
            raise OSError(self.code, os.strerror(self.code), step.path or None)


@pytest.mark.parametrize(("code", "forever"), [(errno.ENOSPC, True), (errno.EIO, False), (errno.ENOSPC, False)])
def test_failure_of_any_step_is_ledgerfull_for_good_and_loses_nothing(
    memory: Path, code: int, forever: bool
) -> None:
    total = 0
    for at in range(1, 1000):
        root = memory / f"run-{at}"
        root.mkdir()
        fault = Fault(at, code, forever=forever)
        disk = Disk(root, fault)
        caller = None
        said = ""
        try:
            caller = Caller(root, disk)
            story(caller)
        except LedgerFull as error:
            said = str(error)
        if not said:
            assert fault.left > 0, "a failed step was passed over"
            break
        assert "make room or replace the disk" in said
        if caller is not None:
            for use in (caller.writer.sync, caller.append, caller.heartbeat, caller.writer.plan_checkpoint):
                with pytest.raises((LedgerFull, ValueError)):
                    use()
            fault.left = 1 << 30
            before = len(disk.steps)
            caller.close()
            assert len(disk.steps) == before, "close wrote after a failure"
        check(root, at_least=acked(disk.steps), seen=shown(disk.steps), thorough=at % 3 == 0)
        shutil.rmtree(root)
        total += 1
    assert total > 60


def fail_on(name: str, code: int) -> Callable[[Step], None]:
    """The next step of this name fails, and that one alone."""
    armed = [True]

    def fault(step: Step) -> None:
        if step.name == name and armed:
            armed.clear()
            raise OSError(code, os.strerror(code))

    return fault


@pytest.mark.parametrize("step", ["write", "sync"])
def test_refused_group_is_said_to_be_lost_under_a_checkpoint(root: Path, disk: Disk, step: str) -> None:
    """The reserve is given up, so that there is room to say it."""
    caller = Caller(root, disk, reserve_bytes=1 << 16)
    caller.add(2)
    caller.checkpoint()
    caller.append(3)
    reserve = root / "ledger" / "reserve"
    assert reserve.stat().st_blocks * 512 >= 1 << 16
    disk.fault = fail_on(step, errno.ENOSPC)
    with pytest.raises(LedgerFull):
        caller.add(2)
    assert not reserve.exists()
    caller.close()
    contents = Contents(root)
    assert list(contents.records) == [1, 2]
    assert contents.losses == [Loss(PRODUCER, 3, 7, LossReason.NOT_WRITTEN)]
    check_tiles(root, contents)
    check(root, at_least=2)


def test_roll_that_fails_leaves_the_old_segment_in_force(root: Path, disk: Disk) -> None:
    caller = Caller(root, disk)
    caller.add(2)
    caller.now_us += 5 * MINUTE
    disk.fault = fail_on("sync_folder", errno.EIO)
    with pytest.raises(LedgerFull):
        caller.append(3)
    caller.close()
    contents = Contents(root)
    assert contents.losses == [Loss(PRODUCER, 3, 5, LossReason.NOT_WRITTEN)]
    assert len(contents.segments) == 1
    check(root, at_least=2)


def test_failed_sync_is_never_asked_again_on_that_descriptor(root: Path, disk: Disk) -> None:
    caller = Caller(root, disk)
    caller.add(1)
    written = [step.file for step in disk.steps if step.name == "write"]
    segment = next(step.file for step in disk.steps if step.path.endswith(".gbseg"))
    assert segment in written
    disk.fault = fail_on("sync", errno.EIO)
    begin = len(disk.steps)
    with pytest.raises(LedgerFull):
        caller.add(1)
    caller.close()
    later = [step for step in disk.steps[begin:] if step.file == segment]
    assert [step.name for step in later] == ["write"]
    assert "reopen" in [step.name for step in disk.steps[begin:]]


def test_interrupt_within_a_write_stops_the_writer(root: Path, disk: Disk) -> None:
    """Half a frame may be there: whatever came after it would be out of place."""
    caller = Caller(root, disk)
    caller.add(1)

    def interrupt(step: Step) -> None:
        raise KeyboardInterrupt

    disk.fault = interrupt
    with pytest.raises(KeyboardInterrupt):
        caller.append(1)
    disk.fault = None
    with pytest.raises(LedgerFull, match="KeyboardInterrupt"):
        caller.append(1)
    caller.close()
    check(root, at_least=1)


def test_start_on_a_disk_without_room_for_the_reserve_writes_nothing(root: Path, disk: Disk) -> None:
    Caller(root, reserve_bytes=1 << 16).close()
    (root / "ledger" / "reserve").unlink()
    before = sorted(path for path in root.rglob("*") if path.is_file())

    class Full(Quick):
        def allocate(self, descriptor: int, length: int) -> None:
            raise OSError(errno.ENOSPC, "no space left on device")

    for _ in range(2):
        with pytest.raises(LedgerFull, match="kept free"):
            Caller(root, Full(), reserve_bytes=1 << 16)
    assert sorted(path for path in root.rglob("*") if path.is_file()) == before


def test_reserve_of_another_size_is_made_anew(root: Path) -> None:
    Caller(root, reserve_bytes=1 << 14).close()
    Caller(root, reserve_bytes=1 << 16).close()
    assert (root / "ledger" / "reserve").stat().st_size == 1 << 16


def limited(root: Path) -> None:
    """Runs in a process of its own whose files may have 12,300 bytes: a disk that is full, by the real kernel.

    Behind the last whole frame that leaves room for less than another, and for the last words.
    """
    caller = Caller(root, Files(), reserve_bytes=4096)
    resource.setrlimit(resource.RLIMIT_FSIZE, (12_300, 12_300))
    told = os.open(root.parent / "told", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        while True:
            caller.writer.append([os.urandom(700)], b"+1")
            caller.writer.sync()
            os.write(told, b".")
    except LedgerFull:
        os.write(told, b"F")
    caller.close()


def in_a_process(target: Callable[[Path], None], root: Path) -> multiprocessing.process.BaseProcess:
    process = multiprocessing.get_context("spawn").Process(target=target, args=(root,))
    process.start()
    return process


def test_kernel_that_takes_half_a_frame_loses_nothing_acknowledged(root: Path) -> None:
    process = in_a_process(limited, root)
    process.join()
    assert process.exitcode == 0
    told = (root.parent / "told").read_bytes()
    assert told.endswith(b"F")
    contents = Contents(root)
    assert len(contents.records) == told.count(b".") > 5
    assert [loss.reason for loss in contents.losses] == [LossReason.NOT_WRITTEN]
    check_tiles(root, contents)
    caller = Caller(root)
    assert caller.count == told.count(b".")
    caller.close()


# -- kill -9 --------------------------------------------------------------------------------------------


def endless(root: Path) -> None:
    """Appends, syncs, then tells; signs and rolls now and then. Until somebody kills it."""
    caller = Caller(root, Files())
    told = os.open(root.parent / "told", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    while True:
        caller.append(3)
        caller.append(1)
        caller.sync()
        os.write(told, b"%d\n" % caller.count)
        caller.now_us += MINUTE
        if caller.count % 3 == 0:
            caller.checkpoint()


def test_killed_writer_loses_nothing_it_told_of(tmp_path: Path) -> None:
    root = tmp_path / "state"
    root.mkdir()
    told = tmp_path / "told"
    for wanted in (1, 40, 90, 130):
        process = in_a_process(endless, root)
        while process.is_alive() and (not told.exists() or told.read_bytes().count(b"\n") < wanted):
            os.sched_yield()
        assert process.pid
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        assert process.exitcode == -signal.SIGKILL
    last = int(told.read_bytes().split(b"\n")[-2])
    assert len(told.read_bytes().split(b"\n")) > 130
    contents = Contents(root)
    assert list(contents.records.values()) == [record(at) for at in range(len(contents.records))]
    assert len(contents.records) >= last
    assert [boot.clean for boot in contents.boots] == [True, False, False, False]
    check(root, at_least=last)


def test_nobody_to_read_is_refused_before_anything_is_made(root: Path) -> None:
    with pytest.raises(ValueError, match="recipient"):
        Writer.open(
            ledger=root / "ledger",
            lock=root / "lock",
            deks=root / "deks",
            signer=SIGNER,
            recipients=list,
            boot_digest=bytes(32),
            restore=lambda _: None,
            snapshot=bytes,
            now_us=lambda: T0,
        )
    assert list(root.iterdir()) == []


def test_files_are_private_whatever_the_umask(root: Path) -> None:
    old = os.umask(0)
    try:
        caller = Caller(root, Files(), reserve_bytes=4096)
        caller.add(300)
        caller.close()
    finally:
        os.umask(old)
    for path in root.rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path
