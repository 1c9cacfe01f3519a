"""Level 3, by attack: time stamps and cosignatures, against a ledger that passes every local check."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from cryptography import x509
from tests.ledger.forge import MINUTE, ORIGIN, Forge
from tests.ledger.test_verify import found
from tests.tsa import Stamper, query

from gatebook.errors import EnvironmentFault
from gatebook.ledger.entry import Anchor
from gatebook.ledger.note import Checkpoint, Cosigner, Signer, sign_note
from gatebook.ledger.quorum import Trust, parse_trust
from gatebook.ledger.timestamp import load_authorities
from gatebook.ledger.verify import Outside, Private, Report, verify

HOUR = 60 * MINUTE
WITNESSES = [Cosigner(f"witness.example/{n}", bytes([n + 50]) * 32) for n in range(3)]


@pytest.fixture(scope="module")
def stamper(tmp_path_factory: pytest.TempPathFactory) -> Stamper:
    return Stamper(tmp_path_factory.mktemp("tsa") / "authority")


@pytest.fixture(scope="module")
def trusted(stamper: Stamper) -> list[x509.Certificate]:
    return load_authorities(stamper.roots)


def begun(folder: Path, now_us: int | None = None) -> Forge:
    made = Forge(folder)
    made.now_us = time.time_ns() // 1000 if now_us is None else now_us
    made.boot()
    made.records(b'{"a":1}', b'{"b":2}')
    return made


def anchors(forge: Forge) -> Path:
    folder = forge.ledger / "log" / "anchors"
    folder.mkdir(exist_ok=True)
    return folder


def stamp(forge: Forge, stamper: Stamper) -> int:
    """What the recorder does: heartbeat, checkpoint, stamp, ANCHOR, checkpoint; the size that was stamped."""
    forge.heartbeat()
    size = forge.publish().size
    note = (forge.ledger / "log" / "checkpoint").read_bytes()
    reply = stamper.reply(query(note))
    (anchors(forge) / f"{size}.checkpoint").write_bytes(note)
    (anchors(forge) / f"{size}.tsr").write_bytes(reply)
    forge.clear([Anchor(1, size, hashlib.sha256(reply).digest())])
    forge.publish()
    return size


@pytest.fixture
def forge(tmp_path: Path, stamper: Stamper) -> Forge:
    """0 BOOT, 1-2 records, 3 heartbeat | stamped at 4; 4 ANCHOR."""
    made = begun(tmp_path / "state")
    stamp(made, stamper)
    return made


def check(
    forge: Forge,
    trusted: Sequence[x509.Certificate] | None = None,
    policy: Trust | None = None,
    demanded: bool = True,
) -> Report:
    outside = Outside(authorities=trusted, policy=policy, demanded=demanded)
    return verify(forge.ledger, forge.verifier, lock=forge.lock, outside=outside)


def says(report: Report, *words: str) -> bool:
    return any(all(word in text for word in words) for text in report.rests_on)


# -- time stamps --------------------------------------------------------------------------------------------
def test_stamp_vouches_for_its_entries_and_the_rest_is_told_apart(
    forge: Forge, trusted: list[x509.Certificate]
) -> None:
    report = check(forge, trusted)
    assert report.findings == []
    assert report.levels[3] == "passed"
    assert says(report, "entries 0 to 3 were there at 20", "CN=stamps,O=Clocks Ltd")
    assert says(report, "entry 4 rest on the signature", "alone")


def test_stamps_without_certificates_are_not_checked_and_that_is_said(forge: Forge) -> None:
    report = check(forge)
    assert report.findings == []
    assert report.levels[3] == "not tried"
    assert "1 time stamps are here, up to size 4, but no certificates" in report.why_not[3]
    assert says(report, "entries 0 to 4 rest on the signature")


def test_authority_that_the_auditor_does_not_trust_vouches_for_nothing(forge: Forge, tmp_path: Path) -> None:
    """It brings its own certificates along."""
    other = load_authorities(Stamper(tmp_path / "other").roots)
    report = check(forge, other)
    assert found(report) == [(3, "incomplete", "log")]
    assert report.exit_code == 13
    assert any("1 time stamps do not count" in text for text in report.notes)
    report = check(forge, other, demanded=False)
    assert report.findings == []
    assert report.levels[3] == "not tried"
    assert "no time stamp here is by an authority" in report.why_not[3]


def test_log_that_was_never_stamped_is_incomplete_for_who_demands_stamps(
    tmp_path: Path, trusted: list[x509.Certificate]
) -> None:
    made = begun(tmp_path / "state")
    made.publish()
    assert found(check(made, trusted)) == [(3, "incomplete", "log")]
    assert check(made, trusted, demanded=False).exit_code == 0


def test_history_written_anew_and_stamped_anew_contradicts_its_own_clock(
    tmp_path: Path, stamper: Stamper, trusted: list[x509.Certificate]
) -> None:
    """Everything is signed, every stamp is genuine; but the entries say that they are of yesterday."""
    forged = begun(tmp_path / "state", time.time_ns() // 1000 - 24 * HOUR)
    size = stamp(forged, stamper)
    assert check(forged).findings == []
    report = check(forged, trusted)
    assert (3, "tampered", f"log/anchors/{size}.tsr") in found(report)
    assert "written anew" in report.findings[0].consequence
    assert says(report, "entries 0 to 4 rest on the signature")


def test_old_history_under_a_new_heartbeat_is_said_to_have_waited_for_its_stamp(
    tmp_path: Path, stamper: Stamper, trusted: list[x509.Certificate]
) -> None:
    """Written anew with its old times, and then started again, so that the last heartbeat may tell today's."""
    now = time.time_ns() // 1000
    forged = begun(tmp_path / "state", now - 30 * 24 * HOUR)
    forged.publish()
    forged.now_us = now
    forged.boot()
    stamp(forged, stamper)
    report = check(forged, trusted)
    assert report.findings == []
    (said,) = [text for text in report.rests_on if "time-stamped" in text]
    assert "within 43200 min of when it says" in said or "within 43201 min of when it says" in said


