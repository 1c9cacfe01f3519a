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
_WORDS: tuple[tuple[str, Source, str], ...] = (
    ("^limiting requests", "limit", "flood_requests"),
    ("^limiting connections", "limit", "flood_connections"),
    ("^auth request unexpected status", "guard", "guard_unavailable"),
    ("client prematurely closed connection", "client", "client_closed"),
    ("^client timed out", "client", "client_timeout"),
    ("^upstream SSL certificate", "upstream", "tls_certificate_refused"),
    ("while SSL handshaking to upstream", "upstream", "tls_handshake_failed"),
    ("^SSL_do_handshake\\(\\) failed", "client", "tls_handshake_failed"),
    ("\\(111: Connection refused\\) while connecting to upstream", "upstream", "connect_refused"),
    ("^upstream timed out .* while connecting to upstream", "upstream", "connect_timeout"),
    ("^upstream timed out .* while reading response header", "upstream", "header_timeout"),
    ("^upstream timed out .* while sending request", "upstream", "send_timeout"),
    ("^upstream timed out", "upstream", "response_timeout"),
    ("\\((?:104: Connection reset by peer|32: Broken pipe)\\) while ", "upstream", "reset"),
    ("^upstream prematurely closed connection", "upstream", "closed_early"),
    ("^upstream sent", "upstream", "invalid_response"),
    ("^no live upstreams", "upstream", "no_live_upstream"),
    ("while connecting to upstream", "upstream", "connect_failed"),
    ("^client intended to send too large (?:chunked )?body", "client", "body_too_large"),
    ("^client sent too long header line", "client", "header_too_large"),
    ("^client sent too long URI", "client", "uri_too_long"),
    ("^client sent plain HTTP request to HTTPS port", "client", "plain_http_to_tls"),
    ("^client sent", "client", "malformed_request"),
    ("No space left on device", "gateway", "disk_full"),
)
# nginx calls it an error when an upstream's connection breaks, and no more than information when a client's does.
_CLIENT_BROKE = re.compile(r"^\w+\(\) failed \((?:104|32|110|113): ")
# What an answer can suffer that had begun well: its head was passed on, and nginx takes it for complete.
_CUT_SHORT = re.compile(r" while (?:reading upstream|sending to client)$|^upstream sent no valid HTTP")
WORDS = tuple((re.compile(pattern), Cause(source, detail)) for pattern, source, detail in _WORDS)

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

_PASSED = 0  # stands for any status that is no error: the answer's head had been passed on
# Which statuses an explanation goes with: several requests share a connection, and so its words.
_FITS: dict[str, frozenset[int]] = {
    "flood_requests": frozenset({429}),
    "flood_connections": frozenset({429}),
    "guard_unavailable": frozenset({500, 503}),
    "client_closed": frozenset({400, 408, 499, _PASSED}),
    "client_timeout": frozenset({408, _PASSED}),
    "tls_certificate_refused": frozenset({502}),
    "tls_handshake_failed": frozenset({502, 504}),
    "connect_refused": frozenset({502}),
    "connect_timeout": frozenset({504}),
    "connect_failed": frozenset({502}),
    "header_timeout": frozenset({504}),
    "response_timeout": frozenset({_PASSED}),
    "send_timeout": frozenset({504}),
    "reset": frozenset({502, _PASSED}),
    "closed_early": frozenset({502, _PASSED}),
    "invalid_response": frozenset({502}),
    "no_live_upstream": frozenset({502}),
    "body_too_large": frozenset({413}),
    "header_too_large": frozenset({400, 431}),
    "uri_too_long": frozenset({414}),
    "plain_http_to_tls": frozenset({400}),
    "malformed_request": frozenset({400, 405, 501, 505}),
    "disk_full": frozenset({500, 502, 507}),
}

_ERROR_LINE = re.compile(
    r"^(?P<time>\d{4}/\d\d/\d\d \d\d:\d\d:\d\d) \[(?P<level>\w+)\] (?P<pid>\d+)#\d+: "
    r"(?:\*(?P<connection>\d+) )?(?P<words>.*)$"
)
_ADDRESS = re.compile(r"[0-9a-fA-F.:]+")
_REQUEST = re.compile(r', request: "(\S+ [^\s?"]*)')
# A client's own bytes stand in a message between quotation marks, over HTTP/2 with line breaks if it likes. So
# up to this many bytes from such a line's beginning there may be lines that nginx never wrote.
MAX_MESSAGE_BYTES = 2048


class ErrorLine(NamedTuple):
    """A line of the error log. `words` are nginx's own: they end before the first name, address or quotation.

    `asked`: method and path of the request, where it says so. `quotes`: it quotes what a client or an upstream
    sent, line breaks and all; see MAX_MESSAGE_BYTES.
    """

    level: str
    connection: int | None
    words: str
    address: str | None
    asked: str | None
    quotes: bool


