"""A line of the gateway's access log, with the error log's words, -> an outcome record. Pure.

Says of each 4xx and 5xx whose doing it was: client, gateway, guard, policy, limit, upstream or network.
Lines are nginx's own, but hold what a client sent: nothing here may fail on any text, and what goes into a
record without a decision is redacted first, never copied.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from gatebook.record import REASONS, ErrorPart, Outcome, ResponsePart, Source, UpstreamPart, cut
from gatebook.wire import LogLine


class Cause(NamedTuple):
    source: Source
    detail: str


# The error log's words -> what they mean. The first that is found counts.
WORDS: tuple[tuple[str, Cause], ...] = (
    ("limiting requests", Cause("limit", "flood_requests")),
    ("limiting connections", Cause("limit", "flood_connections")),
    ("auth request unexpected status", Cause("guard", "guard_unavailable")),
    ("while SSL handshaking to upstream", Cause("upstream", "tls_handshake_failed")),
    ("upstream SSL certificate", Cause("upstream", "tls_certificate_refused")),
    ("SSL_do_handshake() failed", Cause("client", "tls_handshake_failed")),
    ("(111: Connection refused) while connecting to upstream", Cause("upstream", "connect_refused")),
    ("timed out) while connecting to upstream", Cause("upstream", "connect_timeout")),
    ("(110: Connection timed out) while reading response header", Cause("upstream", "header_timeout")),
    ("(110: Operation timed out) while reading response header", Cause("upstream", "header_timeout")),
    ("timed out) while reading upstream", Cause("upstream", "response_timeout")),
    ("timed out) while sending request to upstream", Cause("upstream", "send_timeout")),
    ("(104: Connection reset by peer) while", Cause("upstream", "reset")),
    ("upstream prematurely closed connection", Cause("upstream", "closed_early")),
    ("upstream sent", Cause("upstream", "invalid_response")),
    ("no live upstreams", Cause("upstream", "no_live_upstream")),
    ("while connecting to upstream", Cause("upstream", "connect_failed")),
    ("client intended to send too large body", Cause("client", "body_too_large")),
    ("client intended to send too large chunked body", Cause("client", "body_too_large")),
    ("client sent too long header line", Cause("client", "header_too_large")),
    ("client sent too long URI", Cause("client", "uri_too_long")),
    ("client sent plain HTTP request to HTTPS port", Cause("client", "plain_http_to_tls")),
    ("client sent", Cause("client", "malformed_request")),
    ("client timed out", Cause("client", "request_timeout")),
    ("client prematurely closed connection", Cause("client", "client_closed")),
    ("client closed connection", Cause("client", "client_closed")),
    ("No space left on device", Cause("gateway", "disk_full")),
)

# What nginx's own statuses mean when neither the guard nor the error log says more.
STATUSES: dict[int, Cause] = {
    400: Cause("client", "malformed_request"),
    405: Cause("client", "method_not_allowed"),
    408: Cause("client", "request_timeout"),
    411: Cause("client", "malformed_request"),
    413: Cause("client", "body_too_large"),
    414: Cause("client", "uri_too_long"),
    421: Cause("client", "misdirected_request"),
    429: Cause("limit", "flood_requests"),
    431: Cause("client", "header_too_large"),
    494: Cause("client", "header_too_large"),
    497: Cause("client", "plain_http_to_tls"),
    499: Cause("client", "client_closed"),
    500: Cause("gateway", "gateway_error"),
    502: Cause("upstream", "bad_gateway"),
    503: Cause("guard", "guard_unavailable"),
    504: Cause("upstream", "timeout"),
}

# Words that go with one status only: with HTTP/2 many requests share a connection, and so its words.
_FITS: dict[str, frozenset[int]] = {
    "connect_timeout": frozenset({504}),
    "header_timeout": frozenset({504}),
    "send_timeout": frozenset({504}),
    "connect_refused": frozenset({502}),
    "connect_failed": frozenset({502}),
    "invalid_response": frozenset({502}),
    "no_live_upstream": frozenset({502}),
    "tls_certificate_refused": frozenset({502}),
    "body_too_large": frozenset({413}),
    "guard_unavailable": frozenset({500, 503}),
    "flood_requests": frozenset({429}),
    "flood_connections": frozenset({429}),
}

_ERROR_LINE = re.compile(
    r"^(?P<time>\d{4}/\d\d/\d\d \d\d:\d\d:\d\d) \[(?P<level>\w+)\] (?P<pid>\d+)#\d+: "
    r"(?:\*(?P<connection>\d+) )?(?P<words>.*)$"
)
_CLIENT = re.compile(r", client: ([0-9a-fA-F.:]+)")
_REQUEST = re.compile(r', request: "(\S+ [^\s?"]*)')

# What an answer can suffer that had begun well: nginx has sent 200 by then, and counts the request as complete.
_CUT_SHORT = re.compile(
    r"upstream prematurely closed connection while (?!reading response header)"
    r"|upstream timed out .* while (?:reading upstream|sending to client)"
    r"|recv\(\) failed .* while (?:reading upstream|sending to client)"
    r"|upstream sent (?:no valid HTTP|invalid chunked)"
)


class ErrorLine(NamedTuple):
    """A line of the error log. `words` end before names and addresses begin; `asked` is method and path."""

    connection: int | None
    words: str
    address: str | None
    asked: str | None


def parse_error_line(text: str) -> ErrorLine | None:
    """None for a line that is not in nginx's form (a torn one, or a message of several lines)."""
    found = _ERROR_LINE.match(text)
    if found is None:
        return None
    words = found["words"]
    client = _CLIENT.search(words)
    connection = int(found["connection"]) if found["connection"] else None
    asked = _REQUEST.search(words)
    return ErrorLine(
        connection, words.partition(", client: ")[0], client[1] if client else None, asked[1] if asked else None
    )


