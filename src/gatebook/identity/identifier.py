"""Who is calling: what the guard asks, once for each request.

`present` finds the credential, `lookup` answers at once from what is known, and `verify` does the work that is
left: a signature, and at most one wait for a provider's keys. In: header fields and the route's providers.
Out: an Identity, or a Refusal with a reason of record.REASONS. A provider that is down makes its own unknown
tokens unavailable and nothing else. Never raises for what a client sent.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import httpx2

from gatebook import kept
from gatebook.config.model import ApiKeyProvider, Configuration, OIDCProvider
from gatebook.identity import api_key_file
from gatebook.identity.api_key import KeyRing
from gatebook.identity.cache import TokenCache
from gatebook.identity.discovery import Discovery
from gatebook.identity.jwks import KeySource
from gatebook.identity.jws import Unfit
from gatebook.identity.jwt import Token, may_be_of_a_newer_key, read, verify
from gatebook.identity.present import Plan, plan, present
from gatebook.identity.types import Credential, Identity, Refusal

PATIENCE_S = 3.0  # for a provider's keys, in one request


class _Issuer:
    """A provider under one configuration. Its cache dies with that, its source may be handed on."""

    def __init__(self, name: str, provider: OIDCProvider, source: KeySource) -> None:
        self.name = name
        self.provider = provider
        self.source = source
        self._cache = TokenCache()

    def recall(self, digest: bytes, now: float) -> Identity | None:
        return self._cache.get(digest, self.source.keys(now).marks, now)

    def verify(self, token: Token, digest: bytes, now: float) -> Identity:
        """Raises Unfit."""
        verified = verify(token, self.name, self.provider, self.source.keys(now), digest, now)
        self._cache.put(digest, verified)
        return verified.identity


class _Deployment:
    """All that follows from one configuration."""

    def __init__(self, configuration: Configuration, sources: Mapping[str, KeySource]) -> None:
        self.configuration = configuration
        self.key_headers: dict[str, str] = {}
        self.issuers: dict[str, _Issuer] = {}
        self.plans: dict[tuple[str, ...], Plan] = {}  # as many as there are lists of providers in the routes
        for name, provider in configuration.identity.items():
            if isinstance(provider, ApiKeyProvider):
                self.key_headers[name] = provider.header.lower()
            else:
                self.issuers[name] = _Issuer(name, provider, sources[name])


class Identifier:
    """`clock` is the wall clock, for what happens after a wait; `client` replaces the HTTP client.

    Making one reads the providers' CA files: raises EnvironmentFault.
    """

    def __init__(
        self,
        configuration: Configuration,
        api_keys: Path,
        *,
        clock: Callable[[], float] = time.time,
        client: httpx2.AsyncClient | None = None,
    ) -> None:
        self._clock = clock
        self._client = client
        self._watch = kept.Watch(api_keys, api_key_file.KIND, lambda document: KeyRing(document.keys))
        self._sources = self._make_sources(configuration, {})
        self._in_force = _Deployment(configuration, self._sources)
        self._started = False

    # -- its life ---------------------------------------------------------------------------------------
    async def start(self) -> None:
        """Reads the API keys and begins to fetch the providers' keys, but waits for none of them."""
        self._started = True
        self._watch.start()
        for source in self._sources.values():
            source.start()

    async def stop(self) -> None:
        self._started = False
        await self._watch.stop()
        for source in self._sources.values():
            await source.stop()

    async def reconfigure(self, configuration: Configuration) -> None:
        """Providers that stayed the same keep their keys, but no verified token. Raises as the constructor.

        Where it raises, nothing has changed. It does not give way to other tasks once it has: so the caller
        may switch its own part in the same breath.
        """
        before = self._sources
        sources = self._make_sources(configuration, before)
        for name, source in before.items():
            if sources.get(name) is not source:
                await source.stop()
        self._sources = sources
        self._in_force = _Deployment(configuration, sources)
        if self._started:
            for source in sources.values():
                source.start()

    def _make_sources(self, configuration: Configuration, before: Mapping[str, KeySource]) -> dict[str, KeySource]:
        sources: dict[str, KeySource] = {}
        for name, provider in configuration.identity.items():
            if isinstance(provider, OIDCProvider):
                old = before.get(name)
                if old is not None and old.provider == provider:
                    sources[name] = old
                else:
                    sources[name] = KeySource(name, provider, Discovery(provider, self._client), self._clock)
        return sources

    def ready(self) -> bool:
        """Whether it answers. A provider that is down is no reason not to."""
        return self._started

    # -- one request ------------------------------------------------------------------------------------
    def present(self, headers: list[tuple[bytes, bytes]], accept: tuple[str, ...]) -> Credential | Refusal | None:
        """The one credential for the providers in `accept`; None when there is none. Names in lower case."""
        wanted = self._in_force.plans.get(accept)
        if wanted is None:
            wanted = self._in_force.plans[accept] = plan(self._in_force.configuration, accept)
        return present(headers, wanted)

    def lookup(self, credential: Credential, accept: tuple[str, ...], now: float) -> Identity | Refusal | None:
        """What is known without work; None: ask `verify`."""
        if credential.method == "api_key":
            return self._by_key(credential, accept, now)
        digest = hashlib.sha256(credential.value).digest()
        issuers = self._in_force.issuers
        for name in accept:
            issuer = issuers.get(name)
            if issuer is not None:
                identity = issuer.recall(digest, now)
                if identity is not None:
                    return identity
        return None

    async def verify(self, credential: Credential, accept: tuple[str, ...], now: float) -> Identity | Refusal:
        """Waits at most PATIENCE_S, and only for keys. May be cancelled; that disturbs nobody else."""
        found = self.lookup(credential, accept, now)
        if found is not None:
            return found
        digest = credential.sha256()
        try:
            token = read(credential.value)
        except Unfit as error:
            return Refusal(error.reason)
        answer, stale = self._judge(token, digest, accept, now)
        if stale is None:
            return answer
        current = await stale.refetch(PATIENCE_S)
        # Many may have waited with the same token: the first of them has done the work for the others.
        now = self._clock()
        found = self.lookup(credential, accept, now)
        if found is not None:
            return found
        answer, stale = self._judge(token, digest, accept, now)
        if isinstance(answer, Refusal) and stale is not None and not current:
            return Refusal("provider_unavailable", answer.provider)
        return answer

    def _judge(
        self, token: Token, digest: bytes, accept: tuple[str, ...], now: float
    ) -> tuple[Identity | Refusal, KeySource | None]:
        """The answer; and whose keys are to be fetched anew, if that could make it another."""
        refusal = Refusal("token_issuer")
        stale: KeySource | None = None
        for name in accept:
            issuer = self._in_force.issuers.get(name)
            if issuer is None or issuer.provider.issuer != token.issuer:
                continue
            try:
                return issuer.verify(token, digest, now), None
            except Unfit as error:
                if refusal.provider is None:
                    refusal = Refusal(error.reason, name)
                if stale is None and may_be_of_a_newer_key(error.reason, token):
                    stale = issuer.source
        return refusal, stale

    def _by_key(self, credential: Credential, accept: tuple[str, ...], now: float) -> Identity | Refusal:
        ring = self._watch.value
        if ring is None:
            return Refusal("provider_unavailable", credential.provider)
        found = ring.find(credential.value, now)
        if isinstance(found, Refusal):
            return found
        # A key opens by its own provider's header alone, and only where that provider is accepted.
        headers = self._in_force.key_headers
        header = headers.get(found.provider)
        if found.provider not in accept or header is None or header != headers.get(credential.provider or ""):
            return Refusal("key_unknown", found.provider)
        return found
