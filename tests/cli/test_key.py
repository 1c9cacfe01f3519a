"""`gatebook key …`: rotation and last use, on record and on the terminal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.cli.conftest import Run
from tests.cli.test_revoke import Deployment

from gatebook.identity import api_key_file
from gatebook.identity.last_use import LastUse


@pytest.fixture
def acme(tmp_path: Path, run: Run) -> Deployment:
    return Deployment(tmp_path, run)


def key(acme: Deployment, *arguments: str) -> dict[str, Any]:
    ran = acme._run("key", *arguments, "--json", "-c", str(acme.config))
    assert ran.code == 0, ran.err + ran.out
    found: dict[str, Any] = ran.json()
    return found


def make(acme: Deployment) -> dict[str, Any]:
    return key(acme, "create", "--identity", "partners", "--roles", "reader", "--ttl", "90d")


def test_rotation_is_one_record_without_a_secret(acme: Deployment) -> None:
    old = make(acme)
    new = key(acme, "rotate", old["id"], "--overlap", "1h", "--ttl", "30d")
    assert new["key"] != old["key"]
    assert (new["subject"], new["roles"], new["old"]["id"]) == (old["subject"], ["reader"], old["id"])
    said = acme.records()[-1]
    assert said["action"] == "key.rotate"
    kept_old, kept_new = api_key_file.read(acme.paths.api_keys)
    assert said["detail"]["id"] == old["id"]
    assert said["detail"]["expires_us"] == kept_old.expires * 1_000_000
    assert said["detail"]["new"]["id"] == kept_new.id
    assert new["key"].split("_")[2] not in json.dumps(acme.records())
    ran = acme._run("key", "rotate", new["id"], "--overlap", "1h", "-c", str(acme.config))
    assert ran.out.startswith("gbk_")
    assert f"The old one, {new['id']}, works until" in ran.err


@pytest.mark.parametrize(
    "arguments", [("--overlap", "soon"), ("--overlap", "0s"), ("--overlap", "1h", "--ttl", "x")]
)
def test_rotation_without_a_duration_changes_nothing(acme: Deployment, arguments: tuple[str, ...]) -> None:
    old = make(acme)
    before = acme.paths.api_keys.read_bytes()
    assert acme._run("key", "rotate", old["id"], *arguments, "-c", str(acme.config)).code == 2
    assert acme.paths.api_keys.read_bytes() == before


def test_list_says_the_hour_of_the_last_use(acme: Deployment) -> None:
    used, unused = make(acme), make(acme)
    LastUse(acme.paths.last_use).note(used["id"], 1_800_001_234.0)
    found = {each["id"]: each["last_used"] for each in key(acme, "list")["keys"]}
    assert found == {used["id"]: "2027-01-15T08:00:00Z", unused["id"]: None}
    table = acme._run("key", "list", "-c", str(acme.config)).out
    assert "2027-01-15T08:00:00Z" in table