def handshake_failed(line: ErrorLine) -> bool:
    """A client's TLS handshake that came to nothing: no access line will ever tell of it."""
    return "SSL_do_handshake() failed" in line.words and "upstream" not in line.words


def explain(status: int | None, line: LogLine, words: Sequence[str]) -> ErrorPart | None:
    """Whose doing an unsuccessful answer was; None for one that went well."""
    complete = line.ok == "OK"
    if (status is None or status < 400) and complete:
        short = next((text for text in words if _CUT_SHORT.match(text)), None)
        cause = _by_words(short) if short is not None else None
        if short is not None and cause is not None:
            return ErrorPart(source=cause.source, detail=cause.detail, message=cut(short, 500))
        if status is not None:
            return None
    reason = REASONS.get(line.r)
    if reason is not None and reason.status == status and reason.status >= 400:
        return ErrorPart(source=reason.source, detail=line.r)
    upstream = _last(line.us)
    if upstream is not None and upstream == status and complete and status not in (502, 504):
        return ErrorPart(source="upstream", detail="upstream_status")
    for text in words:
        cause = _by_words(text)
        if cause is not None and status in _FITS.get(cause.detail, frozenset({status})):
            return ErrorPart(source=cause.source, detail=cause.detail, message=cut(text, 500))
    answered = _last_text(line.uh) not in ("", "-")
    if upstream is not None and upstream == status and answered:
        return ErrorPart(source="upstream", detail="upstream_status")
    if status is None or status < 400:
        return ErrorPart(source="network", detail="response_incomplete") if not complete else None
    cause = STATUSES.get(status, Cause("client" if status < 500 else "gateway", "gateway_status"))
    return ErrorPart(source=cause.source, detail=cause.detail)


def from_line(line: LogLine, words: Sequence[str], asked: Callable[[LogLine], Outcome] | None = None) -> Outcome:
    """The outcome of a line. `asked` gives the redacted request of a line that has no decision."""
    status = _number(line.s)
    if status is not None and not 100 <= status <= 599:
        status = None  # nginx logs 000 when the client got nothing
    seen = status if status != 499 else None  # 499 is nginx's word for "the client had left"
    upstream_status = _last(line.us)
    upstream = None
    if line.ua:
        upstream = UpstreamPart(
            name=line.u or None,
            address=cut(_last_text(line.ua), 200),
            status=upstream_status if upstream_status and 100 <= upstream_status <= 599 else None,
            connect_us=_us(_last_text(line.uc)),
            header_us=_us(_last_text(line.uh)),
            response_us=_us(_last_text(line.ut)),
        )
    base = asked(line) if asked is not None else None
    return Outcome(
        id=line.i or None,
        time_us=_us(line.t) or 0,
        decision_index=_number(line.d),
        request=base.request if base else None,
        client=base.client if base else None,
        tls=base.tls if base else None,
        response=ResponsePart(
            status=seen,
            bytes_in=_number(line.bi),
            bytes_out=_number(line.bo),
            duration_us=_us(line.dt),
            complete=line.ok == "OK",
        ),
        upstream=upstream,
        error=explain(status, line, words),
    )


def _by_words(text: str) -> Cause | None:
    for part, cause in WORDS:
        if part in text:
            return cause
    return None


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None


def _last_text(text: str) -> str:
    """nginx joins the values of several tries by ', ' and ' : '; the last is what counted."""
    return re.split(r", | : ", text)[-1] if text else ""


def _last(text: str) -> int | None:
    return _number(_last_text(text))


def _us(seconds: str) -> int | None:
    """`12.345` -> 12345000, without a float's rounding."""
    whole, _, part = seconds.partition(".")
    if not (whole.isascii() and whole.isdigit() and len(whole) < 12) or (part and not part.isdigit()):
        return None
    return int(whole) * 1_000_000 + int((part + "000000")[:6])
