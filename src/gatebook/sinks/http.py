"""How sinks speak HTTP: a client each, bounded in time and bytes, and what an answer means by its status alone.

TLS is verified by the system's authorities or by those that the configuration names; redirects are refused,
proxies are those of the configuration. Never repeats a secret: what a destination answers is shortened, and
headers are not shown.
"""

from __future__ import annotations

import email.utils
import gzip
import json
import time
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import httpx2

from gatebook import __version__
from gatebook.config.sinks import Web
from gatebook.errors import EnvironmentFault
from gatebook.identity.fetch import is_local, tls_context
from gatebook.scrub import Scrubber, visible
from gatebook.sinks.destination import Answer, Delivered, Divide, Pause, Retry

MAX_ANSWER_BYTES: Final = 16 << 20
MAX_WORDS: Final = 200
_scrub = Scrubber().scrub


class Response(NamedTuple):
    status: int
    body: bytes
    retry_after_s: float | None = None

    def json(self) -> Any:
        """None for anything that is no JSON."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None

    @property
    def words(self) -> str:
        """What it said, for people."""
        return words(self.body[: 4 * MAX_WORDS].decode("utf-8", "replace"))


def words(text: str) -> str:
    """Somebody else's words for people: short, printable, nothing in them that looks like a credential."""
    return _scrub(visible(text[: 4 * MAX_WORDS]))[:MAX_WORDS].strip()


class Client:
    """`headers` go with every request; they may hold the sink's secret."""

    def __init__(self, settings: Web, url: str, headers: Mapping[str, str], *, compress: bool = True) -> None:
        """Raises EnvironmentFault for certificates that cannot be used."""
        self._url = url
        self._compress = compress
        self._timeout_s = settings.timeout
        context = None if is_local(url) else tls_context(settings.certificates)
        if settings.client_certificate is not None and context is not None:
            try:
                context.load_cert_chain(settings.client_certificate)
            except OSError as error:
                why = (error.strerror or str(error)).lower()
                raise EnvironmentFault(
                    f"{settings.client_certificate}: {why}; it should hold a certificate and its key, in PEM"
                ) from None
        self._client = httpx2.Client(
            verify=context or True,
            timeout=settings.timeout,
            trust_env=False,
            proxy=settings.proxy,
            follow_redirects=False,
            headers={"User-Agent": f"gatebook/{__version__}", **headers},
        )

    def post(
        self, body: bytes, content_type: str, *, path: str = "", headers: Mapping[str, str] | None = None
    ) -> Response | Retry:
        """One request; Retry when there was no whole answer to it. `path` goes behind the sink's URL."""
        sent = {"Content-Type": content_type, **(headers or {})}
        if self._compress:
            sent["Content-Encoding"] = "gzip"
            body = gzip.compress(body, compresslevel=5, mtime=0)
        return self.ask("POST", path, body, sent)

    def ask(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Response | Retry:
        url = self._url.rstrip("/") + path if path else self._url
        until = time.monotonic() + 2 * self._timeout_s
        try:
            with self._client.stream(method, url, content=body, headers=dict(headers or {})) as answer:
                data = bytearray()
                for piece in answer.iter_bytes():
                    data += piece
                    if len(data) > MAX_ANSWER_BYTES:
                        return Retry(f"its answer has more than {MAX_ANSWER_BYTES} bytes")
                    if time.monotonic() > until:
                        return Retry(f"its answer took longer than {2 * self._timeout_s:g} s")
                return Response(answer.status_code, bytes(data), _retry_after(answer.headers.get("Retry-After")))
        except httpx2.TimeoutException as error:
            return Retry(f"no answer within {self._timeout_s:g} s ({type(error).__name__})")
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
            return Retry(f"no answer: {words(str(error)) or type(error).__name__}")

    def close(self) -> None:
        self._client.close()


def judge(response: Response) -> Answer:
    """What a status means where a sink has no words of its own for it."""
    status, said = response.status, f"{response.status} {response.words}".strip()
    if 200 <= status < 300:
        return Delivered()
    if status in (408, 425, 429) or status >= 500:
        return Retry(said, response.retry_after_s)
    if status in (401, 403, 404, 405, 407) or 300 <= status < 400:
        return Pause(said)
    return Divide(said)


def _retry_after(value: str | None) -> float | None:
    """RFC 9110, 10.2.3: seconds, or a date."""
    if value is None:
        return None
    if value.isascii() and value.isdigit() and len(value) <= 9:
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None
