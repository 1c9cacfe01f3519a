"""`gatebook prove`, and `gatebook verify` of what it wrote: anywhere, with the log's key and nothing else."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.access.ledger import decision, request_id
from tests.cli.logged import Logged

from gatebook.record import RequestPart

Run = Callable[..., Any]


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> Logged:
    return Logged(tmp_path_factory.mktemp("logged"))


@pytest.fixture
def key(logged: Logged, tmp_path: Path) -> Path:
    """The log's public key, where nothing else of the deployment is."""
    copy = tmp_path / "log.pub"
    copy.write_bytes((logged.paths.keys / "log.pub").read_bytes())
    return copy


def test_decision_of_a_request_is_proven_and_shown(run: Run, logged: Logged, key: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.tlog-proof"
    made = run("prove", request_id(1), "-o", str(out), "-c", str(logged.config))
    assert made.code == 0
    assert f"entry {logged.first}" in made.err
    assert out.stat().st_mode & 0o777 == 0o600
    ran = run("verify", str(out), "--key", str(key), "-c", str(tmp_path / "nothing.yaml"))
    assert ran.code == 0
    assert re.search(r"^kind +decision$", ran.out, re.M)
    assert re.search(r"^  path +/orders/1$", ran.out, re.M)
    assert "the signature of acme/node-1" in ran.out
    assert "no witness and no time stamp was asked" in ran.out
    assert (
        ran.out.splitlines()[-1] == f"verified: entry {logged.first} of acme/node-1 is this record, byte for byte"
    )


def test_outcome_is_proven_where_it_is_asked_for(run: Run, logged: Logged, key: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.tlog-proof"
    run("prove", f"acme/node-1/{logged.first}", "--outcome", "-o", str(out), "-c", str(logged.config))
    told = run("verify", str(out), "--key", str(key), "--json").json()
    assert told["verified"] is True
    assert told["record"]["kind"] == "outcome"
    assert told["record"]["decision_index"] == logged.first
    assert json.loads(told["record_text"])["v"] == 1


def test_index_proves_the_record_of_that_entry_whatever_it_is(run: Run, logged: Logged, key: Path) -> None:
    admin = next(
        json.loads(line)["index"]
        for line in run("log", "--all", "--json", "-c", str(logged.config)).out.splitlines()
        if json.loads(line).get("kind") == "admin"
    )
    ran = run("prove", str(admin), "-c", str(logged.config))
    assert ran.out.startswith("c2sp.org/tlog-proof@v1\nextra ")
    proof = key.with_name("admin.tlog-proof")
    proof.write_text(ran.out)
    assert run("verify", str(proof), "--key", str(key), "--json").json()["record"]["action"] == "key.create"


def test_key_may_be_given_as_its_text(run: Run, logged: Logged, key: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.tlog-proof"
    run("prove", request_id(1), "-o", str(out), "-c", str(logged.config))
    assert run("verify", str(out), "--key", key.read_text()).code == 0
    wrong = key.read_text().replace("node-1", "node-2")
    ran = run("verify", str(out), "--key", wrong)
    assert ran.code == 3
    assert "its id is not its own" in ran.err


def test_proof_without_any_key_is_not_believed(run: Run, logged: Logged, tmp_path: Path) -> None:
    out = tmp_path / "x.tlog-proof"
    run("prove", request_id(1), "-o", str(out), "-c", str(logged.config))
    ran = run("verify", str(out), "-c", str(tmp_path / "nothing.yaml"))
    assert ran.code == 3
    assert "--key" in ran.err
    assert run("verify", str(out), "-c", str(logged.config)).code == 0  # at home there is one


def test_changed_proof_is_told_as_tampering_and_by_its_exit_code(run: Run, logged: Logged, key: Path) -> None:
    out = key.with_name("x.tlog-proof")
    run("prove", request_id(1), "-o", str(out), "-c", str(logged.config))
    out.write_text(out.read_text().replace(f"index {logged.first}\n", f"index {logged.first + 1}\n"))
    ran = run("verify", str(out), "--key", str(key))
    assert ran.code == 12
    assert str(out) in ran.err
    assert run("verify", str(out), "--key", str(key), "--json").json()["error"]["kind"] == "Tampered"


def test_what_is_neither_proof_nor_ledger_is_damaged_and_says_what_is_expected(run: Run, key: Path) -> None:
    other = key.with_name("notes.txt")
    other.write_text("hello")
    ran = run("verify", str(other), "--key", str(key))
    assert ran.code == 11
    assert ".tlog-proof" in ran.err


def test_file_that_is_there_is_never_written_over(run: Run, logged: Logged, tmp_path: Path) -> None:
    out = tmp_path / "x.tlog-proof"
    out.write_text("mine")
    ran = run("prove", request_id(1), "-o", str(out), "-c", str(logged.config))
    assert ran.code == 3
    assert out.read_text() == "mine"


def test_outcome_that_is_not_there_yet_is_said_to_be_missing(run: Run, logged: Logged) -> None:
    ran = run("prove", request_id(3), "--outcome", "-c", str(logged.config))
    assert ran.code == 1
    assert "no outcome is on record yet" in ran.err


def test_request_that_never_was_decided_has_its_outcome_proven(run: Run, logged: Logged) -> None:
    ran = run("prove", request_id(4), "-c", str(logged.config))
    assert ran.code == 1
    assert "--outcome" in ran.err
    assert run("prove", request_id(4), "--outcome", "-c", str(logged.config)).code == 0


def test_entry_that_is_no_record_cannot_be_disclosed(run: Run, logged: Logged) -> None:
    ran = run("prove", "0", "-c", str(logged.config))
    assert ran.code == 1
    assert "no record" in ran.err


def test_receipt_of_another_ledger_is_refused(run: Run, logged: Logged) -> None:
    assert run("prove", "other/node-1/1", "-c", str(logged.config)).code == 1


def test_checkpoint_that_does_not_reach_so_far_says_what_to_do(run: Run, tmp_path: Path) -> None:
    logged = Logged(tmp_path / "deployment")
    checkpoint = logged.paths.ledger / "log" / "checkpoint"
    before = checkpoint.read_bytes()
    index = logged.add(decision(9))
    checkpoint.write_bytes(before)
    ran = run("prove", str(index), "-c", str(logged.config))
    assert ran.code == 3
    assert "not signed for yet" in ran.err
    assert "try again" in ran.err


def test_control_characters_in_a_record_do_not_reach_the_terminal(run: Run, tmp_path: Path) -> None:
    logged = Logged(tmp_path / "deployment")
    index = logged.add(decision(9, request=RequestPart(method="GET", path="/a\x1b]0;owned\x07\nkind   outcome")))
    out = tmp_path / "x.tlog-proof"
    run("prove", str(index), "-o", str(out), "-c", str(logged.config))
    ran = run("verify", str(out), "-c", str(logged.config))
    assert ran.code == 0
    assert "\x1b" not in ran.out
    assert "\\x1b" in ran.out
    assert len(re.findall(r"^kind ", ran.out, re.M)) == 1
