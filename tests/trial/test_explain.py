"""Explanations: every rule, every condition with its values, and never a credential."""

from __future__ import annotations

from typing import Any

import pytest
from tests.policy.conftest import configuration_of, identity_of

from gatebook.identity.types import Refusal
from gatebook.policy.trace import variables
from gatebook.trial.explain import explain
from gatebook.trial.judge import Judge, Request, Who

SECRET = "gbk_abcdefgh_this-is-not-shown"


def request(target: str = "/o/7", method: str = "GET", **fields: Any) -> Request:
    known: dict[str, Any] = {"host": "api.example:8443", "address": "192.0.2.7", "port": 1, "protocol": "1.1"}
    return Request(method=method, target=target, **{**known, "tls_version": "1.3", "at": 1e9, **fields})


def explained(who: Who = None, asked: Request | None = None, **route: Any) -> dict[str, Any]:
    whole = {"name": "order", "path": "/o/{id}", "identity": ["partners"], **route}
    return explain(Judge(configuration_of(whole)), asked or request(), who, verified=False)


def test_every_rule_is_there_with_all_its_conditions() -> None:
    found = explained(
        identity_of(roles=("reader",), claims={"n": 1}),
        deny=[{"name": "d", "groups": ["out"], "when": "identity.claims.n == 2", "mode": "shadow"}],
        allow=[
            {"name": "a", "roles": ["reader", "admin"]},
            {"name": "b", "methods": ["GET"], "paths": ["/o/8"], "scopes": ["s"]},
        ],
    )
    assert [(rule["effect"], rule["name"], rule["mode"]) for rule in found["rules"]] == [
        ("deny", "d", "shadow"),
        ("allow", "a", "enforce"),
        ("allow", "b", "enforce"),
    ]
    assert [(rule["holds"], rule["asked"], rule["decides"]) for rule in found["rules"]] == [
        (False, True, False),
        (True, True, True),
        (False, False, False),
    ]
    assert found["rules"][0]["parts"] == [
        {"what": "groups", "wanted": ["out"], "found": [], "holds": False},
        {
            "what": "when",
            "wanted": ["identity.claims.n == 2"],
            "holds": False,
            "values": [{"name": "identity.claims.n", "value": "1"}],
        },
    ]
    assert found["rules"][2]["parts"] == [
        {"what": "methods", "wanted": ["GET", "HEAD"], "found": ["GET"], "holds": True},
        {"what": "paths", "wanted": ["/o/8"], "found": ["/o/7"], "holds": False},
        {"what": "scopes", "wanted": ["s"], "found": [], "holds": False},
    ]
    verdict = {"verdict": "allow", "status": 200, "reason": "rule", "rule": "a", "grants": [], "shadow": None}
    assert found["verdict"] == verdict


def test_condition_that_fails_says_why_and_what_it_read() -> None:
    when = 'identity.claims.tenant == request.headers["x-tenant"] && tls.group != "" && now > timestamp(0)'
    found = explained(identity_of(claims={"tenant": ["é"]}), allow=[{"name": "a", "when": when}])
    (part,) = found["rules"][0]["parts"]
    assert part["holds"] is None
    assert part["error"] == 'no key "x-tenant"'
    assert part["values"] == [
        {"name": "identity.claims.tenant", "value": '["é"]'},
        {"name": 'request.headers["x-tenant"]', "error": 'no key "x-tenant"'},
        {"name": "tls.group", "error": "tls.group is not there"},
        {"name": "now", "value": "2001-09-09 01:46:40+00:00"},
    ]
    assert found["verdict"]["reason"] == "condition_error"


def test_condition_that_is_no_bool_says_so() -> None:
    found = explained(identity_of(claims={"admin": "yes"}), allow=[{"name": "a", "when": "identity.claims.admin"}])
    assert found["rules"][0]["parts"][0]["error"] == "is not of type bool"


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("identity.claims.a.b[0] == identity . subject", ["identity.claims.a.b[0]", "identity . subject"]),
        ("identity.subject.matches('identity.roles') || now.getHours() > 5", ["identity.subject", "now"]),
        (
            "identity.roles.exists(r, r == \"path.x\") && path['id'] == path.id",
            ["identity.roles", "path['id']", "path.id"],
        ),
        ("has(identity.claims.`a-b`)", ["identity.claims.`a-b`"]),
        ("request.query.now == my.now", ["request.query.now"]),
    ],
)
def test_what_an_expression_reads(text: str, names: list[str]) -> None:
    assert variables(text) == names


