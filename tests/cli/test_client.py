"""`gatebook client …`: clients of the token service, on record and on the terminal."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from tests.cli.conftest import Run
from tests.cli.test_revoke import Deployment
from tests.identity.mint import ec_key
from tests.portal.test_assertion import pem

from gatebook.identity import client_file, revocation_file
from gatebook.identity.client import is_secret_of
from gatebook.identity.keyed import read_keys

OWN = ("--identity", "own", "--ttl", "90d")


@pytest.fixture
def acme(tmp_path: Path, run: Run) -> Deployment:
    made = Deployment(tmp_path, run)
    made.configuration["identity"]["own"] = {"type": "gatebook"}
    made.configuration["portal"] = {"url": "https://api.acme.example"}
    made.write()
    return made


def client(acme: Deployment, *arguments: str) -> dict[str, Any]:
    ran = acme._run("client", *arguments, "--json", "-c", str(acme.config))
    assert ran.code == 0, ran.err + ran.out
    found: dict[str, Any] = ran.json()
    return found


def test_secret_is_shown_once_in_a_form_that_a_shell_reads(acme: Deployment) -> None:
    ran = acme._run("client", "create", *OWN, "--roles", "reader", "-c", str(acme.config))
    assert re.fullmatch(r"client_id=[a-z2-7]{8}\nclient_secret=gbs_\w{59}\n", ran.out)
    assert "https://api.acme.example/.gatebook/token" in ran.err
    secret = ran.out.split("client_secret=")[1].strip()
    (kept,) = client_file.read(acme.paths.clients)
    assert is_secret_of(kept, secret.encode())
    said = acme.records()[-1]
    assert (said["action"], said["detail"]["id"], said["detail"]["roles"]) == (
        "client.create",
        kept.id,
        ["reader"],
    )
    for shown in (ran.err, json.dumps(acme.records()), json.dumps(client(acme, "list"))):
        assert secret not in shown
        assert str(kept.hash) not in shown


def test_client_with_a_key_has_no_secret(acme: Deployment, tmp_path: Path) -> None:
    path = tmp_path / "public.pem"
    path.write_bytes(pem(ec_key("c")))
    made = client(acme, "create", *OWN, "--key", str(path))
    assert "client_secret" not in made
    assert made["method"] == "private_key_jwt"
    assert acme._run("client", "create", *OWN, "--key", str(tmp_path / "no"), "-c", str(acme.config)).code == 3
    path.write_text("x")
    assert acme._run("client", "create", *OWN, "--key", str(path), "-c", str(acme.config)).code == 1
    assert len(client(acme, "list")["clients"]) == 1


def test_scopes_are_parted_by_commas_or_spaces(acme: Deployment) -> None:
    made = client(acme, "create", *OWN, "--scopes", "a.read, a.write b", "--subject", "shipping", "--refresh")
    assert (made["scopes"], made["subject"], made["refresh"]) == (["a.read", "a.write", "b"], "shipping", True)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("--identity", "partners", "--ttl", "1d"), 2, "issues no tokens"),
        (("--identity", "nobody", "--ttl", "1d"), 2, "no provider is called nobody"),
        (("--identity", "own", "--ttl", "soon"), 2, "expected a duration"),
        ((*OWN, "--roles", "a b"), 1, "not made"),
    ],
)
def test_client_that_cannot_be_is_not_made(
    acme: Deployment, arguments: tuple[str, ...], code: int, said: str
) -> None:
    ran = acme._run("client", "create", *arguments, "-c", str(acme.config))
    assert ran.code == code
    assert said in " ".join((ran.err + ran.out).split())
    assert client_file.read(acme.paths.clients) == ()


def test_revoking_ends_its_tokens_too_even_the_second_time(acme: Deployment) -> None:
    made = client(acme, "create", *OWN)
    gone = client(acme, "revoke", made["client_secret"])  # of a secret that leaked, its id is looked at
    assert (gone["state"], gone["changed"]) == ("revoked", True)
    (entry,) = revocation_file.read(acme.paths.revocations)
    assert entry.key == read_keys(acme.paths).name("client", "own", made["id"])
    assert [record["action"] for record in acme.records()][-2:] == ["client.revoke", "revoke"]
    assert client(acme, "revoke", made["id"])["changed"] is False
    assert len(revocation_file.read(acme.paths.revocations)) == 1


def test_list_without_clients_says_how_to_make_one(acme: Deployment) -> None:
    ran = acme._run("client", "list", "-c", str(acme.config))
    assert ran.out == ""
    assert "gatebook client create" in ran.err
    made = client(acme, "create", *OWN)
    assert made["id"] in acme._run("client", "list", "-c", str(acme.config)).out
