"""Forgetting, unsealing and reporting by the command line: what is refused, what is on record, what stays."""

from __future__ import annotations

import json
import os
import sqlite3
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.cli.conftest import Ran, Run
from tests.cli.test_revoke import Deployment

from gatebook import record
from gatebook.access import person_page
from gatebook.cli import forget as forgetting
from gatebook.cli import unseal as unsealing
from gatebook.config.load import load
from gatebook.config.model import Grantable
from gatebook.errors import EnvironmentFault
from gatebook.identity import api_key_file, grant_file, revocation_file
from gatebook.identity.grant_file import Person as Actor
from gatebook.ledger import keys as ledger_keys
from gatebook.ledger.note import Signer
from gatebook.recorder.submit import submit
from gatebook.recorder.vault import Vault
from gatebook.sealed import seal

ALICE = "alice@example.com"
DAY_S = 86_400.0


class People(Deployment):
    def forget(self, *arguments: str) -> Ran:
        return self._run("forget", *arguments, "-c", str(self.config))

    def subject(self, *arguments: str) -> Ran:
        return self._run("subject", *arguments, "-c", str(self.config))

    def unseal(self, *arguments: str) -> Ran:
        return self._run("unseal", *arguments, "-c", str(self.config))

    def verify(self, *arguments: str) -> Ran:
        return self._run("verify", *arguments, "-c", str(self.config))

    def allow(self, *names: str) -> None:
        said = json.loads(self.config.read_text())
        self.config.write_text(json.dumps(said | {"audit": {"unseal": names}}))

    def actions(self) -> list[tuple[str, dict[str, Any]]]:
        return [(each["action"], each["detail"]) for each in self.records()]

    def access(self, number: int, subject: str = ALICE, provider: str = "staff") -> record.Decision:
        """One access on record, its caller and address sealed under the caller's row; the decision."""
        vault = Vault(self.paths.vault, self.keys.names)
        known = vault.known(f"subject:{provider}:{subject}")
        vault.sync()
        vault.close()
        made = record.Decision(
            id=f"{number:032x}",
            time_us=1_700_000_000_000_000 + number,
            identity=record.IdentityPart(provider=provider, method="oidc", subject=known.pseudonym.hex()),
            request=record.RequestPart(method="GET", path=f"/orders/{number}", route="orders"),
            client=record.ClientPart(address="192.0.2.0/24"),
            decision=record.DecisionPart(
                verdict="allow", status=200, reason="rule", configuration="", durability="before-access"
            ),
            sealed=seal(
                {"subject": subject, "address": "192.0.2.7"}, known.pseudonym.hex(), known.key, f"{number:032x}"
            ),
        )
        index = submit(load(self.config), [made])
        outcome = record.Outcome(
            id=made.id, time_us=made.time_us, decision_index=index, response=record.ResponsePart(status=200)
        )
        submit(load(self.config), [outcome])
        return made


@pytest.fixture
def acme(tmp_path: Path, run: Run) -> People:
    return People(tmp_path, run)


