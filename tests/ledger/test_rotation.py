"""A log's signing key hands over to the next one: whatever crashes, whoever forges, whoever kept the old."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.ledger.caller import MINUTE, RECIPIENT, T0
from tests.ledger.disk import POLICIES, Disk, Policy, Quick, after_crash
from tests.ledger.forge import ORIGIN, Forge

from gatebook.errors import Damaged, EnvironmentFault, LedgerError, Tampered
from gatebook.ledger import chain, logkeys
from gatebook.ledger.chain import Chain, hand_over, long_id
from gatebook.ledger.entry import Key
from gatebook.ledger.files import Files
from gatebook.ledger.keys import create_keys, load_signer, load_verifier
from gatebook.ledger.lock import Promise, encode_promise
from gatebook.ledger.note import Checkpoint, Signer, Verifier, check_note, sign_note
from gatebook.ledger.verify import Report, verify
from gatebook.ledger.writer import Writer

NEXT = Signer.generate(ORIGIN, b"n" * 32)
THIRD = Signer.generate(ORIGIN, b"t" * 32)


class Deployment:
    """`root/keys`, and the ledger beside it; each `open` is a process."""

    def __init__(self, root: Path, files: Files | None = None) -> None:
        self.root, self.keys, self.files = root, root / "keys", files or Quick()

    def make(self) -> Deployment:
        self.keys.mkdir(parents=True)
        create_keys(self.keys, ORIGIN)
        return self

    def open(self, now_us: int = T0) -> Writer:
        held = logkeys.load_log_keys(self.keys)
        return Writer.open(
            ledger=self.root / "ledger",
            lock=self.root / "lock",
            deks=self.root / "deks",
            signer=held.signer,
            also=held.also,
            former=held.former,
            recipients=lambda: [RECIPIENT],
            boot_digest=bytes(32),
            restore=lambda _: None,
            snapshot=bytes,
            now_us=lambda: now_us,
            reserve_bytes=0,
            files=self.files,
        )

    def rotate(self, writer: Writer, new: Signer) -> int:
        logkeys.install(self.files, self.keys, new)
        return writer.hand_over(new)

    def verified_by(self, key: Verifier) -> Report:
        return verify(self.root / "ledger", key, lock=self.root / "lock")

    def note(self) -> bytes:
        return (self.root / "ledger" / "log" / "checkpoint").read_bytes()


def add(writer: Writer, *records: bytes) -> None:
    writer.append(records)
    writer.sync()


def checkpoint(writer: Writer) -> None:
    plan = writer.plan_checkpoint()
    if plan is not None:
        plan.write()


def public(signer: Signer) -> Verifier:
    return Verifier.from_vkey(signer.vkey)


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Path]:
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared if os.access(shared, os.W_OK) else tmp_path) as folder:
        yield Path(folder)


@pytest.fixture
def deployment(memory: Path) -> Deployment:
    return Deployment(memory / "state").make()


def rotated(deployment: Deployment) -> tuple[Writer, Verifier]:
    """Some entries, then NEXT in force; the writer, and the key that an auditor kept from before."""
    kept = load_verifier(deployment.keys)
    writer = deployment.open()
    add(writer, b"one", b"two")
    checkpoint(writer)
    deployment.rotate(writer, NEXT)
    add(writer, b"three")
    checkpoint(writer)
    return writer, kept


def said(report: Report) -> list[tuple[int, str, str]]:
    return [(each.level, each.kind, each.place) for each in report.findings]


# -- all is well --------------------------------------------------------------------------------------------


def test_auditor_with_the_old_key_follows_and_is_told_so(deployment: Deployment) -> None:
    writer, kept = rotated(deployment)
    writer.retire([kept.key_id])
    add(writer, b"four")
    writer.close()
    report = deployment.verified_by(kept)
    assert said(report) == []
    assert any(f"key {kept.key_id.hex()} to {NEXT.key_id.hex()} at entry 3" in text for text in report.rests_on)
    assert f"signature of {ORIGIN} (key {NEXT.key_id.hex()}) alone" in " ".join(report.rests_on)
    assert said(deployment.verified_by(public(NEXT))) == []


def test_first_checkpoint_after_it_is_signed_by_both_and_later_ones_until_the_old_key_retires(
    deployment: Deployment,
) -> None:
    writer, kept = rotated(deployment)
    first_tools = check_note(deployment.note(), [kept])  # as a tool that was never told of another key
    both = check_note(deployment.note(), [kept, public(NEXT)])
    assert [key.key_id for key, _ in first_tools.signatures] == [kept.key_id]
    assert [key.key_id for key, _ in both.signatures] == [NEXT.key_id, kept.key_id]
    writer.retire([kept.key_id])
    add(writer, b"four")
    checkpoint(writer)
    assert [key.key_id for key, _ in check_note(deployment.note(), [kept, public(NEXT)]).signatures] == [
        NEXT.key_id
    ]
    writer.close()


def test_restart_signs_on_with_both_and_after_the_overlap_with_the_new_one(deployment: Deployment) -> None:
    writer, kept = rotated(deployment)
    writer.close()
    writer = deployment.open(T0 + MINUTE)
    assert len(check_note(deployment.note(), [kept, public(NEXT)]).signatures) == 2
    writer.close()
    begun = (deployment.keys / f"log-{kept.key_id.hex()}.key").stat().st_mtime
    assert logkeys.over(deployment.keys, begun + logkeys.OVERLAP_S - 1) == []
    (ended,) = logkeys.over(deployment.keys, begun + logkeys.OVERLAP_S)
    logkeys.remove(Quick(), deployment.keys, [ended])
    writer = deployment.open(T0 + 2 * MINUTE)
    assert len(check_note(deployment.note(), [kept, public(NEXT)]).signatures) == 1
    writer.close()
    assert said(deployment.verified_by(kept)) == []


def test_two_rotations_are_followed_from_either_key(deployment: Deployment) -> None:
    writer, kept = rotated(deployment)
    writer.close()
    writer = deployment.open(T0 + MINUTE)
    deployment.rotate(writer, THIRD)
    add(writer, b"four")
    writer.retire([kept.key_id, NEXT.key_id])
    writer.close()
    for key in (kept, public(NEXT), public(THIRD)):
        report = deployment.verified_by(key)
        assert said(report) == [], key
        assert (f"given, {key.key_id.hex()}, is not" in " ".join(report.rests_on)) == (key != public(THIRD))
    writer = deployment.open(T0 + 2 * MINUTE)
    assert writer.recovered.clean
    writer.close()


def test_log_that_was_never_rotated_has_no_list_of_keys(deployment: Deployment) -> None:
    writer = deployment.open()
    writer.close()
    assert not (deployment.root / "ledger" / "log" / chain.KEYS_FILE).exists()


def test_what_is_signed_can_never_be_taken_for_a_note() -> None:
    signed: list[bytes] = []

    class Watched(Signer):
        def sign_bytes(self, data: bytes) -> bytes:
            signed.append(data)
            return super().sign_bytes(data)

    hand_over(Watched(ORIGIN, b"w" * 32), NEXT)
    (message,) = signed
    assert message.startswith(b"gatebook/log-key/v1\0\x01")
    with pytest.raises(Damaged, match="control"):
        sign_note(message.decode("latin-1") + "\n", NEXT)


# -- a crash anywhere ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", POLICIES)
def test_crash_at_every_step_of_a_rotation_leaves_a_log_that_goes_on_and_that_the_old_key_follows(
    memory: Path, policy: Policy
) -> None:
    run = memory / "run"
    Deployment(run).make()
    kept = load_verifier(run / "keys")
    shutil.copytree(run, memory / "before")
    disk = Disk(run)
    deployment = Deployment(run, disk)
    writer = deployment.open()
    add(writer, b"one")
    checkpoint(writer)
    begin = len(disk.steps)
    deployment.rotate(writer, NEXT)
    end = len(disk.steps)
    add(writer, b"two")
    checkpoint(writer)
    ended_with = set()
    for upto in range(begin, len(disk.steps) + 1):
        left = memory / "left"
        after_crash(left, disk.steps[:upto], policy, before=memory / "before", seed=upto)
        for path in (left / "keys").iterdir():
            path.chmod(0o600)
        after = Deployment(left)
        try:
            again = after.open(T0 + MINUTE)
            add(again, b"three")
            again.close()
            again = after.open(T0 + 2 * MINUTE)
            assert again.recovered.clean
            again.close()
            in_force = load_signer(after.keys)
            logkeys.mend(Quick(), after.keys, logkeys.load_log_keys(after.keys))
            for key in (kept, public(in_force), load_verifier(after.keys)):
                assert said(after.verified_by(key)) == []
            assert load_verifier(after.keys) == public(in_force)
            ended_with.add((upto >= end, in_force.key_id))
        except Exception as error:
            step = disk.steps[upto - 1]
            error.add_note(f"after step {upto} of {begin} to {end}: {step.name} {step.path} {step.to}")
            raise
        shutil.rmtree(left)
    assert ended_with >= {(False, kept.key_id), (True, NEXT.key_id)}
    assert (True, kept.key_id) not in ended_with, "a rotation that was told as done was undone"


def test_full_disk_within_a_rotation_is_made_up_for_at_the_next_start(memory: Path) -> None:
    """The key is in force, and then the KEY entry's sync fails."""
    Deployment(memory / "state").make()
    kept = load_verifier(memory / "state" / "keys")
    disk = Disk(memory / "state")
    deployment = Deployment(memory / "state", disk)
    writer = deployment.open()
    add(writer, b"one")
    logkeys.install(disk, deployment.keys, NEXT)
    failed: list[object] = []

    def fault(step: object) -> None:
        if getattr(step, "name", "") == "sync" and not failed:
            failed.append(step)
            raise OSError(28, "No space left on device")

    disk.fault = fault
    with pytest.raises(LedgerError, match="no space"):
        writer.hand_over(NEXT)
    writer.close()
    after = Deployment(memory / "state")
    after.open(T0 + MINUTE).close()
    assert said(after.verified_by(kept)) == []
    assert len(check_note(after.note(), [kept, public(NEXT)]).signatures) == 2


