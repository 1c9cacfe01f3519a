"""DPoP proofs: every way to make one that is not for this request, by this key, with this token, now."""

from __future__ import annotations

import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from hypothesis import given
from hypothesis import strategies as st
from tests.identity.mint import ABSENT, NOW, assemble, b64, ec_key, ed_key, hs256, integer, rsa_key
from tests.identity.prove import TOKEN, URL, ath, jkt, prove, shown

from gatebook.config.model import Binding
from gatebook.identity import binding, dpop
from gatebook.identity.dpop import MAX_AGE_S, MAX_JTI_LENGTH, MAX_PROOF_BYTES, Asked, Proof, check, target
from gatebook.identity.jws import Unfit
from gatebook.identity.nonce import LIFETIME_S, Nonces
from gatebook.identity.types import Bound, Credential, Identity, Presented, Refusal

SKEW_S = 30.0
ORIGINS = frozenset({"https://api.acme.example"})
ASKED = Asked(ORIGINS, SKEW_S, None)
NONCES = Nonces(bytes(32))
HOLDER = jkt(ec_key("holder"))


def judge(presented: Presented, now: float = NOW, asked: Asked = ASKED, token: bytes = TOKEN) -> Proof | str:
    try:
        return check(presented, Credential("bearer", token).sha256(), asked, now)
    except Unfit as error:
        return error.reason


def of(proof: bytes, **more: Any) -> Proof | str:
    return judge(shown(proof), **more)


def test_proof_that_holds_names_its_key_and_its_one_use() -> None:
    proof = prove()
    found = of(proof)
    assert isinstance(found, Proof)
    assert found.jkt == HOLDER
    assert found.until_us >= (NOW + MAX_AGE_S + SKEW_S) * 1e6
    assert of(proof) == found
    other = of(prove())
    assert isinstance(other, Proof)
    assert other.once != found.once


@pytest.mark.parametrize(
    ("alg", "key", "sign"),
    [
        ("ES384", ec_key("holder", "P-384"), ec_key("holder", "P-384").sign),
        ("ES512", ec_key("holder", "P-521"), ec_key("holder", "P-521").sign),
        ("EdDSA", ed_key("holder"), ed_key("holder").sign),
        ("Ed25519", ed_key("holder"), ed_key("holder").sign),
        ("RS256", rsa_key("holder"), rsa_key("holder").pkcs1),
        ("PS256", rsa_key("holder"), rsa_key("holder").pss),
    ],
)
def test_other_algorithms_with_their_own_keys_hold(alg: str, key: Any, sign: Any) -> None:
    assert isinstance(of(prove(header={"alg": alg}, key=key, sign=sign)), Proof)


# -- the form ---------------------------------------------------------------------------------------------
def test_two_proof_headers_are_none_even_if_both_hold() -> None:
    one, two = prove(), prove()
    assert judge(shown(one, two)) == judge(shown(one, one)) == judge(shown(one, b"")) == "proof_malformed"
    assert judge(shown(one + b", " + two)) == judge(shown(one + b"," + two)) == "proof_malformed"


def test_no_proof_is_missing() -> None:
    assert judge(shown()) == "proof_missing"