def test_entries_that_were_stamped_hourly_waited_an_hour_whatever_lies_between_two_starts(
    tmp_path: Path, stamper: Stamper, trusted: list[x509.Certificate]
) -> None:
    now = time.time_ns() // 1000
    made = begun(tmp_path / "state", now - 5 * MINUTE)
    stamp(made, stamper)
    made.now_us = now - 2 * MINUTE
    made.boot()
    made.records(b'{"c":3}')
    made.now_us = now
    stamp(made, stamper)
    report = check(made, trusted)
    assert report.findings == []
    (said,) = [text for text in report.rests_on if "time-stamped" in text]
    assert "the last of 2" in said
    assert "within 6 min" in said or "within 5 min" in said


def test_clock_that_ran_ahead_is_found_too(
    tmp_path: Path, stamper: Stamper, trusted: list[x509.Certificate]
) -> None:
    forged = begun(tmp_path / "state", time.time_ns() // 1000 + HOUR)
    size = stamp(forged, stamper)
    assert (3, "tampered", f"log/anchors/{size}.tsr") in found(check(forged, trusted))


def test_stamp_of_another_history_shows_the_fork(
    tmp_path: Path, stamper: Stamper, trusted: list[x509.Certificate]
) -> None:
    """The log was put back and went on otherwise; who put it back forgot the stamp."""
    first = begun(tmp_path / "first")
    size = stamp(first, stamper)
    second = begun(tmp_path / "second")
    second.records(*(b'{"n":%d}' % n for n in range(9)))
    second.heartbeat()
    second.publish()
    shutil.copytree(anchors(first), second.ledger / "log" / "anchors")
    report = check(second, trusted)
    assert (3, "tampered", f"log/anchors/{size}.checkpoint") in found(report)
    assert "the other one was there at 20" in report.findings[0].consequence


def test_stamps_newer_than_the_checkpoint_are_pointed_out(
    forge: Forge, stamper: Stamper, trusted: list[x509.Certificate]
) -> None:
    """An older checkpoint and lock were put back; or somebody copied the checkpoint first, as we advise."""
    checkpoint = forge.ledger / "log" / "checkpoint"
    kept = checkpoint.read_bytes(), forge.lock.read_bytes()
    forge.now_us += MINUTE
    size = stamp(forge, stamper)
    checkpoint.write_bytes(kept[0])
    forge.lock.write_bytes(kept[1])
    report = check(forge, trusted)
    assert report.findings == []
    assert any(f"log/anchors/{size}.checkpoint is newer than the checkpoint" in text for text in report.notes)
    assert says(report, "entries 0 to 3 were there at")


def test_newest_of_several_stamps_counts(forge: Forge, stamper: Stamper, trusted: list[x509.Certificate]) -> None:
    forge.records(b'{"c":3}')
    size = stamp(forge, stamper)
    report = check(forge, trusted)
    assert report.findings == []
    assert says(report, f"entries 0 to {size - 1} were there at", "the last of 2")


# -- receipts -----------------------------------------------------------------------------------------------
def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def remove_reply(forge: Forge) -> None:
    (anchors(forge) / "4.tsr").unlink()
    (anchors(forge) / "other").touch()


def change_reply(forge: Forge) -> None:
    flip(anchors(forge) / "4.tsr", -1)


def remove_checkpoint(forge: Forge) -> None:
    (anchors(forge) / "4.checkpoint").unlink()


def change_checkpoint(forge: Forge) -> None:
    path = anchors(forge) / "4.checkpoint"
    path.write_bytes(path.read_bytes().replace(b"\n4\n", b"\n3\n"))


def name_another_size(forge: Forge) -> None:
    """A stamp of few entries that is passed off as one of more."""
    for ending in ("tsr", "checkpoint"):
        shutil.copy(anchors(forge) / f"4.{ending}", anchors(forge) / f"5.{ending}")


def another_stamp(forge: Forge) -> None:
    folder = anchors(forge)
    (folder / "4.checkpoint").write_bytes(sign_note(Checkpoint(ORIGIN, 4, bytes(32)).text(), forge.signer))


def reply_is_a_pit(forge: Forge) -> None:
    (anchors(forge) / "4.tsr").write_bytes(bytes(1 << 20))


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (remove_reply, {("damaged", "log/anchors/4.tsr")}),
        (change_reply, {("tampered", "log/anchors/4.tsr")}),
        (remove_checkpoint, {("damaged", "log/anchors/4.checkpoint")}),
        (change_checkpoint, {("tampered", "log/anchors/4.tsr")}),
        (name_another_size, {("tampered", "log/anchors/5.checkpoint")}),
        (another_stamp, {("tampered", "log/anchors/4.tsr")}),
        (reply_is_a_pit, {("damaged", "log/anchors/4.tsr"), ("damaged", "log/anchors/4.checkpoint")}),
    ],
)
def test_receipt_that_was_touched_is_found(
    forge: Forge,
    trusted: list[x509.Certificate],
    spoil: Callable[[Forge], None],
    expected: set[tuple[str, str]],
) -> None:
    spoil(forge)
    report = check(forge, trusted, demanded=False)
    assert {(kind, place) for level, kind, place in found(report) if level == 3} == expected
    assert report.levels[0] == report.levels[1] == "passed"