# -- keys that were put back, swapped or lost ---------------------------------------------------------------


def test_older_copy_of_the_keys_folder_is_refused_even_while_both_keys_sign(deployment: Deployment) -> None:
    shutil.copytree(deployment.keys, deployment.root / "backup")
    writer, _ = rotated(deployment)
    writer.close()
    shutil.rmtree(deployment.keys)
    (deployment.root / "backup").rename(deployment.keys)
    with pytest.raises((Tampered, EnvironmentFault), match="newest"):
        deployment.open(T0 + MINUTE)
    (deployment.root / "ledger" / "log" / chain.KEYS_FILE).unlink()
    with pytest.raises(Tampered, match="newest"):
        deployment.open(T0 + MINUTE)


def test_old_key_put_back_as_the_one_in_force_is_refused(deployment: Deployment) -> None:
    writer, kept = rotated(deployment)
    writer.close()
    shutil.copy(deployment.keys / f"log-{kept.key_id.hex()}.key", deployment.keys / "log.key")
    with pytest.raises(EnvironmentFault, match="superseded"):
        deployment.open(T0 + MINUTE)


def test_key_of_nobody_put_in_force_is_refused(deployment: Deployment) -> None:
    """Its thief has no old key to sign KEY with, so the log does not go on."""
    writer = deployment.open()
    add(writer, b"one")
    writer.close()
    (deployment.keys / "log.key").write_text(THIRD.skey + "\n")
    with pytest.raises(Tampered, match="not signed by any key that is known"):
        deployment.open(T0 + MINUTE)
    shutil.copy(deployment.keys / "log.pub", deployment.keys / "log-00000000.pub")
    with pytest.raises(EnvironmentFault, match="nothing here made that one its successor"):
        deployment.open(T0 + MINUTE)