def test_oversized_proof_is_malformed() -> None:
    def sized(extra: int) -> bytes:
        return prove({"x": "a" * extra, "jti": "j"})

    spare = MAX_PROOF_BYTES - len(sized(0))
    fits = max((sized(n) for n in range(spare * 3 // 4 - 8, spare * 3 // 4 + 1)), key=len)
    assert MAX_PROOF_BYTES - 8 <= len(fits) <= MAX_PROOF_BYTES
    assert isinstance(of(fits), Proof)
    assert of(sized(spare)) == "proof_malformed"
    assert of(b"a" * 100_000) == "proof_malformed"


@pytest.mark.parametrize("proof", [b"", b"x", b"..", b"a.b.c", b"a.b", TOKEN, b"\xff.\xff.\xff", b"Bearer x"])
def test_what_is_no_token_is_malformed(proof: bytes) -> None:
    assert of(proof) == "proof_malformed"


@pytest.mark.parametrize(
    "typ", [ABSENT, None, "JWT", "at+jwt", "DPOP+JWT", "dpop+jwt ", "application/dpop+jwt", 1]
)
def test_token_of_another_type_is_no_proof(typ: object) -> None:
    assert of(prove(header={"typ": typ})) == "proof_malformed"


@pytest.mark.parametrize(
    "header", [{"crit": ["x"]}, {"b64": False}, {"zip": "DEF"}, {"crit": []}, {"kid": 1}, {"kid": None}]
)
def test_header_that_changes_the_meaning_is_malformed(header: dict[str, object]) -> None:
    assert of(prove(header=header)) == "proof_malformed"


def test_proof_with_a_key_given_twice_or_padding_is_malformed() -> None:
    holder = ec_key("holder")
    head = json.dumps({"typ": "dpop+jwt", "alg": "ES256", "jwk": holder.jwk()})
    body = f'{{"htm":"GET","htm":"POST","htu":"{URL}","iat":{int(NOW)},"jti":"a","ath":"{ath()}"}}'
    assert of(assemble(head.encode(), body.encode(), holder.sign)) == "proof_malformed"
    assert of(prove() + b"=") == "proof_malformed"


# -- the key ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("alg", ["none", "None", "NONE", "nOnE", ""])
def test_alg_none_is_refused(alg: str) -> None:
    for sign in (lambda data: b"x", ec_key("holder").sign):
        assert of(prove(header={"alg": alg}, sign=sign)) == "proof_algorithm"


@pytest.mark.parametrize("alg", ["HS256", "HS384", "HS512", "A128KW", "RSA1_5", "dir", "ES256K", "RS1"])
def test_symmetric_or_unknown_algorithm_is_refused(alg: str) -> None:
    assert of(prove(header={"alg": alg})) == "proof_algorithm"
    secret = b"secret of sufficient length here"
    jwk = {"kty": "oct", "k": b64(secret)}
    assert of(prove(header={"alg": alg, "jwk": jwk}, sign=hs256(secret))) == "proof_algorithm"
    # The public key as a secret: what confuses verifiers that go by the header alone.
    public = json.dumps(ec_key("holder").jwk()).encode()
    assert of(prove(header={"alg": alg}, sign=hs256(public))) == "proof_algorithm"


@pytest.mark.parametrize("alg", ["ES384", "EdDSA", "RS256", "PS256"])
def test_algorithm_of_another_kind_of_key_is_refused(alg: str) -> None:
    assert of(prove(header={"alg": alg})) == "proof_algorithm"


@pytest.mark.parametrize("member", ["d", "p", "q", "dp", "dq", "qi", "k", "oth"])
def test_proof_with_a_private_key_in_its_jwk_is_refused(member: str) -> None:
    """Whoever saw it can make the next one; and who sends it does not know what it is doing."""
    private = ec_key("holder").private.private_numbers().private_value
    value = integer(private, 32) if member == "d" else "AAAA"
    assert of(prove(header={"jwk": ec_key("holder").jwk(**{member: value})})) == "proof_malformed"


@pytest.mark.parametrize(
    "jwk",
    [
        ABSENT,
        None,
        "x",
        [],
        {},
        {"kty": "EC"},
        {"kty": "oct", "k": "AAAA"},
        {"kty": "OKP", "crv": "X25519", "x": "A" * 43},
        {"kty": ["EC"]},
        ec_key("holder").jwk(use="enc"),
        ec_key("holder").jwk(key_ops=["sign"]),
        ec_key("holder").jwk(alg="ES384"),
        {**ec_key("holder").jwk(), "x": "A" * 43},
        {**ec_key("holder").jwk(), "x": 1},
        {**rsa_key("holder").jwk(), "n": integer((1 << 1023) + 1)},
        {**rsa_key("holder").jwk(), "e": integer(1)},
    ],
    ids=[str(number) for number in range(16)],  # the same each time: keys are made anew
)
def test_key_that_is_none_is_refused(jwk: object) -> None:
    assert of(prove(header={"jwk": jwk})) == "proof_malformed"


@pytest.mark.parametrize("header", [{"jku": "https://evil.example/keys"}, {"x5u": "https://evil.example/c"}])
def test_key_elsewhere_is_never_fetched(header: dict[str, str]) -> None:
    assert of(prove(header={"jwk": ABSENT, **header})) == "proof_malformed"
    assert isinstance(of(prove(header=header)), Proof)  # only the key in the proof counts


def test_key_that_was_seen_is_remembered_by_its_whole_header() -> None:
    """The same key under another algorithm or type is looked at anew."""
    assert isinstance(of(prove()), Proof)
    assert of(prove(header={"alg": "ES384"})) == "proof_algorithm"
    assert of(prove(header={"typ": "JWT"})) == "proof_malformed"
    thief = ec_key("thief")
    found = of(prove(key=thief))
    assert isinstance(found, Proof)
    assert found.jkt == jkt(thief) != HOLDER


# -- the signature ----------------------------------------------------------------------------------------
def test_proof_signed_by_another_key_than_it_shows_is_refused() -> None:
    assert of(prove(sign=ec_key("thief").sign)) == "proof_signature"
    assert of(prove(sign=lambda data: bytes(64))) == "proof_signature"
    assert of(prove(sign=ec_key("holder").der)) == "proof_signature"


def test_second_signature_that_anybody_can_make_is_of_the_same_proof() -> None:
    """Of an ECDSA signature (r, s), (r, -s) holds too. It must not count as another proof."""
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    holder = ec_key("holder")

    def turned(data: bytes) -> bytes:
        r, s = decode_dss_signature(holder.der(data))
        r, s = decode_dss_signature(encode_dss_signature(r, order - s))
        return r.to_bytes(32) + s.to_bytes(32)

    first, second = of(prove({"jti": "a"})), of(prove({"jti": "a"}, sign=turned))
    assert isinstance(first, Proof)
    assert isinstance(second, Proof)
    assert first.once == second.once


@given(st.integers(0, 300), st.integers(0, 255))
def test_changed_byte_makes_it_no_proof(at: int, byte: int) -> None:
    proof = prove({"jti": "a"})
    changed = proof[:at] + bytes([byte]) + proof[at + 1 :]
    if changed != proof:
        assert isinstance(of(changed), str)


# -- what it is for ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("htm", [ABSENT, None, "POST", "get", "GET ", "", ["GET"], 1])
def test_proof_for_another_method_is_refused(htm: object) -> None:
    assert of(prove({"htm": htm})) == "proof_target"
    assert judge(shown(prove(), method="HEAD")) == "proof_target"


@pytest.mark.parametrize(
    "htu",
    [
        ABSENT,
        None,
        1,
        "",
        "/orders/7",
        "api.acme.example/orders/7",
        "//api.acme.example/orders/7",
        "http://api.acme.example/orders/7",
        "https://api.acme.example/orders/8",
        "https://api.acme.example/orders/7/",
        "https://api.acme.example/orders/7%2F",
        "https://api.acme.example/Orders/7",
        "https://api.acme.example/orders/../orders/7",
        "https://api.acme.example/orders/7;x",
        "https://api.acme.example",
        "https://api.acme.example:8443/orders/7",
        "https://api.acme.example.evil.example/orders/7",
        "https://api.acme.example./orders/7",
        "https://api.acme.example@evil.example/orders/7",
        "https://user@api.acme.example/orders/7",
        "https://evil.example/orders/7",
        "https://api.acme.example\\@evil.example/orders/7",
        "https://api.acme.example/orders/7\n",
        " https://api.acme.example/orders/7",
        "https://api.acmé.example/orders/7",
        "wss://api.acme.example/orders/7",
    ],
)
def test_proof_for_another_url_is_refused(htu: object) -> None:
    assert of(prove({"htu": htu})) == "proof_target"


@pytest.mark.parametrize(
    ("htu", "url"),
    [
        ("HTTPS://API.acme.example/orders/7", URL),
        ("https://api.acme.example:443/orders/7", URL),
        (URL, "https://api.acme.example:443/orders/7"),
        (URL, "https://API.ACME.EXAMPLE/orders/7"),
        ("https://api.acme.example/orders/7?a=1", URL),
        ("https://api.acme.example/orders/7#x", URL),
        ("https://api.acme.example/orders/%37", URL),
        ("https://api.acme.example/%c3%bc", "https://api.acme.example/%C3%BC"),
        ("https://api.acme.example", "https://api.acme.example/"),
        ("https://api.acme.example?x=1", "https://api.acme.example/"),
    ],
)
def test_other_spelling_of_the_same_url_is_the_same(htu: str, url: str) -> None:
    assert isinstance(judge(shown(prove({"htu": htu}), url=url)), Proof)


def test_proof_made_for_another_server_opens_nothing_by_naming_that_server_in_host() -> None:
    """Whoever got token and proof as a resource server of its own can send any Host; ours are configured."""
    elsewhere = "https://other.example/orders/7"
    assert judge(shown(prove({"htu": elsewhere}), url=elsewhere)) == "proof_target"
    both = Asked(ORIGINS | {"https://other.example"}, SKEW_S, None)
    assert isinstance(judge(shown(prove({"htu": elsewhere}), url=elsewhere), asked=both), Proof)


@pytest.mark.parametrize(
    "url", ["https:///orders/7", "https://\udcff/orders/7", "https://a b/orders/7", "://", ""]
)
def test_host_that_is_none_is_no_target(url: str) -> None:
    assert judge(shown(prove({"htu": url if url.isascii() else "x"}), url=url)) == "proof_target"


def test_target_is_spelt_in_one_way() -> None:
    assert target("HTTP://[::1]:80/a%7eb%2f?q") == ("http://[::1]", "/a~b%2F")
    assert target("https://a.example:8443") == ("https://a.example:8443", "/")


# -- when -------------------------------------------------------------------------------------------------
def test_proof_that_is_too_old_or_of_the_future_is_refused_at_the_edge() -> None:
    oldest, newest = NOW - MAX_AGE_S - SKEW_S, NOW + SKEW_S
    assert isinstance(of(prove({"iat": oldest + 0.001})), Proof)
    assert of(prove({"iat": oldest})) == "proof_expired"
    assert isinstance(of(prove({"iat": newest})), Proof)
    assert of(prove({"iat": newest + 0.001})) == "proof_not_yet_valid"


def test_proof_is_remembered_until_nobody_could_use_it() -> None:
    for issued_at in (NOW - 80, NOW, NOW + SKEW_S):
        proof = prove({"iat": issued_at})
        found = of(proof)
        assert isinstance(found, Proof)
        assert of(proof, now=found.until_us / 1e6) == "proof_expired"


def test_times_that_it_says_itself_count_too() -> None:
    assert of(prove({"exp": NOW - SKEW_S})) == "proof_expired"
    assert isinstance(of(prove({"exp": NOW - SKEW_S + 1})), Proof)
    assert of(prove({"nbf": NOW + SKEW_S + 1})) == "proof_not_yet_valid"
    assert of(prove({"exp": NOW + 1e9}), now=NOW + 100) == "proof_expired"


@pytest.mark.parametrize("name", ["iat", "exp", "nbf"])
@pytest.mark.parametrize("value", ["1", None, True, [], {}, str(int(NOW))])
def test_time_that_is_none_is_malformed(name: str, value: object) -> None:
    assert of(prove({name: value})) == "proof_malformed"


def test_proof_without_a_time_is_malformed() -> None:
    assert of(prove({"iat": ABSENT})) == "proof_malformed"
    assert of(prove({"iat": -1e308})) == "proof_expired"
    assert of(prove({"iat": 1e308})) == "proof_not_yet_valid"


@pytest.mark.parametrize("jti", [ABSENT, None, "", 1, ["a"], "a" * (MAX_JTI_LENGTH + 1)])
def test_proof_without_an_id_or_with_a_huge_one_is_malformed(jti: object) -> None:
    assert of(prove({"jti": jti})) == "proof_malformed"
    assert isinstance(of(prove({"jti": "\0" + "ü" * (MAX_JTI_LENGTH - 1)})), Proof)


def test_same_id_of_another_key_is_no_replay() -> None:
    first, second = of(prove({"jti": "a"})), of(prove({"jti": "a"}, key=ec_key("other")))
    assert isinstance(first, Proof)
    assert isinstance(second, Proof)
    assert first.once != second.once


# -- with which token -------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "value", [ABSENT, None, 1, "", "A" * 43, ath() + "=", ath(b"another token"), "é", ath()[:-1]]
)
def test_proof_for_another_token_is_refused(value: object) -> None:
    assert of(prove({"ath": value})) == "proof_token"


def test_token_in_another_spelling_is_another_token() -> None:
    assert of(prove(), token=TOKEN + b"A") == "proof_token"


# -- nonces -----------------------------------------------------------------------------------------------
def test_proof_without_our_nonce_is_refused_where_one_is_asked_for() -> None:
    asked = Asked(ORIGINS, SKEW_S, NONCES)
    for nonce in (ABSENT, None, "", "x", 1, Nonces(bytes(31) + b"x").make(NOW), NONCES.make(NOW - LIFETIME_S)):
        assert of(prove({"nonce": nonce}), asked=asked) == "proof_nonce"
    found = of(prove({"nonce": NONCES.make(NOW - 100)}), asked=asked)
    assert isinstance(found, Proof)
    assert found.nonce_age_s == 100
    assert isinstance(of(prove({"nonce": "x"})), Proof)  # an upstream's, perhaps


# -- the token's binding ----------------------------------------------------------------------------------
class Asking:
    """A request with a token as binding.confirm sees it."""

    def __init__(
        self,
        bound: str | None,
        scheme: str,
        policy: Binding = "allow",
        nonces: bool = False,
        forward: bool = False,
    ) -> None:
        held = None if bound is None else Bound(jkt=bound)
        self.identity = Identity(
            provider="staff", method="oidc", subject="a", bound=held, credential_sha256=bytes(32), expires_at=0.0
        )
        self.credential = Credential("bearer", TOKEN, scheme=scheme)
        asked = Asked(ORIGINS, SKEW_S, NONCES if nonces else None)
        self.terms = binding.Terms("off", policy, asked, forward)

    def answer(self, *proofs: bytes) -> str | None:
        found = binding.confirm(self.identity, self.credential, shown(*proofs), self.terms, NOW)
        assert found is None or found == Refusal(found.reason, "staff")
        assert (self.credential.proof is not None) == (found is None and self.credential.scheme == "dpop")
        return None if found is None else found.reason


def test_stolen_bound_token_opens_nothing_without_its_key() -> None:
    thief = ec_key("thief")
    assert Asking(HOLDER, "dpop").answer(prove(key=thief)) == "proof_key"
    assert Asking(HOLDER, "dpop").answer(prove(header={"jwk": ec_key("holder").jwk()}, sign=thief.sign)) == (
        "proof_signature"
    )
    assert Asking(HOLDER, "dpop").answer() == "proof_missing"
    assert Asking(HOLDER, "dpop").answer(prove()) is None


def test_thumbprint_that_only_resembles_is_another() -> None:
    for other in (HOLDER.swapcase(), "A" * 43, HOLDER[:-1] + ("A" if HOLDER[-1] != "A" else "E")):
        assert Asking(other, "dpop").answer(prove()) == "proof_key"


def test_bound_token_sent_as_bearer_is_refused_even_with_its_proof() -> None:
    for policy in ("allow", "require"):
        assert Asking(HOLDER, "bearer", policy).answer(prove()) == "proof_missing"
        assert Asking(HOLDER, "bearer", policy).answer() == "proof_missing"


def test_unbound_token_sent_as_dpop_is_refused_even_with_a_proof() -> None:
    for policy in ("allow", "require"):
        assert Asking(None, "dpop", policy).answer(prove()) == "token_unbound"


def test_unbound_bearer_token_is_refused_where_proofs_are_required_alone() -> None:
    assert Asking(None, "bearer", "allow").answer() is None
    assert Asking(None, "bearer", "require").answer() == "token_unbound"
    assert Asking(None, "bearer", "off").answer() is None


def test_bound_token_is_refused_where_proofs_are_not_checked() -> None:
    for scheme in ("bearer", "dpop"):
        assert Asking(HOLDER, scheme, "off").answer(prove()) == "token_binding"
    assert Asking(None, "dpop", "off").answer(prove()) == "token_binding"


def test_nonce_is_given_when_one_is_missing_and_before_the_old_one_ends() -> None:
    def nonce_for(nonce: object) -> tuple[str | None, str]:
        asking = Asking(HOLDER, "dpop", nonces=True)
        return asking.answer(prove({"nonce": nonce})), asking.credential.nonce

    reason, fresh = nonce_for(ABSENT)
    assert reason == "proof_nonce"
    assert nonce_for(fresh) == (None, "")
    assert nonce_for(NONCES.make(NOW - LIFETIME_S / 2 - 1)) == (None, fresh)
    assert nonce_for(NONCES.make(NOW - LIFETIME_S)) == ("proof_nonce", fresh)


def test_proof_goes_on_only_where_that_was_said() -> None:
    for forward in (True, False):
        asking = Asking(HOLDER, "dpop", forward=forward)
        assert asking.answer(prove()) is None
        assert asking.credential.proof is not None
        assert asking.credential.proof.forward is forward


def test_keys_in_memory_are_bounded() -> None:
    assert (dpop._key.cache_info().maxsize or 1 << 30) <= 4096
