"""Published keys: which may verify, and by which algorithms."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.identity.mint import EC, RSA, ec_key, ed_key, integer, jwks, rsa_key

from gatebook.identity.jwk import MAX_KEYS, parse_jwks


def algorithms(*keys: dict[str, Any]) -> list[set[str]]:
    return [set(key.algorithms) for key in parse_jwks(jwks(*keys)).named(None)]


def test_key_serves_the_algorithms_of_its_type() -> None:
    rsa = {f"{family}{bits}" for family in ("RS", "PS") for bits in (256, 384, 512)}
    keys = [
        rsa_key("r1").jwk(),
        *(ec_key("e", crv).jwk() for crv in ("P-256", "P-384", "P-521")),
        ed_key("o1").jwk(),
    ]
    assert algorithms(*keys) == [rsa, {"ES256"}, {"ES384"}, {"ES512"}, {"EdDSA"}]


def test_key_that_names_an_algorithm_serves_that_alone() -> None:
    assert algorithms(rsa_key("r1").jwk(alg="PS384"), ec_key("e1").jwk(alg="ES256")) == [{"PS384"}, {"ES256"}]


POINT = ec_key("e1").jwk()
MODULUS = rsa_key("r1").jwk()
IGNORED: dict[str, tuple[Any, str]] = {
    "no-object": ("key", "no object"),
    "no-type": ({"n": MODULUS["n"], "e": "AQAB"}, "broken"),
    "type-unknown": ({"kty": "AKP", "alg": "ML-DSA-65", "pub": "AAAA"}, "unknown type"),
    "type-is-a-list": ({**MODULUS, "kty": ["RSA"]}, "broken"),
    "shared-secret": ({"kty": "oct", "k": "AAAA", "alg": "HS256"}, "unknown type"),
    "curve-unknown": ({**POINT, "crv": "secp256k1"}, "unknown type"),
    "curve-missing": ({"kty": "EC", "x": POINT["x"], "y": POINT["y"]}, "unknown type"),
    "curve-of-another-type": ({**POINT, "crv": "Ed25519"}, "unknown type"),
    "key-agreement": ({"kty": "OKP", "crv": "X25519", "x": ed_key("o1").jwk()["x"]}, "unknown type"),
    "private-rsa": ({**MODULUS, "d": "AAAA"}, "private key published"),
    "private-ec": ({**POINT, "d": "AAAA"}, "private key published"),
    "for-encryption": ({**MODULUS, "use": "enc"}, "not for signatures"),
    "use-unknown": ({**MODULUS, "use": "tls"}, "not for signatures"),
    "use-is-a-list": ({**MODULUS, "use": ["sig"]}, "not for signatures"),
    "for-wrapping": ({**MODULUS, "key_ops": ["wrapKey"]}, "not for signatures"),
    "key-ops-no-list": ({**MODULUS, "key_ops": "verify"}, "not for signatures"),
    "algorithm-for-encryption": ({**MODULUS, "alg": "RSA-OAEP"}, "unknown algorithm"),
    "algorithm-none": ({**MODULUS, "alg": "none"}, "unknown algorithm"),
    "algorithm-symmetric": ({**MODULUS, "alg": "HS256"}, "unknown algorithm"),
    "algorithm-of-another-curve": ({**POINT, "alg": "ES384"}, "unknown algorithm"),
    "algorithm-is-null": ({**MODULUS, "alg": None}, "unknown algorithm"),
    "algorithm-is-a-list": ({**MODULUS, "alg": ["RS256"]}, "broken"),
    "kid-is-a-number": ({**MODULUS, "kid": 1}, "kid is no text"),
    "kid-too-long": ({**MODULUS, "kid": "k" * 600}, "kid is no text"),
    "modulus-missing": ({"kty": "RSA", "e": "AQAB"}, "broken"),
    "modulus-is-a-number": ({**MODULUS, "n": 5}, "broken"),
    "modulus-no-base64": ({**MODULUS, "n": "é" * 400}, "broken"),
    "exponent-one": ({**MODULUS, "e": integer(1)}, "broken"),
    "exponent-even": ({**MODULUS, "e": integer(65536)}, "broken"),
    "exponent-huge": ({**MODULUS, "e": integer(2**4000 + 1)}, "broken"),
    "point-not-on-the-curve": ({**POINT, "y": POINT["x"]}, "broken"),
    "point-too-short": ({**POINT, "x": "AAAA"}, "broken"),
    "point-at-zero": ({**POINT, "x": "A" * 43, "y": "A" * 43}, "broken"),
    "edwards-too-short": ({**ed_key("o1").jwk(), "x": "AAAA"}, "broken"),
}


@pytest.mark.parametrize("name", IGNORED)
def test_key_is_passed_over_and_the_others_serve(name: str) -> None:
    bad, why = IGNORED[name]
    good = ec_key("other").jwk(kid="good")
    keys = parse_jwks(jwks(bad, good))
    assert [key.kid for key in keys.named(None)] == ["good"]
    assert keys.ignored == {why: 1}


@pytest.mark.parametrize(
    ("bits", "why"), [(1024, "RSA key too small"), (2047, "RSA key too small"), (9000, "RSA key too large")]
)
def test_rsa_key_of_the_wrong_size_is_passed_over(bits: int, why: str) -> None:
    bad = {"kty": "RSA", "n": integer((1 << (bits - 1)) + 1), "e": "AQAB"}
    assert parse_jwks(jwks(bad)).ignored == {why: 1}


def test_small_key_that_is_genuine_is_passed_over_too() -> None:
    assert parse_jwks(jwks(RSA(1024).jwk(kid="weak"))).named("weak") == []


def test_broken_extras_do_not_matter() -> None:
    odd = {"x5c": 5, "x5t": [], "x5u": "no url", "issuer": None, "key_ops": ["verify", "dance"]}
    assert len(parse_jwks(jwks(rsa_key("r1").jwk(**odd)))) == 1


def test_same_key_twice_counts_once() -> None:
    key = ec_key("e1").jwk(kid="e1")
    assert len(parse_jwks(jwks(key, key))) == 1
    assert len(parse_jwks(jwks(key, EC().jwk(kid="e1")))) == 2


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"keys":{}}',
        '{"keys":null}',
        '{"keys":[],"keys":[]}',
        "<html></html>",
        '{"keys":[' + "[" * 90_000,
    ],
)
def test_document_that_is_no_jwks_is_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - of several sorts
        parse_jwks(text.encode())


def test_too_many_keys_are_refused_unread() -> None:
    assert len(parse_jwks(jwks(*[{"kty": "x"}] * MAX_KEYS))) == 0
    with pytest.raises(ValueError, match="10000 keys"):
        parse_jwks(jwks(*[{"kty": "x"}] * 10_000))


def test_mark_names_key_name_and_algorithm() -> None:
    first = parse_jwks(jwks(rsa_key("r1").jwk(kid="a", alg="RS256")))
    assert len(first.marks) == 1
    for changed in (
        rsa_key("r1").jwk(kid="b", alg="RS256"),
        rsa_key("r1").jwk(kid="a", alg="PS256"),
        rsa_key("any").jwk(kid="a", alg="RS256"),
    ):
        assert not first.marks & parse_jwks(jwks(changed)).marks


@given(
    st.recursive(
        st.none() | st.text() | st.integers(-(2**60), 2**60),
        lambda v: (
            st.lists(v)
            | st.dictionaries(
                st.sampled_from(["kty", "crv", "x", "y", "n", "e", "kid", "use", "alg", "key_ops"]), v
            )
        ),
        max_leaves=8,
    )
)
def test_no_document_breaks_the_parser(value: object) -> None:
    assert len(parse_jwks(json.dumps({"keys": [value]}).encode())) == 0
