"""Revocation in a running deployment: by what the log shows, in every guard within a second, after a restart."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from tests.e2e.deployment import Deployment, until
from tests.e2e.guards import ask_guard

ALLOWED, REFUSED = (204, "rule"), (401, "credential_revoked")


@pytest.fixture
def guarded(stopped: Deployment) -> Deployment:
    stopped.configuration["guard"] = {"acknowledgement_timeout": "1s", "processes": 2}
    stopped.write()
    stopped.start()
    return stopped


def told(deployment: Deployment, token: str) -> list[tuple[int, str | None]]:
    """What each guard says."""
    return [ask_guard(deployment.paths.guard_socket(number), "/orders/7", token) for number in range(2)]


def revoke(deployment: Deployment, *arguments: str) -> dict[str, Any]:
    """Waits the promised second."""
    done = deployment.cli("revoke", "--json", "-c", str(deployment.config), "--reason", "stolen", *arguments)
    time.sleep(1)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_caller_is_revoked_by_the_pseudonym_that_the_log_shows(guarded: Deployment) -> None:
    token, other = guarded.reader("alice"), guarded.reader("bob")
    until(lambda: told(guarded, token) == told(guarded, other) == [ALLOWED] * 2, "the provider's keys")
    answer = guarded.ask("/orders/7", token)
    pseudonym = guarded.access(answer.headers["X-Request-ID"])["identity"]["subject"]
    made = revoke(guarded, "--subject", pseudonym[:8])
    assert made["of"] == pseudonym
    assert told(guarded, token) == [REFUSED] * 2  # both had it in their caches
    assert told(guarded, guarded.reader("alice")) == [REFUSED] * 2
    assert told(guarded, other) == [ALLOWED] * 2
    (said,) = [each for each in guarded.log("--all") if each.get("action") == "revoke"]
    assert said["detail"]["of"] == pseudonym

    guarded.stop()
    guarded.start()
    until(lambda: told(guarded, other) == [ALLOWED] * 2, "the provider's keys")
    assert told(guarded, token) == [REFUSED] * 2

    guarded.cli("revoke", "undo", made["id"], "-c", str(guarded.config))
    time.sleep(1)
    assert told(guarded, token) == [ALLOWED] * 2


def test_credential_is_revoked_by_the_fingerprint_that_the_log_shows(guarded: Deployment) -> None:
    stolen, other = guarded.reader("alice"), guarded.reader("alice")
    until(lambda: told(guarded, stolen) == told(guarded, other) == [ALLOWED] * 2, "the provider's keys")
    answer = guarded.ask("/orders/7", stolen)
    fingerprint = guarded.access(answer.headers["X-Request-ID"])["identity"]["credential"]
    revoke(guarded, "--credential", fingerprint)
    assert told(guarded, stolen) == [REFUSED] * 2
    assert told(guarded, other) == [ALLOWED] * 2
    refused = guarded.ask("/orders/7", stolen)
    assert refused.status_code == 401
    assert guarded.access(refused.headers["X-Request-ID"])["identity"]["credential"] == fingerprint
