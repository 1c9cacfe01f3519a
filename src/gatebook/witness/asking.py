"""One question to one witness over HTTP, and every answer that there may be, as a value.

In: a client made by `new_client`, the witness's URL, a request. Out: one of the classes below; nothing is raised
for what a witness does. Answers are bounded in size and time, redirects and compressed bodies are refused. Never
gives out a cosignature that was not checked. Reads no clock but for time-outs.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

import httpx2

from gatebook import __version__
from gatebook.errors import Damaged
from gatebook.identity.fetch import Unusable, patience
from gatebook.ledger.note import SignatureLine, Verifier, parse_note
from gatebook.witness.protocol import (
    MAX_ANSWER_BYTES,
    Request,
    encode_request,
    parse_cosignatures,
    parse_size,
)

MAX_RETRY_S: Final = 3600
_LOOPBACK: Final = ("127.0.0.1", "::1", "localhost")
_HEADERS: Final = {
    "Accept-Encoding": "identity",  # so that the bound on bytes is a bound on bytes
    "Content-Type": "text/plain; charset=utf-8",
    "User-Agent": f"gatebook/{__version__}",
}


@dataclass(frozen=True)
class Vouched:
    """It cosigned: what we are at now is what it saw grow."""

    line: SignatureLine
    time_s: int


@dataclass(frozen=True)
class Conflict:
    """409: it cosigned another size last than we said. `size` None: it does not say which."""

    size: int | None


@dataclass(frozen=True)
class Contradicted:
    """422: what it cosigned before is not the beginning of what we are at now."""


@dataclass(frozen=True)
class Failed:
    """Nothing that counts. `why` goes behind the witness's name; `retry_s`: it asked not to be asked sooner."""

    why: str
    retry_s: float = 0.0


Answer = Vouched | Conflict | Contradicted | Failed

_SAID: Final = {
    400: "takes our request for malformed",
    401: "wants a login",
    403: "does not know this log's key, or not this log; give its operator log.pub",
    404: "does not know this log, or its URL is wrong; give its operator log.pub",
    405: "takes no POST there: is its URL right?",
    413: "takes our request for too long",
    429: "has been asked too often",
}


def url_problem(url: str) -> str | None:
    """What is wrong with a witness's URL; None: it can be asked there."""
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - raises where it is no number
        named = parts.username is None and not parts.query and not parts.fragment
    except ValueError:
        return "is no URL"
    if not url.isascii() or not parts.hostname or not named:
        return "is no URL of a host and a path alone"
    if parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _LOOPBACK):
        return None
    return "is neither https, nor http on this machine"


async def ask(
    client: httpx2.AsyncClient, url: str, witness: Verifier, request: Request, timeout_s: float, now_s: float
) -> Answer:
    """`url`: the witness's submission prefix."""
    body = encode_request(request)
    place = url.rstrip("/") + "/add-checkpoint"
    try:
        async with patience(timeout_s, timeout_s):
            try:
                status, headers, data = await _post(client, place, body)
            except (httpx2.RemoteProtocolError, httpx2.ReadError, httpx2.WriteError):
                # A connection that was kept open may be closed at the moment it is used again: nobody's fault.
                status, headers, data = await _post(client, place, body)
    except Unusable as error:
        return Failed(str(error))
    return _read(status, headers, data, witness, parse_note(request.note).text, now_s)


async def _post(client: httpx2.AsyncClient, url: str, body: bytes) -> tuple[int, httpx2.Headers, bytes]:
    async with client.stream("POST", url, content=body, headers=_HEADERS, follow_redirects=False) as answer:
        if answer.headers.get("content-encoding", "identity") != "identity":
            raise Unusable("its answer came compressed, which was not asked for")
        data = bytearray()
        async for piece in answer.aiter_raw():
            data += piece
            if len(data) > MAX_ANSWER_BYTES:
                raise Unusable(f"it answered with more than {MAX_ANSWER_BYTES} bytes")
        return answer.status_code, answer.headers, bytes(data)


def _read(status: int, headers: httpx2.Headers, data: bytes, witness: Verifier, text: str, now_s: float) -> Answer:
    match status:
        case 200:
            try:
                found = parse_cosignatures(data, text, witness, now_s)
            except Damaged as error:
                return Failed(str(error))
            return Vouched(found.line, found.time_s)
        case 409:  # of whatever content type: some say text/plain
            return Conflict(parse_size(data))
        case 422:
            return Contradicted()
        case _ if 300 <= status < 400:
            return Failed(f"it answered with a redirect ({status}), which is refused; give the policy its new URL")
    said = _SAID.get(status, "has a fault of its own" if status >= 500 else "answered what is not in the protocol")
    return Failed(f"it {said} (status {status})", _retry(headers) if status in (429, 503) else 0.0)


def _retry(headers: httpx2.Headers) -> float:
    """Seconds; a date, or nonsense, is none."""
    asked = headers.get("retry-after", "")
    return float(min(int(asked), MAX_RETRY_S)) if re.fullmatch(r"[0-9]{1,9}", asked) else 0.0
