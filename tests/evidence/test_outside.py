"""Who outside vouches for evidence: witnesses and time stamp authorities; nobody whom the caller did not name."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
from tests.access.ledger import decision, request_id
from tests.cli.conftest import Run
from tests.evidence.place import Members, Place, at, forge, members
from tests.tsa import Stamper, query

from gatebook import record
from gatebook.cli.evidence import verify_proof
from gatebook.errors import EnvironmentFault
from gatebook.evidence.check import Checked, check
from gatebook.evidence.outside import Trusted
from gatebook.ledger.entry import Anchor
from gatebook.ledger.keys import load_signer, load_verifier
from gatebook.ledger.note import Cosigner, Signer, encode_note, parse_note, sign_note
from gatebook.ledger.quorum import Trust, parse_trust
from gatebook.ledger.timestamp import load_authorities

WITNESSES = [Cosigner(f"witness-{n}.example", bytes([n]) * 32) for n in (1, 2)]
HOUR = ("--since", at(30), "--until", at(90))


def cosigned(note: bytes, *witnesses: Cosigner, time_s: int = 1_700_000_000) -> bytes:
    parsed = parse_note(note)
    lines = (*parsed.lines, *(witness.cosign(parsed.text, time_s) for witness in witnesses))
    return encode_note(parsed._replace(lines=lines))


def policy(threshold: str = "all", more: str = "") -> Trust:
    named = "".join(f"witness w{n} {each.vkey}\n" for n, each in enumerate(WITNESSES))
    return parse_trust(f"{more}{named}group g {threshold} w0 w1\nquorum g\n".encode(), "policy")


@pytest.fixture
def place(tmp_path: Path) -> Place:
    made = Place(tmp_path / "acme")
    made.two_hours()
    return made


def export(run: Run, place: Place, out: Path) -> Path:
    ran = run("bundle", "-o", str(out), "-c", str(place.config), *HOUR)
    assert ran.code == 0, ran.err
    return out


def checked(path: Path, place: Place, **trusted: Any) -> Checked:
    return check(path, load_verifier(place.paths.keys), lambda _done, _total: None, Trusted(**trusted))


def publish(place: Place, name: str, *witnesses: Cosigner) -> bytes:
    """As the recorder does it."""
    log = place.paths.ledger / "log"
    note = cosigned((log / "checkpoint").read_bytes(), *witnesses)
    (log / name).parent.mkdir(exist_ok=True)
    (log / name).write_bytes(note)
    return note


def test_cosigned_checkpoint_of_an_old_range_comes_along_and_counts_for_its_policy(
    run: Run, place: Place, tmp_path: Path
) -> None:
    publish(place, "cosigned", *WITNESSES)
    path = export(run, place, tmp_path / "e.zip")
    result = checked(path, place, policy=policy())
    assert result.report.worst is None
    (said,) = [text for text in result.report.rests_on if "cosigned by" in text]
    assert "w0 at 2023-11-14T22:13:20Z, w1" in said
    assert not any("alone" in text for text in result.report.rests_on)
    assert any("alone" in text for text in checked(path, place).report.rests_on)


def test_policy_that_is_not_met_is_a_finding(run: Run, place: Place, tmp_path: Path) -> None:
    publish(place, "cosigned", WITNESSES[0])
    path = export(run, place, tmp_path / "e.zip")
    result = checked(path, place, policy=policy())
    assert result.report.exit_code == 13
    assert "missing: w1" in result.report.findings[0].what
    assert checked(path, place, policy=policy("any")).report.worst is None


def test_witness_that_nobody_named_does_not_count(run: Run, place: Place, tmp_path: Path) -> None:
    stranger = Cosigner("witness-1.example", b"s" * 32)
    publish(place, "cosigned", stranger, WITNESSES[1])
    result = checked(export(run, place, tmp_path / "e.zip"), place, policy=policy())
    assert "missing: w0" in result.report.findings[0].what


def test_cosignature_that_was_changed_is_tampering(run: Run, place: Place, tmp_path: Path) -> None:
    publish(place, "cosigned", *WITNESSES)

    def change(held: Members) -> None:
        note = parse_note(held["log/checkpoint"])
        last = note.lines[-1]
        bad = last._replace(signature=bytes([last.signature[0] ^ 1]) + last.signature[1:])
        held["log/checkpoint"] = encode_note(note._replace(lines=(*note.lines[:-1], bad)))

    result = checked(forge(export(run, place, tmp_path / "e.zip"), change), place, policy=policy())
    assert any(each.level == 3 and each.kind == "tampered" for each in result.report.findings)


def test_policy_of_another_log_is_the_callers_mistake(run: Run, place: Place, tmp_path: Path) -> None:
    other = f"log {Signer('acme/node-1', b'o' * 32).vkey}\n"
    with pytest.raises(EnvironmentFault, match="does not list"):
        checked(export(run, place, tmp_path / "e.zip"), place, policy=policy(more=other))


def test_later_cosignatures_change_no_export(run: Run, place: Place, tmp_path: Path) -> None:
    first = export(run, place, tmp_path / "1.zip")
    publish(place, "cosigned", *WITNESSES)
    assert export(run, place, tmp_path / "2.zip").read_bytes() == first.read_bytes()


def test_checkpoint_that_was_kept_is_held_against_a_bundle(run: Run, place: Place, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.write_bytes((place.paths.ledger / "log" / "checkpoint").read_bytes())
    path = export(run, place, tmp_path / "e.zip")
    options = ("--key", str(place.paths.keys / "log.pub"), "--since-checkpoint", str(kept))
    ran = run("verify", str(path), *options)
    assert ran.code == 0, ran.out
    assert f"are those of {kept}, a checkpoint that was kept" in ran.out
    size = int(kept.read_text().split("\n")[1])
    kept.write_bytes(sign_note(f"acme/node-1\n{size}\n{'A' * 43}=\n", load_signer(place.paths.keys)))
    ran = run("verify", str(path), *options)
    assert ran.code == 12
    assert "two histories have been signed" in ran.out
    assert run("verify", str(path), "-c", str(tmp_path / "no.yaml"), *options[2:]).code == 3


def test_policy_file_is_read_for_bundles_and_proofs(run: Run, place: Place, tmp_path: Path) -> None:
    publish(place, "cosigned", *WITNESSES)
    path = export(run, place, tmp_path / "e.zip")
    run("prove", request_id(40), "-o", str(tmp_path / "x.tlog-proof"), "-c", str(place.config))
    (tmp_path / "policy").write_text("".join(f"witness {each.name} {each.vkey}\n" for each in WITNESSES))
    with (tmp_path / "policy").open("a") as stream:
        stream.write(f"group g all {WITNESSES[0].name} {WITNESSES[1].name}\nquorum g\n")
    options = ("--key", str(place.paths.keys / "log.pub"), "--policy", str(tmp_path / "policy"))
    for each in (path, tmp_path / "x.tlog-proof"):
        ran = run("verify", str(each), *options)
        assert ran.code == 0, ran.out
        assert "as many as the policy asks for" in ran.out


def stamp(place: Place, stamper: Stamper) -> int:
    """A time stamp of the newest checkpoint, as the recorder keeps it; its ANCHOR entry; the tree's size."""
    log = place.paths.ledger / "log"
    note = (log / "checkpoint").read_bytes()
    size = int(note.split(b"\n")[1])
    receipt = stamper.reply(query(note))
    (log / "anchors").mkdir(exist_ok=True)
    (log / "anchors" / f"{size}.checkpoint").write_bytes(note)
    (log / "anchors" / f"{size}.tsr").write_bytes(receipt)
    place.write(lambda writer: writer.append_entry(Anchor(1, size, hashlib.sha256(receipt).digest())))
    return size


