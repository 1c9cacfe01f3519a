"""Bearer tokens of an OpenID provider: JWTs, checked against its published keys.

In: a token's bytes, hostile; a provider's configuration and keys; the time. Out: `Verified`, or `Unfit` with a
reason of record.REASONS. The order is the form, the issuer, the algorithm, the kind, the signature, and only
then what it says of times and persons: so a forged token is never on record as merely expired. Never takes an
algorithm that the configuration does not list, or that is not the key's own. Pure.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from gatebook.config.model import OIDCProvider
from gatebook.identity import claims as claim
from gatebook.identity.jwk import MAX_CANDIDATES, Key, Keys, Mark
from gatebook.identity.jws import Compact, Unfit, parse, signed_by
from gatebook.identity.strict import parse_object
from gatebook.identity.types import Identity

# Whether a header and claims are of the kind that is wanted. Raises Unfit.
CheckKind = Callable[[dict[str, Any], dict[str, Any]], None]


class Token(NamedTuple):
    """A token in form, with the issuer that it claims to be of."""

    compact: Compact
    claims: dict[str, Any]
    issuer: str


class Verified(NamedTuple):
    """`mark` says by which key and algorithm: see jwk.Keys.marks."""

    identity: Identity
    mark: Mark


def read(token: bytes) -> Token:
    """Form only; believe nothing of it. Raises Unfit."""
    compact = parse(token)
    try:
        claims = parse_object(compact.payload)
    except ValueError:
        raise Unfit("token_malformed") from None
    issuer = claims.get("iss")
    if not isinstance(issuer, str):
        raise Unfit("token_issuer")
    return Token(compact, claims, issuer)


def issuer_of(token: bytes) -> str | None:
    """Whose it claims to be; None for what is no token in form, or names nobody."""
    try:
        return read(token).issuer
    except Unfit:
        return None


def verify(
    token: Token,
    name: str,
    provider: OIDCProvider,
    keys: Keys,
    credential_sha256: bytes,
    now: float,
    check_kind: CheckKind | None = None,
) -> Verified:
    """`name` is the provider's in the configuration; `check_kind`: for other than access tokens. Raises Unfit."""
    compact = token.compact
    if token.issuer != provider.issuer:
        raise Unfit("token_issuer")
    if compact.alg not in provider.algorithms:
        raise Unfit("token_algorithm")
    if check_kind is None:
        claim.check_type(compact.header, token.claims, provider.only_at_jwt)
    else:
        check_kind(compact.header, token.claims)
    key = _signer(compact, keys)
    identity = claim.identify(token.claims, name, provider, credential_sha256, now)
    return Verified(identity, key.mark(compact.alg))


def may_be_of_a_newer_key(reason: str, token: Token) -> bool:
    """Whether fetching the keys anew could change the answer."""
    return reason == "token_key_unknown" or (reason == "token_signature" and token.compact.kid is None)


def _signer(compact: Compact, keys: Keys) -> Key:
    named = keys.named(compact.kid)
    fitting = [key for key in named if compact.alg in key.algorithms]
    if named and not fitting and compact.kid is not None:
        raise Unfit("token_algorithm")
    if not 0 < len(fitting) <= MAX_CANDIDATES:
        raise Unfit("token_key_unknown")
    for key in fitting:
        if signed_by(compact, key.public, compact.alg):
            return key
    raise Unfit("token_signature")
