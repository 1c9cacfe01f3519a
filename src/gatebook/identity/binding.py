"""Whether a request may use a bound token: it opens nothing without what it is bound to.

In: an identity, what the request shows, and what the token's provider says of bindings. Out: None,
or a Refusal. A token names a key (`cnf.jkt`, RFC 9449) or a certificate (`cnf.x5t#S256`, RFC 8705), or both: then
both are asked for. Never takes a bound token for a bearer token, nor a binding that its provider does not offer.
Asked for every request, and never remembered. Pure.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import NamedTuple

from gatebook.config.model import Binding, Provider, TokenProvider
from gatebook.identity.types import Identity, Presented, Refusal


class Terms(NamedTuple):
    """What a provider says of bindings."""

    certificate: Binding


NONE = Terms("off")


def terms(provider: Provider) -> Terms:
    return Terms(provider.certificate_bound) if isinstance(provider, TokenProvider) else NONE


def confirm(identity: Identity, presented: Presented, known: Terms) -> Refusal | None:
    bound = identity.bound
    reason = _certificate(bound.x5t_s256 if bound is not None else None, presented.certificate, known.certificate)
    if reason is None and bound is not None and bound.jkt is not None:
        reason = "token_binding"
    return None if reason is None else Refusal(reason, identity.provider)


def _certificate(bound: str | None, shown: bytes, asked: Binding) -> str | None:
    if bound is None:
        return "token_unbound" if asked == "require" else None
    if asked == "off":
        return "token_binding"
    if not shown:
        return "certificate_missing"
    return None if hmac.compare_digest(thumbprint(shown), bound) else "certificate_mismatch"


def thumbprint(certificate: bytes) -> str:
    """`x5t#S256` of a certificate in DER."""
    return base64.urlsafe_b64encode(hashlib.sha256(certificate).digest()).rstrip(b"=").decode()