def is_somebody_else(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(unsealing, "whoever", lambda: Actor("os:4711", name))


# -- forget ---------------------------------------------------------------------------------------------------
def test_receipt_is_proven_by_the_logs_public_key_alone(acme: People, tmp_path: Path) -> None:
    acme.access(1)
    pseudonym = acme.pseudonym(ALICE)
    ran = acme.forget(ALICE, "--identity", "staff", "--reason", "request 17", "-o", str(tmp_path / "r.json"))
    assert ran.code == 0, ran.err
    assert pseudonym in ran.out
    assert "alice" not in ran.out + ran.err + (tmp_path / "r.json").read_text()
    told = acme.verify(str(tmp_path / "r.json"), "--key", str(acme.paths.keys / "log.pub"), "--json").json()
    assert told["verified"]
    assert [each["pseudonym"] for each in told["erased"]] == [pseudonym]
    again = acme.subject("receipt", pseudonym, "-o", str(tmp_path / "again.json"))
    assert again.code == 0, again.err
    old, new = (json.loads((tmp_path / name).read_text()) for name in ("r.json", "again.json"))
    assert [(each["index"], each["entry"]) for each in old["erased"]] == [
        (each["index"], each["entry"]) for each in new["erased"]
    ]


@pytest.mark.parametrize(
    ("forge", "code"),
    [
        (lambda r: r["erased"][0].update(pseudonym="ab" * 16), 12),  # another person's receipt
        (lambda r: r["erased"][0].update(index=r["erased"][0]["index"] - 1), 12),
        (lambda r: r["erased"][0].update(entry=r["erased"][0]["entry"][:-2] + "00"), 12),
        (lambda r: r["erased"][0].update(proof=r["erased"][0]["proof"].replace("acme/", "acne/")), 12),
        (lambda r: r.update(origin="acne/node-1"), 12),
        (lambda r: r.update(erased=[]), 11),
        (lambda r: r.update(more=1), 11),
        (lambda r: r["erased"][0].update(proof="nothing"), 11),
    ],
)
def test_forged_receipt_is_refused(acme: People, tmp_path: Path, forge: Any, code: int) -> None:
    acme.access(1)
    acme.forget(ALICE, "--identity", "staff", "--reason", "request 17", "-o", str(tmp_path / "r.json"))
    told = json.loads((tmp_path / "r.json").read_text())
    forge(told)
    forged = tmp_path / "forged.json"
    forged.write_bytes(msgspec.json.encode(told))
    assert acme.verify(str(forged), "--key", str(acme.paths.keys / "log.pub")).code == code


def test_receipt_by_another_logs_key_is_refused(acme: People, tmp_path: Path) -> None:
    acme.access(1)
    acme.forget(ALICE, "--identity", "staff", "--reason", "request 17", "-o", str(tmp_path / "r.json"))
    name = ledger_keys.load_verifier(acme.paths.keys).name
    other = Signer.generate(name, bytes(range(32))).vkey
    assert acme.verify(str(tmp_path / "r.json"), "--key", other).code in (11, 12)


def test_reason_that_names_the_person_is_refused_before_it_is_written(acme: People) -> None:
    acme.access(1)
    ran = acme.forget(ALICE, "--identity", "staff", "--reason", f"{ALICE.upper()} wants it")
    assert ran.code == 2
    assert "names the person" in ran.err
    assert acme.actions() == []
    assert acme.pseudonym(ALICE)


def test_held_person_is_not_forgotten(acme: People) -> None:
    acme.access(1)
    held = acme._run(
        "hold", "add", "--subject", ALICE, "--identity", "staff", "--reason", "case 24-117", "-c", str(acme.config)
    )
    assert held.code == 0, held.err
    before = acme.pseudonym(ALICE)
    ran = acme.forget(ALICE, "--identity", "staff", "--reason", "request 17")
    assert ran.code == 3
    assert "case 24-117" in ran.err
    assert acme.pseudonym(ALICE) == before


def test_nobody_to_forget_is_said(acme: People) -> None:
    acme.access(1)
    ran = acme.forget("bob", "--identity", "staff", "--reason", "request 17")
    assert ran.code == 3
    assert "no row of that person" in ran.err
    assert acme.actions() == []


def test_erasure_that_a_reader_of_the_vault_holds_up_is_not_said_to_be_done(acme: People) -> None:
    acme.access(1)
    other = sqlite3.connect(acme.paths.vault, isolation_level=None)
    other.execute("BEGIN")
    other.execute("SELECT * FROM person").fetchone()
    ran = acme.forget(ALICE, "--identity", "staff", "--reason", "request 17")
    other.close()
    assert ran.code == 3
    assert "begun, and goes on by itself: somebody reads the vault" in ran.err
    assert "forgotten" not in ran.out


def test_revocation_outlives_its_subject_and_leads_to_no_record(acme: People) -> None:
    """Its id stands in the log beside the pseudonym: with the file's keyed name it would tell whose that was."""
    pseudonym = acme.pseudonym(ALICE)
    made = acme.revoke("--subject", ALICE, "--identity", "staff")
    ran = acme.forget(ALICE, "--identity", "staff", "--reason", "request 17")
    assert ran.code == 0, ran.err
    (kept,) = acme.entries()
    assert (kept.what, kept.key, kept.provider, kept.before, kept.until) == (
        made.what, made.key, made.provider, made.before, made.until
    )  # fmt: skip
    assert kept.id != made.id
    assert kept.shown == kept.reason == revocation_file.FORGOTTEN
    assert pseudonym not in acme.paths.revocations.read_text()
    assert kept.id in ran.err
    assert acme.run("undo", kept.id).code == 0


def test_grants_that_are_over_go_and_one_in_force_is_told(acme: People) -> None:
    """Records name a grant by its id, and the file the person by a keyed name: together they tell who it was."""
    pseudonym = acme.pseudonym(ALICE)
    key = acme.keys.name("subject", "staff", ALICE)
    for number, (decided, completed) in enumerate([(True, True), (True, False), (False, False)]):
        made = grant_file.request(
            acme.paths.grants,
            Grantable.model_validate({"role": "admin", "max": "1h", "approve": ["boss"]}),
            role="admin",
            provider="staff",
            key=key,
            shown=pseudonym,
            seconds=3600,
            reason="incident",
            by=Actor("os:1", "ann"),
            now=time.time() - (0 if decided else 2 * DAY_S),
            random=lambda n, number=number: bytes([number]) * n,  # type: ignore[misc]
            announce=lambda _: None,
        )
        if decided:
            grant_file.decide(
                acme.paths.grants,
                made.id,
                "approved",
                terms=lambda _: Grantable.model_validate({"role": "admin", "max": "1h", "approve": ["boss"]}),
                by=Actor("os:2", "boss"),
                now=time.time(),
                announce=lambda _: None,
            )
        if completed:
            grant_file.complete(acme.paths.grants, made.id, lambda _: None)
    ran = acme.forget(ALICE, "--identity", "staff", "--reason", "request 17")
    assert ran.code == 0, ran.err
    (left,) = grant_file.read(acme.paths.grants)
    assert left.state(time.time()) == "in force"
    assert f"gatebook grant revoke {left.id}" in ran.err
    assert "2 grants that were over are gone" in ran.err


def test_keys_that_name_the_person_are_told_and_left_to_whoever_ends_them(acme: People) -> None:
    acme.access(1, "bob", "partners")
    made = acme._run(
        "key",
        "create",
        "--identity",
        "partners",
        "--subject",
        "bob",
        "--roles",
        "reader",
        "--ttl",
        "1d",
        "-c",
        str(acme.config),
    )
    assert made.code == 0, made.err
    ran = acme.forget("bob", "--identity", "partners", "--reason", "request 17")
    assert ran.code == 0, ran.err
    (key,) = api_key_file.read(acme.paths.api_keys)
    assert f"gatebook key revoke {key.id}" in ran.err
    assert key.subject == "bob"
    assert acme._run("key", "revoke", key.id, "-c", str(acme.config)).code == 0
    again = acme.forget("bob", "--identity", "partners", "--reason", "request 17")
    assert again.code == 0, again.err  # the vault knows nobody of that name any more, but that file did
    assert "nothing was erased" not in again.err
    action, detail = acme.actions()[-1]
    assert (action, detail) == ("erase.names", {"keys": [key.id], "count": 1, "reason": "request 17"})
    (key,) = api_key_file.read(acme.paths.api_keys)
    assert (key.subject, key.state(time.time())) == (key.id, "revoked")
    assert "bob" not in acme.paths.api_keys.read_text()
    assert "bob" not in json.dumps(acme.records())
    assert acme.forget("bob", "--identity", "partners", "--reason", "request 17").code == 3  # nothing is left


def test_name_that_cannot_be_put_on_record_stays(acme: People, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file would have changed with nobody knowing who did it."""
    made = acme._run(
        *("key", "create", "--identity", "partners", "--subject", "bob", "--roles", "reader", "--ttl", "1d"),
        *("-c", str(acme.config)),
    )
    assert made.code == 0, made.err
    (key,) = api_key_file.read(acme.paths.api_keys)
    assert acme._run("key", "revoke", key.id, "-c", str(acme.config)).code == 0

    def fails(*_: object) -> int:
        raise EnvironmentFault("no recorder")

    monkeypatch.setattr(forgetting, "submit", fails)
    assert acme.forget("bob", "--identity", "partners", "--reason", "request 17").code == 3
    assert "bob" in acme.paths.api_keys.read_text()


def test_address_of_nobody_is_forgotten(acme: People) -> None:
    acme.access(1)
    vault = Vault(acme.paths.vault, acme.keys.names)
    old = vault.pseudonym("address:2001:db8::1")
    vault.sync()
    vault.close()
    ran = acme.forget("2001:0db8::1", "--address", "--reason", "request 18")
    assert ran.code == 0, ran.err
    assert old.hex() in ran.out
    ((_, detail),) = acme.actions()
    assert detail["of"] == "an address"
    assert acme.forget("nowhere", "--address", "--reason", "request 18").code == 2
    assert acme.forget("2001:0db8::1", "--address", "--reason", "request 18").code == 3


# -- unseal ---------------------------------------------------------------------------------------------------
def test_unsealing_is_on_record_before_it_is_shown(acme: People, monkeypatch: pytest.MonkeyPatch) -> None:
    made = acme.access(1)
    acme.allow("auditor")
    is_somebody_else(monkeypatch, "auditor")
    ran = acme.unseal(made.id[:31] + "1", "--reason", "incident 4711")
    assert ran.code == 0, ran.err
    assert ALICE in ran.out
    assert "192.0.2.7" in ran.out
    ((action, detail),) = acme.actions()
    assert (action, detail["request"], detail["reason"]) == ("person.unseal", made.id, "incident 4711")
    assert acme.records()[0]["actor"] == "os:4711"
    assert "alice" not in json.dumps(acme.records())


@pytest.mark.parametrize("name", ["somebody", "", "Auditor", "auditor "])
def test_unsealing_by_whom_the_configuration_does_not_name_is_refused_and_on_record(
    acme: People, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    made = acme.access(1)
    acme.allow("auditor")
    is_somebody_else(monkeypatch, name)
    ran = acme.unseal(made.id, "--reason", "curious")
    assert ran.code == 3
    assert ALICE not in ran.out + ran.err
    assert [(action, detail["request"]) for action, detail in acme.actions()] == [
        ("person.unseal.refused", made.id)
    ]


def test_nobody_may_unseal_by_default(acme: People) -> None:
    made = acme.access(1)
    assert acme.unseal(made.id, "--reason", "curious").code == 3
    assert [action for action, _ in acme.actions()] == ["person.unseal.refused"]


@pytest.mark.parametrize("reason", ["", " ", "x" * 301])
def test_unsealing_wants_a_reason(acme: People, reason: str) -> None:
    made = acme.access(1)
    assert acme.unseal(made.id, "--reason", reason).code == 2
    assert acme.actions() == []


def test_sealed_value_that_was_forged_into_a_record_shows_nothing(
    acme: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever can write records could show Bob's name as Alice's, if a box opened wherever it is put."""
    bob, alice = acme.access(1, "bob"), acme.access(2)
    assert bob.sealed is not None
    for number, part in ((3, bob.sealed), (4, msgspec.structs.replace(bob.sealed, under=alice.sealed.under))):  # type: ignore[union-attr]
        submit(load(acme.config), [msgspec.structs.replace(alice, v=None, id=f"{number:032x}", sealed=part)])
    acme.allow("auditor")
    is_somebody_else(monkeypatch, "auditor")
    for number in (3, 4):
        ran = acme.unseal(f"{number:032x}", "--reason", "incident 4711")
        assert ran.code == 12, ran.err
        assert "bob" not in ran.out + ran.err


def test_who_was_forgotten_cannot_be_unsealed_even_with_the_right_guess(
    acme: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = acme.access(1)
    acme.allow("auditor")
    is_somebody_else(monkeypatch, "auditor")
    assert acme.forget(ALICE, "--identity", "staff", "--reason", "request 17").code == 0
    acme.access(2)  # they come back, under another row
    ran = acme.unseal(made.id, "--reason", "incident 4711")
    assert ran.code == 1
    assert "was forgotten" in ran.err
    assert acme.actions()[-1][0] == "person.unseal.failed"  # nobody saw anything
    assert acme.unseal(f"{2:032x}", "--reason", "incident 4711").code == 0
    assert acme.actions()[-1][0] == "person.unseal"


def test_vault_restored_from_yesterday_opens_again_what_was_erased_and_the_log_shows_it(
    acme: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing here can stop it; the ERASE entry stays, so whoever unseals stands against the log's own word."""
    made = acme.access(1)
    yesterday = acme.paths.vault.read_bytes()
    pseudonym = acme.pseudonym(ALICE)
    assert acme.forget(ALICE, "--identity", "staff", "--reason", "request 17").code == 0
    acme.paths.vault.write_bytes(yesterday)
    acme.allow("auditor")
    is_somebody_else(monkeypatch, "auditor")
    ran = acme.unseal(made.id, "--reason", "incident 4711")
    assert ran.code == 13
    assert "restored" in ran.err
    assert ALICE not in ran.out
    assert acme.subject("receipt", pseudonym).code == 0
    ran = acme.verify()
    assert ran.code == 13
    assert pseudonym in ran.out + ran.err


# -- report ---------------------------------------------------------------------------------------------------
def test_report_holds_all_of_a_person_and_nothing_of_anybody_else(acme: People, tmp_path: Path) -> None:
    for number, subject in enumerate([ALICE, "bob", ALICE, "bob", ALICE], 1):
        acme.access(number, subject)
    acme.revoke("--subject", ALICE, "--identity", "staff", "--issued-before", "now")
    told = acme.subject("report", ALICE, "--identity", "staff", "--json").json()
    assert [each["request"]["path"] for each in told["accesses"]] == ["/orders/1", "/orders/3", "/orders/5"]
    assert all(each["response"]["status"] == 200 for each in told["accesses"])
    assert told["counts"]["accesses"] == told["counts"]["allowed"] == told["counts"]["sealed"] == 3
    assert told["counts"]["records_looked_at"] == 12  # with the revocation's and the report's own
    assert told["counts"]["by_route"] == {"orders": 3}
    assert [each["action"] for each in told["other_records"]] == ["revoke", "subject.report"]
    assert [each["store"] for each in told["elsewhere"]] == ["revocations.json"]
    assert acme.pseudonym("bob") not in json.dumps(told)
    assert "unsealed" not in json.dumps(told["accesses"])


def test_report_is_on_record_without_the_name(acme: People) -> None:
    acme.access(1)
    assert acme.subject("report", ALICE, "--identity", "staff", "--reason", "request 16").code == 0
    ((action, detail),) = acme.actions()
    assert (action, detail["pseudonym"], detail["reason"]) == (
        "subject.report",
        acme.pseudonym(ALICE),
        "request 16",
    )
    assert "alice" not in json.dumps(acme.records())


def test_name_that_is_part_of_anothers_brings_nothing_of_theirs(acme: People) -> None:
    """A report goes to the person: who is called `al` is not to be told what was done about `alice`."""
    for subject in (ALICE, "al", "example"):
        acme.access(len(subject), subject)
    for words in (
        f"{ALICE} asked",
        "al asked, so did others",
        "about al.",
        "about (al)",
        "for al-bert and al@b.example",
    ):
        act = record.Admin(time_us=1, action="hold.add", actor="os:0", detail={"reason": words})
        submit(load(acme.config), [act])

    def told(name: str) -> list[str]:
        found = acme.subject("report", name, "--identity", "staff", "--json").json()
        assert len(found["accesses"]) == 1
        return [each["detail"]["reason"] for each in found["other_records"] if each["action"] == "hold.add"]

    assert told("al") == ["al asked, so did others", "about al.", "about (al)"]
    assert told("example") == []
    assert told(ALICE) == [f"{ALICE} asked"]


def test_report_finds_all_periods_and_those_who_were_named_in_clear(acme: People) -> None:
    made = acme.access(1)
    vault = Vault(acme.paths.vault, acme.keys.names, period_s=90 * DAY_S, now_s=lambda: 100 * DAY_S)
    older = vault.pseudonym(f"subject:staff:{ALICE}").hex()
    vault.sync()
    vault.close()
    for number, (provider, subject) in enumerate([("staff", older), ("staff", ALICE), ("partners", ALICE)], 2):
        part = record.IdentityPart(provider=provider, method="oidc", subject=subject)
        decision = msgspec.structs.replace(made, v=None, id=f"{number:032x}", identity=part, sealed=None)
        submit(load(acme.config), [decision])
    told = acme.subject("report", ALICE, "--identity", "staff", "--json").json()
    assert [each["id"][-1] for each in told["accesses"]] == ["1", "2", "3"]
    assert told["pseudonyms"] == sorted([older, acme.pseudonym(ALICE)])


def test_unsealed_values_are_only_for_who_may(acme: People, monkeypatch: pytest.MonkeyPatch) -> None:
    acme.access(1)
    refused = acme.subject("report", ALICE, "--identity", "staff", "--json", "--unseal")
    assert refused.code == 3
    assert "192.0.2.7" not in refused.out
    assert [action for action, _ in acme.actions()] == ["person.unseal.refused"]
    acme.allow("auditor")
    is_somebody_else(monkeypatch, "auditor")
    told = acme.subject("report", ALICE, "--identity", "staff", "--json", "--unseal").json()
    assert [each["unsealed"] for each in told["accesses"]] == [{"subject": ALICE, "address": "192.0.2.7"}]
    assert [action for action, _ in acme.actions()] == ["person.unseal.refused", "person.unseal", "subject.report"]


@pytest.mark.parametrize("suffix", [".json", ".html", ".md"])
def test_report_is_a_file_for_its_owner_alone(acme: People, tmp_path: Path, suffix: str) -> None:
    acme.access(1)
    out = tmp_path / f"report{suffix}"
    assert acme.subject("report", ALICE, "--identity", "staff", "-o", str(out)).code == 0
    assert out.stat().st_mode & 0o777 == 0o600
    assert "/orders/1" in out.read_text()
    assert acme.subject("report", ALICE, "--identity", "staff", "-o", str(out)).code == 3


HOSTILE = '/x"><script>alert(1)</script>|a|![i](http://e.example/)<!-- `'


def test_path_that_is_a_script_is_text_in_a_report(acme: People, tmp_path: Path) -> None:
    made = acme.access(1)
    part = record.RequestPart(method="GET", path=HOSTILE, route="orders")
    submit(load(acme.config), [msgspec.structs.replace(made, v=None, id=f"{2:032x}", request=part)])
    for suffix in (".html", ".md"):
        out = tmp_path / f"report{suffix}"
        assert acme.subject("report", ALICE, "--identity", "staff", "-o", str(out)).code == 0
        assert "<script>" not in out.read_text().replace("\\<", "")
    (row,) = [line for line in (tmp_path / "report.md").read_text().splitlines() if "alert" in line]
    assert row.replace("\\|", "").count("|") == len(person_page.HEADINGS) + 1
    assert "![" not in row
    assert os.linesep not in row
