"""ID tokens and logout tokens: what a provider tells its client about a person, never what opens an API.

In: a token from the provider's token endpoint, or from whoever posts to the back-channel logout endpoint; both are
judged alike: by signature, issuer, audience and time as any JWT (jwt), and then by what each kind has to say.
OpenID Connect Core 1.0, 3.1.3.7; Back-Channel Logout 1.0, 2.6. Never takes one kind for the other. Pure.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import Any, Final, NamedTuple

from gatebook.config.model import OIDCProvider
from gatebook.identity import jwt
from gatebook.identity.jwk import Keys
from gatebook.identity.jws import Unfit
from gatebook.identity.jwt import Token
from gatebook.identity.types import Identity

MAX_AGE_S: Final = 300.0  # of an ID token when it is exchanged, and of a logout token when it arrives
EVENT: Final = "http://schemas.openid.net/event/backchannel-logout"
_MAX_SID: Final = 255


class Person(NamedTuple):
    """Who has logged in. `sid`: the provider's session, if it names one."""

    identity: Identity
    sid: str | None
    auth_time: int | None


class Logout(NamedTuple):
    """Which sessions the provider has ended: one (`sid`), or all of somebody (`subject`)."""

    sid: str | None
    subject: str | None
    token_id: str
    issued: float
    expires: float


def person(
    token: Token,
    name: str,
    provider: OIDCProvider,
    keys: Keys,
    *,
    nonce: str,
    access_token: str | None,
    now: float,
) -> Person:
    """Raises Unfit."""
    claims = token.claims
    identity = _judge(token, name, provider, keys, _id_token, now)
    if identity.issued_at is None:
        raise Unfit("token_claims")
    said = claims.get("nonce")
    if not isinstance(said, str) or not hmac.compare_digest(said.encode(), nonce.encode()):
        raise Unfit("token_nonce")
    if "at_hash" in claims and claims["at_hash"] != _half_hash(access_token, token.compact.alg):
        raise Unfit("token_claims")
    auth_time = claims.get("auth_time")
    if auth_time is not None and (isinstance(auth_time, bool) or not isinstance(auth_time, (int, float))):
        raise Unfit("token_claims")
    return Person(identity, _sid(claims), None if auth_time is None else int(auth_time))


def logout(token: Token, name: str, provider: OIDCProvider, keys: Keys, now: float) -> Logout:
    """Raises Unfit."""
    claims = token.claims
    subject = claims.get("sub")
    if "sub" not in claims:
        token = token._replace(claims={**claims, "sub": "-"})  # `sid` alone will do, but no other token's rules
    identity = _judge(token, name, provider, keys, _logout_token, now)
    sid = _sid(claims)
    if identity.issued_at is None or identity.token_id is None or (sid is None and subject is None):
        raise Unfit("token_claims")
    return Logout(sid, subject, identity.token_id, identity.issued_at, identity.expires_at)


def _judge(
    token: Token, name: str, provider: OIDCProvider, keys: Keys, kind: jwt.CheckKind, now: float
) -> Identity:
    assert provider.login is not None  # noqa: S101 - whoever asks has looked
    client = provider.login.client.id
    wanted = provider.model_copy(update={"audience": [client], "max_ttl": MAX_AGE_S})
    identity = jwt.verify(
        token, name, wanted, keys, hashlib.sha256(token.compact.token).digest(), now, kind
    ).identity
    # A token for several is for us only if it was made for us; and one made for somebody else never is.
    several = isinstance(token.claims["aud"], list) and len(token.claims["aud"]) > 1
    if token.claims.get("azp", None if several else client) != client:
        raise Unfit("token_audience")
    return identity


def _id_token(header: dict[str, Any], claims: dict[str, Any]) -> None:
    typ = header.get("typ", "JWT")
    if not isinstance(typ, str) or typ.upper() != "JWT" or "events" in claims:
        raise Unfit("token_type")
    if claims.get("typ", "ID") != "ID" or claims.get("token_use", "id") != "id":  # Keycloak, Amazon Cognito
        raise Unfit("token_type")


def _logout_token(header: dict[str, Any], claims: dict[str, Any]) -> None:
    typ = header.get("typ", "logout+jwt")
    # Older providers say `JWT`; what tells theirs from an ID token is the event.
    if not isinstance(typ, str) or typ.lower() not in ("logout+jwt", "application/logout+jwt", "jwt"):
        raise Unfit("token_type")
    events = claims.get("events")
    if not isinstance(events, dict) or not isinstance(events.get(EVENT), dict) or "nonce" in claims:
        raise Unfit("token_type")


def _sid(claims: dict[str, Any]) -> str | None:
    if "sid" not in claims:
        return None
    sid = claims["sid"]
    if not isinstance(sid, str) or not 0 < len(sid) <= _MAX_SID or not sid.isprintable():
        raise Unfit("token_claims")
    return sid


def _half_hash(text: str | None, alg: str) -> str | None:
    """OpenID Connect Core 1.0, 3.1.3.6: the left half of the hash that the signature's algorithm uses."""
    if text is None:
        return None
    bits = {"EdDSA": "512"}.get(alg, alg[-3:])
    digest = hashlib.new(f"sha{bits}", text.encode()).digest()
    return base64.urlsafe_b64encode(digest[: len(digest) // 2]).rstrip(b"=").decode()
