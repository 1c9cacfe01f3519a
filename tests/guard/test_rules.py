"""One configuration's verdicts, and what a record holds of them: what the configuration wants, and no more."""

from __future__ import annotations

import hashlib
import hmac
from typing import Any

import msgspec
import pytest
from tests.guard.place import KEYS, configured, route
from tests.guard.test_shadow import ANN, ASKED

from gatebook import record
from gatebook.guard.asked import Asked
from gatebook.guard.rules import Rules, Verdict
from gatebook.identity.types import Credential, Identity, Refusal
from gatebook.policy import Match, Miss
from gatebook.redact import NO_NAMES, Known, Names

TLS = msgspec.structs.replace(
    ASKED, tls="TLSv1.3", cipher="TLS_AES_128_GCM_SHA256", group="X25519", sni="api.example"
)
NAMES = Names(Known("5" * 32, b"k" * 32), Known("a" * 32, b"k" * 32))
KEY = Credential("api_key", b"gbk_secret", "partners")


def rules(**sections: Any) -> Rules:
    return Rules(configured(**{"routes": [route("a", "/a")], **sections}), KEYS)


def judged(by: Rules, asked: Asked = ASKED, who: Identity | None = ANN, monotonic_s: float = 0.0) -> Verdict:
    match = by.match(asked)
    assert isinstance(match, Match)
    return by.judge(asked, match, by.facts(asked), who, 1e9, monotonic_s)


def recorded(
    by: Rules,
    asked: Asked = ASKED,
    who: Identity | Refusal | None = ANN,
    verdict: Verdict | None = None,
    credential: Credential | None = None,
    names: Names[Known] = NO_NAMES,
    bare: bool = False,
) -> record.Decision:
    """As it can be read from the ledger again."""
    verdict = verdict or judged(by, asked)
    made = by.decision(asked, by.match(asked), by.facts(asked), who, credential, verdict, names, 4711, bare)
    read = record.decode(record.encode(made))
    assert isinstance(read, record.Decision)
    return read


def with_headers(*headers: tuple[bytes, bytes]) -> Asked:
    return msgspec.structs.replace(ASKED, headers=list(headers))


# -- verdicts ------------------------------------------------------------------------------------------------
def test_rule_that_holds_allows_and_is_named() -> None:
    found = judged(rules())
    assert (found.allowed, found.reason, found.rule, found.upstream) == (True, "rule", "readers", "orders")


def test_nobody_is_allowed_by_no_rule() -> None:
    stranger = msgspec.structs.replace(ANN, roles=("visitor",))
    found = judged(rules(), who=stranger)
    assert (found.allowed, found.reason, found.upstream) == (False, "no_rule", None)


def test_identity_of_another_provider_than_the_routes_is_none() -> None:
    assert not judged(rules(), who=msgspec.structs.replace(ANN, provider="machines")).allowed


def test_caller_without_a_right_uses_up_nobodys_limit() -> None:
    by = rules(routes=[route("a", "/a", limits=[{"name": "few", "per": "route", "rate": "1/hour"}])])
    stranger = msgspec.structs.replace(ANN, roles=())
    assert not judged(by, who=stranger).allowed
    assert judged(by).allowed
    refused = judged(by)
    assert (refused.allowed, refused.reason, refused.rule) == (False, "limit_exceeded", "readers")
    assert refused.upstream is None


def test_limits_are_handed_on_to_the_next_configuration() -> None:
    limits = [{"name": "few", "per": "identity", "rate": "1/hour"}]
    first = rules(routes=[route("a", "/a", limits=limits)])
    assert judged(first).allowed
    made = configured(routes=[route("a", "/a", limits=limits)], audit={"address": "drop"})
    assert judged(Rules(made, KEYS, first)).reason == "limit_exceeded"


# -- records ---------------------------------------------------------------------------------------------------
def test_record_says_who_what_when_and_on_whose_word() -> None:
    by = rules()
    asked = msgspec.structs.replace(TLS, uri="/a?card=4111", connection=7, connection_request=3)
    found = recorded(by, asked, names=NAMES)
    assert (found.id, found.time_us, found.connection, found.connection_request) == (asked.id, 4711, 7, 3)
    assert found.request == record.RequestPart(
        method="GET", path="/a", route="a", host="api.acme.example", protocol="1.1"
    )
    assert found.identity is not None
    assert (found.identity.provider, found.identity.method, found.identity.subject) == (
        "partners",
        "api_key",
        "5" * 32,
    )
    assert found.identity.roles == ("reader",)
    assert found.tls == record.TLSPart(
        version="1.3", cipher="TLS_AES_128_GCM_SHA256", group="X25519", sni="api.example"
    )
    assert found.decision == record.DecisionPart(
        verdict="allow",
        status=200,
        reason="rule",
        rule="readers",
        configuration=by.configuration.digest().hex(),
        durability="before-access",
    )
    assert found.upstream == "orders"


