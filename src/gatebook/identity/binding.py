"""Whether a request may use a token: one that is bound opens nothing without what it is bound to.

In: an identity, its credential, what the request shows, and the terms of the token's provider. Out: None, or a
Refusal; and in the credential, what was proved. A token names a key (`cnf.jkt`, RFC 9449) or a certificate
(`cnf.x5t#S256`, RFC 8705), or both: then both are asked for. Never takes a bound token for a bearer token, nor a
binding that its provider does not offer. Asked for every request, and never remembered. Pure.
"""

from __future__ import annotations

import hashlib
import hmac
from base64 import urlsafe_b64encode
from typing import NamedTuple

from gatebook.config.model import Binding, Configuration, Provider, TokenProvider
from gatebook.identity.dpop import Asked, check, target
from gatebook.identity.jws import Unfit
from gatebook.identity.nonce import LIFETIME_S, Nonces
from gatebook.identity.types import Credential, Identity, Presented, Proved, Refusal


class Terms(NamedTuple):
    """What a provider says of bindings. `asked` is of proofs."""

    certificate: Binding = "off"
    proofs: Binding = "off"
    asked: Asked = Asked((), 0.0, None)
    forward: bool = False


NONE = Terms()


def terms(configuration: Configuration, provider: Provider, nonces: Nonces) -> Terms:
    if not isinstance(provider, TokenProvider):
        return NONE
    own = [] if configuration.portal.url is None else [configuration.portal.url]
    known = frozenset(found.origin for url in (*configuration.gateway.origins, *own) if (found := target(url)))
    asked = Asked(known, provider.clock_skew, nonces if provider.dpop_nonce else None)
    return Terms(provider.certificate_bound, provider.dpop, asked, provider.forward_proof)


def confirm(
    identity: Identity, credential: Credential, presented: Presented, known: Terms, now: float
) -> Refusal | None:
    bound = identity.bound
    if credential.method == "certificate":
        return None  # it is itself what TLS has proved the key of
    if credential.method != "bearer":
        # A key, a session: nothing to bind, so one that says that it is bound is not understood.
        return None if bound is None else Refusal("token_binding", identity.provider)
    jkt, x5t_s256 = (None, None) if bound is None else (bound.jkt, bound.x5t_s256)
    reason = _certificate(x5t_s256, presented.certificate, known.certificate)
    if reason is None:
        reason = _key(jkt, credential, presented, known, now)
    return None if reason is None else Refusal(reason, identity.provider)


def _certificate(bound: str | None, shown: bytes, asked: Binding) -> str | None:
    if bound is None:
        return "token_unbound" if asked == "require" else None
    if asked == "off":
        return "token_binding"
    if not shown:
        return "certificate_missing"
    return None if hmac.compare_digest(thumbprint(shown), bound) else "certificate_mismatch"


def _key(bound: str | None, credential: Credential, presented: Presented, known: Terms, now: float) -> str | None:
    if known.proofs == "off":
        return None if bound is None and credential.scheme != "dpop" else "token_binding"
    if bound is None:
        # As a DPoP token it would pass for more than it is: whoever has it can make a key and a proof.
        return "token_unbound" if known.proofs == "require" or credential.scheme == "dpop" else None
    if credential.scheme != "dpop":
        return "proof_missing"
    nonces = known.asked.nonces
    try:
        proof = check(presented, credential.sha256(), known.asked, now)
    except Unfit as error:
        if error.reason == "proof_nonce" and nonces is not None:
            credential.nonce = nonces.make(now)
        return error.reason
    if not hmac.compare_digest(proof.jkt, bound):
        return "proof_key"
    if nonces is not None and proof.nonce_age_s > LIFETIME_S / 2:
        credential.nonce = nonces.make(now)
    credential.proof = Proved(proof.once, proof.until_us, known.forward)
    return None


def thumbprint(certificate: bytes) -> str:
    """`x5t#S256` of a certificate in DER."""
    return urlsafe_b64encode(hashlib.sha256(certificate).digest()).rstrip(b"=").decode()
