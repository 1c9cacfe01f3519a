"""`gatebook revoke …`: what comes into effect, what is on record first, and what is never shown."""

from __future__ import annotations

import io
import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from tests.cli.conftest import Ran, Run
from tests.identity.mint import ISSUER, claims, ec_key, mint

from gatebook import starter
from gatebook.identity import revocation_file
from gatebook.identity.keyed import Keys, read_keys, signed_sha256
from gatebook.identity.revocation import Revocation
from gatebook.identity.types import Credential
from gatebook.paths import Paths
from gatebook.recorder.vault import Vault


class Deployment:
    def __init__(self, folder: Path, run: Run) -> None:
        import datetime

        starter.initialise(folder, "acme", datetime.datetime.now(datetime.UTC))
        self.config = folder / "gatebook.yaml"
        self.configuration: dict[str, Any] = {
            "version": 1,
            "name": "acme",
            "state_dir": str(folder / "state"),
            "listen": [{"address": "127.0.0.1:8443"}],
            "identity": {
                "staff": {"type": "oidc", "issuer": ISSUER, "audience": ["orders-api"]},
                "partners": {"type": "api_key"},
            },
            "upstreams": {"orders": {"url": "http://127.0.0.1:9001"}},
            "routes": [
                {"name": "r", "path": "/r", "methods": ["GET"], "upstream": "orders", "identity": "none"},
            ],
        }
        self.write()
        self.paths = Paths(folder / "state")
        self._run = run

    def write(self) -> None:
        self.config.write_text(json.dumps(self.configuration))

    @property
    def keys(self) -> Keys:
        return read_keys(self.paths)

    def run(self, *arguments: str) -> Ran:
        ran = self._run("revoke", *arguments, "-c", str(self.config))
        assert isinstance(ran, Ran)
        return ran

    def revoke(self, *arguments: str) -> Revocation:
        """By the command; the newest in the file, which the record must tell the same of."""
        ran = self.run(*arguments, "--reason", "stolen")
        assert ran.code == 0, ran.err
        made = self.entries()[-1]
        assert ran.out.startswith(made.id)
        (said,) = [each for each in self.records() if each["detail"]["id"] == made.id]
        assert said["action"] == "revoke"
        assert said["actor"].startswith("os:")
        assert said["detail"] == made.detail()
        return made

    def entries(self) -> tuple[Revocation, ...]:
        return revocation_file.read(self.paths.revocations)

    def records(self) -> list[dict[str, Any]]:
        ran = self._run("log", "--all", "--json", "-c", str(self.config))
        if "nothing has been logged yet" in ran.out:
            return []
        assert ran.code == 0, ran.err
        return [each for line in ran.out.splitlines() if (each := json.loads(line)).get("kind") == "admin"]

    def pseudonym(self, subject: str, provider: str = "staff") -> str:
        vault = Vault(self.paths.vault, self.keys.names)
        made = vault.pseudonym(f"subject:{provider}:{subject}")
        vault.sync()
        vault.close()
        return made.hex()


@pytest.fixture
def acme(tmp_path: Path, run: Run) -> Deployment:
    return Deployment(tmp_path, run)


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> Any:
    return lambda text: monkeypatch.setattr(sys, "stdin", io.StringIO(text))


# -- what is named ----------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("option", "what"), [("--token-id", "token"), ("--session", "session"), ("--client", "client")]
)
def test_name_is_kept_as_a_keyed_hash_of_its_provider(acme: Deployment, option: str, what: str) -> None:
    made = acme.revoke(option, "one", "--identity", "staff")
    assert (made.what, made.provider, made.key) == (what, "staff", acme.keys.name(what, "staff", "one"))
    assert (made.shown, made.before, made.until) == ("one", None, None)


def test_subject_is_on_record_as_its_pseudonym_alone(acme: Deployment) -> None:
    pseudonym = acme.pseudonym("alice@example.com")
    made = acme.revoke("--subject", "alice@example.com", "--identity", "staff")
    assert (made.key, made.shown) == (acme.keys.name("subject", "staff", "alice@example.com"), pseudonym)
    assert "alice" not in json.dumps(acme.records())
    assert "alice" not in acme.paths.revocations.read_text()
    assert "alice" not in acme.run("list").out