@pytest.mark.parametrize(
    ("mode", "part"),
    [
        ("keep", record.ClientPart(address="192.0.2.7", port=1)),
        ("truncate", record.ClientPart(address="192.0.2.0/24")),
        ("pseudonym", record.ClientPart(address="a" * 32, port=1)),
        ("drop", None),
    ],
)
def test_record_holds_of_the_address_what_the_configuration_wants(
    mode: str, part: record.ClientPart | None
) -> None:
    by = rules(audit={"address": mode})
    assert recorded(by, names=NAMES).client == part
    assert by.names(ASKED, ANN).address == ("address:192.0.2.7" if mode == "pseudonym" else None)


@pytest.mark.parametrize(("mode", "subject"), [("keep", "ann"), ("pseudonym", "5" * 32)])
def test_record_holds_of_the_subject_what_the_configuration_wants(mode: str, subject: str) -> None:
    by = rules(audit={"subject": mode})
    found = recorded(by, names=NAMES).identity
    assert found is not None
    assert found.subject == subject
    assert by.names(ASKED, ANN).subject == ("subject:partners:ann" if mode == "pseudonym" else None)
    assert by.names(ASKED, None).subject is None


def test_record_holds_headers_and_query_values_that_are_named_and_no_others() -> None:
    by = rules(audit={"headers": {"keep": ["X-Tenant"]}, "query": {"keep": ["page"]}})
    asked = with_headers((b"x-tenant", b"acme"), (b"x-other", b"private"), (b"x-request-id", b"mine"))
    found = recorded(by, msgspec.structs.replace(asked, uri="/a?page=2&card=4111")).request
    assert (found.headers, found.query, found.claimed_id) == ({"x-tenant": "acme"}, {"page": "2"}, "mine")


def test_trace_of_the_client_is_in_the_record() -> None:
    found = recorded(rules(), with_headers((b"traceparent", b"00-" + b"c" * 32 + b"-" + b"d" * 16 + b"-01")))
    assert found.trace_id == "c" * 32


def test_route_may_be_laxer_than_the_deployment_and_stricter() -> None:
    by = rules(
        audit={"durability": "after-response"},
        routes=[route("a", "/a"), route("b", "/b", durability="before-access")],
    )
    assert recorded(by).decision.durability == "after-response"
    strict = msgspec.structs.replace(ASKED, uri="/b")
    assert recorded(by, strict).decision.durability == "before-access"
    assert by.durability(Miss("no_route", "/c", "")) == "after-response"


def test_fingerprint_is_keyed_and_of_the_credentials_hash_alone() -> None:
    found = recorded(rules()).identity
    assert found is not None
    assert found.credential == hmac.digest(KEYS.fingerprints, ANN.credential_sha256, "sha256")[:16].hex()


def test_refused_credential_is_named_without_a_subject() -> None:
    """Nothing was established about who shows it."""
    by = rules()
    refused = Verdict(False, "key_revoked")
    found = recorded(by, who=Refusal("key_revoked", "partners"), verdict=refused, credential=KEY)
    assert found.identity == record.IdentityPart(
        provider="partners",
        method="api_key",
        credential=hmac.digest(KEYS.fingerprints, hashlib.sha256(KEY.value).digest(), "sha256")[:16].hex(),
    )
    assert found.upstream is None


@pytest.mark.parametrize(
    ("who", "credential"),
    [(None, None), (Refusal("token_malformed"), KEY), (Refusal("key_unknown", "partners"), None)],
)
def test_credential_that_is_nobodys_names_nobody(who: Refusal | None, credential: Credential | None) -> None:
    assert recorded(rules(), who=who, verdict=Verdict(False, "no_rule"), credential=credential).identity is None


def test_bare_record_fits_whatever_was_asked() -> None:
    kept = {"headers": {"keep": [f"X-{n}" for n in range(64)]}, "query": {"keep": [f"q{n}" for n in range(64)]}}
    by = rules(audit={**kept, "subject": "keep"})
    query = "&".join(f"q{n}={chr(34) * 100}" for n in range(64))
    headers = [(f"x-{n}".encode(), "\U0001f600".encode() * 200) for n in range(64)]
    asked = msgspec.structs.replace(
        TLS,
        method='"' * 5000,
        uri=f"/{chr(34) * 5000}?{query}",
        host='"' * 5000,
        protocol='"' * 5000,
        sni='"' * 5000,
        headers=[*headers, (b"x-request-id", b'"' * 5000)],
    )
    who = msgspec.structs.replace(ANN, subject='"' * 512, client='"' * 512, roles=('"' * 512,) * 200)
    refused = Verdict(False, "guard_error")
    with pytest.raises(ValueError, match="at most"):
        recorded(by, asked, who, refused)
    found = recorded(by, asked, who, refused, bare=True)
    assert (found.request.headers, found.request.query, found.request.claimed_id) == ({}, {}, None)
    assert found.identity is not None
    assert found.identity.roles == ()
