"""What a token says: times, audience, kind, persons."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.identity.mint import ABSENT, AUDIENCE, NOW, claims, oidc

from gatebook.config.model import OIDCProvider
from gatebook.identity.claims import check_introspected, check_type, identify, lookup
from gatebook.identity.jws import Unfit
from gatebook.identity.types import Bound, Identity
from gatebook.record import REASONS

SKEW = 30.0
TTL = 3600.0


def judge(said: dict[str, Any], provider: OIDCProvider | None = None, now: float = NOW) -> Identity | str:
    try:
        return identify(said, "staff", oidc() if provider is None else provider, bytes(32), now)
    except Unfit as error:
        return error.reason


def accepted(said: dict[str, Any], provider: OIDCProvider | None = None) -> Identity:
    found = judge(said, provider)
    assert isinstance(found, Identity), found
    return found


# -- times ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"exp": ABSENT}, "token_claims"),
        ({"exp": None}, "token_claims"),
        ({"exp": "2030-01-01"}, "token_claims"),
        ({"exp": str(int(NOW) + 300)}, "token_claims"),
        ({"exp": True}, "token_claims"),
        ({"exp": [NOW + 300]}, "token_claims"),
        ({"exp": -1}, "token_expired"),
        ({"exp": 0}, "token_expired"),
        ({"exp": NOW - SKEW}, "token_expired"),
        ({"nbf": NOW + SKEW + 1}, "token_not_yet_valid"),
        ({"nbf": "0"}, "token_claims"),
        ({"nbf": None}, "token_claims"),
        ({"nbf": False}, "token_claims"),
        ({"iat": NOW + SKEW + 1}, "token_not_yet_valid"),
        ({"iat": "0"}, "token_claims"),
        ({"iat": None}, "token_claims"),
        ({"iat": NOW - TTL - SKEW}, "token_too_old"),
        ({"iat": 0, "exp": 2**63 - 1}, "token_too_old"),
        ({"iat": -1}, "token_too_old"),
        ({"iat": ABSENT, "exp": NOW + TTL + SKEW + 1}, "token_too_old"),
        ({"iat": ABSENT, "exp": 2**63 - 1}, "token_too_old"),
    ],
)
def test_time_that_does_not_hold_is_refused(changed: dict[str, Any], reason: str) -> None:
    assert judge(claims(**changed)) == reason


@pytest.mark.parametrize(
    ("changed", "until"),
    [
        ({}, NOW + 300 + SKEW),
        ({"exp": NOW + 299.5}, NOW + 299.5 + SKEW),
        ({"exp": NOW - SKEW + 1}, NOW + 1),
        ({"nbf": NOW + SKEW, "iat": NOW + SKEW}, NOW + 300 + SKEW),
        ({"exp": 2**63 - 1}, NOW - 10 + TTL + SKEW),
        ({"iat": NOW - TTL - SKEW + 1}, NOW + 1),
        ({"iat": ABSENT}, NOW + 300 + SKEW),
        ({"iat": ABSENT, "exp": NOW + TTL + SKEW}, NOW + TTL + 2 * SKEW),
    ],
)
def test_time_that_holds_and_until_when(changed: dict[str, Any], until: float) -> None:
    assert accepted(claims(**changed)).expires_at == until


@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6), st.none() | st.floats(-1e6, 1e6), st.floats(1, 1e6))
def test_expires_at_is_when_the_answer_turns(exp: float, iat: float, nbf: float | None, ttl: float) -> None:
    """Else a cached token would live longer, or shorter, than one that is verified anew."""
    said = claims(exp=NOW + exp, iat=NOW + iat, nbf=ABSENT if nbf is None else NOW + nbf)
    provider = oidc(max_ttl=ttl)
    found = judge(said, provider)
    if isinstance(found, Identity):
        assert found.expires_at > NOW
        assert judge(said, provider, found.expires_at) in ("token_expired", "token_too_old")
        assert isinstance(judge(said, provider, max(NOW, found.expires_at - 1)), Identity)


def test_clock_skew_and_ttl_are_the_configuration_s() -> None:
    strict = oidc(clock_skew=0.001, max_ttl=60)
    assert judge(claims(exp=NOW - 1), strict) == "token_expired"
    assert judge(claims(nbf=NOW + 1), strict) == "token_not_yet_valid"
    assert judge(claims(iat=NOW - 61), strict) == "token_too_old"


# -- audience ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "aud",
    [
        ABSENT,
        None,
        "",
        "orders",
        "orders-api ",
        "ORDERS-API",
        [],
        ["other"],
        [AUDIENCE, 5],
        [[AUDIENCE]],
        {AUDIENCE: 1},
        5,
        True,
        f"{AUDIENCE},other",
        f"{AUDIENCE} other",
    ],
)
def test_audience_that_is_not_ours_is_refused(aud: object) -> None:
    assert judge(claims(aud=aud)) == "token_audience"


@pytest.mark.parametrize("aud", [AUDIENCE, [AUDIENCE], ["other", AUDIENCE], "second"])
def test_audience_may_be_one_or_among_several(aud: object) -> None:
    accepted(claims(aud=aud), oidc(audience=[AUDIENCE, "second"]))


# -- kind -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("typ", ["at+jwt", "AT+JWT", "JWT", "jwt", "application/at+jwt"])
def test_access_token_s_type_is_taken(typ: str) -> None:
    check_type({"typ": typ}, claims())


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ({"typ": "dpop+jwt"}, {}),
        ({"typ": "logout+jwt"}, {}),
        ({"typ": "secevent+jwt"}, {}),
        ({"typ": "id+jwt"}, {}),
        ({"typ": "oauth-authz-req+jwt"}, {}),
        ({"typ": "JWE"}, {}),
        ({"typ": ""}, {}),
        ({"typ": None}, {}),
        ({"typ": ["JWT"]}, {}),
        ({"typ": "JWT "}, {}),
        ({"typ": "at+jwt\n"}, {}),
        ({}, {"nonce": "n"}),
        ({"typ": "JWT"}, {"nonce": None}),
        ({"typ": "at+jwt"}, {"nonce": "n", "at_hash": "x"}),
        ({}, {"nonce": "n", "typ": "ID"}),
        ({}, {"at_hash": "x"}),
        ({}, {"c_hash": "x"}),
        ({}, {"s_hash": "x"}),
        ({}, {"events": {"http://schemas.openid.net/event/backchannel-logout": {}}}),
        ({"typ": "JWT"}, {"typ": "ID"}),
        ({"typ": "JWT"}, {"typ": "Refresh"}),
        ({"typ": "JWT"}, {"token_use": "id"}),
        ({"typ": "JWT"}, {"token_use": ["access"]}),
    ],
)
def test_token_for_another_purpose_is_refused(header: dict[str, Any], said: dict[str, Any]) -> None:
    with pytest.raises(Unfit, match="token_type"):
        check_type(header, claims(**said))


@pytest.mark.parametrize("typ", [ABSENT, "JWT", "jwt", "at+jwt ", "id+jwt"])
def test_token_that_does_not_say_what_it_is_is_refused_where_it_must(typ: str) -> None:
    with pytest.raises(Unfit, match="token_type"):
        check_type({} if typ is ABSENT else {"typ": typ}, claims(), only_at_jwt=True)
    check_type({"typ": "AT+jwt"}, claims(), only_at_jwt=True)
    check_type({"typ": "application/at+jwt"}, claims(), only_at_jwt=True)


def test_access_tokens_of_keycloak_and_cognito_pass() -> None:
    check_type({"typ": "JWT"}, claims(typ="Bearer"))
    check_type({"typ": "JWT"}, claims(typ="Bearer", nonce="n"))
    check_type({"typ": "at+jwt"}, claims(nonce="n"))
    check_type({}, claims(token_use="access"))


THUMBPRINT = "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"


@pytest.mark.parametrize(
    "cnf",
    [
        None,
        {},
        [],
        THUMBPRINT,
        {"jkt": THUMBPRINT, "jwk": {}},
        {"kid": "k"},
        {"jku": "https://attacker.example/keys"},
        {"x5t": THUMBPRINT},
        {"jkt": "x"},
        {"jkt": THUMBPRINT + "="},
        {"jkt": THUMBPRINT + "\n"},
        {"jkt": None},
        {"jkt": [THUMBPRINT]},
        {"jkt": THUMBPRINT, "x5t#S256": 5},
    ],
)
def test_token_bound_in_a_way_that_is_not_known_is_refused(cnf: object) -> None:
    assert judge(claims(cnf=cnf)) == "token_claims"


def test_what_a_token_is_bound_to_is_told() -> None:
    assert accepted(claims()).bound is None
    assert accepted(claims(cnf={"jkt": THUMBPRINT})).bound == Bound(jkt=THUMBPRINT)
    both = accepted(claims(cnf={"jkt": THUMBPRINT, "x5t#S256": "A" * 43})).bound
    assert both == Bound(jkt=THUMBPRINT, x5t_s256="A" * 43)


@pytest.mark.parametrize("jti", [None, 5, "", ["a"], "a" * 513, "a\nb"])
def test_token_id_that_is_no_name_is_refused(jti: object) -> None:
    assert judge(claims(jti=jti)) == "token_claims"


def test_token_id_and_issue_time_are_told() -> None:
    found = accepted(claims(jti="7f3a"))
    assert (found.token_id, found.issued_at) == ("7f3a", NOW - 10)
    found = accepted(claims(iat=ABSENT))
    assert (found.token_id, found.issued_at) == (None, None)


ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
NAMES = [
    "exp",
    "nbf",
    "iat",
    "aud",
    "sub",
    "jti",
    "cnf",
    "token_type",
    "typ",
    "token_use",
    "nonce",
    "roles",
    "scope",
]


@given(st.booleans(), st.dictionaries(st.sampled_from(NAMES), ANYTHING))
def test_nothing_that_a_provider_says_breaks_the_judging(introspected: bool, changed: dict[str, Any]) -> None:
    said = claims(**{"token_type": "Bearer", **changed})
    try:
        check_introspected(said, accept_untyped=True) if introspected else check_type({}, said)
        found = judge(said)
    except Unfit as error:
        found = error.reason
    assert isinstance(found, Identity) or found in REASONS


# -- persons ----------------------------------------------------------------------------------------------
BAD_NAMES: list[Any] = [
    None,
    "",
    " ",
    5,
    True,
    ["alice"],
    {"a": 1},
    "a" * 513,
    "alice\r\nGatebook-Roles: admin",
    "alice\u0000",
    " alice",
    "alice ",
    "ali\u202ece",
    "a\u00a0b",
    "a\tb",
]


@pytest.mark.parametrize("sub", [ABSENT, *BAD_NAMES])
def test_subject_that_is_no_name_is_refused(sub: object) -> None:
    assert judge(claims(sub=sub)) == "token_claims"


@pytest.mark.parametrize("name", [bad for bad in BAD_NAMES if bad is not None])
@pytest.mark.parametrize("claim", ["roles", "groups", "client_id"])
def test_name_in_any_claim_that_is_none_refuses_the_token(claim: str, name: object) -> None:
    if isinstance(name, list) and claim != "client_id":
        name = [name]
    assert judge(claims(**{claim: name})) == "token_claims"
    if claim != "client_id":
        assert judge(claims(**{claim: ["good", name]})) == "token_claims"


def test_roles_groups_scopes_and_client() -> None:
    found = accepted(claims(roles=["reader", "admin"], groups=["a", "b"], scope="read  write", client_id="web"))
    assert (found.roles, found.groups, found.scopes) == (("reader", "admin"), ("a", "b"), ("read", "write"))
    assert found.client == "web"


def test_what_is_not_said_is_empty() -> None:
    found = accepted(claims(roles=ABSENT, client_id=ABSENT))
    assert (found.roles, found.groups, found.scopes, found.client) == ((), (), (), None)


@pytest.mark.parametrize(
    "name",
    [
        "\u0430lice",  # a Cyrillic letter
        "ali\u0441e",
        "\uff41lice",  # full-width
        "Alice",
        "ALICE",
        "alice\u0301",  # a combining accent
        "alic\u00e9",
        "alice.",
    ],
)
def test_look_alike_of_a_name_is_somebody_else(name: str) -> None:
    """Nothing is normalised: who is called alike is told apart, and none of them is taken for another."""
    found = accepted(claims(sub=name, roles=[name]))
    assert (found.subject, found.roles) == (name, (name,))
    assert name != "alice"


@pytest.mark.parametrize("sub", ["a" * 512, "\U0001f9d1" * 512, "é" * 512])
def test_longest_subject(sub: str) -> None:
    assert accepted(claims(sub=sub)).subject == sub
    assert judge(claims(sub=sub + "x")) == "token_claims"


def test_one_role_as_text_is_one_role() -> None:
    assert accepted(claims(roles="reader admin")).roles == ("reader admin",)
    assert accepted(claims(scope=["read", "write"])).scopes == ("read", "write")


@pytest.mark.parametrize("scope", [5, {"read": True}, ["read", 5], True])
def test_scope_of_another_type_refuses_the_token(scope: object) -> None:
    assert judge(claims(scope=scope)) == "token_claims"


def test_claim_inside_another_is_found_by_its_path() -> None:
    keycloak = oidc(roles_claim="realm_access.roles")
    assert accepted(claims(realm_access={"roles": ["reader"]}), keycloak).roles == ("reader",)
    assert accepted(claims(realm_access={}), keycloak).roles == ()
    assert accepted(claims(realm_access="roles"), keycloak).roles == ()


def test_claim_with_dots_in_its_own_name_comes_first() -> None:
    auth0 = oidc(roles_claim="https://acme.example/roles")
    said = claims(**{"https://acme.example/roles": ["reader"], "https://acme": {"example/roles": ["admin"]}})
    assert accepted(said, auth0).roles == ("reader",)
    assert accepted(claims(**{"a.b": None, "a": {"b": ["admin"]}}), oidc(roles_claim="a.b")).roles == ()


PATHS: dict[str, tuple[str, dict[str, Any], Any]] = {
    "plain": ("roles", {"roles": 1}, 1),
    "keycloak-realm": ("realm_access.roles", {"realm_access": {"roles": 1}}, 1),
    "keycloak-client": ("resource_access.orders-api.roles", {"resource_access": {"orders-api": {"roles": 1}}}, 1),
    "client-named-by-a-host": ("resource_access.api.acme.example.roles",
                               {"resource_access": {"api.acme.example": {"roles": 1}}}, 1),
    "url": ("https://acme.example/roles", {"https://acme.example/roles": 1}, 1),
    "inside-a-url": ("https://acme.example/claims.roles", {"https://acme.example/claims": {"roles": 1}}, 1),
    "url-inside": ("ext.https://acme.example/roles", {"ext": {"https://acme.example/roles": 1}}, 1),
    "both-spellings": ("a.b.c", {"a.b": {"c": 1}, "a": {"b.c": 2, "b": {"c": 3}}}, 1),
    "longest-name-counts-though-it-leads-nowhere": ("a.b.c", {"a.b": {}, "a": {"b": {"c": 1}}}, None),
    "through-a-text": ("a.b", {"a": "b"}, None),
    "through-a-list": ("a.0", {"a": [1]}, None),
    "through-null": ("a.b", {"a": None}, None),
    "missing": ("a.b", {"c": {"b": 1}}, None),
    "empty-steps": ("a..b", {"a": {"": {"b": 1}}}, None),
    "empty-name-of-an-object": (".a", {"": {"a": 1}}, None),
    "dots-alone": ("..", {"a": 1}, None),
    "dot-at-the-end": ("a.", {"a": {"b": 1}}, None),
}  # fmt: skip


@pytest.mark.parametrize("name", PATHS)
def test_path_leads_to_one_claim_or_to_none(name: str) -> None:
    path, said, found = PATHS[name]
    assert lookup(said, path) == found


def test_claims_are_handed_on_for_conditions() -> None:
    assert accepted(claims(tenant="acme")).claims["tenant"] == "acme"
