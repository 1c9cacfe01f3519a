"""Fetches what a provider publishes: OpenID Connect Discovery 1.0, and the JWKS that its document names.

In: the provider's configuration. Out: `Keys`, for logins `Endpoints` too, or `Unusable`. The provider is
trusted for its keys and its people: the document must name exactly the configured issuer, and may send us to plain
http only from loopback to loopback. How it is asked is `fetch`'s.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import httpx2

from gatebook.config.crosscheck import is_loopback, is_safe_url
from gatebook.config.model import OIDCProvider
from gatebook.identity.fetch import Unusable, ask, is_local, new_client, patience, tls_context
from gatebook.identity.jwk import Keys, parse_jwks
from gatebook.identity.strict import parse_object

MAX_BODY_BYTES = 256 << 10
MAX_URL_LENGTH = 2048
TIMEOUT_S = 5.0  # of each step
TOTAL_TIMEOUT_S = 10.0
WELL_KNOWN = "/.well-known/openid-configuration"


class Endpoints(NamedTuple):
    """Where people are sent, and where their codes are exchanged. `says_issuer`: RFC 9207."""

    authorization: str
    token: str
    end_session: str | None
    says_issuer: bool


class Published(NamedTuple):
    endpoints: Endpoints
    keys: Keys


class Discovery:
    """`client` replaces the HTTP client that is otherwise made for each fetch; it is not closed here."""

    def __init__(self, provider: OIDCProvider, client: httpx2.AsyncClient | None = None) -> None:
        self._issuer = provider.issuer
        self._local = is_local(provider.issuer)
        self._context = None if self._local else tls_context(provider.ca)
        self._client = client

    async def keys(self) -> Keys:
        """Raises Unusable."""
        async with self._conversation() as client:
            return await self._keys(client, await self._document(client))

    async def published(self) -> Published:
        """Raises Unusable."""
        async with self._conversation() as client:
            document = await self._document(client)
            endpoints = Endpoints(
                authorization=self._url(document, "authorization_endpoint"),
                token=self._url(document, "token_endpoint"),
                end_session=self._url(document, "end_session_endpoint")
                if "end_session_endpoint" in document
                else None,
                says_issuer=document.get("authorization_response_iss_parameter_supported") is True,
            )
            return Published(endpoints, await self._keys(client, document))

    @asynccontextmanager
    async def _conversation(self) -> AsyncIterator[httpx2.AsyncClient]:
        async with patience(TIMEOUT_S, TOTAL_TIMEOUT_S):
            if self._client is not None:
                yield self._client
            else:
                async with new_client(self._context, TIMEOUT_S) as client:
                    yield client

    async def _document(self, client: httpx2.AsyncClient) -> dict[str, Any]:
        # Discovery 1.0, 4.1: a slash at the issuer's end goes before the path is appended.
        data = await ask(client, self._issuer.removesuffix("/") + WELL_KNOWN, MAX_BODY_BYTES)
        try:
            document = parse_object(data)
        except ValueError as error:
            raise Unusable(f"its discovery document cannot be used: {error}") from None
        if document.get("issuer") != self._issuer:
            raise Unusable("its discovery document names another issuer; compare `issuer` letter by letter")
        return document

    async def _keys(self, client: httpx2.AsyncClient, document: dict[str, Any]) -> Keys:
        data = await ask(client, self._url(document, "jwks_uri"), MAX_BODY_BYTES)
        try:
            return parse_jwks(data)
        except ValueError as error:
            raise Unusable(f"its JWKS cannot be used: {error}") from None

    def _url(self, document: dict[str, Any], name: str) -> str:
        url = document.get(name)
        if not isinstance(url, str) or len(url) > MAX_URL_LENGTH or not _is_fit(url, self._local):
            raise Unusable(
                f"its discovery document has no `{name}` that may be used: https, without user or query"
            )
        return url


def _is_fit(url: str, local: bool) -> bool:
    if not is_safe_url(url):
        return False
    parts = urlsplit(url)
    return parts.scheme == "https" or (local and is_loopback(parts.hostname or ""))