def test_lock_whose_lines_change_places_does_not_bring_the_old_key_back(deployment: Deployment) -> None:
    writer, kept = rotated(deployment)
    writer.close()
    data = (deployment.root / "lock").read_text().split("\n")
    at = next(n for n, line in enumerate(data) if line.startswith("\u2014"))
    data[at], data[at + 1] = data[at + 1], data[at]
    (deployment.root / "lock").write_text("\n".join(data))
    deployment.open(T0 + MINUTE).close()
    assert said(deployment.verified_by(kept)) == []


def test_former_public_keys_restore_the_list_that_auditors_need(deployment: Deployment) -> None:
    writer, kept = rotated(deployment)
    writer.close()
    listed = deployment.root / "ledger" / "log" / chain.KEYS_FILE
    before = listed.read_bytes()
    listed.unlink()
    deployment.open(T0 + MINUTE).close()
    assert listed.read_bytes() == before == f"{kept.vkey}\n{NEXT.vkey}\n".encode()


# -- forgeries, as verify sees them -------------------------------------------------------------------------


def forged(folder: Path, *entries: Key, signers: tuple[Signer, ...], listed: tuple[Signer, ...] = ()) -> Forge:
    """A ledger with these KEY entries, its checkpoint by these signers, and these keys in `log/keys`."""
    made = Forge(folder)
    made.boot()
    made.records(b'{"a":1}')
    made.clear(entries) if entries else None
    made.publish()
    note = sign_note(Checkpoint(ORIGIN, len(made.entries), made.tiler.root()).text(), *signers)
    (made.ledger / "log" / "checkpoint").write_bytes(note)
    assert made.promised is not None
    made.lock.write_bytes(encode_promise(Promise(made.promised, note, 0)))
    (made.ledger / "log" / chain.KEYS_FILE).write_bytes(
        chain.encode_keys(one.vkey for one in (made.signer, *listed))
    )
    return made


def first(folder: Path) -> Signer:
    return Forge(folder / "first").signer


def judged(made: Forge) -> Report:
    return verify(made.ledger, made.verifier, lock=made.lock)


