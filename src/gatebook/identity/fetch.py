"""Asks a provider something over HTTP: for its keys, or about a token; or an authority for a time stamp.

In: URLs that the configuration names, or a provider that it names. Out: the body of a plain 200, or `Unusable`,
which says in a few words what is wrong. Answers are bounded in size and time, redirects and compressed bodies are
refused, and TLS is verified by the system's authorities, or by the provider's `ca` alone. Never follows where an
answer leads, and repeats nothing of what a provider sent.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import truststore

from gatebook import __version__
from gatebook.errors import EnvironmentFault

_HEADERS = {
    "Accept": "application/json",
    "Accept-Encoding": "identity",  # so that the bound on bytes is a bound on bytes
    "User-Agent": f"gatebook/{__version__}",
}


class Unusable(Exception):
    """The provider gave no answer that may be used. The text names what it did, without anything that it sent.

    `status`: of an answer that says no; 0 where there was none, or it was something else.
    """

    def __init__(self, said: str, status: int = 0) -> None:
        super().__init__(said)
        self.status = status


def is_local(url: str) -> bool:
    """Plain http, which the configuration allows on loopback alone."""
    return urlsplit(url).scheme == "http"


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


def new_client(context: ssl.SSLContext | None, timeout_s: float, connections: int = 2) -> httpx2.AsyncClient:
    """For one provider; without `context`, for one on this machine, which no proxy is asked for."""
    return httpx2.AsyncClient(
        verify=context or True,
        timeout=timeout_s,
        trust_env=context is not None,
        follow_redirects=False,
        limits=httpx2.Limits(max_connections=connections, max_keepalive_connections=connections),
    )


@asynccontextmanager
async def patience(step_s: float, total_s: float) -> AsyncIterator[None]:
    """Whatever goes wrong in a conversation with a provider is Unusable, and so is one that takes too long.

    `step_s` is what the client was made with: for connecting, writing, the next piece of an answer.
    """
    try:
        async with asyncio.timeout(total_s):
            yield
    except TimeoutError:
        raise Unusable(f"no complete answer within {total_s:g} s") from None
    except httpx2.TimeoutException as error:
        raise Unusable(f"no answer within {step_s:g} s ({type(error).__name__})") from None
    except (httpx2.ConnectError, OSError) as error:
        raise Unusable(f"no connection: {error}") from None
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        raise Unusable(f"no answer in HTTP ({type(error).__name__})") from None


async def ask(
    client: httpx2.AsyncClient,
    url: str,
    max_bytes: int,
    form: Mapping[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
    content: bytes | None = None,
) -> bytes:
    """The body of a plain 200 to a GET, or to a POST of `form` or `content`. Raises Unusable, or httpx2's."""
    method = "GET" if form is None and content is None else "POST"
    sent = {**_HEADERS, **(headers or {})}
    async with client.stream(
        method, url, headers=sent, data=form, content=content, follow_redirects=False
    ) as answer:
        place = urlsplit(url).path
        if answer.status_code != 200:
            what = "a redirect, which is refused" if answer.is_redirect else f"status {answer.status_code}"
            raise Unusable(f"{place} answered with {what}", answer.status_code)
        if answer.headers.get("content-encoding", "identity") != "identity":
            raise Unusable(f"{place} came compressed, which was not asked for")
        data = bytearray()
        async for piece in answer.aiter_raw():
            data += piece
            if len(data) > max_bytes:
                raise Unusable(f"{place} answered with more than {max_bytes} bytes")
        return bytes(data)
