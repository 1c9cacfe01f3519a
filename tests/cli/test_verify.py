"""`gatebook verify`: a verdict, what it rests on, an exit code that a script can go by."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.access.ledger import decision
from tests.cli.logged import Logged
from tests.tsa import Stamper, query

from gatebook import record
from gatebook.config import effective
from gatebook.config.load import load
from gatebook.ledger.note import Cosigner
from gatebook.recorder import vouched

Run = Callable[..., Any]


@pytest.fixture
def logged(tmp_path: Path) -> Logged:
    return Logged(tmp_path / "deployment")


def test_good_ledger_is_verified_at_every_level(run: Run, logged: Logged) -> None:
    ran = run("verify", "-c", str(logged.config))
    assert ran.code == 0
    assert ran.out.count("passed") == 3
    assert "level 3  not tried" in ran.out
    assert "verified: " in ran.out.splitlines()[-1]
    assert "rest on the signature" in ran.out
    found = run("verify", "--json", "-c", str(logged.config)).json()
    assert found["verified"] is True
    assert found["findings"] == []
    assert [level["result"] for level in found["levels"]] == ["passed"] * 3 + ["not tried"]
    assert found["records"] >= 7


def test_account_is_the_last_word_before_the_verdict(run: Run, logged: Logged) -> None:
    found = run("verify", "--json", "-c", str(logged.config)).json()["completeness"]
    assert found["records"]["allowed"] == {"total": 2, "outcome": 1, "unknown": 0, "open": 1, "untold": 0}
    assert found["records"]["denied"]["outcome"] == 1
    assert (found["records"]["outcomes"], found["records"]["alone"]) == (3, {"none": 1})
    assert found["starts"]["clean"] >= 4
    assert (found["losses"], found["heartbeats"]["last"]) == ([], None)
    lines = run("verify", "-c", str(logged.config)).out.splitlines()
    told = lines[lines.index("completeness:") + 1 : -1]
    first = " ".join(line.split()[0] for line in told)
    assert first == "allowed denied outcomes other compared numbered lost heartbeats starts policies"
    assert "  allowed    2: 1 with an outcome, 0 outcome_unknown, 1 open" in told


def test_records_that_nobody_could_read_are_not_counted_as_none(run: Run, logged: Logged, tmp_path: Path) -> None:
    shutil.copytree(logged.paths.ledger / "log", tmp_path / "copy" / "log")
    key = ("--key", str(logged.paths.keys / "log.pub"))
    assert run("verify", str(tmp_path / "copy"), *key, "--json").json()["completeness"]["records"] is None
    assert "  records    not counted" in run("verify", str(tmp_path / "copy"), *key).out


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def test_changed_record_is_found_and_its_place_is_named(run: Run, logged: Logged) -> None:
    (first, *_) = sorted((logged.paths.ledger / "segments").iterdir())
    flip(first, -40)
    ran = run("verify", "--json", "-c", str(logged.config))
    assert ran.code in (11, 12)
    found = ran.json()
    assert found["verified"] is False
    assert first.name in " ".join(finding["place"] for finding in found["findings"])
    text = run("verify", "-c", str(logged.config)).out
    assert "which means: " in text
    assert "not verified" in text.splitlines()[-1]


def test_forged_checkpoint_is_tampering(run: Run, logged: Logged) -> None:
    checkpoint = logged.paths.ledger / "log" / "checkpoint"
    checkpoint.write_bytes(checkpoint.read_bytes().replace(b"acme/node-1\n", b"acme/node-2\n", 1))
    assert run("verify", "-c", str(logged.config)).code == 12


def test_missing_segment_is_damage(run: Run, logged: Logged) -> None:
    sorted((logged.paths.ledger / "segments").iterdir())[0].unlink()
    assert run("verify", "-c", str(logged.config)).code == 11


def test_copy_of_the_public_files_needs_only_the_logs_key(run: Run, logged: Logged, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(logged.paths.ledger / "log", copy / "log")
    assert run("verify", str(copy)).code == 3  # whose key?
    key = tmp_path / "log.pub"
    shutil.copy(logged.paths.keys / "log.pub", key)
    ran = run("verify", str(copy), "--key", str(key), "--json")
    assert ran.code == 0
    assert [level["result"] for level in ran.json()["levels"]] == ["passed"] + ["not tried"] * 3


def test_copy_of_the_state_that_brings_its_own_key_is_told_apart(run: Run, logged: Logged, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(logged.paths.state, copy)
    told = run("verify", str(copy), "--json").json()
    assert any("came with the copy" in text for text in told["rests_on"])
    key = tmp_path / "log.pub"
    shutil.copy(logged.paths.keys / "log.pub", key)
    told = run("verify", str(copy), "--key", str(key), "--json").json()
    assert not any("came with the copy" in text for text in told["rests_on"])


def test_another_logs_key_verifies_nothing(run: Run, logged: Logged, tmp_path: Path) -> None:
    other = Logged(tmp_path / "other")
    ran = run("verify", "--key", str(other.paths.keys / "log.pub"), "-c", str(logged.config))
    assert ran.code == 12


@pytest.mark.parametrize(("option", "wrong"), [("--key", "reader.pub"), ("--reader", "log.key")])
def test_wrong_file_named_as_a_key_is_not_taken_for_damage_to_the_ledger(
    run: Run, logged: Logged, option: str, wrong: str
) -> None:
    ran = run("verify", option, str(logged.paths.keys / wrong), "-c", str(logged.config))
    assert (ran.code, ran.out) == (3, "")
    assert f"should be a copy of {'log.pub' if option == '--key' else 'reader.key'}" in ran.err


def test_folder_without_a_ledger_says_what_was_expected(run: Run, tmp_path: Path) -> None:
    ran = run("verify", str(tmp_path / "no.zip"))
    assert (ran.code, "no.zip: no such file" in ran.err) == (3, True)
    ran = run("verify", str(tmp_path))
    assert ran.code == 3
    assert "log/" in ran.err


def test_kept_checkpoint_finds_a_ledger_that_was_put_back(run: Run, logged: Logged, tmp_path: Path) -> None:
    before, kept = tmp_path / "before", tmp_path / "kept"
    shutil.copytree(logged.paths.state, before)
    logged.add(decision(9))
    shutil.copy(logged.paths.ledger / "log" / "checkpoint", kept)
    ran = run("verify", "-c", str(logged.config), "--since-checkpoint", str(kept))
    assert ran.code == 0
    assert "level 3  passed" in ran.out
    key = str(logged.paths.keys / "log.pub")
    assert run("verify", str(before), "--key", key).code == 0
    ran = run("verify", str(before), "--key", key, "--since-checkpoint", str(kept))
    assert ran.code == 12
    assert f"tampered: {kept}: promises" in ran.out
    kept.write_bytes(b"")
    ran = run("verify", "-c", str(logged.config), "--since-checkpoint", str(kept))
    assert ran.code == 3
    assert str(kept) in ran.err


@pytest.fixture(scope="module")
def stamper(tmp_path_factory: pytest.TempPathFactory) -> Stamper:
    return Stamper(tmp_path_factory.mktemp("tsa") / "authority")


def stamped(logged: Logged, stamper: Stamper) -> None:
    """As the recorder leaves it, but for the ANCHOR entry."""
    log = logged.paths.ledger / "log"
    note = (log / "checkpoint").read_bytes()
    size = note.split(b"\n")[1].decode()
    (log / "anchors").mkdir()
    (log / "anchors" / f"{size}.checkpoint").write_bytes(note)
    (log / "anchors" / f"{size}.tsr").write_bytes(stamper.reply(query(note)))


def level3(ran: Any) -> str:
    return str(ran.json()["levels"][3]["result"])


def test_certificates_that_are_named_have_to_have_stamped(
    run: Run, logged: Logged, stamper: Stamper, tmp_path: Path
) -> None:
    asked = ("verify", "--json", "-c", str(logged.config))
    assert run(*asked, "--tsa-certificates", str(stamper.roots)).code == 13
    stamped(logged, stamper)
    ran = run(*asked, "--tsa-certificates", str(stamper.roots))
    assert (ran.code, level3(ran)) == (0, "passed")
    assert any("time-stamped by CN=stamps" in text for text in ran.json()["rests_on"])
    assert run(*asked).code == 0
    assert level3(run(*asked)) == "not tried"
    (tmp_path / "junk").write_bytes(b"junk")
    assert "junk" in run(*asked, "--tsa-certificates", str(tmp_path / "junk")).json()["error"]["message"]


def test_authority_of_the_configuration_in_force_is_asked_without_being_named(
    run: Run, logged: Logged, stamper: Stamper
) -> None:
    text = logged.config.read_text()
    configured = f"timestamps: {{url: 'http://127.0.0.1:9/', certificates: '{stamper.roots}'}}\n"
    logged.config.write_text(text.replace("identity:\n", configured + "identity:\n", 1))
    effective.write(load(logged.config), logged.paths.effective)
    asked = ("verify", "--json", "-c", str(logged.config))
    ran = run(*asked)
    assert (ran.code, level3(ran)) == (0, "not tried")
    stamped(logged, stamper)
    ran = run(*asked)
    assert (ran.code, level3(ran)) == (0, "passed")
    ran = run("verify", str(logged.paths.state), "--json")
    assert level3(ran) == "not tried"  # whom a copy names does not count


def test_policy_that_is_named_has_to_be_met(run: Run, logged: Logged, tmp_path: Path) -> None:
    witness = Cosigner("witness.example/w", b"w" * 32)
    policy = tmp_path / "policy"
    policy.write_text(f"witness w {witness.vkey}\nquorum w\n")
    asked = ("verify", "--json", "-c", str(logged.config), "--policy", str(policy))
    assert run(*asked).code == 13
    log = logged.paths.ledger / "log"
    note = (log / "checkpoint").read_bytes()
    text = note.decode().partition("\n\n")[0] + "\n"
    for name in ("cosigned", "checkpoint"):
        (log / name).write_bytes(note + str(witness.cosign(text, 1_700_000_000)).encode())
    ran = run(*asked)
    assert (ran.code, level3(ran)) == (0, "passed")
    assert not any("not known here" in each for each in ran.json()["notes"])
    assert any("cosigned by w at 2023-11-14" in each for each in ran.json()["rests_on"])
    policy.write_text("quorum w\n")
    assert run(*asked).code == 2
    policy.unlink()
    assert run(*asked).code == 3


def test_log_that_a_witness_disagrees_with_is_not_verified(run: Run, logged: Logged) -> None:
    witness = Cosigner("witness.example/w", b"w" * 32)
    logged.add(record.Alert(time_us=1_700_000_000_000_000, alert="witness_disagrees", severity="high"))
    why = "has cosigned 80 entries of this log, which has 9 now"
    seen = vouched.Seen("w", witness.vkey, error=why, disagrees=True)
    vouched.write(logged.paths.witnesses, vouched.Vouched(witnesses=[seen]))
    ran = run("verify", "-c", str(logged.config))
    assert ran.code == 12
    assert f"tampered: witness w: {why}" in ran.out
    assert "level 3  failed" in ran.out
    assert "note: 1 alerts say that a witness has seen another history" in ran.out
    seen.disagrees = False
    vouched.write(logged.paths.witnesses, vouched.Vouched(witnesses=[seen]))
    assert run("verify", "-c", str(logged.config)).code == 0