def test_pipe_in_a_files_place_is_not_waited_for(forge: Forge, trusted: list[x509.Certificate]) -> None:
    """A copy is made by somebody who may not want it to be verified."""
    places = [
        anchors(forge) / "4.tsr",
        forge.ledger / "log" / "tile" / "0" / "000.p" / "4",
        forge.ledger / "segments" / "00000000000000ff-00000000.gbseg",
        forge.lock,
        forge.deks / f"{forge.header.dek_id.hex()}.dek",
    ]
    for place in places:
        place.unlink(missing_ok=True)
        os.mkfifo(place)
    outside = Outside(authorities=trusted)
    private = Private(forge.deks, forge.reader)
    report = verify(forge.ledger, forge.verifier, lock=forge.lock, private=private, outside=outside)
    assert {finding.kind for finding in report.findings} == {"damaged", "incomplete"}
    assert any(finding.place.startswith("deks/") for finding in report.findings)
    assert sum("no regular file" in finding.what for finding in report.findings) >= 3


def test_receipts_are_compared_without_any_certificate(forge: Forge) -> None:
    change_reply(forge)
    assert found(check(forge)) == [(3, "tampered", "log/anchors/4.tsr")]


def test_copy_without_the_folder_is_no_damage(forge: Forge) -> None:
    shutil.rmtree(anchors(forge))
    report = check(forge)
    assert report.findings == []
    assert any("1 receipts" in text and "log/anchors/ is missing" in text for text in report.notes)


