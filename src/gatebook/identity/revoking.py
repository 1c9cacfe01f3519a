"""What an operator names -> what a revocation holds of it.

In: a name, a fingerprint, or a credential itself, as somebody pastes it. Out: `Target`, or a GatebookError that
never repeats what might be a secret. What could be a slip of the hand (a fingerprint that is too short, a token
that was cut off) is refused: it would revoke nothing, and nobody would notice. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Container
from typing import NamedTuple

from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import load_pem_x509_certificate

from gatebook.config.model import Configuration, IntrospectionProvider, OIDCProvider
from gatebook.errors import GatebookError
from gatebook.identity import session
from gatebook.identity.api_key import is_well_formed
from gatebook.identity.jws import Unfit
from gatebook.identity.jwt import read
from gatebook.identity.keyed import Keys, signed_sha256
from gatebook.identity.revocation import What
from gatebook.identity.types import Credential

# After a token's own end, for clocks that differ; beyond it, whoever would accept the token accepts expired ones.
AFTER_EXPIRY_S = 86_400

_FINGERPRINT = re.compile(r"[0-9a-f]{32}")
_PASTED = re.compile(r"(?:Authorization: *)?(?:(?:Bearer|DPoP) +)?(?P<value>[!-~]+)", re.IGNORECASE)


class Target(NamedTuple):
    """`until`: when what is named ends by itself, as far as that is known."""

    what: What
    key: str
    provider: str | None
    shown: str
    until: float | None = None


def named(what: What, provider: str, value: str, keys: Keys, shown: str) -> Target:
    return Target(what, keys.name(what, provider, value), provider, shown)


def verified_issuers(configuration: Configuration) -> frozenset[str]:
    """Whose tokens end when they say, because they are verified here and nobody is asked about them."""
    providers = configuration.identity.values()
    named = {provider.issuer for provider in providers if isinstance(provider, OIDCProvider)}
    if configuration.token_service is not None:
        named.add(configuration.own_issuer)
    named.update(session.issuer(configuration, name) for name in configuration.logins)
    return frozenset(named - {p.issuer for p in providers if isinstance(p, IntrospectionProvider)})


def credential(text: str, keys: Keys, issuers: Container[str], whole: bool) -> Target:
    """A fingerprint from the log; or the credential itself: with `whole`, it may also be an opaque token.

    `issuers` are the `verified_issuers`.
    """
    text = text.strip()
    if _FINGERPRINT.fullmatch(text):
        return Target("credential", text, None, text)
    if text.startswith("-----BEGIN CERTIFICATE-----"):
        try:
            der = load_pem_x509_certificate(text.encode()).public_bytes(Encoding.DER)
        except ValueError:
            raise GatebookError("nothing was revoked: that is no certificate") from None
        return _presented(Credential("certificate", der), keys)
    found = _PASTED.fullmatch(text)
    value = found["value"].encode() if found is not None else b""
    if value.startswith(b"gbk_") and is_well_formed(value):
        return _presented(Credential("api_key", value), keys)
    if value.startswith(b"eyJ"):
        try:
            token = read(value)
        except Unfit:
            raise GatebookError("nothing was revoked: that is no whole token; is its end missing?") from None
        exp = token.claims.get("exp")
        until = None
        if token.issuer in issuers and isinstance(exp, (int, float)) and 1 < exp < 1 << 39:
            until = exp + AFTER_EXPIRY_S
        return _presented(Credential("bearer", value), keys, until)
    if whole and len(value) >= 16 and not value.startswith(b"gbk_"):
        return _presented(Credential("bearer", value), keys)
    raise GatebookError(
        "nothing was revoked: that is neither a fingerprint (32 hexadecimal digits, as `gatebook show` shows it), "
        "nor a whole token, key or certificate; give an opaque token on standard input, with `--credential -`"
    )


def _presented(found: Credential, keys: Keys, until: float | None = None) -> Target:
    fingerprint = keys.fingerprint(signed_sha256(found))
    return Target("credential", fingerprint, None, fingerprint, until)
