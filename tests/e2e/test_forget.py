"""A person is forgotten in a running deployment: a second later no guard knows them by their old pseudonym."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from tests.e2e.deployment import Deployment, until
from tests.e2e.guards import ask_guard

from gatebook.cli.actor import whoever

ALLOWED = (204, "rule")


@pytest.fixture
def guarded(stopped: Deployment) -> Deployment:
    stopped.configuration["guard"] = {"acknowledgement_timeout": "5s", "processes": 2}
    stopped.configuration["audit"] = {"subject": "seal", "address": "seal", "unseal": [whoever().name]}
    stopped.write()
    stopped.start()
    return stopped


def known_as(deployment: Deployment, token: str) -> set[str]:
    """Under which pseudonyms both guards put this caller on record now, asked twice each."""
    before = len(deployment.log("--all"))
    for _ in range(2):
        for number in range(2):
            assert ask_guard(deployment.paths.guard_socket(number), "/orders/7", token) == ALLOWED
    made = deployment.log("--all")[before:]
    found = [each for each in made if each.get("decision")]
    assert len(found) == 4
    assert all(each["sealed"]["under"] == each["identity"]["subject"] for each in found)
    return {each["identity"]["subject"] for each in found}


def test_nobody_records_the_old_pseudonym_a_second_later(guarded: Deployment, tmp_path: Path) -> None:
    alice, bob = guarded.reader("alice"), guarded.reader("bob")
    for token in (alice, bob):
        until(
            lambda token=token: (
                [  # type: ignore[misc]
                    ask_guard(guarded.paths.guard_socket(number), "/orders/7", token) for number in range(2)
                ]
                == [ALLOWED] * 2
            ),
            "the provider's keys",
        )
    answer = guarded.ask("/orders/7", alice)
    (old,) = known_as(guarded, alice)
    (other,) = known_as(guarded, bob)
    opened = guarded.cli(
        "unseal", answer.headers["X-Request-ID"], "--reason", "a test", "--json", "-c", str(guarded.config)
    )
    assert json.loads(opened.stdout)["unsealed"]["subject"] == "alice"
    receipt = tmp_path / "receipt.json"
    guarded.cli(
        *("forget", "alice", "--identity", "staff", "--reason", "request 17", "-o", str(receipt)),
        *("-c", str(guarded.config)),
    )
    time.sleep(1)
    (new,) = known_as(guarded, alice)
    assert new != old
    assert known_as(guarded, bob) == {other}
    assert [each["pseudonym"] for each in json.loads(receipt.read_text())["erased"]] == [old]
    told = guarded.cli("verify", str(receipt), "--key", str(guarded.paths.keys / "log.pub"), "--json")
    assert json.loads(told.stdout)["verified"]
    guarded.verify()