def test_names_that_are_none_of_ours_are_left_alone(forge: Forge, trusted: list[x509.Certificate]) -> None:
    for name in ("x.tsr", "04.tsr", "-4.tsr", "99999999999999999999.tsr", "4.tsr.new", "7.cosigned.new"):
        (anchors(forge) / name).write_bytes(b"junk")
    assert check(forge, trusted).findings == []


# -- witnesses ----------------------------------------------------------------------------------------------
def policy(needed: int = 2, logs: str = "") -> Trust:
    lines = [f"witness w{n} {witness.vkey}" for n, witness in enumerate(WITNESSES)]
    return parse_trust(
        f"{logs}{chr(10).join(lines)}\ngroup all {needed} w0 w1 w2\nquorum all\n".encode(), "policy"
    )


def cosign(forge: Forge, *numbers: int, at: int = 1_700_000_000, name: str = "cosigned") -> bytes:
    """The published checkpoint with more lines, as the recorder puts it beside."""
    note = (forge.ledger / "log" / "checkpoint").read_bytes()
    text = note.decode().partition("\n\n")[0] + "\n"
    note += "".join(str(WITNESSES[n].cosign(text, at)) for n in numbers).encode()
    (forge.ledger / "log" / name).parent.mkdir(exist_ok=True)
    (forge.ledger / "log" / name).write_bytes(note)
    return note


def test_witnesses_vouch_for_what_they_cosigned_and_when(forge: Forge) -> None:
    cosign(forge, 0, 2)
    forge.records(b'{"c":3}')
    forge.publish()
    report = check(forge, policy=policy())
    assert report.findings == []
    assert report.levels[3] == "passed"
    assert says(report, "entries 0 to 4 were cosigned by w0 at 2023-11-14 22:13:20 UTC, w2 at")
    assert says(report, "entry 5 rest on the signature")


def test_too_few_witnesses_are_not_enough(forge: Forge) -> None:
    cosign(forge, 1)
    report = check(forge, policy=policy())
    assert found(report) == [(3, "incomplete", "log")]
    assert "w0, w2" in report.findings[0].what
    assert check(forge, policy=policy(), demanded=False).exit_code == 0


def test_nobody_cosigned_is_incomplete_and_witness_of_a_stranger_is_nobody(forge: Forge) -> None:
    assert found(check(forge, policy=policy())) == [(3, "incomplete", "log")]
    stranger = Cosigner(WITNESSES[0].name, b"x" * 32)
    note = (forge.ledger / "log" / "checkpoint").read_bytes()
    text = note.decode().partition("\n\n")[0] + "\n"
    (forge.ledger / "log" / "cosigned").write_bytes(note + str(stranger.cosign(text, 1_700_000_000)).encode())
    assert found(check(forge, policy=policy(1))) == [(3, "incomplete", "log")]


def test_older_receipt_counts_when_the_newest_are_not_cosigned(forge: Forge) -> None:
    note = cosign(forge, 0, 1, name="anchors/5.cosigned")
    forge.clear([Anchor(2, 5, hashlib.sha256(note).digest())])
    forge.publish()
    report = check(forge, policy=policy())
    assert report.findings == []
    assert says(report, "entries 0 to 4 were cosigned by")


def test_forged_cosignature_is_tampering(forge: Forge) -> None:
    note = bytearray(cosign(forge, 0, 1))
    note[-5] ^= 1
    (forge.ledger / "log" / "cosigned").write_bytes(bytes(note))
    kinds = {kind for _, kind, place in found(check(forge, policy=policy())) if place == "log/cosigned"}
    assert kinds in ({"tampered"}, {"damaged"})