@pytest.mark.parametrize("length", [8, 31, 32])
def test_what_the_log_shows_of_a_caller_is_enough(acme: Deployment, length: int) -> None:
    acme.pseudonym("bob")
    pseudonym = acme.pseudonym("alice")
    made = acme.revoke("--subject", pseudonym[:length])
    assert (made.key, made.shown) == (acme.keys.name("subject", "staff", "alice"), pseudonym)


def test_older_pseudonym_is_still_the_person(acme: Deployment) -> None:
    """With `audit.pseudonym_period` the log shows another one for what they did last quarter."""
    older = acme.pseudonym("alice")
    vault = Vault(acme.paths.vault, acme.keys.names, period_s=90 * 86_400.0)
    newer = vault.pseudonym("subject:staff:alice").hex()
    vault.sync()
    vault.close()
    key = acme.keys.name("subject", "staff", "alice")
    for pseudonym in (older, newer, older[:8]):
        ran = acme.run("--subject", pseudonym, "--reason", "stolen", "--until", "1h")
        assert ran.code == 0, ran.err
        assert {entry.key for entry in acme.entries()} == {key}
    ran = acme.run("--subject", "alice", "--identity", "staff", "--reason", "stolen")
    assert ran.code == 0, ran.err
    assert "nobody of that name" not in ran.err
    assert (acme.entries()[-1].key, acme.entries()[-1].shown) == (key, newer)


def test_beginning_of_two_pseudonyms_is_none(acme: Deployment) -> None:
    vault = Vault(acme.paths.vault, acme.keys.names, random=lambda n: bytes.fromhex("0123456789") + bytes(11))
    vault.pseudonym("subject:staff:alice")
    vault.pseudonym("subject:staff:bob")
    vault.sync()
    vault.close()
    ran = acme.run("--subject", "01234567", "--reason", "r")
    assert (ran.code, acme.entries()) == (1, ())
    assert "2 pseudonyms begin with 01234567" in ran.err


def test_subject_that_nobody_has_is_revoked_with_a_warning(acme: Deployment) -> None:
    ran = acme.run("--subject", "alcie", "--identity", "staff", "--reason", "r")
    assert "nobody of that name is in the log" in ran.err
    assert acme.entries()[0].key == acme.keys.name("subject", "staff", "alcie")
    ran = acme.run("--subject", "0" * 32, "--identity", "staff", "--reason", "r")
    assert "no pseudonym in the log is that" in ran.err
    assert acme.entries()[1].key == acme.keys.name("subject", "staff", "0" * 32)


def test_subject_is_shown_where_policy_keeps_it(acme: Deployment) -> None:
    acme.configuration["audit"] = {"subject": "keep"}
    acme.write()
    assert acme.revoke("--subject", "alice", "--identity", "staff").shown == "alice"
    # Its look is no pseudonym's here.
    assert acme.revoke("--subject", "0123abcd", "--identity", "staff").shown == "0123abcd"


def test_credential_is_known_by_its_fingerprint_and_neither_kept_nor_shown(acme: Deployment, typed: Any) -> None:
    token = mint(claims(exp=int(time.time()) + 300), {"alg": "ES256"}, ec_key("first").sign).decode()
    fingerprint = acme.keys.fingerprint(signed_sha256(Credential("bearer", token.encode())))
    made = acme.revoke("--credential", token)
    assert (made.what, made.key, made.shown, made.provider) == ("credential", fingerprint, fingerprint, None)
    assert made.until is not None
    assert acme.run("--credential", fingerprint, "--reason", "r", "--until", "1h").out.startswith(made.id)
    typed(f"Bearer {token}\n")
    assert acme.run("--credential", "-", "--reason", "r").out.startswith(made.id)
    typed("an-opaque-token-of-somebody")
    assert acme.revoke("--credential", "-").until is None
    everything = json.dumps(acme.records()) + acme.paths.revocations.read_text()
    assert token not in everything
    assert "opaque" not in everything


def test_issue_time_is_of_all_or_of_one_provider(acme: Deployment) -> None:
    before = time.time()
    everything = acme.revoke("--issued-before", "now")
    assert (everything.what, everything.provider, everything.key) == ("all", None, "")
    assert everything.before is not None
    assert int(before) <= everything.before <= time.time()
    staff = acme.revoke("--issued-before", "2026-11-24T17:20:00Z", "--identity", "staff", "--until", "2h")
    assert (staff.provider, staff.before) == ("staff", 1795540800)
    assert staff.until is not None
    assert 7190 < staff.until - time.time() <= 7200
    narrowed = acme.revoke("--client", "web", "--identity", "staff", "--issued-before", "10m")
    assert narrowed.before is not None