@pytest.fixture(scope="module")
def stamper(tmp_path_factory: pytest.TempPathFactory) -> Stamper:
    return Stamper(tmp_path_factory.mktemp("tsa") / "authority")


def test_time_stamp_behind_the_range_pins_it_and_comes_along(
    run: Run, place: Place, stamper: Stamper, tmp_path: Path
) -> None:
    size = stamp(place, stamper)
    place.write(lambda writer: writer.append([record.encode(decision(n)) for n in range(500, 900)]))
    path = export(run, place, tmp_path / "e.zip")
    held = members(path)
    assert f"log/anchors/{size}.tsr" in held
    result = checked(path, place, authorities=load_authorities(stamper.roots))
    assert result.report.worst is None
    assert result.manifest.size == size
    assert any("time-stamped by CN=stamps" in text for text in result.report.rests_on)
    assert b"Time stamps of an authority show" in held["report.html"]
    without = checked(path, place)
    assert any("were not checked" in text for text in without.report.notes)


def test_time_stamp_within_the_range_comes_along(run: Run, tmp_path: Path, stamper: Stamper) -> None:
    place = Place(tmp_path / "acme")
    place.two_hours()
    size = stamp(place, stamper)
    place.write(lambda writer: writer.append([record.encode(place.decision(n * 60)) for n in range(130, 200)]))
    options = ("--since", at(0), "--until", at(300), "-c", str(place.config))
    ran = run("bundle", "-o", str(tmp_path / "e.zip"), *options)
    assert ran.code == 0, ran.err
    assert f"log/anchors/{size}.tsr" in members(tmp_path / "e.zip")
    result = checked(tmp_path / "e.zip", place, authorities=load_authorities(stamper.roots))
    assert result.manifest.size > size
    assert any(f"entries 0 to {size - 1} were there at" in text for text in result.report.rests_on)
    assert any(f"for entries {size} to" in text and "alone" in text for text in result.report.rests_on)


