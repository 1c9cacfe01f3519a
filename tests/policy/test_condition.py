"""CEL conditions: what is bound, what fails, and that failing never allows."""

from __future__ import annotations

import re
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from tests.policy.conftest import configuration_of, facts_of, identity_of

from gatebook.identity.types import Bound, Identity
from gatebook.policy import Facts, Match, Routes, joined
from gatebook.policy.condition import MAX_EXPRESSION_BYTES, VARIABLES, compile_condition, unknown_parameters

ROUTES = Routes(configuration_of({"path": "/orders/{order_id}", "name": "read-order"}))
NOW = 1_790_000_000.0  # 2026-09-21T14:13:20Z, a Monday


def holds(
    text: str, identity: Identity | None = None, facts: Facts | None = None, uri: str = "/orders/42"
) -> bool | None:
    match = ROUTES.match("GET", uri)
    assert isinstance(match, Match)
    return compile_condition(text).holds(match, identity, facts or facts_of(), NOW)


@pytest.mark.parametrize(
    "text",
    [
        'identity.provider == "partners" && identity.method == "api_key" && identity.subject == "ann"',
        'identity.client == "shop" && "reader" in identity.roles && identity.groups.exists(g, g == "eu-1")',
        '"orders:read" in identity.scopes && identity.claims.tenant == request.headers["x-tenant"]',
        'identity.claims["address"].country == "DE" && identity.claims.n == 1',
        'request.id.size() == 32 && request.method == "GET" && request.path == "/orders/42"',
        'request.query.page == "2" && request.query["q"] == "a b" && request.host == "api.example"',
        'request.protocol == "2" && route.name == "read-order" && route.path == "/orders/{order_id}"',
        'path.order_id == "42" && int(path["order_id"]) > 41',
        'client.address.startsWith("192.0.2.") && client.port == 4711',
        'tls.version == "1.3" && tls.cipher.startsWith("TLS_") && tls.group == "X" && tls.sni == "api.example"',
        'now > timestamp("2026-01-01T00:00:00Z") && now.getDayOfWeek("Europe/Berlin") == 1',
        'now - identity.issued_at < duration("5m") && identity.token_id == "t1" && identity.bound',
        'tls.certificate == "ab"',
        "identity . claims . admin",
        "identity.claims.`admin`",
        "has(identity.claims.tenant) && !has(identity.claims.nothing)",
        'identity.claims.nothing == "x" || true',
    ],
)
def test_condition_holds(text: str) -> None:
    identity = identity_of(
        client="shop",
        roles=("reader",),
        groups=("eu-1",),
        scopes=("orders:read",),
        claims={"tenant": "t1", "address": {"country": "DE"}, "n": 1, "admin": True},
        token_id="t1",
        issued_at=NOW - 60,
        bound=Bound(jkt="x"),
    )
    facts = facts_of(
        headers={"x-tenant": "t1"},
        tls_version="1.3",
        tls_cipher="TLS_AES_128_GCM_SHA256",
        tls_group="X",
        tls_sni="api.example",
        tls_certificate="ab",
    )
    assert holds(text, identity, facts, "/orders/42?page=2&q=a+b") is True


CLAIMS: dict[str, Any] = {
    "tenant": "t1",
    "n": 1,
    "huge": 2**80,
    "bad": "\udce9",
    "set": {1},
    "yes": "true",
    "list": [],
}


@pytest.mark.parametrize(
    "text",
    [
        'identity.claims.missing == "x"',
        'identity.claims.missing != "x"',
        '!(identity.claims.missing == "x")',
        "identity.claims.missing == null",
        "identity.claims.tenant.deeper == 1",
        'request.headers["x-missing"] != "internal"',
        'request.query.missing == ""',
        'identity.client != "blocked"',
        'tls.sni != "evil.example"',
        'tls.certificate != "ab"',
        'identity.token_id != "t1"',
        "now > identity.issued_at",
        'identity.roles[7] == "admin"',
        'identity.claims.n.startsWith("a")',
        "identity.claims.yes",
        "identity.claims.n",
        "identity.claims.list",
        "identity.claims.huge > 0",
        'identity.claims.bad != "x"',
        'identity.claims.set != "x"',
        "1 / (identity.claims.n - 1) == 1",
        'int(identity.subject) != 7 || dyn("x") == identity.claims.missing',
        'now.getHours("Nowhere/Nothing") >= 0',
        '"x".matches("(")',
    ],
)
def test_condition_on_what_is_not_there_fails(text: str) -> None:
    assert holds(text, identity_of(claims=CLAIMS)) is None