def test_forge_of_an_honest_rotation_passes(tmp_path: Path) -> None:
    key = hand_over(first(tmp_path), NEXT)
    assert said(judged(forged(tmp_path, key, signers=(NEXT,), listed=(NEXT,)))) == []


def flipped(entry: Key) -> Key:
    return replace(entry, signature=entry.signature[:9] + bytes([entry.signature[9] ^ 1]) + entry.signature[10:])


OLD = Signer.generate(ORIGIN, bytes([1]) * 32)  # the forge's own
FORGERIES: dict[str, tuple[tuple[Key, ...], tuple[Signer, ...], int, str]] = {
    "wrong signature": ((flipped(hand_over(OLD, NEXT)),), (NEXT,), 1, "not signed by"),
    "signed by the new key itself": (
        (replace(hand_over(OLD, NEXT), signature=hand_over(NEXT, OLD).signature),),
        (NEXT,),
        1,
        "not signed by",
    ),
    "another public key": (
        (replace(hand_over(OLD, NEXT), public_sha256=hashlib.sha256(THIRD.public).digest()),),
        (NEXT,),
        1,
        "not signed by",
    ),
    "chain broken in the middle": (
        (hand_over(OLD, NEXT), hand_over(THIRD, NEXT)),
        (NEXT,),
        1,
        "no KEY entry introduced",
    ),
    "made by a key already superseded": ((hand_over(OLD, NEXT), hand_over(OLD, THIRD)), (THIRD,), 1, "superseded"),
    "back to a key already superseded": ((hand_over(OLD, NEXT), hand_over(NEXT, OLD)), (OLD,), 1, "superseded"),
    "checkpoint by a key that nobody introduced": ((), (THIRD,), 0, "the turn of key"),
    "checkpoint by a superseded key": ((hand_over(OLD, NEXT),), (OLD,), 0, "the turn of key"),
    "checkpoint by the key before last": (
        (hand_over(OLD, NEXT), hand_over(NEXT, THIRD)),
        (NEXT, OLD),
        0,
        "the turn of",
    ),
    "log of other keys under the same name": ((hand_over(THIRD, NEXT),), (NEXT,), 0, "never signed for"),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_forged_succession_is_tampered(name: str, tmp_path: Path) -> None:
    entries, signers, level, words = FORGERIES[name]
    report = judged(forged(tmp_path, *entries, signers=signers, listed=(NEXT, THIRD)))
    assert report.worst == "tampered"
    assert any(each.level == level and words in each.what for each in report.findings), report.findings


def test_public_key_with_anothers_id_is_no_key_of_the_chain(tmp_path: Path) -> None:
    """The list is nobody's word: a line in it counts only for the id that its own bytes give."""
    key = replace(hand_over(OLD, NEXT), public_sha256=hashlib.sha256(THIRD.public).digest())
    with pytest.raises(Tampered):
        Chain([public(OLD), public(NEXT)]).take(5, key)


def test_copy_without_the_list_of_keys_says_what_to_copy(tmp_path: Path) -> None:
    made = forged(tmp_path, hand_over(OLD, NEXT), signers=(NEXT, OLD))
    (made.ledger / "log" / chain.KEYS_FILE).unlink()
    report = judged(made)
    assert report.worst == "damaged"
    assert {each.what for each in report.findings if "copy that file too" in each.what}


def test_list_of_keys_full_of_rubbish_breaks_nothing(tmp_path: Path) -> None:
    made = forged(tmp_path, signers=(OLD,))
    for rubbish in (b"\xff\0", b"x\n" * 5000, b"a" * (1 << 19)):
        (made.ledger / "log" / chain.KEYS_FILE).write_bytes(rubbish)
        assert said(judged(made)) == []


@pytest.mark.parametrize("name", [name for name, (_, _, level, _) in FORGERIES.items() if level])
def test_recovery_signs_nothing_on_top_of_a_forged_key_entry_beyond_the_lock(
    name: str, deployment: Deployment
) -> None:
    """Whoever can write the segments, but has no key, appends KEY for one of his own."""
    (deployment.keys / "log.key").write_text(OLD.skey + "\n")
    (deployment.keys / "log.pub").write_text(OLD.vkey + "\n")
    writer = deployment.open()
    add(writer, b"one")
    checkpoint(writer)
    for each in FORGERIES[name][0]:
        writer._append_entries([each], b"")
    writer.sync()
    writer._let_go()
    for known in (NEXT, THIRD):
        (deployment.keys / f"log-{known.key_id.hex()}.pub").write_text(known.vkey + "\n")
    with pytest.raises(Tampered, match="nothing is signed on top"):
        deployment.open(T0 + MINUTE)


def test_ids_are_those_of_notes_prolonged() -> None:
    assert long_id(NEXT)[:4] == NEXT.key_id
    assert long_id(NEXT) == long_id(public(NEXT))
