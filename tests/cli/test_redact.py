"""`gatebook redact`: what goes, what stays, who is asked first, and that nothing is left of it anywhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.cli.conftest import Ran, Run
from tests.cli.test_hold import Holding

from gatebook import record
from gatebook.config.load import load
from gatebook.recorder.submit import order, submit

SECRET = "/cards/4111111111111111"
T0_US = 1_790_000_000_000_000


def request_id(number: int) -> str:
    return f"{number:08x}" + "0" * 24


class Log(Holding):
    def fill(self, subject: str | None = None, outcome: bool = True) -> list[int]:
        """Three requests; the first one's path is a secret. The indices of the first one's records."""
        identity = record.IdentityPart(provider="staff", method="oidc", subject=subject) if subject else None
        made: list[record.Record] = []
        for number in range(1, 4):
            made.append(
                record.Decision(
                    id=request_id(number),
                    time_us=T0_US + number,
                    identity=identity,
                    request=record.RequestPart(method="GET", path=SECRET if number == 1 else f"/cards/{number}"),
                    decision=record.DecisionPart(
                        verdict="allow", status=200, reason="rule", configuration="", durability="before-access"
                    ),
                )
            )
        first = submit(self.loaded, made)
        indices = [first]
        for number in range(1, 4):
            if number > 1 or outcome:
                told = record.Outcome(id=request_id(number), time_us=T0_US + 9, decision_index=first + number - 1)
                at = submit(self.loaded, [told])
                indices += [at] if number == 1 else []
        return indices

    @property
    def loaded(self) -> Any:
        return load(self.config)

    def redact(self, *arguments: str) -> Ran:
        ran = self._run("redact", *arguments, "--reason", "a card number", "-c", str(self.config))
        assert isinstance(ran, Ran)
        return ran

    def log(self) -> list[dict[str, Any]]:
        ran = self._run("log", "--all", "--json", "-c", str(self.config))
        return [json.loads(line) for line in ran.out.splitlines()]

    def paths_in_log(self) -> list[str]:
        return [each["request"]["path"] for each in self.log() if "request" in each]

    def verify(self) -> Ran:
        ran = self._run("verify", "-c", str(self.config))
        assert isinstance(ran, Ran)
        return ran


@pytest.fixture
def acme(tmp_path: Path, run: Run) -> Log:
    return Log(tmp_path, run)


def test_both_records_of_a_request_go_and_the_log_says_who_when_and_why(acme: Log) -> None:
    indices = acme.fill()
    ran = acme.redact(request_id(1), "--json")
    assert ran.code == 0, ran.err
    assert [index for each in ran.json()["erased"] for index in each["indices"]] == indices
    assert acme.paths_in_log() == ["/cards/2", "/cards/3"]
    orders = [each for each in acme.records() if each["action"] == "erase.record"]
    assert sorted(index for each in orders for index in each["detail"]["indices"]) == indices
    assert {each["detail"]["reason"] for each in orders} == {"a card number"}
    verified = acme.verify()
    assert verified.code == 0, verified.out
    assert "ERASE entries" in verified.out + verified.err


def test_index_means_that_record_alone(acme: Log) -> None:
    first, outcome = acme.fill()
    assert acme.redact(str(first)).code == 0
    shown = acme._run("show", str(first), "-c", str(acme.config))
    assert shown.code == 1
    assert "erased on " in shown.err
    assert "a card number" in shown.err
    assert any(each.get("outcome_index") == outcome for each in acme.log())
    assert acme.verify().code == 0
    again = acme.redact(str(first))
    assert again.code != 0
    assert "was erased already" in again.err


def test_nothing_of_the_record_is_left_below_the_state_folder(acme: Log) -> None:
    """Not in clear, and not under a key that is still there: so nor its commitment's salt."""
    acme.fill()
    before = {path.name for path in acme.paths.deks.iterdir()}
    assert acme.redact(request_id(1)).code == 0
    assert SECRET.encode() not in b"".join(
        path.read_bytes() for path in acme.paths.state.rglob("*") if path.is_file()
    )
    assert before - {path.name for path in acme.paths.deks.iterdir()}
    assert not list(acme.paths.ledger.rglob("*.gbseg.new"))


@pytest.mark.parametrize("hold", [("--everything",), ("--since", "2026-01-01"), ("--subject", "alice")])
def test_held_records_are_not_erased_and_the_hold_is_named(acme: Log, hold: tuple[str, ...]) -> None:
    acme.fill(acme.pseudonym("alice"))
    more = ("--identity", "staff") if "--subject" in hold else ()
    assert acme.hold("add", *hold, *more, "--reason", "case 24-117").code == 0
    ran = acme.redact(request_id(1))
    assert ran.code == 3
    assert acme.held[0].id in ran.err
    assert "case 24-117" in ran.err
    assert len(acme.paths_in_log()) == 3
    assert acme.hold("release", acme.held[0].id, "--reason", "closed").code == 0
    assert acme.redact(request_id(1)).code == 0


