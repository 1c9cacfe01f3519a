"""A provider's public keys: found by OpenID Connect Discovery, fetched, kept, and given up in time.

`Keys` is one set, immutable. `Provider` has the newest set: fetched in the background, and at once for a key id
that nobody knows, though not more often than each REFETCH_S. A provider that is down stops nobody whose key is
known, until the keys are older than `jwks_max_age`. Never follows a redirect, never reads more than
MAX_BODY_BYTES, never takes a key that is weak or meant for something else.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

import httpx2
import structlog
import truststore
from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, JWKRegistry, OKPKey, RSAKey

from gatebook.config.model import OIDCProvider
from gatebook.identity.jwt import Token

FETCH_TIMEOUT_S: Final = 3.0
REFETCH_S: Final = 10.0
MAX_BODY_BYTES: Final = 256 << 10
MAX_KEYS: Final = 100
MIN_RSA_BITS: Final = 2048
_CURVES: Final = {"ES256": "P-256", "ES384": "P-384", "ES512": "P-521", "EdDSA": "Ed25519"}

log = structlog.get_logger("identity")

Key = RSAKey | ECKey | OKPKey


class Keys:
    """Keys by id and algorithm. `thumbprints` names all of them (RFC 7638)."""

    def __init__(self, found: Iterable[Mapping[str, Any]]) -> None:
        self._keys: list[tuple[str | None, str | None, str, Key]] = []
        for told in list(found)[:MAX_KEYS]:
            key = _key(told)
            if key is not None:
                self._keys.append((told.get("kid"), told.get("alg"), key.thumbprint(), key))
        self.thumbprints = frozenset(thumbprint for _, _, thumbprint, _ in self._keys)

    def fitting(self, token: Token) -> list[tuple[str, Key]]:
        """(thumbprint, key) of each key that may have signed this token; without a `kid`, of all that fit."""
        return [
            (thumbprint, key)
            for key_id, algorithm, thumbprint, key in self._keys
            if (token.key_id is None or key_id == token.key_id)
            and algorithm in (None, token.algorithm)
            and _suits(key, token.algorithm)
        ]


def _key(told: Mapping[str, Any]) -> Key | None:
    """None for what is not a public key for signatures of a kind and strength that we use."""
    if not isinstance(told, dict) or told.get("use", "sig") != "sig":
        return None
    if not all(isinstance(told.get(name, ""), str) for name in ("kid", "alg")):
        return None
    operations = told.get("key_ops", ["verify"])
    if not isinstance(operations, list) or "verify" not in operations:
        return None
    # The parts that make the key, and nothing that could steer the library.
    parts = {name: told[name] for name in ("kty", "n", "e", "crv", "x", "y") if name in told}
    try:
        key = JWKRegistry.import_key(parts)
        if isinstance(key, RSAKey) and key.public_key.key_size < MIN_RSA_BITS:
            return None
    except (JoseError, ValueError, TypeError, KeyError):
        return None
    return key if isinstance(key, (RSAKey, ECKey, OKPKey)) else None


def _suits(key: Key, algorithm: str) -> bool:
    if algorithm[:2] in ("RS", "PS"):
        return isinstance(key, RSAKey)
    if isinstance(key, RSAKey):
        return False
    return _CURVES.get(algorithm) == key.get("crv")


def verifies(token: Token, key: Key) -> bool:
    """Whether the signature is this key's, by the token's own algorithm, which has been allowed before."""
    try:
        jws.deserialize_compact(token.raw, key, algorithms=[token.algorithm])
    except (JoseError, ValueError):
        return False
    return True


class Provider:
    """One provider's keys over time."""

    def __init__(
        self, name: str, settings: OIDCProvider, *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self.name = name
        self.settings = settings
        self._monotonic = monotonic
        self._keys: Keys | None = None
        self._fetched_at = self._tried_at = float("-inf")
        self._fetching: asyncio.Task[None] | None = None
        self._background: asyncio.Task[None] | None = None
        self._down = False

    def keys(self) -> Keys | None:
        """The newest keys; None when there are none, or none young enough."""
        if self._monotonic() - self._fetched_at > self.settings.jwks_max_age:
            return None
        return self._keys

    def start(self) -> None:
        self._background = asyncio.get_running_loop().create_task(self._refresh())

    async def stop(self) -> None:
        tasks = [task for task in (self._background, self._fetching) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def look_again(self) -> None:
        """Fetch, unless that was done or tried a moment ago; those who ask meanwhile share one fetch."""
        if self._fetching is None or self._fetching.done():
            if self._monotonic() - self._tried_at < (1.0 if self._keys is None else REFETCH_S):
                return
            self._tried_at = self._monotonic()
            self._fetching = asyncio.get_running_loop().create_task(self._fetch())
        await asyncio.shield(self._fetching)

    async def _refresh(self) -> None:
        while True:
            await self.look_again()
            await asyncio.sleep(1.0 if self._keys is None else self.settings.jwks_refresh)

    async def _fetch(self) -> None:
        try:
            async with asyncio.timeout(FETCH_TIMEOUT_S):
                self._keys = Keys(await fetch(self.settings))
            self._fetched_at = self._monotonic()
            if self._down:
                log.info("provider answers again", provider=self.name)
            self._down = False
        except (httpx2.HTTPError, OSError, ValueError, TimeoutError) as error:
            if not self._down:  # once, not at each try
                log.warning(
                    "provider's keys cannot be fetched", provider=self.name, error=str(error) or "timed out"
                )
            self._down = True


async def fetch(settings: OIDCProvider) -> list[Mapping[str, Any]]:
    """Discovery, then the keys. Raises ValueError for answers that are not what they should be."""
    async with httpx2.AsyncClient(
        verify=_trust(settings), timeout=FETCH_TIMEOUT_S, follow_redirects=False, trust_env=False
    ) as client:
        found = await _json(client, settings.issuer.rstrip("/") + "/.well-known/openid-configuration")
        if found.get("issuer") != settings.issuer:
            raise ValueError(f"discovery names another issuer than {settings.issuer}")
        address = found.get("jwks_uri")
        if not isinstance(address, str) or not _safe(address):
            raise ValueError("discovery names no https address for the keys")
        keys = (await _json(client, address)).get("keys")
    if not isinstance(keys, list):
        raise ValueError("a key set without keys")
    return keys


def _safe(address: str) -> bool:
    """https, or http on loopback."""
    parts = urlsplit(address)
    return parts.scheme == "https" or (
        parts.scheme == "http" and parts.hostname in ("localhost", "127.0.0.1", "::1")
    )


def _trust(settings: OIDCProvider) -> ssl.SSLContext:
    if settings.ca is not None:
        return ssl.create_default_context(cafile=str(settings.ca))
    return truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


async def _json(client: httpx2.AsyncClient, address: str) -> dict[str, Any]:
    async with client.stream("GET", address, headers={"Accept": "application/json"}) as answer:
        if answer.status_code != 200:
            raise ValueError(f"{address} answers {answer.status_code}")
        body = b""
        async for part in answer.aiter_bytes():
            body += part
            if len(body) > MAX_BODY_BYTES:
                raise ValueError(f"{address} answers more than {MAX_BODY_BYTES} bytes")
    try:
        found = json.loads(body)
    except RecursionError:
        found = None
    if not isinstance(found, dict):
        raise ValueError(f"{address} does not answer with a JSON object")
    return found
