"""Tokens that our own portal signs: by which keys, and as what they are judged.

The portal publishes its public keys in state/portal-jwks.json, a kept file, which guards watch: they never ask
it over HTTP, and know a new key at the latest when a token names it. What a token must say is what any
provider's must, with the issuer and lifetimes that the configuration gives. Trust: whoever writes that file
issues tokens.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from gatebook import kept
from gatebook.config.model import Configuration, GatebookProvider, OIDCProvider, Provider
from gatebook.identity.jwk import NONE, Keys, parse_jwks

ALGORITHM: Final = "ES256"
MAX_KEYS: Final = 64
_NUMBER = r"\A[A-Za-z0-9_-]{43}\Z"  # 32 bytes in base64url


class PublicKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A JWK (RFC 7517)."""

    kid: Annotated[str, Meta(pattern=_NUMBER)]  # its thumbprint (RFC 7638)
    kty: Literal["EC"]
    crv: Literal["P-256"]
    alg: Literal["ES256"]
    use: Literal["sig"]
    x: Annotated[str, Meta(pattern=_NUMBER)]
    y: Annotated[str, Meta(pattern=_NUMBER)]


class Published(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    version: Literal[1]
    keys: Annotated[tuple[PublicKey, ...], Meta(max_length=MAX_KEYS)]


def jwks(document: Published) -> bytes:
    """As others are given it."""
    return msgspec.json.encode({"keys": document.keys})


def _keys(document: Published) -> Keys:
    """Raises ValueError for a key that is none: then none of them counts."""
    keys = parse_jwks(jwks(document))
    if keys.ignored or len(keys) != len(document.keys):
        raise ValueError("a key in it cannot be used")
    return keys


KIND: Final = kept.Kind(
    title="public keys of the portal",
    command="gatebook run",
    document=Published,
    empty=Published(version=1, keys=()),
    check=_keys,
)


class OwnKeys:
    """What a guard knows of them. A `method.Source`."""

    def __init__(self, provider: Provider, path: Path) -> None:
        self.provider = provider
        self._watch = kept.Watch(path, KIND, _keys)

    def start(self) -> None:
        self._watch.start()

    async def stop(self) -> None:
        await self._watch.stop()

    def keys(self, now: float) -> Keys:  # noqa: ARG002 - they do not age: whoever withdraws one takes it out
        return self._watch.value or NONE

    async def refetch(self, timeout_s: float) -> bool:  # noqa: ARG002 - it waits for nobody
        """Whether what is known now is all there is."""
        self._watch.poll()
        return self._watch.value is not None


def audience(configuration: Configuration, provider: GatebookProvider) -> list[str]:
    return provider.audience or [configuration.portal.url or ""]


def as_oidc(configuration: Configuration, provider: GatebookProvider) -> OIDCProvider:
    """The same demands, as those of a provider whose keys are known already."""
    return OIDCProvider(
        type="oidc",
        issuer=configuration.own_issuer,
        audience=audience(configuration, provider),
        max_ttl=provider.access_ttl,
        clock_skew=provider.clock_skew,
        algorithms=[ALGORITHM],
    )
