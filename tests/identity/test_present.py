"""Finding the one credential: what is sent twice, in other schemes, in odd forms."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.identity.deployment import configuration
from tests.identity.mint import oidc

from gatebook.config.model import ApiKeyProvider, MTLSProvider
from gatebook.identity.present import plan, present
from gatebook.identity.types import Credential, Presented, Refusal

CONFIGURATION = configuration(
    staff=oidc(),
    partners=ApiKeyProvider(type="api_key"),
    agents=ApiKeyProvider(type="api_key"),
    machines=ApiKeyProvider(type="api_key", header="X-Machine-Key"),
)
AMBIGUOUS = Refusal("credential_ambiguous")
MALFORMED = Refusal("token_malformed")
BOTH = ("staff", "partners")
BEARER = (b"authorization", b"Bearer abc.def.ghi")
KEY = (b"x-api-key", b"gbk_1")
TOKEN = Credential("bearer", b"abc.def.ghi", scheme="bearer")


def found(headers: list[tuple[bytes, bytes]], accept: tuple[str, ...] = BOTH) -> Any:
    around = [(b"host", b"x"), *headers, (b"user-agent", b"curl")]
    return present(Presented(around, "GET", "https://api.acme.example/"), plan(CONFIGURATION, accept))


def test_bearer_token_and_key_are_found() -> None:
    assert found([BEARER]) == TOKEN
    assert found([KEY]) == Credential("api_key", b"gbk_1", "partners")
    assert found([]) is None


@pytest.mark.parametrize(
    "headers",
    [
        [BEARER, BEARER],
        [BEARER, (b"authorization", b"Basic eDp5")],
        [(b"authorization", b""), BEARER],
        [BEARER, KEY],
        [KEY, BEARER],
        [KEY, KEY],
        [KEY, (b"x-api-key", b"")],
        [KEY, (b"authorization", b"Basic eDp5")],
        [KEY, (b"authorization", b"")],
    ],
)
def test_two_credentials_are_ambiguous(headers: list[tuple[bytes, bytes]]) -> None:
    assert found(headers) == AMBIGUOUS


def test_two_keys_in_two_headers_are_ambiguous() -> None:
    both = [KEY, (b"x-machine-key", b"gbk_2")]
    assert found(both, ("partners", "machines")) == AMBIGUOUS
    assert found(both, ("partners",)) == Credential("api_key", b"gbk_1", "partners")
    assert found(both, ("machines",)) == Credential("api_key", b"gbk_2", "machines")


def test_two_providers_may_share_a_header() -> None:
    assert found([KEY], ("agents", "partners")) == Credential("api_key", b"gbk_1", "agents")


def test_what_the_route_does_not_take_is_the_upstream_s() -> None:
    assert found([KEY, BEARER, BEARER], ("partners",)) == Credential("api_key", b"gbk_1", "partners")
    assert found([KEY, KEY, BEARER], ("staff",)) == TOKEN
    assert found([KEY], ("staff",)) is None
    assert found([BEARER], ("partners",)) is None


def test_dpop_token_is_found_where_proofs_are_taken() -> None:
    known = configuration(staff=oidc(dpop="allow"), strict=oidc(dpop="require"), plain=oidc())

    def token(value: bytes, *accept: str) -> Any:
        return present(Presented([(b"authorization", value)], "GET", "https://x/"), plan(known, accept))

    for accept in (("staff",), ("strict",), ("plain", "staff")):
        assert token(b"DPoP a.b.c", *accept) == token(b"dpop  a.b.c", *accept)
        assert token(b"DPoP a.b.c", *accept) == Credential("bearer", b"a.b.c", scheme="dpop")
        assert token(b"Bearer a.b.c", *accept) == Credential("bearer", b"a.b.c", scheme="bearer")
        for bad in (b"DPoP", b"DPoP ", b"DPoP a b", b"DPoP a, Bearer b", b"DPoP " + b"a" * 9000):
            assert token(bad, *accept) == MALFORMED
    assert token(b"DPoP a.b.c", "plain") is None


def test_certificate_is_a_credential_where_one_is_taken_and_nothing_else_was_sent() -> None:
    mtls = MTLSProvider(type="mtls", ca=Path("ca.pem"), subject="common_name")
    known = configuration(staff=oidc(), partners=ApiKeyProvider(type="api_key"), hosts=mtls)

    def shown(headers: list[tuple[bytes, bytes]], *accept: str, certificate: bytes = b"DER") -> Any:
        return present(Presented(headers, "GET", "https://api.acme.example/", certificate), plan(known, accept))

    own = Credential("certificate", b"DER")
    assert shown([], "hosts") == shown([], "staff", "hosts") == own
    assert shown([], "hosts", certificate=b"") is None
    assert shown([], "staff", "partners") is None
    assert shown([BEARER, KEY], "hosts") == own  # the upstream's, both
    # It belongs to the connection: beside what was sent with the request it is no second credential.
    assert shown([BEARER], "hosts", "staff") == TOKEN
    assert shown([KEY], "hosts", "partners") == Credential("api_key", b"gbk_1", "partners")
    assert shown([BEARER, BEARER], "hosts", "staff") == AMBIGUOUS
    assert shown([(b"authorization", b"Bearer")], "hosts", "staff") == MALFORMED
    assert shown([(b"authorization", b"Basic eDp5")], "hosts", "staff") == own


def test_unknown_provider_takes_nothing() -> None:
    assert found([BEARER, KEY], ("nobody",)) is None


@pytest.mark.parametrize(
    "value", [b"", b"Basic eDp5", b"DPoP abc.def.ghi", b"abc.def.ghi", b"Bearerabc", b"Token x", b"Bear"]
)
def test_another_scheme_presents_nothing(value: bytes) -> None:
    assert found([(b"authorization", value)]) is None


@pytest.mark.parametrize(
    "value",
    [
        b"Bearer",
        b"Bearer ",
        b"bearer  ",
        b"Bearer a b",
        b"Bearer a,b",
        b"Bearer a, Bearer b",
        b"Bearer\ta",
        b"Bearer a\n",
        b"Bearer \xff",
        b'Bearer "a"',
        b"Bearer =",
        b"Bearer a=b",
        b"Bearer " + b"a" * 9000,
        b"Bearer a ",
    ],
)
def test_bearer_without_a_token_in_form_is_malformed(value: bytes) -> None:
    assert found([(b"authorization", value)]) in (MALFORMED, None)
    if value[6:7] != b"\t":
        assert found([(b"authorization", value)]) == MALFORMED


@pytest.mark.parametrize("value", [b"bearer abc.def.ghi", b"BEARER abc.def.ghi", b"Bearer    abc.def.ghi"])
def test_scheme_s_case_and_spaces_do_not_matter(value: bytes) -> None:
    assert found([(b"authorization", value)]) == TOKEN


@given(
    st.lists(
        st.tuples(st.sampled_from([b"authorization", b"x-api-key", b"x-machine-key", b"cookie"]), st.binary())
    )
)
def test_never_more_than_one_credential(headers: list[tuple[bytes, bytes]]) -> None:
    result = found(headers, ("staff", "partners", "machines"))
    if isinstance(result, Credential):
        sent = [value for name, value in headers if name != b"cookie"]
        assert len(sent) == 1
        assert result.value in sent[0]