def test_nobody_is_told_that_a_credential_is_missing_and_no_rule_is_asked() -> None:
    found = explained(None, allow=[{"name": "a", "when": "true"}])
    assert (found["verdict"]["status"], found["verdict"]["reason"]) == (401, "credential_missing")
    assert (found["rules"], found["identity"]) == ([], None)


def test_refusal_is_told_with_its_provider() -> None:
    found = explained(Refusal("token_expired", "partners"), allow=[{"name": "a", "when": "true"}])
    assert found["identity"] == {"refused": "token_expired", "provider": "partners", "verified": False}
    assert found["verdict"]["status"] == 401


def test_caller_of_another_provider_is_nobody_here() -> None:
    found = explained(identity_of(provider="others"), allow=[{"name": "a", "when": "true"}])
    assert found["verdict"]["reason"] == "credential_missing"


def test_no_route_says_what_may_have_been_meant() -> None:
    found = explained(asked=request("/O/7"))
    assert (found["route"], found["verdict"]["status"]) == (None, 404)
    assert found["miss"]["near"][0]["name"] == "order"
    assert explained(asked=request("/o/..%2f7"))["miss"]["why"].startswith("%2f is an escape of '/'")
    assert explained(asked=request(method="PUT"))["miss"]["methods"] == ["GET", "HEAD"]


def test_limits_are_named() -> None:
    found = explained(identity_of(), limits=[{"name": "few", "per": "identity", "rate": "2/hour"}])
    assert found["limits"] == [{"name": "few", "per": "identity", "count": 2, "period_s": 3600}]


def test_verdict_that_a_limit_or_an_earlier_use_could_still_change_says_so() -> None:
    limits = [{"name": "few", "per": "identity", "rate": "2/hour"}]
    allow = [{"name": "a", "roles": ["reader"]}]
    who = identity_of(roles=("reader",), token_id="t1", provider="staff")
    staff = {"type": "oidc", "issuer": "https://id.example", "audience": ["a"]}
    route = {"path": "/o/{id}", "identity": ["staff"], "limits": limits, "allow": allow, "one_time": True}
    judge = Judge(configuration_of(route, identity={"staff": staff}))
    assert explain(judge, request(), who, verified=False)["not_evaluated"] == [
        "limit few: 2 in 3600 s per identity",
        "one_time: whether the token has been used before",
    ]
    refused = explain(judge, request(), identity_of(provider="staff"), verified=False)
    assert (refused["verdict"]["verdict"], refused["not_evaluated"]) == ("deny", [])


READS_ALL = (
    'request.headers["authorization"] != "" || request.headers.size() > 9 || request.headers["x-api-key"] != ""'
    ' || request.headers["x-other"] != "" || request.query["access_token"] != "" || "x" in request.query'
    ' || identity.claims[request.headers["authorization"]] == ""'
)


@pytest.mark.parametrize("place", ["authorization", "x-api-key", "x-other", "cookie", "query"])
def test_no_credential_is_shown_by_whatever_a_condition_reads(place: str) -> None:
    """Nor by CEL's own errors, which name the key that was not found."""
    if place == "query":
        asked = request("/o/7?page=2&access_token=" + SECRET.replace("_", "%5F"))
    else:
        asked = request(headers=((place, f"Bearer {SECRET}" if place == "authorization" else SECRET),))
    for when in READS_ALL.split(" || "):
        found = explained(identity_of(), asked, allow=[{"name": "a", "when": when}])
        assert SECRET not in str(found), when
        assert SECRET.replace("_", "%5F") not in str(found), when
    assert place != "query" or found["request"]["target"] == "/o/7?page=2&access_token=[masked]"


def test_credential_too_short_to_be_looked_for_is_not_shown_as_a_value() -> None:
    when = 'request.headers["x-api-key"] == "" || request.headers.size() == 0'
    found = explained(
        identity_of(), request(headers=(("x-api-key", "hush"),)), allow=[{"name": "a", "when": when}]
    )
    values = found["rules"][0]["parts"][0]["values"]
    assert [value["value"] for value in values] == ['"[masked]"', '{"x-api-key": "[masked]"}']


def test_bytes_that_are_no_text_are_spelt_out() -> None:
    found = explained(asked=request("/\udcff"))
    assert found["request"]["target"] == "/\\udcff"
    found = explained(
        identity_of(),
        request(headers=(("x-a", "\udcff"),)),
        allow=[{"name": "a", "when": "request.headers['x-a'] == ''"}],
    )
    str(found).encode()
