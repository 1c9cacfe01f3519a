"""Rules in shadow mode: what the record says of them, and that nothing else changes."""

from __future__ import annotations

from typing import Any

from tests.guard.place import KEYS, configured, route

from gatebook import record
from gatebook.guard.asked import Asked
from gatebook.guard.rules import Rules
from gatebook.identity.types import Identity
from gatebook.policy import Match
from gatebook.redact import NO_NAMES

ANN = Identity(
    provider="partners",
    method="api_key",
    subject="ann",
    roles=("reader",),
    credential_sha256=b"x" * 32,
    expires_at=2e9,
)
ASKED = Asked(
    id="0" * 32,
    method="GET",
    uri="/a",
    host="api.acme.example",
    protocol="HTTP/1.1",
    address="192.0.2.7",
    port=1,
    tls="",
    cipher="",
    group="",
    sni="",
    connection=1,
    connection_request=1,
    worker=1,
    upstreams="",
    headers=[],
)
NOBODY = [{"name": "frozen", "when": "true", "mode": "shadow"}]


def decisions(times: int, **rules: Any) -> list[record.DecisionPart]:
    """What is on record of as many requests."""
    rulebook = Rules(configured(routes=[route("a", "/a", **rules)]), KEYS)
    match, facts = rulebook.match(ASKED), rulebook.facts(ASKED)
    assert isinstance(match, Match)
    made = []
    for _ in range(times):
        verdict = rulebook.judge(ASKED, match, facts, ANN, 1e9, 0.0)
        written = record.encode(rulebook.decision(ASKED, match, facts, ANN, None, verdict, NO_NAMES, 1))
        read = record.decode(written)
        assert isinstance(read, record.Decision)
        made.append(read.decision)
    return made


def test_record_says_which_shadow_rule_would_have_denied() -> None:
    (found,) = decisions(1, deny=NOBODY)
    assert (found.verdict, found.status, found.rule) == ("allow", 200, "readers")
    assert found.shadow == record.ShadowPart(verdict="deny", reason="deny_rule", rule="frozen")


def test_record_says_which_shadow_rule_would_have_allowed() -> None:
    (found,) = decisions(1, allow=NOBODY)
    assert (found.verdict, found.status, found.rule) == ("deny", 403, None)
    assert found.shadow == record.ShadowPart(verdict="allow", reason="rule", rule="frozen")


def test_record_of_a_verdict_that_stays_says_nothing_of_shadows() -> None:
    assert decisions(1, allow=[{"name": "readers", "roles": ["reader"]}, *NOBODY])[0].shadow is None


def test_request_that_a_limit_refused_would_not_have_been_allowed_by_a_shadow() -> None:
    limits = [{"name": "few", "per": "identity", "rate": "1/hour"}]
    first, second = decisions(2, deny=NOBODY, limits=limits)
    assert first.shadow is not None
    assert (second.reason, second.shadow) == ("limit_exceeded", None)
