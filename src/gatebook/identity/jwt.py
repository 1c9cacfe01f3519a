"""Bearer tokens (RFC 7519, RFC 9068): strictly parsed, then judged. Pure; signatures are joserfc's work.

`parse` takes a token apart without believing it. `check_header` and `check_claims` say what is wrong with it,
as a key of record.REASONS. A token has one spelling here: non-canonical base64url, doubled JSON names and
anything that `crit` could change the meaning of are refused before a key is looked at. Never follows `jku`,
`x5u` or `jwk`: keys come from the provider alone.
"""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from gatebook.config.model import OIDCProvider
from gatebook.identity.types import Identity

MAX_TOKEN_BYTES: Final = 8 << 10
MAX_SUBJECT_LENGTH: Final = 512
MAX_NAMES: Final = 256  # roles, groups or scopes of one token
MAX_NAME_LENGTH: Final = 256
_COMPACT: Final = re.compile(rb"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
_TYPES: Final = frozenset({"", "jwt", "at+jwt", "application/at+jwt"})
_FORBIDDEN_FIELDS: Final = ("crit", "b64", "zip", "enc", "jku", "x5u", "jwk", "x5c")


class Refused(Exception):
    """`reason` is a key of record.REASONS."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Token(NamedTuple):
    """Parsed and not verified."""

    raw: str
    header: Mapping[str, Any]
    claims: Mapping[str, Any]

    @property
    def issuer(self) -> str | None:
        found = self.claims.get("iss")
        return found if isinstance(found, str) else None

    @property
    def algorithm(self) -> str:
        found = self.header.get("alg")
        return found if isinstance(found, str) else ""

    @property
    def key_id(self) -> str | None:
        found = self.header.get("kid")
        return found if isinstance(found, str) else None


def parse(raw: bytes) -> Token:
    """Raises Refused."""
    if len(raw) > MAX_TOKEN_BYTES or _COMPACT.fullmatch(raw) is None:
        raise Refused("token_malformed")
    parts = [_decoded(part) for part in raw.split(b".")]
    header, claims = _object(parts[0]), _object(parts[1])
    if any(name in header for name in _FORBIDDEN_FIELDS):
        raise Refused("token_malformed")
    if "kid" in header and (not isinstance(header["kid"], str) or len(header["kid"]) > MAX_NAME_LENGTH):
        raise Refused("token_malformed")
    return Token(raw.decode("ascii"), header, claims)


def _decoded(part: bytes) -> bytes:
    try:
        data = base64.urlsafe_b64decode(part + b"=" * (-len(part) % 4))
    except ValueError:
        raise Refused("token_malformed") from None
    if base64.urlsafe_b64encode(data).rstrip(b"=") != part:
        raise Refused("token_malformed")  # another spelling of the same bytes
    return data


def _object(data: bytes) -> dict[str, Any]:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise ValueError("a name twice")
        return found

    def never(text: str) -> Any:
        raise ValueError(f"{text} is no JSON")

    try:
        found = json.loads(data.decode("utf-8"), object_pairs_hook=once, parse_constant=never)
    except (ValueError, RecursionError):
        raise Refused("token_malformed") from None
    if not isinstance(found, dict):
        raise Refused("token_malformed")
    return found


def check_header(token: Token, provider: OIDCProvider) -> None:
    """Raises Refused for an algorithm that the provider may not use, and for what is no access token."""
    if token.algorithm not in provider.algorithms:
        raise Refused("token_algorithm")
    kind = token.header.get("typ", "")
    if not isinstance(kind, str) or kind.lower() not in _TYPES:
        raise Refused("token_type")
    claims = token.claims
    # ID and refresh tokens are made for somebody else (RFC 9068, 2.1 and 4; Keycloak's `typ`, Cognito's
    # `token_use`). A bound token (RFC 8705, RFC 9449) without its proof may be a stolen one.
    if any(name in claims for name in ("at_hash", "c_hash", "nonce", "cnf")):
        raise Refused("token_type")
    if claims.get("typ") in ("ID", "Refresh", "Offline") or claims.get("token_use") == "id":
        raise Refused("token_type")


def check_claims(token: Token, provider: OIDCProvider, now: float) -> float:
    """When the token ends, in seconds since 1970. Raises Refused."""
    claims, skew = token.claims, provider.clock_skew
    if claims.get("iss") != provider.issuer:
        raise Refused("token_issuer")
    audience = claims.get("aud")
    named = [audience] if isinstance(audience, str) else audience if isinstance(audience, list) else []
    if not any(isinstance(name, str) and name in provider.audience for name in named):
        raise Refused("token_audience")
    subject = claims.get("sub")
    if not isinstance(subject, str) or not 0 < len(subject) <= MAX_SUBJECT_LENGTH or not subject.isprintable():
        raise Refused("token_claims")
    expires = _time(claims, "exp")
    if expires is None:
        raise Refused("token_claims")
    if now >= expires + skew:
        raise Refused("token_expired")
    begins, issued = _time(claims, "nbf"), _time(claims, "iat")
    if (begins is not None and begins > now + skew) or (issued is not None and issued > now + skew):
        raise Refused("token_not_yet_valid")
    if issued is None:
        # Its age is unknown: what it still has to live must not be more than it may have had.
        if expires - now > provider.max_ttl + skew:
            raise Refused("token_too_old")
        return expires + skew
    if now >= issued + provider.max_ttl + skew:
        raise Refused("token_too_old")
    return min(expires, issued + provider.max_ttl) + skew


def _time(claims: Mapping[str, Any], name: str) -> float | None:
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise Refused("token_claims")
    if not 0 <= value < 1 << 53 or not math.isfinite(value):
        raise Refused("token_claims")
    return float(value)


def identity(token: Token, name: str, provider: OIDCProvider, sha256: bytes, expires_at: float) -> Identity:
    """Who a token that has passed everything is of. Raises Refused for claims of a wrong shape."""
    claims = token.claims
    client = _claim(claims, provider.client_claim)
    if client is None:
        client = claims.get("azp")
    return Identity(
        provider=name,
        method="oidc",
        subject=claims["sub"],
        client=client if isinstance(client, str) and client.isprintable() else None,
        roles=_names(_claim(claims, provider.roles_claim)),
        groups=_names(_claim(claims, provider.groups_claim)),
        scopes=_names(_claim(claims, provider.scope_claim)),
        claims=claims,
        credential_sha256=sha256,
        expires_at=expires_at,
    )


def _claim(claims: Mapping[str, Any], path: str) -> Any:
    """A claim by its name, or by names and dots into nested objects (`realm_access.roles`)."""
    if path in claims:
        return claims[path]
    found: Any = claims
    for name in path.split("."):
        found = found.get(name) if isinstance(found, dict) else None
    return found


def _names(value: Any) -> tuple[str, ...]:
    """A list of texts, or one text of names with spaces between (RFC 6749, 3.3)."""
    if value is None:
        return ()
    names = value.split(" ") if isinstance(value, str) else value
    if not isinstance(names, list) or len(names) > MAX_NAMES:
        raise Refused("token_claims")
    if not all(isinstance(n, str) and len(n) <= MAX_NAME_LENGTH and n.isprintable() for n in names):
        raise Refused("token_claims")
    return tuple(name for name in names if name)
