"""What somebody pastes to have it revoked: taken as what it is, or refused without being repeated."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.identity.deployment import KEYS, configuration
from tests.identity.mint import ISSUER, NOW, claims, ec_key, mint, oidc
from tests.pki import Authority

from gatebook.config.model import IntrospectionProvider, Login, ProviderClient
from gatebook.errors import GatebookError
from gatebook.identity.api_key import make_text
from gatebook.identity.keyed import signed_sha256
from gatebook.identity.revoking import AFTER_EXPIRY_S, Target, credential, verified_issuers
from gatebook.identity.types import Credential

TOKEN = mint(claims(), {"alg": "ES256"}, ec_key("first").sign).decode()
KEY = make_text("abcdefgh", lambda n: bytes(n))
ISSUERS = {ISSUER}
OPAQUE = "0123456789abcdef-opaque"


def of(method: str, value: bytes) -> Target:
    fingerprint = KEYS.fingerprint(signed_sha256(Credential(method, value)))
    return Target("credential", fingerprint, None, fingerprint)


@pytest.mark.parametrize(
    "around", ["{}", " {}\n", "Bearer {}", "Authorization: Bearer {}", "authorization: DPoP {}"]
)
def test_token_is_taken_however_it_was_copied(around: str) -> None:
    found = credential(around.format(TOKEN), KEYS, ISSUERS, whole=False)
    assert found == of("bearer", TOKEN.encode())._replace(until=NOW + 300 + AFTER_EXPIRY_S)


def test_token_that_somebody_else_judges_is_revoked_for_good() -> None:
    """An introspecting provider may go on saying that it is active."""
    assert credential(TOKEN, KEYS, frozenset(), whole=False) == of("bearer", TOKEN.encode())


def test_issuers_are_those_whose_tokens_are_verified_here() -> None:
    asked = IntrospectionProvider(
        type="introspection",
        url="https://asked.example/introspect",
        issuer="https://asked.example",
        client=ProviderClient.model_validate({"id": "gatebook", "secret": {"env": "SECRET"}}),
        audience=["orders-api"],
    )
    staff, both = oidc(), oidc(issuer="https://asked.example")
    assert verified_issuers(configuration(staff=staff, both=both, asked=asked)) == {ISSUER}
    people = oidc(login=Login(client=asked.client))
    assert verified_issuers(configuration(people=people)) == {ISSUER, "/.gatebook/sessions/people"}


def test_api_key_and_fingerprint_are_taken() -> None:
    assert credential(KEY, KEYS, ISSUERS, whole=False) == of("api_key", KEY.encode())
    fingerprint = "0" * 32
    assert credential(fingerprint, KEYS, ISSUERS, whole=False) == Target(
        "credential", fingerprint, None, fingerprint
    )


def test_certificate_is_taken(tmp_path: Path) -> None:
    made = Authority("root", tmp_path).issue("/CN=machine")
    found = credential(made.certificate.read_text(), KEYS, ISSUERS, whole=True)
    assert found == of("certificate", made.der())


def test_opaque_token_is_taken_whole_or_not_at_all() -> None:
    assert credential(OPAQUE, KEYS, ISSUERS, whole=True) == of("bearer", OPAQUE.encode())
    with pytest.raises(GatebookError, match="on standard input"):
        credential(OPAQUE, KEYS, ISSUERS, whole=False)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0" * 31,
        "0" * 33,
        "0" * 8,
        "A" * 32,
        KEY[:-1],
        KEY + "x",
        KEY.replace("abcdefgh", "abcdefgi"),
        TOKEN[:-1],
        TOKEN.rpartition(".")[0],
        "eyJhbGciOi",
        f"{TOKEN} {TOKEN}",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----",
        "short",
        "two words",
        "caf\u00e9" * 10,
    ],
)
def test_slip_of_the_hand_is_refused_and_not_shown_again(text: str) -> None:
    for whole in (True, False):
        if whole and text in ("0" * 31, "0" * 33, "A" * 32):
            continue  # may be an opaque token
        with pytest.raises(GatebookError, match="nothing was revoked") as refused:
            credential(text, KEYS, ISSUERS, whole=whole)
        assert len(text) < 8 or text not in str(refused.value)


@pytest.mark.parametrize("exp", [None, "soon", -1, 1 << 60, True])
def test_end_that_is_none_keeps_the_revocation_for_good(exp: object) -> None:
    payload = base64.urlsafe_b64encode(json.dumps({"iss": ISSUER, "exp": exp}).encode()).rstrip(b"=").decode()
    head, _, tail = TOKEN.split(".")
    assert credential(f"{head}.{payload}.{tail}", KEYS, ISSUERS, whole=False).until is None


@given(st.text(max_size=40))
def test_nothing_else_ever_comes_of_it(text: str) -> None:
    try:
        found = credential(text, KEYS, ISSUERS, whole=True)
    except GatebookError:
        return
    assert found.what == "credential"
    assert len(found.key) == 32
