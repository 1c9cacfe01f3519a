"""The method `introspection`: tokens that their provider is asked about (RFC 7662).

In: a bearer token. Out: an Identity, or a Refusal. The answer must say `active: true` and is then judged as the
claims of a JWT are. It serves for `cache`, but not past its `exp`; a refusal for NEGATIVE_S. Requests with one
token ask once. Where the provider is down, slow, confused or flooded, nobody is let in on its word but those for
whom it still serves. A JWT of an issuer that another provider is there for is never sent to this one. Never
raises for what a client sent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import httpx2
import structlog

from gatebook.config.model import IntrospectionProvider
from gatebook.identity import claims as claim
from gatebook.identity.api_key import is_secret_of_ours
from gatebook.identity.cache import TokenCache
from gatebook.identity.client_auth import ClientAuth
from gatebook.identity.fetch import Unusable, ask, is_local, new_client, patience, tls_context
from gatebook.identity.flood import Refused, Vouched
from gatebook.identity.jws import Unfit
from gatebook.identity.jwt import issuer_of
from gatebook.identity.keyed import signed_sha256
from gatebook.identity.strict import parse_object
from gatebook.identity.types import Credential, Identity, Refusal

STEP_S = 2.0  # for connecting, writing, the next piece of an answer
TOTAL_S = 3.0
NEGATIVE_S = 5.0  # a refusal is remembered so long, or as long as an answer if that is shorter
MAX_BODY_BYTES = 64 << 10
CONNECTIONS = 32
MAX_ASKING = 256  # at a time; whoever comes then has to come again. Strangers get no more than half of it.
LOG_S = 10.0

log = structlog.get_logger("identity")


class IntrospectionMethod:
    """A Source too: its connections and what it learned end with the configuration.

    `others` are the issuers that the other providers of the configuration are there for. Making one reads the
    client's secret and the CA file: raises EnvironmentFault.
    """

    takes = frozenset({"bearer"})

    def __init__(
        self,
        name: str,
        provider: IntrospectionProvider,
        others: frozenset[str],
        clock: Callable[[], float],
        client: httpx2.AsyncClient | None = None,
    ) -> None:
        self.provider = provider
        self._name = name
        self._others = others
        self._clock = clock
        self._auth = ClientAuth(provider.client, provider.issuer or provider.url)
        self._context = None if is_local(provider.url) else tls_context(provider.ca)
        self._client, self._is_own = client, client is None
        self._cache = TokenCache()
        self._refused = Refused()
        self._vouched = Vouched()
        self._asking: dict[bytes, asyncio.Task[Identity | Refusal]] = {}
        self._said, self._said_s = "", float("-inf")
        self._stopped = False

    # -- its life ---------------------------------------------------------------------------------------
    def start(self) -> None:
        """There is nothing to do before somebody asks."""

    async def stop(self) -> None:
        self._stopped = True
        tasks = list(self._asking.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._is_own and self._client is not None:
            await self._client.aclose()

    # -- one token --------------------------------------------------------------------------------------
    def recall(self, credential: Credential, now: float) -> Identity | Refusal | None:
        digest = credential.sha256()
        return self._cache.get(digest, _OF_NO_KEY, now) or self._refused.get(digest, now)

    async def verify(self, credential: Credential, now: float) -> Identity | Refusal:
        known = self.recall(credential, now)
        if known is not None:
            return known
        if not self._is_ours(credential.value):
            return Refusal("token_issuer")
        digest = credential.sha256()
        task = self._asking.get(digest)
        if task is None:
            if self._stopped or not self._may_ask(digest):
                return Refusal("provider_unavailable", self._name)
            task = self._asking[digest] = asyncio.get_running_loop().create_task(self._answer(credential))
            task.add_done_callback(lambda _: self._asking.pop(digest, None))
        # Unlike awaiting it, waiting for a task neither cancels it nor is cancelled with it.
        await asyncio.wait({task})
        return Refusal("provider_unavailable", self._name) if task.cancelled() else task.result()

    def _may_ask(self, digest: bytes) -> bool:
        """Who sends bad tokens in floods must not keep out those who have been let in before."""
        if digest in self._vouched:
            return len(self._asking) < MAX_ASKING
        return len(self._asking) < MAX_ASKING // 2 and not self._refused.is_flooded()

    def _is_ours(self, token: bytes) -> bool:
        if is_secret_of_ours(token):
            return False  # a client has mistaken where it belongs; the provider must not learn it
        issuer = issuer_of(token)
        if issuer is None:
            return True
        return issuer == self.provider.issuer if self.provider.issuer else issuer not in self._others

    async def _answer(self, credential: Credential) -> Identity | Refusal:
        """Asks, judges and remembers, for all who wait."""
        began = self._clock()
        try:
            told = await self._introspect(credential.value)
            answer = self._judge(told, signed_sha256(credential), began)
        except Unusable as error:
            self._say(str(error))
            return Refusal("provider_unavailable", self._name)
        except Exception:
            log.exception("token not introspected: a fault of ours", provider=self._name)
            return Refusal("provider_unavailable", self._name)
        self._say("")
        if isinstance(answer, Identity):
            # From when it was asked, since what is true then may not be so when the answer comes; and never past
            # `exp`, which is the provider's word by the provider's clock.
            until = min(began + self.provider.cache, told["exp"], answer.expires_at)
            self._cache.put(credential.sha256(), answer, None, until, began)
            self._vouched.add(credential.sha256())
        else:
            self._vouched.remove(credential.sha256())
            self._refused.put(credential.sha256(), answer, began + min(NEGATIVE_S, self.provider.cache), began)
        return answer

    async def _introspect(self, token: bytes) -> dict[str, Any]:
        """Raises Unusable."""
        if self._client is None:
            self._client = new_client(self._context, STEP_S, CONNECTIONS)
        async with patience(STEP_S, TOTAL_S):
            try:
                data = await self._post(self._client, token)
            except (httpx2.NetworkError, httpx2.RemoteProtocolError):
                # A kept connection that the provider was just closing; asking again changes nothing there.
                data = await self._post(self._client, token)
        try:
            return parse_object(data)
        except ValueError as error:
            raise Unusable(f"its answer cannot be used: {error}") from None

    async def _post(self, client: httpx2.AsyncClient, token: bytes) -> bytes:
        form, headers = self._auth.prove(self._clock())
        asked = {"token": token.decode("ascii"), "token_type_hint": "access_token", **form}
        return await ask(client, self.provider.url, MAX_BODY_BYTES, asked, headers)

    def _judge(self, told: dict[str, Any], digest: bytes, now: float) -> Identity | Refusal:
        """Raises Unusable for what is no answer."""
        active = told.get("active")
        if active is False:
            return Refusal("token_inactive", self._name)
        if active is not True:
            raise Unusable("its answer does not say whether the token is active")
        try:
            if self.provider.issuer and told.get("iss") != self.provider.issuer:
                raise Unfit("token_issuer")
            claim.check_introspected(told, self.provider.accept_untyped)
            # RFC 9068, 2.2: where no person is involved, the client is the subject.
            return claim.identify(told, self._name, self.provider, digest, now, told.get("client_id"))
        except Unfit as error:
            return Refusal(error.reason, self._name)

    def _say(self, why: str) -> None:
        """Into the log, when it is something new. A client may be able to make it change: hence LOG_S."""
        now_s = asyncio.get_running_loop().time()
        if why == self._said or now_s - self._said_s < LOG_S:
            return
        self._said, self._said_s = why, now_s
        if why:
            log.warning("tokens cannot be introspected", provider=self._name, why=why)
        else:
            log.info("introspection works again", provider=self._name)


_OF_NO_KEY = frozenset((None,))
