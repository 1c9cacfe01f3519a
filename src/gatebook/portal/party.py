"""One provider at which people log in, and we as its client: where people are sent, codes and tokens judged.

In: the configuration, codes and tokens that came by way of browsers. Out: who has logged in, or Unusable, Unfit.
What the provider publishes is fetched when it is needed, kept for `jwks_refresh`, and fetched anew for an unknown
key at most every REFETCH_S. Never believes an address or a key that did not come from the issuer's own document.
Of Authlib nothing is used: it has no types, and what is left beside our own checks is one form that is posted.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, TypeVar
from urllib.parse import urlencode

from gatebook.config.model import Login, OIDCProvider
from gatebook.identity import id_token
from gatebook.identity.client_auth import ClientAuth
from gatebook.identity.discovery import TIMEOUT_S, TOTAL_TIMEOUT_S, Discovery, Published
from gatebook.identity.fetch import Unusable, ask, is_local, new_client, patience, tls_context
from gatebook.identity.id_token import Logout, Person
from gatebook.identity.jwk import Keys
from gatebook.identity.jws import Unfit
from gatebook.identity.jwt import Token, may_be_of_a_newer_key, read
from gatebook.identity.strict import parse_object
from gatebook.portal.transaction import Transaction
from gatebook.wire import CALLBACK

REFETCH_S: Final = 10.0
RETRY_S: Final = 2.0  # as long as nothing is known of the provider
MAX_ANSWER_BYTES: Final = 64 << 10
MAX_WAITING: Final = (
    64  # for one provider: who logs in at another, or wants a token of ours, has a place in the portal
)
R = TypeVar("R")


class Party:
    """Making one reads the client's secret and the CA file: raises EnvironmentFault."""

    def __init__(self, name: str, provider: OIDCProvider, url: str) -> None:
        assert provider.login is not None  # noqa: S101 - only those are asked for
        self.name = name
        self.provider = provider
        self.login: Login = provider.login
        self.redirect_uri = f"{url}{CALLBACK}{name}"
        self._auth = ClientAuth(self.login.client, provider.issuer)
        self._context = None if is_local(provider.issuer) else tls_context(provider.ca)
        self._discovery = Discovery(provider)
        self._fetching = asyncio.Lock()
        self._waiting = 0
        self._known: Published | None = None
        self._known_since_s = self._tried_s = float("-inf")
        self._failure = ""

    async def published(self, newer: bool = False) -> Published:
        """Raises Unusable."""
        with self._place():
            return await self._published(newer)

    async def _published(self, newer: bool) -> Published:
        async with self._fetching:
            now = time.monotonic()
            age_s = now - self._known_since_s
            if self._known is not None and age_s < self.provider.jwks_refresh and not newer:
                return self._known
            if now - self._tried_s >= (RETRY_S if self._known is None else REFETCH_S):
                try:
                    self._known = await self._discovery.published()
                    self._known_since_s, age_s = now, 0.0
                except Unusable as error:
                    self._failure = str(error)
                finally:
                    # Counted from the end: whoever has waited meanwhile is answered by it, and does not wait anew.
                    self._tried_s = time.monotonic()
            if self._known is None or age_s > self.provider.jwks_max_age:
                raise Unusable(self._failure)
            return self._known

    async def authorization_url(self, login: Transaction) -> str:
        """Where the browser is sent. Raises Unusable."""
        endpoint = (await self.published()).endpoints.authorization
        asked = {
            "response_type": "code",
            "client_id": self.login.client.id,
            "redirect_uri": self.redirect_uri,
            "scope": " ".join(dict.fromkeys(["openid", *self.login.scopes])),
            "state": login.state,
            "nonce": login.nonce,
            "code_challenge": login.challenge,
            "code_challenge_method": "S256",
        }
        return f"{endpoint}?{urlencode(asked)}"

    async def end_session_url(self, return_to: str) -> str | None:
        """Where the provider ends its own session; None where it cannot be had."""
        try:
            endpoint = (await self.published()).endpoints.end_session
        except Unusable:
            return None
        asked = {"client_id": self.login.client.id, "post_logout_redirect_uri": return_to}
        return None if endpoint is None else f"{endpoint}?{urlencode(asked)}"

    async def redeem(self, code: str, login: Transaction) -> Person:
        """Who has logged in. Raises Unusable, or Unfit."""
        endpoint = (await self.published()).endpoints.token
        form, headers = self._auth.prove(time.time())
        form |= {"grant_type": "authorization_code", "code": code, "redirect_uri": self.redirect_uri}
        form["code_verifier"] = login.verifier
        with self._place():
            async with patience(TIMEOUT_S, TOTAL_TIMEOUT_S), new_client(self._context, TIMEOUT_S) as client:
                data = await ask(client, endpoint, MAX_ANSWER_BYTES, form, headers)
        try:
            told = parse_object(data)
        except ValueError as error:
            raise Unusable(f"its answer cannot be used: {error}") from None
        text, access = told.get("id_token"), told.get("access_token")
        if not isinstance(text, str) or not isinstance(access, str):
            raise Unusable("its answer holds no ID token")
        token = read(text.encode("utf-8", "replace"))

        def judge(keys: Keys) -> Person:
            return id_token.person(
                token, self.name, self.provider, keys, nonce=login.nonce, access_token=access, now=time.time()
            )

        return await self._judged(token, judge)

    async def logout(self, text: str) -> Logout:
        """What a logout token says. Raises Unusable, or Unfit."""
        token = read(text.encode("utf-8", "replace"))
        return await self._judged(
            token, lambda keys: id_token.logout(token, self.name, self.provider, keys, time.time())
        )

    @contextmanager
    def _place(self) -> Iterator[None]:
        """Among those who wait for this provider. Raises Unusable."""
        if self._waiting >= MAX_WAITING:
            raise Unusable("too many wait for it")
        self._waiting += 1
        try:
            yield
        finally:
            self._waiting -= 1

    async def _judged(self, token: Token, judge: Callable[[Keys], R]) -> R:
        try:
            return judge((await self.published()).keys)
        except Unfit as error:
            if not may_be_of_a_newer_key(error.reason, token):
                raise
        return judge((await self.published(newer=True)).keys)