@pytest.mark.parametrize(
    "text",
    [
        'identity.subject != "mallory"',
        '!("banned" in identity.roles)',
        "identity.roles.all(r, r != 'banned')",
        "!has(identity.claims.banned)",
        "identity.claims.size() == 0",
        "!identity.bound",
    ],
)
def test_nobody_is_not_somebody_without_roles(text: str) -> None:
    assert holds(text, None) is None


def test_credential_that_is_bound_to_nothing_is_not_bound() -> None:
    assert holds("!identity.bound", identity_of()) is True


def test_time_that_no_calendar_holds_fails() -> None:
    assert holds("now > identity.issued_at", identity_of(issued_at=-1e300)) is None


def test_every_variable_is_documented() -> None:
    text = (Path(__file__).parents[2] / "docs" / "policy.md").read_text("utf-8")
    for name in VARIABLES:
        assert f"`{name}`" in text, name


def test_expression_that_works_too_hard_fails() -> None:
    many = identity_of(roles=tuple(f"r{n}" for n in range(300)))
    assert holds("identity.roles.all(a, identity.roles.all(b, identity.roles.all(c, a + b != c)))", many) is None


def test_pattern_cannot_be_made_to_backtrack() -> None:
    assert holds('identity.subject.matches("^(a+)+$")', identity_of(subject="a" * 5000 + "!")) is False


@pytest.mark.parametrize(
    "query",
    ["&".join(f"a{n}=1" for n in range(65)), "x=%ff", "%ff=1"],
    ids=["too many", "value is no UTF-8", "name is no UTF-8"],
)
def test_query_that_cannot_be_read_does_not_look_empty(query: str) -> None:
    assert holds('!("debug" in request.query)', uri="/orders/42?debug=1&" + query) is None


def test_query_name_sent_twice_equals_neither_value() -> None:
    uri = "/orders/42?tenant=a&tenant=b"
    assert holds('request.query.tenant == "a" || request.query.tenant == "b"', uri=uri) is False
    assert holds('request.query.tenant == "a, b"', uri=uri) is True


def test_header_sent_twice_equals_neither_value() -> None:
    headers = joined([("X-Tenant", "a"), ("Accept", "*/*"), ("x-tenant", "b")])
    assert headers == {"x-tenant": "a, b", "accept": "*/*"}
    facts = facts_of(headers=headers)
    assert holds('request.headers["x-tenant"] == "a" || request.headers["x-tenant"] == "b"', facts=facts) is False


def test_headers_may_be_any_mapping() -> None:
    facts = facts_of(headers=MappingProxyType({"x-a": "1"}))
    assert holds('request.headers["x-a"] == "1"', facts=facts) is True


@pytest.mark.parametrize("name", VARIABLES)
def test_variable_in_a_longer_expression_is_bound(name: str) -> None:
    more = {"client": "c", "token_id": "t", "issued_at": 1.0, "claims": {"a": 1}}
    identity = identity_of(roles=("r",), groups=("g",), scopes=("s",), **more)
    facts = facts_of(tls_version="1.3", tls_cipher="c", tls_group="g", tls_sni="s", tls_certificate="x")
    assert holds(f"{name} == {name}", identity, facts) is True


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("identity.rolez == ['a']", "1:9: undeclared reference to 'identity.rolez'"),
        ("request.method == 1", "found no matching overload for '_==_'"),
        ("request.method", "is of type STRING"),
        ("1 + 1", "is of type INT"),
        ('"a" +', "Syntax error"),
        ("", "Syntax error"),
        ("(" * 300 + "true" + ")" * 300, "recursion limit"),
        ("true" + " " * MAX_EXPRESSION_BYTES, "longer than"),
        ("has(identity.client)", "is of type STRING"),
        ("identity", "undeclared reference"),
    ],
)
def test_expression_that_means_nothing_is_refused_in_cels_words(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        compile_condition(text)


def test_parameter_that_the_path_lacks_is_noticed() -> None:
    text = 'path.order_id == "1" && path["tenant"] == "a" && request.path == "/x" && path . other == ""'
    assert unknown_parameters(text, frozenset({"order_id"})) == ["other", "tenant"]
