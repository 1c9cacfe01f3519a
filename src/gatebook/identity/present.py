"""Finds the one credential of a request, among its header fields and for its route's providers.

In: what a request shows, hostile. Out: a Credential, a Refusal, or None when nothing was presented. Only what
the route's providers take is looked at: the key headers of those that take keys, a bearer token if there is one of
another type, a session's cookie if people log in at one, and where none of those was sent, the TLS certificate if
one takes those. Two credentials are never weighed against each other: that is credential_ambiguous.
RFC 6750, 2.1 is the only way to send a token; never in a query or a body. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from gatebook.config.model import ApiKeyProvider, Configuration, MTLSProvider, TokenProvider
from gatebook.identity.jws import MAX_TOKEN_BYTES
from gatebook.identity.session import find
from gatebook.identity.types import Credential, Presented, Refusal

AUTHORIZATION = b"authorization"

_TOKEN = re.compile(rb"(bearer|dpop) +([A-Za-z0-9._~+/-]+=*)", re.IGNORECASE)
_LONGEST = MAX_TOKEN_BYTES + 64


class Plan(NamedTuple):
    """What to look for on a route. `key_headers`: header -> a provider that takes keys in it."""

    bearer: bool
    key_headers: dict[bytes, str]
    certificate: bool = False
    session: bool = False
    proofs: bool = False  # whether tokens may come with the scheme DPoP


def plan(configuration: Configuration, accept: Iterable[str]) -> Plan:
    bearer = certificate = session = proofs = False
    key_headers: dict[bytes, str] = {}
    for name in accept:
        provider = configuration.identity.get(name)
        if isinstance(provider, ApiKeyProvider):
            key_headers.setdefault(provider.header.lower().encode(), name)
        elif isinstance(provider, MTLSProvider):
            certificate = True
        elif provider is not None:
            bearer = True
            session = session or name in configuration.logins
            proofs = proofs or (isinstance(provider, TokenProvider) and provider.dpop != "off")
    return Plan(bearer, key_headers, certificate, session, proofs)


def present(presented: Presented, wanted: Plan) -> Credential | Refusal | None:
    bearer, key_headers, certificate, takes_session, proofs = wanted
    authorization = key = provider = None
    for name, value in presented.headers:
        if name == AUTHORIZATION:
            if bearer:
                if authorization is not None:
                    return Refusal("credential_ambiguous")
                authorization = value
        elif name in key_headers:
            if key is not None:
                return Refusal("credential_ambiguous")
            key, provider = value, key_headers[name]
    session = find(presented.headers) if takes_session else None
    if isinstance(session, Refusal):
        return session
    if session is not None:
        # A browser sends it whoever asks; what comes with a credential of its own was not meant to be its.
        if authorization is not None or key is not None:
            return Refusal("credential_ambiguous")
        return Credential("session", session)
    if key is not None:
        # Even beside `Basic`: on a route that takes tokens, Authorization is ours, and says who it is too.
        if authorization is not None:
            return Refusal("credential_ambiguous")
        return Credential("api_key", key, provider)
    found = None if authorization is None else _token(authorization, proofs)
    if found is None and certificate and presented.certificate:
        # Beside a token or a key it is no second credential: it belongs to the connection, and shows itself with
        # each request, whatever that one is to be. A token may be bound to it.
        return Credential("certificate", presented.certificate)
    return found


def _token(authorization: bytes, proofs: bool) -> Credential | Refusal | None:
    found = _TOKEN.fullmatch(authorization) if len(authorization) <= _LONGEST else None
    scheme = (found[1] if found is not None else authorization.split(b" ", 1)[0]).lower()
    if scheme not in ((b"bearer", b"dpop") if proofs else (b"bearer",)):
        # Another scheme presents nothing that a provider of this route takes: the answer is a challenge.
        return None
    return Refusal("token_malformed") if found is None else Credential("bearer", found[2], scheme=scheme.decode())
