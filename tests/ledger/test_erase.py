"""Erasing within the ledger: a record goes for good and nothing else does, whenever the power goes."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest
from tests.ledger.caller import READER, VERIFIER, Caller, Contents, published, record, shown
from tests.ledger.disk import POLICIES, Disk, Policy, Step, after_crash

from gatebook.errors import Damaged, LedgerError, LedgerFull, Tampered
from gatebook.ledger import erase, erasing, read, segment
from gatebook.ledger.deks import Deks
from gatebook.ledger.entry import Erase, Erased, EraseReason
from gatebook.ledger.read import Reader
from gatebook.ledger.verify import verify

ORDER = hashlib.sha256(b"the order").digest()
WHY = "erased on 2026-11-24: a secret"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    made = tmp_path / "state"
    made.mkdir()
    return made


def redact(caller: Caller, *indices: int, order: bytes = ORDER) -> None:
    """By its writer, with the reader's key."""
    path = erase.holding(caller.writer, indices[0])
    assert path is not None
    old = erase.Closed.read(path)
    keys = read.unwrap(Deks(caller.root / "deks"), old.header.dek_id, READER)
    anew = erase.without(caller.writer, old, keys, dict.fromkeys(indices, WHY))
    erase.redact(caller.writer, anew, EraseReason.SECRET, order)


def erased(contents: Contents) -> list[Erase]:
    return [one for one in contents.parsed if isinstance(one, Erase)]


def everything(root: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file())


# -- one record -----------------------------------------------------------------------------------------------


def test_redacted_record_is_gone_and_its_neighbours_are_not(root: Path) -> None:
    caller = Caller(root)
    caller.add(5)
    caller.add(2)
    size = caller.writer.size
    redact(caller, 3)
    caller.checkpoint()
    contents = Contents(root)
    assert contents.removed == {3: WHY}
    assert contents.records == {at + 1: record(at) for at in range(7) if at != 2}
    (entry,) = erased(contents)
    assert (entry.kind, entry.reason, entry.authorisation_sha256) == (Erased.RECORD, EraseReason.SECRET, ORDER)
    assert entry.object_id == contents.entries[3][4:20]
    assert entry.old_file_sha256 == contents.statements[0].file_sha256
    assert entry.new_file_sha256 == hashlib.sha256(contents.segments[0].read_bytes()).digest()
    assert len(contents.entries) == size + 2  # SEGMENT, ERASE
    assert published(root).root == contents.root(len(contents.entries))
    caller.close()


def test_old_key_and_file_are_destroyed(root: Path) -> None:
    caller = Caller(root)
    caller.add(5)
    (old,) = (root / "ledger" / "segments").iterdir()
    before = old.read_bytes()
    keys = set((root / "deks").iterdir())
    redact(caller, 3)
    assert old.read_bytes() != before
    assert not list(root.rglob("*.new"))
    assert not (root / "erasing").exists()
    (gone,) = keys - set((root / "deks").iterdir())
    assert gone.stem.encode() not in everything(root)
    caller.close()


def test_key_that_a_killed_replacement_left_is_gone_after_the_next_start(root: Path) -> None:
    caller = Caller(root)
    caller.add(5)
    caller.close()
    (dek,) = (root / "deks").iterdir()
    left = dek.with_name(dek.name + ".new")
    shutil.copyfile(dek, left)
    files = Disk(root)
    caller = Caller(root, files=files)
    assert not left.exists()
    assert dek.exists()
    removal = files.steps.index(Step("remove", path=str(left.relative_to(root))))
    assert files.steps[removal + 1] == Step("sync_folder", path="deks")
    caller.close()


def test_redactions_of_one_segment_chain(root: Path) -> None:
    caller = Caller(root)
    caller.add(5)
    redact(caller, 3)
    redact(caller, 1, 5, order=hashlib.sha256(b"another").digest())
    contents = Contents(root)
    assert contents.removed == dict.fromkeys((1, 3, 5), WHY)
    one, two, three = erased(contents)
    assert one.new_file_sha256 == two.old_file_sha256 == three.old_file_sha256
    assert two.new_file_sha256 == three.new_file_sha256
    caller.close()
    for _ in range(2):
        Caller(root).close()
    assert Contents(root).removed == contents.removed


def test_record_of_the_present_segment_closes_it_first(root: Path) -> None:
    caller = Caller(root)
    caller.add(2)
    redact(caller, 2)
    caller.add(1)
    contents = Contents(root)
    assert contents.statements[0].first_index == 0
    assert contents.records[max(contents.records)] == record(2)
    caller.close()