def test_hold_on_somebody_who_was_not_in_the_log_yet_holds_what_they_did_since(acme: Log) -> None:
    assert acme.hold("add", "--subject", "alice", "--identity", "staff", "--reason", "case").code == 0
    acme.fill(acme.pseudonym("alice"))
    assert acme.redact(request_id(1)).code == 3


def test_hold_on_somebody_else_or_another_time_forbids_nothing(acme: Log) -> None:
    acme.fill(acme.pseudonym("alice"))
    bob = acme.pseudonym("bob")
    assert acme.hold("add", "--subject", bob, "--reason", "case").code == 0
    assert acme.hold("add", "--until", "2026-01-01", "--reason", "case").code == 0
    assert acme.redact(request_id(1)).code == 0


def test_outcome_alone_is_held_with_anybody_since_it_does_not_say_whose_it_is(acme: Log) -> None:
    _, outcome = acme.fill(acme.pseudonym("alice"))
    assert acme.hold("add", "--subject", acme.pseudonym("bob"), "--reason", "case").code == 0
    assert acme.redact(str(outcome)).code == 3


def test_nothing_is_erased_while_holds_cannot_be_told(acme: Log) -> None:
    acme.fill()
    acme.hold("add", "--until", "2020-01-01", "--reason", "case")
    acme.paths.holds.unlink()
    ran = acme.redact(request_id(1))
    assert (ran.code, "is gone, with holds" in ran.err) == (3, True)
    assert len(acme.paths_in_log()) == 3


def test_what_an_operator_did_is_never_removed(acme: Log) -> None:
    """Erasures rest on it: whoever erases could hide that by erasing once more."""
    acme.fill()
    acme.redact(request_id(1))
    told = next(each for each in acme.records() if each["action"] == "erase.record")
    for index in range(40):
        ran = acme.redact(str(index))
        if "what an operator" in ran.err:
            break
    else:
        pytest.fail("it was removed")
    assert told in acme.records()


@pytest.mark.parametrize("target", ["99999", "other/node/1", "ffffffff", "../../etc"])
def test_what_is_not_there_is_refused(acme: Log, target: str) -> None:
    acme.fill()
    assert acme.redact(target).code in (1, 2, 3)
    assert len(acme.paths_in_log()) == 3


def test_request_without_an_outcome_yet_is_not_erased_by_halves(acme: Log) -> None:
    first, *_ = acme.fill(outcome=False)
    ran = acme.redact(request_id(1))
    assert ran.code == 1
    assert f"erase entry {first} alone" in ran.err
    assert acme.redact(str(first)).code == 0


@pytest.mark.parametrize(
    "changed",
    [
        {"keys": {}},
        {"keys": {"00" * 16: "00" * 32}},
        {"indices": []},
        {"indices": [1 << 62]},
        {"actor": "alice"},
        {"because": "retention"},
        {"extra": 1},
        {"reason": ""},
    ],
)
def test_order_that_makes_no_sense_is_refused(acme: Log, changed: dict[str, Any]) -> None:
    (first, _) = acme.fill()
    asked = {"indices": [first], "keys": {}, "because": "secret", "reason": "r", "actor": "os:1"}
    with pytest.raises(Exception, match="nothing was erased"):
        order(acme.loaded, "redact", asked | changed)
    assert len(acme.paths_in_log()) == 3


def test_evidence_tells_what_was_erased_from_what_is_missing(acme: Log, tmp_path: Path) -> None:
    acme.fill()
    assert acme.redact(request_id(1)).code == 0
    out = tmp_path / "evidence.zip"
    ran = acme._run("bundle", "-o", str(out), "-c", str(acme.config))
    assert ran.code == 0, ran.err
    verified = acme._run("verify", str(out), "--key", str(acme.paths.keys / "log.pub"))
    assert "records were erased on purpose" in verified.out + verified.err
    assert "without their content" not in verified.out
    assert SECRET.encode() not in out.read_bytes()


def test_erased_record_cannot_be_proven_and_a_proof_from_before_still_holds(acme: Log, tmp_path: Path) -> None:
    first, _ = acme.fill()
    proof, later = tmp_path / "x.tlog-proof", tmp_path / "y.tlog-proof"
    config = ("-c", str(acme.config))
    assert acme._run("prove", f"acme/node-1/{first}", "-o", str(proof), *config).code == 0
    assert acme.redact(str(first)).code == 0
    assert acme._run("prove", f"acme/node-1/{first}", "-o", str(later), *config).code != 0
    assert acme._run("verify", str(proof), "--key", str(acme.paths.keys / "log.pub")).code == 0
