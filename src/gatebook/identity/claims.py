"""What a signed token says: is it for us, of the right kind, of this time, and about whom.

In: the claims of a token whose signature holds, the provider's configuration, the time. Out: an Identity, or
`Unfit` with a reason of record.REASONS. A claim of the wrong type refuses the token; nothing is guessed,
and a confirmation (`cnf`) with anything in it that is not known here refuses the token too.
RFC 7519, RFC 7800, RFC 8725, RFC 9068; docs/identity.md lists each check. Pure.
"""

from __future__ import annotations

import re
from typing import Any

from gatebook.config.model import TokenProvider
from gatebook.identity.jws import Unfit
from gatebook.identity.types import Bound, Identity

MAX_NAME_LENGTH = 512

_THUMBPRINT = re.compile(r"[A-Za-z0-9_-]{43}")  # SHA-256 in base64url
_ACCESS_TYPES = ("jwt", "at+jwt", "application/at+jwt")
_INTROSPECTED_TYPES = ("bearer", "dpop", "access", "access_token", "at+jwt")
_SAYS_ACCESS = ("at+jwt", "application/at+jwt")  # RFC 9068
# What only an ID token (OpenID Connect Core 1.0, 2), a logout token or another security event holds.
_NO_ACCESS_TOKEN = ("at_hash", "c_hash", "s_hash", "events")


def check_type(header: dict[str, Any], claims: dict[str, Any], only_at_jwt: bool = False) -> None:
    """Refuses tokens of the same issuer that were not made to open an API. Raises Unfit."""
    typ = header.get("typ", "JWT")
    if not isinstance(typ, str) or typ.lower() not in (_SAYS_ACCESS if only_at_jwt else _ACCESS_TYPES):
        raise Unfit("token_type")
    if any(name in claims for name in _NO_ACCESS_TOKEN):
        raise Unfit("token_type")
    # Keycloak and Amazon Cognito say in claims of their own which token it is.
    if claims.get("typ", "Bearer") != "Bearer" or claims.get("token_use", "access") != "access":
        raise Unfit("token_type")
    # An ID token has it, unless it was not asked for; of access tokens only those that say what they are.
    if "nonce" in claims and not (typ.lower() in _SAYS_ACCESS or "typ" in claims or "token_use" in claims):
        raise Unfit("token_type")


def check_introspected(claims: dict[str, Any], accept_untyped: bool) -> None:
    """The same of an answer (RFC 7662, 2.2), which may be about any token of the provider's. Raises Unfit."""
    if any(name in claims for name in _NO_ACCESS_TOKEN):
        raise Unfit("token_type")
    # Keycloak, Amazon Cognito and Ory Hydra say it in claims of their own, some without `token_type`.
    said = [claims[name] for name in ("token_type", "typ", "token_use") if name in claims]
    if not all(isinstance(kind, str) and kind.lower() in _INTROSPECTED_TYPES for kind in said):
        raise Unfit("token_type")
    if not said and not accept_untyped:
        raise Unfit("token_type")
    bound = _bound(claims)
    if str(claims.get("token_type")).lower() == "dpop" and (bound is None or bound.jkt is None):
        raise Unfit("token_claims")  # bound, but it is not said to what


def identify(
    claims: dict[str, Any],
    name: str,
    provider: TokenProvider,
    credential_sha256: bytes,
    now: float,
    without_subject: object = None,
) -> Identity:
    """Whose token it is, by all that `claims` say: `without_subject`, where they have no `sub`. Raises Unfit.

    `iss` has been compared before.
    """
    _check_audience(claims.get("aud"), provider.audience)
    expires_at = _check_times(claims, provider, now)
    subject = _name(claims.get("sub", without_subject))
    client = lookup(claims, provider.client_claim)
    return Identity(
        provider=name,
        method=provider.type,
        subject=subject,
        client=None if client is None else _name(client),
        roles=_names(lookup(claims, provider.roles_claim)),
        groups=_names(lookup(claims, provider.groups_claim)),
        scopes=_scopes(lookup(claims, provider.scope_claim)),
        claims=claims,
        bound=_bound(claims),
        token_id=_name(claims["jti"]) if "jti" in claims else None,
        issued_at=_time(claims, "iat"),
        credential_sha256=credential_sha256,
        expires_at=expires_at,
    )


def lookup(claims: dict[str, Any], path: str) -> Any:
    """The claim of this name; failing that, `a.b` is `b` within the object `a`. None when there is none.

    Names may have dots in them, as URLs do: at each step the longest name that is there counts, and no other.
    """
    if path in claims:
        return claims[path]
    end = len(path)
    while (end := path.rfind(".", 0, end)) > 0:
        if path[:end] in claims:
            inner = claims[path[:end]]
            return lookup(inner, path[end + 1 :]) if isinstance(inner, dict) else None
    return None


def _bound(claims: dict[str, Any]) -> Bound | None:
    """What must be shown beside the token. A way to confirm that is not known here cannot be passed over."""
    if "cnf" not in claims:
        return None
    cnf = claims["cnf"]
    if not isinstance(cnf, dict) or not cnf or not cnf.keys() <= {"jkt", "x5t#S256"}:
        raise Unfit("token_claims")
    if not all(isinstance(value, str) and _THUMBPRINT.fullmatch(value) for value in cnf.values()):
        raise Unfit("token_claims")
    return Bound(jkt=cnf.get("jkt"), x5t_s256=cnf.get("x5t#S256"))


def _check_audience(aud: object, accepted: list[str]) -> None:
    named = [aud] if isinstance(aud, str) else aud
    if not isinstance(named, list) or not all(isinstance(entry, str) for entry in named):
        raise Unfit("token_audience")
    if not any(entry in accepted for entry in named):
        raise Unfit("token_audience")


def _check_times(claims: dict[str, Any], provider: TokenProvider, now: float) -> float:
    """The moment from which on the token is refused."""
    skew_s, max_ttl_s = provider.clock_skew, provider.max_ttl
    exp, nbf, iat = (_time(claims, name) for name in ("exp", "nbf", "iat"))
    if exp is None:
        raise Unfit("token_claims")
    if now >= exp + skew_s:
        raise Unfit("token_expired")
    if max(nbf or 0, iat or 0) > now + skew_s:
        raise Unfit("token_not_yet_valid")
    if iat is None:
        # Its age is unknown, so what it has left must be no more than a new token may have.
        if exp - now > max_ttl_s + skew_s:
            raise Unfit("token_too_old")
        return exp + skew_s
    if now >= iat + max_ttl_s + skew_s:
        raise Unfit("token_too_old")
    return min(exp, iat + max_ttl_s) + skew_s


def _time(claims: dict[str, Any], name: str) -> float | None:
    value = claims.get(name)
    if value is None and name not in claims:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise Unfit("token_claims")
    return float(value)


def _name(value: object) -> str:
    """Fit for a header field and for a record: printable, without spaces around it."""
    if not isinstance(value, str) or not 0 < len(value) <= MAX_NAME_LENGTH:
        raise Unfit("token_claims")
    if not value.isprintable() or value != value.strip():
        raise Unfit("token_claims")
    return value


def _names(value: object) -> tuple[str, ...]:
    """One name, or a list of them."""
    if value is None:
        return ()
    if isinstance(value, list):
        return tuple(_name(entry) for entry in value)
    return (_name(value),)


def _scopes(value: object) -> tuple[str, ...]:
    """Text with spaces between (RFC 6749, 3.3), or a list of names."""
    if isinstance(value, str):
        return tuple(_name(entry) for entry in value.split(" ") if entry)
    return _names(value)
