"""Bearer tokens: every attack that is known by a name, against real keys."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from tests.identity.mint import (
    ABSENT,
    ISSUER,
    NOW,
    Sign,
    assemble,
    b64,
    claims,
    ec_key,
    ed_key,
    hs256,
    jwks,
    mint,
    oidc,
    provider_keys,
    rsa_key,
)

from gatebook.config.model import OIDCProvider
from gatebook.identity.jwk import Keys, parse_jwks
from gatebook.identity.jws import Unfit
from gatebook.identity.jwt import may_be_of_a_newer_key, read, verify
from gatebook.identity.keyed import signed_sha256
from gatebook.identity.types import Credential, Identity
from gatebook.record import REASONS


def check(
    token: bytes, provider: OIDCProvider | None = None, keys: Keys | None = None, now: float = NOW
) -> Identity | str:
    """The identity, or the reason why there is none."""
    try:
        wanted = oidc() if provider is None else provider
        return verify(
            read(token), "staff", wanted, provider_keys() if keys is None else keys, bytes(32), now
        ).identity
    except Unfit as error:
        return error.reason


def header_text(text: str, sign: Sign | None = None) -> bytes:
    return assemble(text.encode(), json.dumps(claims()).encode(), sign or rsa_key("r1").pkcs1)


def payload_text(text: str | bytes) -> bytes:
    payload = text if isinstance(text, bytes) else text.encode()
    return assemble(b'{"alg":"RS256","kid":"r1"}', payload, rsa_key("r1").pkcs1)


def payload_with(more: str) -> bytes:
    """A good payload with more JSON text in it, which `json.dumps` would not write."""
    return payload_text(json.dumps(claims())[:-1] + "," + more + "}")


def part(token: bytes, number: int, change: Callable[[bytes], bytes]) -> bytes:
    parts = token.split(b".")
    parts[number] = change(parts[number])
    return b".".join(parts)


def unsigned(alg: str) -> bytes:
    return part(mint(header={"alg": alg}), 2, lambda _: b"")


def attackers(**header: Any) -> bytes:
    """Signed by a key that the provider never published."""
    return mint(header=header, sign=rsa_key("attacker").pkcs1)


def other_spelling(token: bytes, number: int) -> bytes:
    """Bits beyond the last byte of a part are set: the same bytes to a lax decoder."""
    letters = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

    def change(text: bytes) -> bytes:
        assert len(text) % 4, "no spare bits"
        return text[:-1] + letters[letters.index(text[-1]) + 1 :][:1]

    changed = part(token, number, change)
    pad = b"=="
    before, after = (base64.urlsafe_b64decode(t.split(b".")[number] + pad) for t in (token, changed))
    assert before == after
    return changed


def with_spare_bits(number: int) -> bytes:
    """A good token of which that part does not fill its last letter."""
    for length in range(1, 4):
        token = mint(claims(pad="x" * length), {"pad": "x" * length})
        if len(token.split(b".")[number]) % 4:
            return token
    raise AssertionError


def jwe() -> bytes:
    bomb = zlib.compress(bytes(1 << 20))
    return b".".join(
        [b64(b'{"alg":"dir","enc":"A128GCM","zip":"DEF"}').encode(), b"", b"AAAA", b64(bomb).encode(), b"AA"]
    )


def r_plus_order(signature: bytes) -> bytes:
    """The same number to whoever reduces it first."""
    r = (int.from_bytes(signature[:32]) + P256_ORDER) % (1 << 256)
    return r.to_bytes(32) + signature[32:]


def s_plus_order(signature: bytes) -> bytes:
    s = int.from_bytes(signature[32:], "little") + ED25519_ORDER
    return signature[:32] + s.to_bytes(32, "little")


P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
ED25519_ORDER = (1 << 252) + 27742317777372353535851937790883648493
PSYCHIC = bytes(64)
ES = {"alg": "ES256", "kid": "e1"}
ATTACKS: dict[str, tuple[Callable[[], bytes], str]] = {
    # no signature, or one that only looks like it
    **{f"algorithm-{alg}-unsigned": (partial(unsigned, alg), "token_malformed") for alg in ("none", "nOnE")},
    **{
        f"algorithm-{alg}-with-a-signature": (partial(mint, header={"alg": alg}), "token_algorithm")
        for alg in ("none", "None", "NONE", "nOnE", "", " none", "none\u0000")
    },
    "signature-missing": (lambda: part(mint(), 2, lambda _: b""), "token_malformed"),
    "signature-part-missing": (lambda: mint().rpartition(b".")[0], "token_malformed"),
    "signature-truncated": (lambda: mint(sign=lambda d: rsa_key("r1").pkcs1(d)[:-3]), "token_signature"),
    "signature-of-one-byte": (lambda: part(mint(), 2, lambda _: b"AA"), "token_signature"),
    "signature-of-zeros": (lambda: mint(sign=lambda _: bytes(256)), "token_signature"),
    "signature-longer": (lambda: mint(sign=lambda d: rsa_key("r1").pkcs1(d) + b"\0"), "token_signature"),
    "payload-changed": (
        lambda: part(mint(), 1, lambda _: b64(json.dumps(claims(sub="root")).encode()).encode()),
        "token_signature",
    ),
    "ecdsa-psychic": (lambda: mint(header=ES, sign=lambda _: PSYCHIC), "token_signature"),
    "ecdsa-r-is-zero": (
        lambda: mint(header=ES, sign=lambda d: bytes(32) + ec_key("e1").sign(d)[32:]),
        "token_signature",
    ),
    "ecdsa-r-plus-order": (
        lambda: mint(header=ES, sign=lambda d: r_plus_order(ec_key("e1").sign(d))),
        "token_signature",
    ),
    "eddsa-s-plus-order": (
        lambda: mint(header={"alg": "EdDSA", "kid": "o1"}, sign=lambda d: s_plus_order(ed_key("o1").sign(d))),
        "token_signature",
    ),
    "pss-with-another-salt": (
        lambda: mint(header={"alg": "PS256", "kid": "any"}, sign=lambda d: rsa_key("any").pss(d, salt=20)),
        "token_signature",
    ),
    "ecdsa-in-der": (lambda: mint(header=ES, sign=ec_key("e1").der), "token_signature"),
    "ecdsa-too-long": (lambda: mint(header=ES, sign=lambda d: ec_key("e1").sign(d) + b"\0\0"), "token_signature"),
    "ecdsa-empty-but-dots": (lambda: mint(header=ES, sign=lambda _: b"\0"), "token_signature"),
    # another algorithm than the key's
    "hs256-with-the-public-key-as-secret": (
        lambda: mint(header={"alg": "HS256"}, sign=hs256(rsa_key("r1").pem())),
        "token_algorithm",
    ),
    "hs256-with-the-jwk-as-secret": (
        lambda: mint(header={"alg": "HS256"}, sign=hs256(jwks(rsa_key("r1").jwk()))),
        "token_algorithm",
    ),
    "algorithm-not-listed": (lambda: mint(header={"alg": "RS384"}), "token_algorithm"),
    "algorithm-unknown": (lambda: mint(header={"alg": "XX999"}), "token_algorithm"),
    "algorithm-in-small-letters": (lambda: mint(header={"alg": "rs256"}), "token_algorithm"),
    "algorithm-listed-but-not-the-key's": (
        lambda: mint(header={"alg": "PS256"}, sign=rsa_key("r1").pss),
        "token_algorithm",
    ),
    "algorithm-of-another-type-of-key": (
        lambda: mint(header={"alg": "ES256", "kid": "r1"}, sign=ec_key("e1").sign),
        "token_algorithm",
    ),
    "algorithm-says-rsa-key-is-ec": (lambda: mint(header={"kid": "e1"}), "token_algorithm"),
    "algorithm-is-a-list": (lambda: mint(header={"alg": ["RS256"]}), "token_malformed"),
    "algorithm-missing": (lambda: mint(header={"alg": ABSENT}), "token_malformed"),
    "pbes2-with-a-huge-count": (
        lambda: mint(header={"alg": "PBES2-HS256+A128KW", "p2c": 2**31, "p2s": "AAAA"}),
        "token_algorithm",
    ),
    # keys of the attacker's
    "jwk-embedded": (lambda: attackers(jwk=rsa_key("attacker").jwk()), "token_signature"),
    "jwk-embedded-without-kid": (
        lambda: attackers(kid=ABSENT, jwk=rsa_key("attacker").jwk()),
        "token_signature",
    ),
    "jku": (lambda: attackers(jku="https://attacker.example/jwks"), "token_signature"),
    "jku-to-a-file": (lambda: attackers(jku="file:///etc/passwd"), "token_signature"),
    "x5u": (lambda: attackers(x5u="https://attacker.example/cert.pem"), "token_signature"),
    "x5c": (lambda: attackers(x5c=["MIIB"]), "token_signature"),
    **{
        f"kid-{name}": (partial(attackers, kid=kid), "token_key_unknown")
        for name, kid in {
            "of-a-path": "../../../../dev/null",
            "of-a-file": "/proc/sys/kernel/randomize_va_space",
            "with-sql": "x' UNION SELECT 'secret' --",
            "with-a-command": "r1|/usr/bin/touch /tmp/x",
            "of-a-url": "https://attacker.example/key",
            "with-a-nul": "r1\u0000",
            "in-capitals": "R1",
            "empty": "",
        }.items()
    },
    "kid-too-long": (lambda: attackers(kid="r" * 600), "token_malformed"),
    "kid-is-a-number": (lambda: attackers(kid=1), "token_malformed"),
    "kid-is-null": (lambda: attackers(kid=None), "token_malformed"),
    "kid-is-a-mapping": (lambda: attackers(kid={"r1": 1}), "token_malformed"),
    "other-issuer-same-kid": (
        lambda: mint(claims(iss="https://evil.example"), sign=rsa_key("attacker").pkcs1),
        "token_issuer",
    ),
    # extensions
    "crit-unknown": (lambda: mint(header={"crit": ["x"], "x": 1}), "token_malformed"),
    "crit-of-something-known": (lambda: mint(header={"crit": ["alg"]}), "token_malformed"),
    "crit-empty": (lambda: mint(header={"crit": []}), "token_malformed"),
    "b64-false": (lambda: mint(header={"b64": False, "crit": ["b64"]}), "token_malformed"),
    "b64-false-uncritical": (lambda: mint(header={"b64": False}), "token_malformed"),
    "b64-true": (lambda: mint(header={"b64": True}), "token_malformed"),
    "zip": (lambda: mint(header={"zip": "DEF"}), "token_malformed"),
    # forms
    "jwe-with-a-bomb": (jwe, "token_malformed"),
    "nested-token": (lambda: payload_text(mint()), "token_malformed"),
    "json-serialisation": (lambda: json.dumps({"payload": "e30", "signatures": []}).encode(), "token_malformed"),
    "four-parts": (lambda: mint() + b".AAAA", "token_malformed"),
    "empty": (lambda: b"", "token_malformed"),
    "dots": (lambda: b"..", "token_malformed"),
    "newline-at-the-end": (lambda: mint() + b"\n", "token_malformed"),
    "space-inside": (lambda: part(mint(), 1, lambda p: p[:8] + b" " + p[8:]), "token_malformed"),
    "padding": (lambda: with_spare_bits(1).replace(b".", b"=.", 2), "token_malformed"),
    "standard-base64": (lambda: part(mint(), 2, lambda s: b"+/" + s[2:]), "token_malformed"),
    "beyond-ascii": (lambda: part(mint(), 1, lambda p: p[:8] + "é".encode() + p[8:]), "token_malformed"),
    "other-spelling-of-the-header": (lambda: other_spelling(with_spare_bits(0), 0), "token_malformed"),
    "other-spelling-of-the-payload": (lambda: other_spelling(with_spare_bits(1), 1), "token_malformed"),
    "other-spelling-of-the-signature": (lambda: other_spelling(mint(), 2), "token_malformed"),
    "over-8-kB": (lambda: mint(claims(pad="x" * 6200)), "token_malformed"),
    "header-is-a-list": (lambda: header_text('["alg","RS256"]'), "token_malformed"),
    "header-is-no-json": (lambda: header_text("alg=RS256"), "token_malformed"),
    "header-with-alg-twice": (lambda: header_text('{"alg":"none","kid":"r1","alg":"RS256"}'), "token_malformed"),
    "header-with-alg-twice-escaped": (
        lambda: header_text('{"\\u0061lg":"none","alg":"RS256"}'),
        "token_malformed",
    ),
    "payload-with-aud-twice": (lambda: payload_with('"aud":"other-api"'), "token_malformed"),
    "payload-with-sub-twice-escaped": (lambda: payload_with('"s\\u0075b":"admin"'), "token_malformed"),
    "payload-with-a-key-twice-inside": (lambda: payload_with('"x":{"y":[{"z":1,"z":2}]}'), "token_malformed"),
    "payload-is-a-list": (lambda: payload_text("[]"), "token_malformed"),
    "payload-is-no-utf8": (lambda: payload_text(b'{"iss":"\xff"}'), "token_malformed"),
    "payload-with-a-bom": (lambda: payload_text("\ufeff" + json.dumps(claims())), "token_malformed"),
    "payload-in-utf16": (lambda: payload_text(json.dumps(claims()).encode("utf-16")), "token_malformed"),
    "payload-with-half-a-character": (lambda: payload_with('"x":"\\ud800"'), "token_malformed"),
    "payload-nested-deeply": (lambda: payload_with('"x":' + "[" * 2000 + "]" * 2000), "token_malformed"),
    "payload-with-nan": (lambda: payload_with('"x":NaN'), "token_malformed"),
    "payload-with-a-number-of-4000-digits": (lambda: payload_with('"x":' + "9" * 4000), "token_malformed"),
    "payload-with-an-endless-float": (lambda: payload_with('"x":1e999'), "token_malformed"),
    # issuer
    "issuer-with-a-slash": (lambda: mint(claims(iss=ISSUER + "/")), "token_issuer"),
    "issuer-in-capitals": (lambda: mint(claims(iss=ISSUER.upper())), "token_issuer"),
    "issuer-as-a-list": (lambda: mint(claims(iss=[ISSUER])), "token_issuer"),
    "issuer-missing": (lambda: mint(claims(iss=ABSENT)), "token_issuer"),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_attack_is_refused(name: str) -> None:
    make, reason = ATTACKS[name]
    assert reason in REASONS
    assert check(make()) == reason


@pytest.mark.parametrize("name", ATTACKS)
def test_attack_is_refused_where_every_algorithm_is_listed(name: str) -> None:
    every = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
    assert isinstance(check(ATTACKS[name][0](), oidc(algorithms=every)), str)


GOOD: dict[str, Callable[[], bytes]] = {
    "RS256": mint,
    "PS256": lambda: mint(header={"alg": "PS256", "kid": "any"}, sign=rsa_key("any").pss),
    "RS256-by-a-key-that-names-no-algorithm": lambda: mint(header={"kid": "any"}, sign=rsa_key("any").pkcs1),
    "ES256": lambda: mint(header=ES, sign=ec_key("e1").sign),
    "EdDSA": lambda: mint(header={"alg": "EdDSA", "kid": "o1"}, sign=ed_key("o1").sign),
    "no-kid": lambda: mint(header={"kid": ABSENT}, sign=rsa_key("any").pkcs1),
    "no-typ": lambda: mint(header={"typ": ABSENT}),
    "jku-of-the-provider": lambda: mint(header={"jku": ISSUER + "/jwks"}),
    "unknown-header-parameter": lambda: mint(header={"x5t": "AAAA", "nonce": "1"}),
    "certificates-in-the-header": lambda: mint(header={"x5c": ["M" * 1500]}),
    "8-kB": lambda: mint(claims(pad="x" * 5000)),
}


@pytest.mark.parametrize("name", GOOD)
def test_good_token_is_accepted(name: str) -> None:
    found = check(GOOD[name]())
    assert isinstance(found, Identity), found
    assert (found.provider, found.method, found.subject) == ("staff", "oidc", "alice")


def test_forged_token_is_not_on_record_as_expired() -> None:
    assert check(mint(claims(exp=1), sign=rsa_key("attacker").pkcs1)) == "token_signature"
    assert check(mint(claims(exp=1))) == "token_expired"


def test_second_signature_that_anybody_can_make_is_of_the_same_credential() -> None:
    """Of an ECDSA signature (r, s) there is (r, n - s). Both hold; what is counted or revoked must not differ."""

    def negated(data: bytes) -> bytes:
        signature = ec_key("e1").sign(data)
        return signature[:32] + (P256_ORDER - int.from_bytes(signature[32:])).to_bytes(32)

    first, second = mint(header=ES, sign=ec_key("e1").sign), mint(header=ES, sign=negated)
    assert isinstance(check(first), Identity)
    assert isinstance(check(second), Identity)
    digests = [signed_sha256(Credential("bearer", token, scheme="bearer")) for token in (first, second)]
    assert digests[0] == digests[1]


def test_token_that_does_not_say_that_it_is_an_access_token_where_it_must() -> None:
    strict = oidc(only_at_jwt=True)
    assert check(mint(header={"typ": "JWT"}), strict) == "token_type"
    assert isinstance(check(mint(), strict), Identity)


def test_key_meant_for_encryption_verifies_nothing() -> None:
    keys = parse_jwks(jwks(rsa_key("r1").jwk(kid="r1", use="enc")))
    assert check(mint(), keys=keys) == "token_key_unknown"


def test_token_is_tried_with_few_keys_only() -> None:
    others = [rsa_key(f"other{n}").jwk(kid=f"other{n}") for n in range(3)]
    nameless = mint(header={"kid": ABSENT})
    mine = rsa_key("r1").jwk(kid="r1")
    assert isinstance(check(nameless, keys=parse_jwks(jwks(*others, mine))), Identity)
    flood = [rsa_key("attacker").jwk(kid="one-more"), *others, mine]
    assert check(nameless, keys=parse_jwks(jwks(*flood))) == "token_key_unknown"
    assert isinstance(check(mint(), keys=parse_jwks(jwks(*flood))), Identity)


def test_two_keys_of_one_name_both_serve() -> None:
    keys = parse_jwks(
        jwks(rsa_key("attacker").jwk(kid="r1"), rsa_key("r1").jwk(kid="r1"), ec_key("e1").jwk(kid="r1"))
    )
    assert isinstance(check(mint(), keys=keys), Identity)
    assert isinstance(check(mint(header={"alg": "ES256"}, sign=ec_key("e1").sign), keys=keys), Identity)


@pytest.mark.parametrize(
    ("reason", "header", "newer"),
    [
        ("token_key_unknown", {}, True),
        ("token_signature", {"kid": ABSENT}, True),
        ("token_signature", {}, False),
        ("token_expired", {"kid": ABSENT}, False),
    ],
)
def test_only_a_missing_key_is_a_reason_to_fetch(reason: str, header: dict[str, Any], newer: bool) -> None:
    assert may_be_of_a_newer_key(reason, read(mint(header=header))) is newer
