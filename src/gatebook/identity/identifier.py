"""Who is calling: what the guard asks, once for each request.

`present` finds the credential, `lookup` answers at once from what is known, `verify` does the work that is left,
and `confirm` looks at what no cache may answer: whether this request may use that identity. In: what a request
shows, and the route's providers, each an object of its own (`method`), asked in the route's order; the first that
knows the credential wins. Out: an Identity, or a Refusal with a reason of record.REASONS. Never raises for
what a client sent.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import NamedTuple, TypeVar

import httpx2

from gatebook import kept
from gatebook.config.model import (
    ApiKeyProvider,
    Configuration,
    GatebookProvider,
    IntrospectionProvider,
    MTLSProvider,
    OIDCProvider,
    Provider,
)
from gatebook.identity import api_key_file, binding, grant_file, revocation_file, session
from gatebook.identity.api_key import KeyRing
from gatebook.identity.api_key_method import ApiKeyMethod
from gatebook.identity.crl_watch import CRLWatch
from gatebook.identity.discovery import Discovery
from gatebook.identity.grant import Held, Seen
from gatebook.identity.introspection import IntrospectionMethod
from gatebook.identity.jwks import KeySource
from gatebook.identity.keyed import read_keys
from gatebook.identity.last_use import LastUse
from gatebook.identity.method import Method, Source
from gatebook.identity.mtls import MTLSMethod, read_authorities
from gatebook.identity.nonce import Nonces
from gatebook.identity.oidc import OIDCMethod
from gatebook.identity.own import OwnKeys, as_oidc
from gatebook.identity.present import Plan, plan, present
from gatebook.identity.revocation import Revoked
from gatebook.identity.types import Credential, Identity, Presented, Refusal
from gatebook.paths import Paths

AnySource = TypeVar("AnySource", bound=Source)


class _Accepted(NamedTuple):
    """What a route's list of providers comes to. `methods`: kind of credential -> who is asked, in order."""

    plan: Plan
    methods: dict[str, tuple[Method, ...]]


class _Deployment:
    """All that follows from one configuration."""

    def __init__(
        self,
        configuration: Configuration,
        methods: dict[str, Method],
        sessions: dict[str, Method],
        nonces: Nonces,
    ) -> None:
        self._configuration = configuration
        self.methods = methods
        self.sessions = sessions
        self.url = configuration.portal.url or ""
        self.grantable = {each.role: each for each in configuration.grants}
        self.terms = {
            name: binding.terms(configuration, provider, nonces)
            for name, provider in configuration.identity.items()
        }
        self._accepted: dict[tuple[str, ...], _Accepted] = {}  # as many as the routes have lists of providers

    def accepted(self, accept: tuple[str, ...]) -> _Accepted:
        found = self._accepted.get(accept)
        if found is None:
            asked = [of[name] for of in (self.methods, self.sessions) for name in accept if name in of]
            kinds = {kind for method in asked for kind in method.takes}
            methods = {kind: tuple(method for method in asked if kind in method.takes) for kind in kinds}
            found = self._accepted[accept] = _Accepted(plan(self._configuration, accept), methods)
        return found


