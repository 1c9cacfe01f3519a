"""A grant in a running deployment: in every guard within a second, named by what it allowed, completed once."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from tests.e2e.deployment import Deployment, until
from tests.e2e.guards import ask_guard

from gatebook import record
from gatebook.config.load import load
from gatebook.grants.closing import SETTLE_S
from gatebook.identity import grant_file
from gatebook.identity.grant import Grant
from gatebook.identity.grant_file import Person
from gatebook.recorder.submit import submit

SOMEBODY_ELSE = Person("os:4242", "ops")  # the tests have one OS user only
ALLOWED, DENIED = (204, "rule"), (403, "no_rule")


@pytest.fixture
def guarded(stopped: Deployment) -> Deployment:
    stopped.configuration["guard"] = {"acknowledgement_timeout": "1s", "processes": 2}
    stopped.configuration["grants"] = [{"role": "admin", "max": "2h", "approve": ["ops"]}]
    stopped.write()
    stopped.start()
    return stopped


def told(deployment: Deployment, token: str) -> list[tuple[int, str | None]]:
    """What each guard says."""
    return [ask_guard(deployment.paths.guard_socket(number), "/admin/x", token) for number in range(2)]


def grant(deployment: Deployment, *arguments: str) -> dict[str, Any]:
    done = deployment.cli("grant", *arguments, "--json", "-c", str(deployment.config))
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def approve(deployment: Deployment, grant_id: str) -> None:
    configuration = load(deployment.config)

    def announce(made: Grant) -> None:
        admin = record.Admin(time_us=time.time_ns() // 1000, action="grant.approve", actor=SOMEBODY_ELSE.actor)
        submit(configuration, [admin])
        assert made.decision == "approved"

    terms = {each.role: each for each in configuration.grants}.get
    grant_file.decide(
        deployment.paths.grants,
        grant_id,
        "approved",
        terms=terms,
        by=SOMEBODY_ELSE,
        now=time.time(),
        announce=announce,
    )
    time.sleep(1)


def test_revoked_grant_is_gone_from_every_guard_within_a_second(guarded: Deployment) -> None:
    alice, bob = guarded.reader("alice"), guarded.reader("bob")
    until(lambda: told(guarded, alice) == told(guarded, bob) == [DENIED] * 2, "the provider's keys")
    asked = ("--role", "admin", "--for", "1h", "--reason", "incident", "--identity", "staff", "--subject", "alice")
    made = grant(guarded, "request", *asked)
    time.sleep(1)
    assert told(guarded, alice) == [DENIED] * 2
    approve(guarded, made["id"])
    assert told(guarded, alice) == [ALLOWED] * 2  # both knew the token already
    assert told(guarded, bob) == [DENIED] * 2
    answer = guarded.ask("/admin/x", alice)
    access = guarded.access(answer.headers["X-Request-ID"])
    assert access["decision"]["grants"] == [made["id"]]
    assert (access["identity"]["roles"], access["identity"]["granted"]) == (["reader"], ["admin"])

    grant(guarded, "revoke", made["id"])
    time.sleep(1)
    assert told(guarded, alice) == [DENIED] * 2
    guarded.stop()
    guarded.start()
    until(lambda: told(guarded, bob) == [DENIED] * 2, "the provider's keys")
    assert told(guarded, alice) == [DENIED] * 2

    def completed() -> list[dict[str, Any]]:
        return [each for each in guarded.log("--all") if each.get("action") == "grant.complete"]

    (entry,) = until(completed, "the grant's completion", SETTLE_S + 30)
    assert (entry["detail"]["id"], entry["detail"]["accesses"]) == (made["id"], 3)
    actions = [each["action"] for each in guarded.log("--all") if each.get("kind") == "admin"]
    assert [each for each in actions if each.startswith("grant.")] == [
        "grant.request",
        "grant.approve",
        "grant.revoke",
        "grant.complete",
    ]