def test_no_other_record_can_be_told_to_be_the_removed_one(root: Path) -> None:
    """Derived salts would give the removed record's salt away to every reader; so they are not used any more."""
    caller = Caller(root)
    caller.add(3)
    redact(caller, 2)
    old = erase.Closed.read(erase.closed_segments(caller.writer)[0])
    keys = read.unwrap(Deks(root / "deks"), old.header.dek_id, READER)
    commitment = Contents(root).entries[2][4:]
    for number, salt in enumerate(segment.salts(keys, 0, 3)):
        assert segment.commitment(salt, record(1)) != commitment, number
    caller.close()


def test_record_cannot_be_redacted_twice_nor_an_entry_that_is_none(root: Path) -> None:
    caller = Caller(root)
    caller.add(2)
    redact(caller, 2)
    before = caller.writer.size
    with pytest.raises(ValueError, match="not in this segment"):
        redact(caller, 0)
    assert erase.holding(caller.writer, before + 7) is None
    assert caller.writer.size == before
    caller.close()


def test_reader_tells_of_a_removed_record_and_reads_on(root: Path) -> None:
    caller = Caller(root)
    caller.add(5)
    reader = Reader(root / "ledger", "acme/node-1", root / "deks", READER)
    assert [data for _, data in reader.forwards()] == [record(at) for at in range(5)]
    redact(caller, 3)
    assert reader.record(2) == record(1)
    assert reader.gaps == []
    assert reader.record(3) is None
    assert reader.gaps == [read.Gap(3, 1, WHY, erased=True)]
    reader.refresh()
    there = [(at + 1, record(at)) for at in range(5) if at != 2]
    assert list(reader.forwards()) == there
    assert list(reader.backwards()) == there[::-1]
    assert [(index, data) for index, _, data in reader.disclosed(0, 9)] == there
    assert reader.entry(3) is not None
    caller.close()


# -- crashes ------------------------------------------------------------------------------------------------


def steps_of_a_redaction(root: Path) -> tuple[Path, Disk, Caller]:
    """A ledger with a closed segment, and every step that redacting a record of it took, from there on."""
    first = Caller(root)
    first.add(4)
    first.close()
    before = root.parent / "before"
    shutil.copytree(root, before)
    disk = Disk(root)
    caller = Caller(root, disk)
    redact(caller, 2)
    disk.mark("erased", 1)
    caller.close()
    return before, disk, caller


@pytest.mark.parametrize("policy", POLICIES)
def test_power_cut_at_any_step_of_a_redaction_leaves_all_or_nothing(root: Path, policy: Policy) -> None:
    before, disk, _ = steps_of_a_redaction(root)
    acknowledged = next(at for at, step in enumerate(disk.steps) if step.name == "erased")
    for count in range(len(disk.steps) + 1):
        left = root.parent / f"left-{count}"
        after_crash(left, disk.steps[:count], policy, before=before, seed=count)
        caller = Caller(left)  # what the next start makes of it
        caller.close()
        contents = Contents(left)
        gone = bool(erased(contents))
        assert gone or count <= acknowledged, "it was acknowledged, and is not done"
        assert contents.removed == ({2: WHY} if gone else {}), count
        numbers = [at for at in range(4) if not (gone and at == 1)]
        assert list(contents.records.values()) == [record(at) for at in numbers], count
        assert not list(left.rglob("*.gbseg.new"))
        assert not (left / "erasing").exists()
        named = {path.stem for path in (left / "deks").iterdir()}
        used = {one.header.dek_id.hex() for one in map(erase.Closed.read, contents.segments)} - {"0" * 32}
        assert used <= named
        old = {path.stem for path in (before / "deks").iterdir()}
        assert gone != bool(old <= named), "the old key is there exactly if the record is"
        for checkpoint in shown(disk.steps[:count]):
            assert contents.root(checkpoint.size) == checkpoint.root, "a fork"
        shutil.rmtree(left)


@pytest.mark.parametrize("policy", POLICIES)
def test_power_cut_at_any_step_of_a_destruction_leaves_all_or_nothing(root: Path, policy: Policy) -> None:
    first = Caller(root)
    first.add(4)
    first.writer.roll()
    first.add(300)
    first.close()
    before = root.parent / "before"
    shutil.copytree(root, before)
    disk = Disk(root)
    caller = Caller(root, disk)
    begun = len(disk.steps)
    path = erase.closed_segments(caller.writer)[0]
    old = erase.examine(caller.writer, path, root / "ledger" / "log")
    assert old is not None
    erase.destroy(caller.writer, [old], EraseReason.RETENTION, ORDER)
    acknowledged = len(disk.steps)
    caller.close()
    for count in range(begun, len(disk.steps) + 1):
        left = root.parent / f"left-{count}"
        after_crash(left, disk.steps[:count], policy, before=before, seed=count)
        Caller(left).close()
        reader = Reader(left / "ledger", "acme/node-1", left / "deks", READER)
        found = [index for index, _ in reader.forwards()]
        ends = [
            (left / "deks" / f"{old.dek_id.hex()}.dek").exists(),
            (left / "ledger/segments" / path.name).exists(),
        ]
        assert ends in ([True, True], [False, False]), count
        assert len(found) == 304 - (0 if ends[0] else 4)
        assert not (ends[0] and count >= acknowledged), "it was acknowledged, and is not done"
        assert not (left / "erasing").exists()
        report = verify(left / "ledger", VERIFIER, lock=left / "lock")
        assert report.findings == [], count
        shutil.rmtree(left)