def test_stamp_of_another_checkpoint_is_tampering(
    run: Run, place: Place, stamper: Stamper, tmp_path: Path
) -> None:
    size = stamp(place, stamper)

    def change(held: Members) -> None:
        held[f"log/anchors/{size}.tsr"] = stamper.reply(query(b"another"))

    result = checked(
        forge(export(run, place, tmp_path / "e.zip"), change), place, authorities=load_authorities(stamper.roots)
    )
    assert any(each.level == 3 and each.kind == "tampered" for each in result.report.findings)


def test_stamp_by_an_authority_that_nobody_named_does_not_count(
    run: Run, place: Place, stamper: Stamper, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    stamp(place, stamper)
    other = Stamper(tmp_path_factory.mktemp("other") / "authority")
    path = export(run, place, tmp_path / "e.zip")
    result = checked(path, place, authorities=load_authorities(other.roots))
    assert result.report.exit_code == 13
    assert "no time stamp here is by an authority" in result.report.findings[0].what


def test_stamped_checkpoint_of_a_forked_log_is_tampering(
    run: Run, place: Place, stamper: Stamper, tmp_path: Path
) -> None:
    """Signed by the log's own key, but of another history."""
    size = stamp(place, stamper)

    def change(held: Members) -> None:
        text = f"acme/node-1\n{size}\n{'A' * 43}=\n"
        note = sign_note(text, load_signer(place.paths.keys))
        held[f"log/anchors/{size}.checkpoint"] = note
        held[f"log/anchors/{size}.tsr"] = stamper.reply(query(note))

    result = checked(
        forge(export(run, place, tmp_path / "e.zip"), change), place, authorities=load_authorities(stamper.roots)
    )
    assert any("is of another tree" in each.what for each in result.report.findings)


def test_proof_by_a_cosigned_checkpoint_counts_for_a_policy(
    run: Run, place: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    publish(place, "cosigned", *WITNESSES)
    out = tmp_path / "x.tlog-proof"
    assert run("prove", request_id(40), "-o", str(out), "-c", str(place.config)).code == 0
    key = load_verifier(place.paths.keys)
    assert verify_proof(out, key, as_json=False, trusted=Trusted(policy())) == 0
    assert "were cosigned by w0 at 2023-11-14T22:13:20Z" in capsys.readouterr().out
    assert verify_proof(out, key, as_json=False) == 0
    assert "it is also signed by witness-1.example" in capsys.readouterr().out


def test_proof_that_the_policy_does_not_find_cosigned_is_incomplete(
    run: Run, place: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "x.tlog-proof"
    run("prove", request_id(40), "-o", str(out), "-c", str(place.config))
    assert verify_proof(out, load_verifier(place.paths.keys), as_json=False, trusted=Trusted(policy())) == 13
    told = capsys.readouterr().out
    assert "missing: w0, w1" in told
    assert "alone: witnesses were asked, missing: w0, w1, so the key's holder" in told
    assert "no witness" not in told
    assert told.splitlines()[-1].startswith("incomplete, though: entry")


def test_kept_checkpoint_that_a_proof_cannot_be_held_against_is_not_passed_over(
    run: Run, place: Place, tmp_path: Path
) -> None:
    out, kept = tmp_path / "x.tlog-proof", tmp_path / "kept"
    run("prove", request_id(40), "-o", str(out), "-c", str(place.config))
    kept.write_bytes(sign_note(f"acme/node-1\n1\n{'A' * 43}=\n", load_signer(place.paths.keys)))
    options = ("--key", str(place.paths.keys / "log.pub"), "--since-checkpoint", str(kept))
    ran = run("verify", str(out), *options)
    assert (ran.code, f"note: {kept}: was not compared" in ran.out) == (0, True)
    assert "was not compared" in run("verify", str(out), *options, "--json").json()["notes"][0]