# -- what is refused --------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "--reason"),
        (("--reason", "r"), "nothing to revoke"),
        (("--token-id", "a"), "--reason"),
        (("--token-id", "a", "--reason", "r"), "--identity"),
        (("--token-id", "a", "--client", "b", "--identity", "staff", "--reason", "r"), "at a time"),
        (("--token-id", "a", "--credential", "0" * 32, "--identity", "staff", "--reason", "r"), "at a time"),
        (("--issued-before", "noon", "--reason", "r"), "--issued-before"),
        (("--issued-before", "now", "--until", "soon", "--reason", "r"), "--until"),
        (("--issued-before", "now", "--until", "2020-01-01", "--reason", "r"), "is over"),
        (("--identity", "staf", "--issued-before", "now", "--reason", "r"), "no provider is called staf"),
        (("--issued-before", "now", "list"), "do not go with"),
    ],
)
def test_half_a_wish_revokes_nothing(acme: Deployment, arguments: tuple[str, ...], said: str) -> None:
    ran = acme._run("revoke", "-c", str(acme.config), *arguments)
    assert ran.code == 2
    assert said in ran.err
    assert acme.entries() == ()
    assert acme.records() == []


@pytest.mark.parametrize("reason", ["", "two\nlines", "r" * 301])
def test_reason_has_to_be_one_line(acme: Deployment, reason: str) -> None:
    ran = acme.run("--issued-before", "now", "--reason", reason)
    if reason == "two\nlines":  # spelt out, as everywhere
        assert acme.entries()[0].reason == "two\\x0alines"
    else:
        assert (ran.code, acme.entries()) == (1, ())
        assert "nothing was revoked" in ran.err


def test_secret_in_a_reason_is_masked(acme: Deployment) -> None:
    acme.run("--issued-before", "now", "--reason", "leaked: Bearer abcdefghijklmnop")
    assert acme.entries()[0].reason == "leaked: Bearer [masked]"


def test_slip_of_the_hand_is_not_repeated(acme: Deployment) -> None:
    ran = acme.run("--credential", "gbk_abcdefgh_secretsecret", "--reason", "r")
    assert (ran.code, acme.entries()) == (1, ())
    assert "secretsecret" not in ran.err


# -- list and undo ----------------------------------------------------------------------------------------
def test_list_says_what_holds_and_what_is_over(acme: Deployment) -> None:
    assert acme.run("list").err == "Nothing is revoked.\n"
    made = acme.revoke("--client", "web", "--identity", "staff")
    over, _ = revocation_file.add(
        acme.paths.revocations, "all", "", provider=None, before=1, until=time.time() - 5, shown="everything",
        reason="r", actor="os:1", now=time.time(), random=lambda n: bytes(n), announce=lambda entry: None,
    )  # fmt: skip
    found = json.loads(acme.run("list", "--json").out)["revocations"]
    assert [(each["id"], each["state"]) for each in found] == [(made.id, "in force"), (over.id, "over")]
    assert found[0]["of"] == "web"
    assert "key" not in found[0]
    table = acme.run("list").out
    assert made.id in table
    assert "stolen" in table


def test_undone_revocation_is_on_record_first(acme: Deployment) -> None:
    made = acme.revoke("--client", "web", "--identity", "staff")
    ran = acme.run("undo", made.id)
    assert ran.out == f"{made.id} is taken back: client web of staff is accepted again within a second\n"
    assert acme.entries() == ()
    assert [each["action"] for each in acme.records()] == ["revoke", "revoke.undo"]
    assert acme.run("undo", made.id).code == 1


def test_same_again_changes_nothing(acme: Deployment) -> None:
    made = acme.revoke("--client", "web", "--identity", "staff")
    ran = acme.run("--client", "web", "--identity", "staff", "--reason", "again", "--json")
    assert (ran.json()["id"], ran.json()["changed"]) == (made.id, False)
    assert len(acme.records()) == 1


def test_only_provider_needs_no_name(acme: Deployment) -> None:
    del acme.configuration["identity"]["partners"]
    acme.write()
    assert acme.revoke("--client", "web").provider == "staff"