def test_nothing_is_signed_for_that_is_not_done(root: Path) -> None:
    """A checkpoint over the ERASE entry vouches that the record is gone: the old key goes before it is shown."""
    _, disk, _ = steps_of_a_redaction(root)
    contents = Contents(root)
    index = next(at for at, one in enumerate(contents.parsed) if isinstance(one, Erase))
    signed = next(
        at for at in range(len(disk.steps)) if any(one.size > index for one in shown(disk.steps[: at + 1]))
    )
    removed = [at for at, step in enumerate(disk.steps) if step.name == "remove" and step.path.startswith("deks/")]
    synced = [at for at, step in enumerate(disk.steps) if step.name == "sync_folder" and step.path == "deks"]
    assert removed[0] < next(at for at in synced if at > removed[0]) < signed


@pytest.mark.parametrize("step", ["create", "write", "sync", "rename", "remove", "sync_folder"])
def test_disk_that_refuses_stops_the_writer_and_the_next_start_ends_it(root: Path, step: str) -> None:
    first = Caller(root)
    first.add(3)
    first.close()
    for number in range(40):
        left = root.parent / f"left-{number}"
        shutil.copytree(root, left)
        seen: list[str] = []

        def fault(done: Step, seen: list[str] = seen, number: int = number) -> None:
            seen += [done.name] if done.name == step else []
            if len(seen) == number + 1:
                raise OSError(5, "input/output error")

        disk = Disk(left)
        caller = Caller(left, disk)
        disk.fault = fault
        try:
            redact(caller, 2)
        except LedgerFull:
            with pytest.raises(LedgerError):
                caller.append(1)
            disk.fault = None
        else:
            assert number > 0, "nothing was refused"
            disk.fault = None
            caller.close()
            return
        caller.writer._let_go()
        Caller(left).close()
        contents = Contents(left)
        assert contents.removed == ({2: WHY} if erased(contents) else {})
        assert len(contents.records) + len(contents.removed) == 3
    pytest.fail("it never ends")


# -- what is refused ------------------------------------------------------------------------------------------


def test_file_that_was_put_back_is_no_reason_to_start_without_a_word(root: Path) -> None:
    """Its key is gone, so it can be taken for what it was; but nobody can read it any more."""
    caller = Caller(root)
    caller.add(3)
    (old,) = (root / "ledger" / "segments").iterdir()
    data = old.read_bytes()
    redact(caller, 2)
    caller.close()
    old.write_bytes(data)
    Caller(root).close()


def test_segment_written_anew_without_an_erase_entry_is_tampering(root: Path) -> None:
    caller = Caller(root)
    caller.add(3)
    (path,) = (root / "ledger" / "segments").iterdir()
    copy = root.parent / "copy"
    caller.writer.roll()
    caller.sync()
    caller.checkpoint()
    shutil.copytree(root, copy)
    redact(caller, 2)
    caller.close()
    shutil.copy(path, copy / "ledger" / "segments" / path.name)
    with pytest.raises(Tampered, match="no ERASE entry explains it"):
        Caller(copy)


def test_intent_of_an_older_state_is_refused(root: Path) -> None:
    caller = Caller(root)
    caller.add(300)
    caller.checkpoint()
    caller.close()
    intent = erasing.Intent(5, ORDER, keys=(bytes(16),))
    (root / "erasing").write_bytes(erasing.encode(intent))
    with pytest.raises(Damaged, match="of an older state"):
        Caller(root)


@pytest.mark.parametrize("data", [b"", b"gatebook-erasing 1\nsize 1\n", b"gatebook-erasing 2\n", b"\xff"])
def test_intent_that_cannot_be_read_is_refused(root: Path, data: bytes) -> None:
    Caller(root).close()
    (root / "erasing").write_bytes(data)
    with pytest.raises(Damaged, match="not as gatebook writes it"):
        Caller(root)


def test_intents_are_read_as_they_are_written() -> None:
    name = f"{7:016x}-0a0b0c0d.gbseg"
    for intent in (
        erasing.Intent(0, ORDER),
        erasing.Intent(7, ORDER, ((name, b"k" * 16),), (b"o" * 16,)),
        erasing.Intent(7, ORDER, keys=(b"a" * 16, b"b" * 16), segments=(name, name)),
    ):
        assert erasing.parse(erasing.encode(intent)) == intent
