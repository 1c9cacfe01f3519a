"""What a client signs to prove who it is: private_key_jwt (RFC 7523, 2.2 and 3).

In: an assertion, hostile; the client that it says it is of, whose public key is known. Out: what makes it one of
a kind, or None. It has to be the client's own, for us and nobody else, signed by an algorithm of its key, not
older and not longer good than MAX_AGE_S, and to have an id: whoever takes it sees to it that it is used once.
Pure.
"""

from __future__ import annotations

import json
from typing import Final, NamedTuple

from gatebook.config.model import OIDCProvider
from gatebook.identity import jwt
from gatebook.identity.client import Client
from gatebook.identity.jwk import algorithms_of, parse_jwks
from gatebook.identity.jws import Unfit
from gatebook.identity.once import key_of

TYPE: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
MAX_AGE_S: Final = 300.0
SKEW_S: Final = 30.0


class Use(NamedTuple):
    key: bytes
    until_us: int


def subject_of(assertion: bytes) -> str | None:
    """Whom it claims to be of. Nothing of it is to be believed yet."""
    try:
        subject = jwt.read(assertion).claims.get("sub")
    except Unfit:
        return None
    return subject if isinstance(subject, str) else None


def check(assertion: bytes, client: Client | None, audience: list[str], now: float) -> Use | None:
    """Its single use, if it is good. None for a client that is nobody, or has no key."""
    if client is None or client.key is None:
        return None
    demands = OIDCProvider(
        type="oidc",
        issuer=client.id,
        audience=audience,
        max_ttl=MAX_AGE_S,
        clock_skew=SKEW_S,
        algorithms=sorted(algorithms_of(client.key)),  # type: ignore[arg-type]  # they are from there
    )
    try:
        token = jwt.read(assertion)
        # The client has one key; what it calls it is its own affair.
        token = token._replace(compact=token.compact._replace(kid=None))
        keys = parse_jwks(json.dumps({"keys": [client.key]}).encode())
        found = jwt.verify(token, "client", demands, keys, b"", now).identity
    except Unfit:
        return None
    named = token.claims["aud"]
    one = isinstance(named, str) or len(named) == 1  # for others too: they could use it here
    if not one or found.subject != client.id or found.token_id is None or "exp" not in token.claims:
        return None
    return Use(key_of("assertion", client.id, found.token_id), int(found.expires_at * 1e6) + 1)
