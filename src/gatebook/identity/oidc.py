"""The method `oidc`: bearer JWTs of an OpenID provider, verified here by its published keys.

In: a bearer token. Out: an Identity, or a Refusal. A token in form that names another issuer is nobody's here.
Waits at most PATIENCE_S, and only for keys; a provider that is down makes its own tokens of unknown keys
unavailable and nothing else. Only what was verified is remembered. Never raises for what a client sent.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from msgspec import structs

from gatebook.config.model import OIDCProvider
from gatebook.identity.cache import TokenCache
from gatebook.identity.jwk import Keys
from gatebook.identity.jws import Unfit
from gatebook.identity.jwt import CheckKind, Token, may_be_of_a_newer_key, read, verify
from gatebook.identity.keyed import signed_sha256
from gatebook.identity.types import Credential, Identity, Refusal

PATIENCE_S = 3.0  # for a provider's keys, in one request


class Publishes(Protocol):
    """A provider's keys over time: jwks.KeySource, and own.OwnKeys for our own."""

    def keys(self, now: float) -> Keys: ...
    async def refetch(self, timeout_s: float) -> bool: ...


class OIDCMethod:
    """`method` is what its identities are said to be known by; `takes` and `check_kind`: for other than tokens."""

    def __init__(
        self,
        name: str,
        provider: OIDCProvider,
        source: Publishes,
        clock: Callable[[], float],
        method: str = "oidc",
        takes: str = "bearer",
        check_kind: CheckKind | None = None,
    ) -> None:
        self.takes = frozenset({takes})
        self._name = name
        self._method = method
        self._provider = provider
        self._source = source
        self._clock = clock
        self._check_kind = check_kind
        self._cache = TokenCache()

    def recall(self, credential: Credential, now: float) -> Identity | None:
        return self._cache.get(credential.sha256(), self._source.keys(now).marks, now)

    async def verify(self, credential: Credential, now: float) -> Identity | Refusal:
        try:
            token = read(credential.value)
        except Unfit as error:
            return Refusal(error.reason)
        if token.issuer != self._provider.issuer:
            return Refusal("token_issuer")
        answer = self._judge(token, credential, now)
        if isinstance(answer, Identity) or not may_be_of_a_newer_key(answer.reason, token):
            return answer
        current = await self._source.refetch(PATIENCE_S)
        # Many may have waited with the same token: the first of them has done the work for the others.
        now = self._clock()
        answer = self.recall(credential, now) or self._judge(token, credential, now)
        if isinstance(answer, Refusal) and may_be_of_a_newer_key(answer.reason, token) and not current:
            return Refusal("provider_unavailable", self._name)
        return answer

    def _judge(self, token: Token, credential: Credential, now: float) -> Identity | Refusal:
        keys = self._source.keys(now)
        try:
            digest = signed_sha256(credential)
            verified = verify(token, self._name, self._provider, keys, digest, now, self._check_kind)
        except Unfit as error:
            return Refusal(error.reason, self._name)
        identity = verified.identity
        if self._method != identity.method:
            identity = structs.replace(identity, method=self._method)
        self._cache.put(credential.sha256(), identity, verified.mark, identity.expires_at)
        return identity