def parse_error_line(text: str) -> ErrorLine | None:
    """None for a line that is not in nginx's form (a torn one, or the rest of a message of several lines)."""
    found = _ERROR_LINE.match(text)
    if found is None:
        return None
    connection = number(found["connection"] or "")
    head, quote, _ = found["words"].partition('"')
    words, client, address = head.partition(", client: ")
    if not client:
        # What comes behind a quotation is no better than the quotation: it may be a part of it.
        quotes = bool(quote) and connection is not None and not head.startswith("limiting ")
        return ErrorLine(found["level"], connection, head.rstrip(" :"), None, None, quotes)
    asked, at = _REQUEST.search(found["words"], len(words)), _ADDRESS.match(address)
    return ErrorLine(found["level"], connection, words, at[0] if at else None, asked[1] if asked else None, False)


def handshake_failed(line: ErrorLine) -> bool:
    """A client's TLS handshake that came to nothing: no access line will ever tell of it."""
    return line.words.startswith("SSL_do_handshake() failed") and "upstream" not in line.words


class Said(NamedTuple):
    """Words of the error log that explain a failure."""

    cause: Cause
    words: str

    @property
    def cut_short(self) -> bool:
        """Whether this can have befallen an answer that nginx takes for complete."""
        return self.cause.source == "upstream" and _CUT_SHORT.search(self.words) is not None

    def blame(self) -> ErrorPart:
        return ErrorPart(source=self.cause.source, detail=self.cause.detail, message=cut(self.words, 500))


def explanation(line: ErrorLine) -> Said | None:
    """None for words that explain no failure."""
    if line.level == "info" and _CLIENT_BROKE.search(line.words):
        return Said(Cause("client", "client_closed"), line.words)
    for pattern, cause in WORDS:
        if pattern.search(line.words):
            return Said(cause, line.words)
    return None


def explain(status: int | None, line: LogLine, said: Sequence[Said]) -> ErrorPart | None:
    """Whose doing an unsuccessful answer was; None for one that went well. `said`: the oldest first."""
    complete = line.ok == "OK"
    passed = status is not None and status < 400
    if passed and complete:
        return next((each.blame() for each in said if each.cut_short), None) if said else None
    reason = REASONS.get(line.r)
    if reason is not None and reason.status == status and reason.status >= 400:
        return ErrorPart(source=reason.source, detail=line.r)
    upstream = number(_last_text(line.us))
    answered = _last_text(line.uh) not in ("", "-")  # or its status is what nginx made of its silence
    upstreams_own = complete and answered and status is not None and upstream == status
    if upstreams_own and status not in (502, 504):
        return ErrorPart(source="upstream", detail="upstream_status")
    key = _PASSED if passed else status
    for each in said:
        if key is None or key in _FITS[each.cause.detail]:
            return each.blame()
    if upstreams_own:
        return ErrorPart(source="upstream", detail="upstream_status")
    if status is None or passed:
        return ErrorPart(source="network", detail="response_incomplete")
    cause = STATUSES.get(status, Cause("client" if status < 500 else "gateway", "gateway_status"))
    return ErrorPart(source=cause.source, detail=cause.detail)


def from_line(line: LogLine, said: Sequence[Said], asked: Callable[[LogLine], Outcome] | None = None) -> Outcome:
    """The outcome of a line. `asked` gives the redacted request of a line that has no decision."""
    status = number(line.s)
    if status is not None and not 100 <= status <= 599:
        status = None  # nginx logs 000 when the client got nothing
    seen = status if status != 499 else None  # 499 is nginx's word for "the client had left"
    upstream_status = number(_last_text(line.us))
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
    error = explain(status, line, said)
    passed = status is not None and status < 400
    return Outcome(
        id=line.i or None,
        time_us=_us(line.t) or 0,
        decision_index=number(line.d),
        request=base.request if base else None,
        client=base.client if base else None,
        tls=base.tls if base else None,
        response=ResponsePart(
            status=seen,
            bytes_in=number(line.bi),
            bytes_out=number(line.bo),
            duration_us=_us(line.dt),
            complete=line.ok == "OK" and not (passed and error is not None),
        ),
        upstream=upstream,
        error=error,
    )


def number(text: str) -> int | None:
    """A decimal number of nginx's; None for anything else."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None


def _last_text(text: str) -> str:
    """nginx joins the values of several tries by ', ' and ' : '; the last is what counted."""
    return re.split(r", | : ", text)[-1] if " " in text else text


def _us(seconds: str) -> int | None:
    """nginx's `12.345` -> 12345000, without a float's rounding."""
    whole, _, part = seconds.partition(".")
    digits = whole + part
    if len(part) != 3 or len(digits) > 15 or not (digits.isascii() and digits.isdigit()):
        return None
    return int(digits) * 1000