def test_cosigned_checkpoint_of_another_history_is_a_fork(forge: Forge) -> None:
    text = Checkpoint(ORIGIN, 3, bytes(32)).text()
    note = sign_note(text, forge.signer) + "".join(str(w.cosign(text, 1_700_000_000)) for w in WITNESSES).encode()
    (forge.ledger / "log" / "cosigned").write_bytes(note)
    report = check(forge, policy=policy())
    assert (3, "tampered", "log/cosigned") in found(report)
    assert not says(report, "cosigned by")


def test_cosigned_checkpoint_of_another_log_says_nothing_of_this_one(forge: Forge) -> None:
    other = Signer.generate("acme/node-2", b"o" * 32)
    logs = f"log {forge.signer.vkey}\nlog {other.vkey}\n"
    text = Checkpoint("acme/node-2", 3, bytes(32)).text()
    note = sign_note(text, other) + "".join(str(w.cosign(text, 1_700_000_000)) for w in WITNESSES).encode()
    (forge.ledger / "log" / "cosigned").write_bytes(note)
    report = check(forge, policy=policy(logs=logs))
    assert (3, "tampered", "log/cosigned") in found(report)
    assert not says(report, "cosigned by")


def test_policy_about_other_logs_is_the_auditors_mistake(forge: Forge) -> None:
    logs = f"log {Signer.generate('acme/node-2', b'o' * 32).vkey}\n"
    with pytest.raises(EnvironmentFault, match=f"lists no log {ORIGIN}"):
        check(forge, policy=policy(logs=logs))


def test_policy_with_another_key_of_this_log_believes_that_one_alone(forge: Forge) -> None:
    cosign(forge, 0, 1, 2)
    logs = f"log {Signer.generate(ORIGIN, b'o' * 32).vkey}\n"
    report = check(forge, policy=policy(logs=logs))
    assert found(report) == [(3, "incomplete", "log")]
    assert any("log/cosigned is not signed by a key of this log that counts" in text for text in report.notes)
    assert not says(report, "cosigned by")


def test_receipts_from_before_a_key_handed_over_are_no_tampering_where_the_old_key_is_not_known(
    forge: Forge, stamper: Stamper, trusted: list[x509.Certificate]
) -> None:
    """The auditor was given the new key alone, and the copy has no list of keys: the stamps prove the same."""
    old = Signer.generate(ORIGIN, b"o" * 32)
    note = (anchors(forge) / "4.checkpoint").read_bytes()
    text = note.decode().partition("\n\n")[0] + "\n"
    again = sign_note(text, old)
    (anchors(forge) / "4.checkpoint").write_bytes(again)
    reply = stamper.reply(query(again))
    (anchors(forge) / "4.tsr").write_bytes(reply)
    cosigned = again + "".join(str(w.cosign(text, 1_700_000_000)) for w in WITNESSES).encode()
    (anchors(forge) / "4.cosigned").write_bytes(cosigned)
    forge.clear([Anchor(1, 4, hashlib.sha256(reply).digest()), Anchor(2, 4, hashlib.sha256(cosigned).digest())])
    forge.publish()
    report = check(forge, trusted, policy(), demanded=False)
    assert [place for _, _, place in found(report)] == ["log/anchors/4.tsr"]  # which the first ANCHOR still names
    assert says(report, "entries 0 to 3 were there at")
    assert not says(report, "cosigned by")


def test_stamped_junk_is_no_other_history(forge: Forge, stamper: Stamper, trusted: list[x509.Certificate]) -> None:
    """Anybody can have anything stamped; a fork is what this log's key has signed."""
    junk = sign_note(Checkpoint(ORIGIN, 3, bytes(32)).text(), Signer.generate(ORIGIN, b"o" * 32))
    (anchors(forge) / "3.checkpoint").write_bytes(junk)
    (anchors(forge) / "3.tsr").write_bytes(stamper.reply(query(junk)))
    assert found(check(forge, trusted)) == [(3, "damaged", "log/anchors/3.checkpoint")]


def test_policy_that_asks_for_nobody_gives_no_comfort(forge: Forge) -> None:
    report = check(forge, policy=parse_trust(b"quorum none\n", "policy"))
    assert report.findings == []
    assert says(report, "entries 0 to 4 rest on the signature")