class Identifier:
    """`clock` is the wall clock, for what happens after a wait; `client` replaces the HTTP client.

    Making one reads CA files, clients' secrets and the keys of keyed hashes: raises EnvironmentFault.
    """

    def __init__(
        self,
        configuration: Configuration,
        paths: Paths,
        *,
        clock: Callable[[], float] = time.time,
        client: httpx2.AsyncClient | None = None,
    ) -> None:
        self._clock = clock
        self._client = client
        self._paths = paths
        self._watch = kept.Watch(paths.api_keys, api_key_file.KIND, lambda document: KeyRing(document.keys))
        self._last_use = LastUse(paths.last_use)
        keys = read_keys(paths)
        self._revoked = kept.Watch(
            paths.revocations, revocation_file.KIND, lambda document: Revoked(document.revocations, keys)
        )
        self._nonces = Nonces(keys.fingerprints)
        self._held = kept.Watch(paths.grants, grant_file.KIND, lambda document: Held(document.grants, keys))
        self._seen = Seen()
        self._sources: dict[str, Source] = {}
        self._sources, self._in_force = self._compile(configuration)
        self._ending: set[asyncio.Task[None]] = set()  # sources of an earlier configuration
        self._started = False

    # -- its life ---------------------------------------------------------------------------------------
    async def start(self) -> None:
        """Reads API keys and revocations, and begins to fetch the providers' keys, but waits for none of them."""
        self._started = True
        self._watch.start()
        self._revoked.start()
        self._held.start()
        for source in self._sources.values():
            source.start()

    async def stop(self) -> None:
        self._started = False
        await self._watch.stop()
        await self._revoked.stop()
        await self._held.stop()
        for source in self._sources.values():
            await source.stop()
        await asyncio.gather(*self._ending)

    def reconfigure(self, configuration: Configuration) -> None:
        """Providers that stayed the same keep their sources, but no verified token. Raises as the constructor.

        Where it raises, nothing has changed. It does not give way to other tasks: so the caller may switch its
        own part in the same breath.
        """
        before = self._sources
        self._sources, self._in_force = self._compile(configuration)
        for name, source in before.items():
            if self._sources.get(name) is not source:
                ending = asyncio.get_running_loop().create_task(source.stop())
                self._ending.add(ending)
                ending.add_done_callback(self._ending.discard)
        if self._started:
            for source in self._sources.values():
                source.start()

    def _compile(self, configuration: Configuration) -> tuple[dict[str, Source], _Deployment]:
        sources: dict[str, Source] = {}
        methods: dict[str, Method] = {}
        headers = {n: p.header.lower() for n, p in configuration.identity.items() if isinstance(p, ApiKeyProvider)}
        for name, provider in configuration.identity.items():
            if isinstance(provider, ApiKeyProvider):
                fellows = frozenset(other for other in headers if headers[other] == headers[name])
                methods[name] = ApiKeyMethod(name, fellows, self._watch, self._last_use)
                continue
            if isinstance(provider, GatebookProvider):
                own = self._kept(name, provider, OwnKeys) or OwnKeys(provider, self._paths.portal_jwks)
                sources[name] = own
                methods[name] = OIDCMethod(name, as_oidc(configuration, provider), own, self._clock, provider.type)
                continue
            if isinstance(provider, IntrospectionProvider):
                others = _issuers(configuration) - {provider.issuer}
                asking = IntrospectionMethod(name, provider, others, self._clock, self._client)
                sources[name] = methods[name] = asking
                continue
            if isinstance(provider, MTLSProvider):
                authorities = read_authorities(provider.ca)
                lists = None if provider.crl is None else CRLWatch(provider, provider.crl, authorities)
                if lists is not None:
                    sources[name] = lists
                methods[name] = MTLSMethod(name, provider, authorities, lists)
                continue
            keys = self._kept(name, provider, KeySource)
            if keys is None:
                keys = KeySource(name, provider, Discovery(provider, self._client), self._clock)
            sources[name] = keys
            methods[name] = OIDCMethod(name, provider, keys, self._clock)
        sessions: dict[str, Method] = {}
        for name, provider in configuration.logins.items():
            source = f"{name}:sessions"  # no provider is called so
            own = self._kept(source, provider, OwnKeys) or OwnKeys(provider, self._paths.portal_jwks)
            sources[source] = own
            wanted, kind = session.as_oidc(configuration, name, provider), session.Kind(provider)
            sessions[name] = OIDCMethod(name, wanted, own, self._clock, session.METHOD, session.METHOD, kind)
        return sources, _Deployment(configuration, methods, sessions, self._nonces)

    def _kept(self, name: str, provider: Provider, kind: type[AnySource]) -> AnySource | None:
        source = self._sources.get(name)
        return source if isinstance(source, kind) and source.provider == provider else None

    def ready(self) -> bool:
        """Whether it answers. A provider that is down is no reason not to."""
        return self._started

    # -- one request ------------------------------------------------------------------------------------
    def present(self, presented: Presented, accept: tuple[str, ...]) -> Credential | Refusal | None:
        """The one credential for the providers in `accept`; None when there is none."""
        return present(presented, self._in_force.accepted(accept).plan)

    def lookup(self, credential: Credential, accept: tuple[str, ...], now: float) -> Identity | Refusal | None:
        """What is known without work; None: ask `verify`."""
        refusal: Refusal | None = None
        unknown = False
        for method in self._in_force.accepted(accept).methods.get(credential.method, ()):
            found = method.recall(credential, now)
            if isinstance(found, Identity):
                return found
            if found is None:
                unknown = True
            else:
                refusal = _weightier(refusal, found)
        return None if unknown else refusal

    async def verify(self, credential: Credential, accept: tuple[str, ...], now: float) -> Identity | Refusal:
        """May wait, but not long. May be cancelled; that disturbs nobody else."""
        while True:
            deployment = self._in_force
            answer = self.lookup(credential, accept, now) or await self._ask(deployment, credential, accept, now)
            if deployment is self._in_force:
                return answer
            now = self._clock()  # Who waited through a reconfiguration is judged by the new one.

    async def _ask(
        self, deployment: _Deployment, credential: Credential, accept: tuple[str, ...], now: float
    ) -> Identity | Refusal:
        refusal: Refusal | None = None
        for method in deployment.accepted(accept).methods.get(credential.method, ()):
            found = await method.verify(credential, now)
            if isinstance(found, Identity):
                return found
            refusal = _weightier(refusal, found)
            now = self._clock()
        return refusal or Refusal("token_issuer")

    def confirm(
        self,
        identity: Identity,
        credential: Credential,
        presented: Presented,
        now: float,
    ) -> Refusal | None:
        """Whether this request may use that identity: asked for every one, and never remembered.

        What was proved beside the credential stands in it then: a proof is good for one use.
        """
        revoked = self._revoked.value
        if revoked is None:
            # What may be revoked is not known, so everything may be.
            return Refusal("revocations_unavailable", identity.provider)
        if revoked.find(identity, now) is not None:
            return Refusal("credential_revoked", identity.provider)
        if credential.method == session.METHOD and session.is_cross_site(presented, self._in_force.url):
            return Refusal("cross_site", identity.provider)
        terms = self._in_force.terms.get(identity.provider, binding.NONE)
        return binding.confirm(identity, credential, presented, terms, now)

    def gain(self, identity: Identity, now: float, monotonic_s: float) -> Identity:
        """With the roles of the grants that are in force: asked for every request, and never remembered.

        While it cannot be known what is granted, nothing is.
        """
        held, grantable = self._held.value, self._in_force.grantable
        if not held or not grantable:
            return identity
        return held.gain(identity, grantable, self._seen, now, monotonic_s)


def _issuers(configuration: Configuration) -> frozenset[str]:
    """Whose tokens some provider of the configuration is there for."""
    named = {
        p.issuer for p in configuration.identity.values() if isinstance(p, (OIDCProvider, IntrospectionProvider))
    }
    if configuration.token_service is not None:
        named.add(configuration.own_issuer)
    named.update(session.issuer(configuration, name) for name in configuration.logins)
    return frozenset(issuer for issuer in named if issuer)


def _weightier(first: Refusal | None, second: Refusal) -> Refusal:
    """The first provider's whose credential it claims to be; where it is nobody's, the first."""
    if first is None or (first.provider is None and second.provider is not None):
        return second
    return first
