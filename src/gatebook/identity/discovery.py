"""Fetches a provider's published keys: OpenID Connect Discovery 1.0, then the JWKS it names.

In: the provider's configuration. Out: `Keys`, or `Unusable`, which says in a few words what is wrong. The
provider is trusted for its keys and for nothing else: answers are bounded in size and time, redirects are
refused, so is plain http except between loopback and loopback, and the document must name exactly the
configured issuer. TLS is verified by the system's authorities, or by the provider's `ca` alone.
"""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import truststore

from gatebook import __version__
from gatebook.config.crosscheck import is_loopback, is_safe_url
from gatebook.config.model import OIDCProvider
from gatebook.errors import EnvironmentFault
from gatebook.identity.jwk import Keys, parse_jwks
from gatebook.identity.strict import parse_object

MAX_BODY_BYTES = 256 << 10
MAX_URL_LENGTH = 2048
TIMEOUT_S = 5.0  # of each step: connecting, writing, the next piece of an answer
TOTAL_TIMEOUT_S = 10.0
WELL_KNOWN = "/.well-known/openid-configuration"

_HEADERS = {
    "Accept": "application/json",
    "Accept-Encoding": "identity",  # so that the bound on bytes is a bound on bytes
    "User-Agent": f"gatebook/{__version__}",
}


class Unusable(Exception):
    """The provider gave no keys. The text names what it did, without anything that it sent."""


class Discovery:
    """`client` replaces the HTTP client that is otherwise made for each fetch; it is not closed here."""

    def __init__(self, provider: OIDCProvider, client: httpx2.AsyncClient | None = None) -> None:
        self._issuer = provider.issuer
        self._local = urlsplit(provider.issuer).scheme == "http"  # the configuration allows it on loopback alone
        self._context = None if self._local else tls_context(provider.ca)
        self._client = client

    async def keys(self) -> Keys:
        """Raises Unusable."""
        try:
            async with asyncio.timeout(TOTAL_TIMEOUT_S):
                if self._client is not None:
                    return await self._keys(self._client)
                async with self._own_client() as client:
                    return await self._keys(client)
        except TimeoutError:
            raise Unusable(f"no complete answer within {TOTAL_TIMEOUT_S:g} s") from None
        except httpx2.TimeoutException as error:
            raise Unusable(f"no answer within {TIMEOUT_S:g} s ({type(error).__name__})") from None
        except (httpx2.ConnectError, OSError) as error:
            raise Unusable(f"no connection: {error}") from None
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise Unusable(f"no answer in HTTP ({type(error).__name__})") from None

    def _own_client(self) -> httpx2.AsyncClient:
        # A company's proxy is used where the environment names one, but never for what is on this machine.
        return httpx2.AsyncClient(
            verify=self._context or True, timeout=TIMEOUT_S, trust_env=not self._local, follow_redirects=False
        )

    async def _keys(self, client: httpx2.AsyncClient) -> Keys:
        # Discovery 1.0, 4.1: a slash at the issuer's end goes before the path is appended.
        data = await _get(client, self._issuer.removesuffix("/") + WELL_KNOWN)
        url = self._jwks_url(data)
        data = await _get(client, url)
        try:
            return parse_jwks(data)
        except ValueError as error:
            raise Unusable(f"its JWKS cannot be used: {error}") from None

    def _jwks_url(self, data: bytes) -> str:
        try:
            document = parse_object(data)
        except ValueError as error:
            raise Unusable(f"its discovery document cannot be used: {error}") from None
        if document.get("issuer") != self._issuer:
            raise Unusable("its discovery document names another issuer; compare `issuer` letter by letter")
        url = document.get("jwks_uri")
        if not isinstance(url, str) or len(url) > MAX_URL_LENGTH or not _is_fit(url, self._local):
            raise Unusable(
                "its discovery document has no `jwks_uri` that may be used: https, without user or query"
            )
        return url


def _is_fit(url: str, local: bool) -> bool:
    if not is_safe_url(url):
        return False
    parts = urlsplit(url)
    return parts.scheme == "https" or (local and is_loopback(parts.hostname or ""))


def tls_context(ca: Path | None) -> ssl.SSLContext:
    """Verifies names and certificates, TLS 1.2 or newer. Raises EnvironmentFault when `ca` cannot be used."""
    if ca is None:
        system: ssl.SSLContext = truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        system.minimum_version = ssl.TLSVersion.TLSv1_2
        return system
    try:
        own = ssl.create_default_context(cafile=str(ca))
    except (OSError, ssl.SSLError) as error:
        why = error.strerror or str(error) or type(error).__name__
        raise EnvironmentFault(f"{ca}: cannot be used as a provider's CA: {why.lower()}") from None
    own.minimum_version = ssl.TLSVersion.TLSv1_2
    return own


async def _get(client: httpx2.AsyncClient, url: str) -> bytes:
    """The body of a plain 200. Raises Unusable, or httpx2's errors."""
    async with client.stream("GET", url, headers=_HEADERS, follow_redirects=False) as answer:
        place = urlsplit(url).path
        if answer.status_code != 200:
            what = "a redirect, which is refused" if answer.is_redirect else f"status {answer.status_code}"
            raise Unusable(f"{place} answered with {what}")
        if answer.headers.get("content-encoding", "identity") != "identity":
            raise Unusable(f"{place} came compressed, which was not asked for")
        data = bytearray()
        async for piece in answer.aiter_raw():
            data += piece
            if len(data) > MAX_BODY_BYTES:
                raise Unusable(f"{place} answered with more than {MAX_BODY_BYTES} bytes")
        return bytes(data)
