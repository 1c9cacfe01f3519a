"""A line and the error log's words -> whose doing it was. The messages are nginx's own, of 1.22.1 and 1.31.3."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.recorder.place import T0_US, Gateway

from gatebook import record
from gatebook.recorder import outcome
from gatebook.recorder.outcome import ErrorLine, Said, explanation, from_line, handshake_failed, parse_error_line
from gatebook.wire import LogLine

TAIL = ', client: 127.0.0.1, server: , request: "GET /x HTTP/1.1", upstream: "http://127.0.0.1:1/x", host: "x"'


def parsed(words: str, tail: str = TAIL, level: str = "error") -> ErrorLine:
    found = parse_error_line(f"2026/11/24 20:40:15 [{level}] 22401#22401: *2 {words}{tail}")
    assert found is not None
    return found


def line(status: str, **fields: str) -> LogLine:
    known = {"i": "a" * 32, "r": "rule", "ok": "OK", "ua": "127.0.0.1:1", "us": status, "uh": "0.001"}
    return LogLine(**(known | fields), s=status)


def blamed(status: str, *words: str, **fields: str) -> tuple[str, str] | None:
    said = [each for text in words if (each := explanation(parsed(text))) is not None]
    error = from_line(line(status, **fields), said).error
    return None if error is None else (error.source, error.detail)


# -- words ------------------------------------------------------------------------------------------------
CONNECT = "while connecting to upstream"
LEFT = "epoll_wait() reported that client prematurely closed connection, so upstream connection is closed too"


@pytest.mark.parametrize(
    ("status", "words", "source", "detail"),
    [
        ("502", f"connect() failed (111: Connection refused) {CONNECT}", "upstream", "connect_refused"),
        ("502", f"connect() failed (113: No route to host) {CONNECT}", "upstream", "connect_failed"),
        ("504", f"upstream timed out (110: Operation timed out) {CONNECT}", "upstream", "connect_timeout"),
        ("504", f"upstream timed out (110: Connection timed out) {CONNECT}", "upstream", "connect_timeout"),
        (
            "504",
            "upstream timed out (110: Operation timed out) while reading response header from upstream",
            "upstream",
            "header_timeout",
        ),
        (
            "504",
            "upstream timed out (110: Connection timed out) while sending request to upstream",
            "upstream",
            "send_timeout",
        ),
        (
            "502",
            "recv() failed (104: Connection reset by peer) while reading response header from upstream",
            "upstream",
            "reset",
        ),
        ("502", "writev() failed (32: Broken pipe) while sending request to upstream", "upstream", "reset"),
        (
            "502",
            "upstream prematurely closed connection while reading response header from upstream",
            "upstream",
            "closed_early",
        ),
        (
            "502",
            "upstream sent no valid HTTP/1.0 header while reading response header from upstream",
            "upstream",
            "invalid_response",
        ),
        (
            "502",
            'upstream sent invalid header: "X\\x20..." while reading response header from upstream',
            "upstream",
            "invalid_response",
        ),
        (
            "502",
            "upstream sent too big header while reading response header from upstream",
            "upstream",
            "invalid_response",
        ),
        (
            "502",
            'upstream sent duplicate header line: "Content-Length: 2", previous value: "Content-Length: 1" while '
            "reading response header from upstream",
            "upstream",
            "invalid_response",
        ),
        ("502", f"no live upstreams {CONNECT}", "upstream", "no_live_upstream"),
        (
            "502",
            "upstream SSL certificate verify error: (21:unable to verify the first certificate) while SSL "
            "handshaking to upstream",
            "upstream",
            "tls_certificate_refused",
        ),
        (
            "502",
            'upstream SSL certificate does not match "localhost" while SSL handshaking to upstream',
            "upstream",
            "tls_certificate_refused",
        ),
        (
            "502",
            "SSL_do_handshake() failed (SSL: error:0A00010B:SSL routines::wrong version number) while SSL "
            "handshaking to upstream",
            "upstream",
            "tls_handshake_failed",
        ),
        ("503", "auth request unexpected status: 502", "guard", "guard_unavailable"),
        ("503", "auth request unexpected status: 500 while sending to client", "guard", "guard_unavailable"),
        ("503", "auth request unexpected status: 504", "guard", "guard_unavailable"),
        ("413", "client intended to send too large body: 5000 bytes", "client", "body_too_large"),
        ("413", "client intended to send too large chunked body: 0+5000 bytes", "client", "body_too_large"),
        (
            "431",
            'client sent too long header line: "X: aaaa..." while reading client request headers',
            "client",
            "header_too_large",
        ),
        ("414", "client sent too long URI while reading client request line", "client", "uri_too_long"),
        ("400", "client sent invalid method while reading client request line", "client", "malformed_request"),
        (
            "400",
            'client sent invalid header line: "X\\x20..." while reading client request headers',
            "client",
            "malformed_request",
        ),
        (
            "400",
            'client sent HTTP/1.1 request without "Host" header while reading client request headers',
            "client",
            "malformed_request",
        ),
        ("400", "client sent invalid chunked body", "client", "malformed_request"),
        ("405", "client sent TRACE method while reading client request headers", "client", "malformed_request"),
        (
            "400",
            "client sent plain HTTP request to HTTPS port while reading client request headers",
            "client",
            "plain_http_to_tls",
        ),
        (
            "408",
            "client timed out (110: Operation timed out) while reading client request headers",
            "client",
            "client_timeout",
        ),
        ("499", f"{LEFT} while sending request to upstream", "client", "client_closed"),
        (
            "400",
            "client prematurely closed connection while reading client request line",
            "client",
            "client_closed",
        ),
        ("429", 'limiting requests, excess: 30.965 by zone "gatebook_requests"', "limit", "flood_requests"),
        ("429", 'limiting connections by zone "gatebook_connections"', "limit", "flood_connections"),
    ],
)
def test_words_say_whose_doing_a_refusal_was(status: str, words: str, source: str, detail: str) -> None:
    assert blamed(status, words, us=status if source == "upstream" else "") == (source, detail)


@pytest.mark.parametrize(
    ("level", "words", "ok", "source", "detail"),
    [
        (
            "error",
            "upstream prematurely closed connection while reading upstream",
            "OK",
            "upstream",
            "closed_early",
        ),
        (
            "error",
            "upstream prematurely closed connection while sending to client",
            "OK",
            "upstream",
            "closed_early",
        ),
        (
            "error",
            "upstream timed out (110: Timed out) while reading upstream",
            "OK",
            "upstream",
            "response_timeout",
        ),
        (
            "error",
            "readv() failed (104: Connection reset by peer) while reading upstream",
            "OK",
            "upstream",
            "reset",
        ),
        (
            "error",
            "recv() failed (104: Connection reset by peer) while sending to client",
            "OK",
            "upstream",
            "reset",
        ),
        (
            "error",
            "upstream sent invalid chunked response while reading upstream",
            "OK",
            "upstream",
            "invalid_response",
        ),
        ("info", f"{LEFT} (104: Connection reset by peer) while reading upstream", "", "client", "client_closed"),
        (
            "info",
            "writev() failed (104: Connection reset by peer) while reading upstream",
            "",
            "client",
            "client_closed",
        ),
        (
            "info",
            "SSL_write() failed (104: Connection reset by peer) while reading upstream",
            "",
            "client",
            "client_closed",
        ),
        ("info", "send() failed (32: Broken pipe) while sending to client", "", "client", "client_closed"),
        ("info", "client timed out (110: Timed out) while sending to client", "", "client", "client_timeout"),
    ],
)
def test_answer_that_began_well_and_ended_early_is_not_complete(
    level: str, words: str, ok: str, source: str, detail: str
) -> None:
    """nginx itself calls an answer complete whose end the upstream never sent."""
    said = explanation(parsed(words, level=level))
    assert said is not None
    made = from_line(line("200", ok=ok), [said])
    assert made.error is not None
    assert (made.error.source, made.error.detail, made.error.message) == (source, detail, words)
    assert made.response is not None
    assert (made.response.status, made.response.complete) == (200, False)


def test_try_that_failed_before_another_upstream_answered_is_no_failure() -> None:
    refused = "connect() failed (111: Connection refused) while connecting to upstream"
    early = "upstream prematurely closed connection while reading response header from upstream"
    assert blamed("200", refused, early, us="502, 200") is None


def test_guard_that_hangs_up_is_not_blamed_on_the_upstream() -> None:
    """nginx says two things, and calls the guard an upstream in the first."""
    early = "upstream prematurely closed connection while reading response header from upstream"
    assert blamed("503", early, "auth request unexpected status: 502", us="", ua="") == (
        "guard",
        "guard_unavailable",
    )


def test_words_that_do_not_fit_the_status_are_anothers() -> None:
    """Over HTTP/2 many requests share a connection, and its words."""
    timed_out = "upstream timed out (110: Operation timed out) while reading response header from upstream"
    assert blamed("413", timed_out, us="") == ("client", "body_too_large")
    assert blamed("502", timed_out) == ("upstream", "upstream_status")


def test_failure_of_nginx_own_making_is_not_the_upstreams_answer() -> None:
    """nginx writes its own 502 where the upstream's status would stand, but no time at which a head came."""
    assert blamed("502", uh="-") == ("upstream", "bad_gateway")
    assert blamed("504", uh="") == ("upstream", "timeout")


@pytest.mark.parametrize(
    ("status", "fields", "expected"),
    [
        ("200", {}, None),
        ("304", {}, None),
        ("101", {}, None),
        ("200", {"ok": ""}, ("network", "response_incomplete")),
        ("000", {"ok": "", "us": ""}, ("network", "response_incomplete")),
        ("404", {}, ("upstream", "upstream_status")),
        ("500", {}, ("upstream", "upstream_status")),
        ("401", {"r": "token_expired", "us": ""}, ("client", "token_expired")),
        ("403", {"r": "no_rule", "us": ""}, ("policy", "no_rule")),
        ("429", {"r": "limit_exceeded", "us": ""}, ("limit", "limit_exceeded")),
        ("503", {"r": "recorder_unavailable", "us": ""}, ("guard", "recorder_unavailable")),
        ("403", {"r": "rule"}, ("upstream", "upstream_status")),
        ("403", {"r": "", "us": ""}, ("client", "gateway_status")),
        ("429", {"r": "", "us": ""}, ("limit", "flood_requests")),
        ("400", {"r": "", "us": ""}, ("client", "malformed_request")),
        ("408", {"us": "-", "ok": ""}, ("client", "request_timeout")),
        ("413", {"us": ""}, ("client", "body_too_large")),
        ("431", {"r": "", "us": ""}, ("client", "header_too_large")),
        ("499", {"ok": "", "us": "-"}, ("client", "client_closed")),
        ("502", {}, ("upstream", "upstream_status")),
        ("502", {"us": "-"}, ("upstream", "bad_gateway")),
        ("503", {"r": "", "us": ""}, ("guard", "guard_unavailable")),
        ("504", {"us": "-"}, ("upstream", "timeout")),
        ("507", {"us": ""}, ("gateway", "gateway_status")),
    ],
)
def test_without_words_the_status_says_whose_doing_it_was(
    status: str, fields: dict[str, str], expected: tuple[str, str] | None
) -> None:
    assert blamed(status, **fields) == expected


def test_every_explanation_says_which_statuses_it_goes_with() -> None:
    assert {cause.detail for _, cause in outcome.WORDS} == set(outcome._FITS)


# -- lines of the error log -------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("words", "kept"),
    [
        ('client sent invalid header line: "X-Api-Key hunter2: x"', "client sent invalid header line"),
        ('client sent header "x" with invalid value: "secret"', "client sent header"),
        ('upstream sent invalid status "200 secret"', "upstream sent invalid status"),
    ],
)
def test_what_a_client_sent_is_never_kept(words: str, kept: str) -> None:
    assert parsed(words).words == kept


def test_address_and_request_are_read_from_nginxs_own_part() -> None:
    found = parsed("connect() failed (111: Connection refused) while connecting to upstream")
    assert (found.connection, found.address, found.asked, found.quotes) == (2, "127.0.0.1", "GET /x", False)


def test_query_is_no_part_of_what_was_asked() -> None:
    tail = ', client: ::1, server: , request: "GET /x?token=secret HTTP/1.1", host: "x"'
    found = parsed("auth request unexpected status: 502", tail)
    assert (found.address, found.asked) == ("::1", "GET /x")


@pytest.mark.parametrize(
    "words",
    [
        'client sent invalid header line: "SSL_do_handshake() failed, client: 6.6.6.6"',
        'client sent header "x" with invalid value: "y, client: 6.6.6.6, server: , request: "GET /other"',
    ],
)
def test_address_and_request_are_never_read_from_a_quotation(words: str) -> None:
    found = parsed(words)
    assert (found.address, found.asked, found.quotes) == (None, None, True)
    assert not handshake_failed(found)


def test_names_of_our_own_in_a_message_are_no_quotation() -> None:
    assert not parsed('limiting requests, excess: 30.965 by zone "gatebook_requests"').quotes
    notice = parse_error_line('2026/11/24 20:40:15 [notice] 22401#22401: using the "epoll" event method')
    assert notice is not None
    assert not notice.quotes


@pytest.mark.parametrize(
    ("words", "failed"),
    [
        (
            "SSL_do_handshake() failed (SSL: error:0A000102:SSL routines::x) while SSL handshaking",
            True,
        ),
        ("SSL_do_handshake() failed (SSL: error:1:x) while SSL handshaking to upstream", False),
        ("client closed connection while SSL handshaking", False),  # a port scan, or whether somebody listens
        ("client timed out (110: Operation timed out) while SSL handshaking", False),
    ],
)
def test_handshake_that_failed(words: str, failed: bool) -> None:
    assert handshake_failed(parsed(words, ", client: 192.0.2.7, server: 0.0.0.0:8443", "info")) is failed


@pytest.mark.parametrize(
    "text", ["", "x", "2026/11/24 20:40:15 [error] 1#1", 'foo" while reading client request headers']
)
def test_line_that_is_not_nginxs_is_none(text: str) -> None:
    assert parse_error_line(text) is None


@given(st.text())
def test_no_text_makes_the_parser_fail(text: str) -> None:
    for line in (text, f"2026/11/24 20:40:15 [error] 1#1: *2 {text}", f"2026/11/24 20:40:15 [error] 1#1: *{text}"):
        found = parse_error_line(line)
        if found is not None:
            assert '"' not in found.words
            explanation(found)


# -- outcomes ---------------------------------------------------------------------------------------------
def test_line_becomes_an_outcome() -> None:
    fields = {"d": "41", "u": "orders", "t": "1700000000.500", "bi": "100", "bo": "200", "dt": "0.012"}
    fields |= {"uc": "0.001", "uh": "0.005", "ut": "0.010"}
    made = from_line(line("200", **fields), [])
    assert made == record.Outcome(
        id="a" * 32,
        time_us=T0_US + 500_000,
        decision_index=41,
        response=record.ResponsePart(status=200, bytes_in=100, bytes_out=200, duration_us=12_000, complete=True),
        upstream=record.UpstreamPart(
            name="orders", address="127.0.0.1:1", status=200, connect_us=1000, header_us=5000, response_us=10_000
        ),
    )


def test_last_of_several_tries_is_what_counted() -> None:
    made = from_line(
        line("200", ua="127.0.0.1:1, 127.0.0.1:2 : 127.0.0.1:3", us="502, 504 : 200", ut="1.000, 2.000 : 0.500"),
        [],
    )
    assert made.upstream is not None
    assert (made.upstream.address, made.upstream.status, made.upstream.response_us) == (
        "127.0.0.1:3",
        200,
        500_000,
    )


def test_client_that_left_got_no_status() -> None:
    made = from_line(line("499", ok="", us="-"), [])
    assert made.response is not None
    assert made.response.status is None


@given(st.fixed_dictionaries({name: st.text(max_size=12) for name in LogLine.__struct_fields__}))
def test_no_line_makes_an_outcome_fail_or_too_large(fields: dict[str, str]) -> None:
    made = from_line(LogLine(**fields), [Said(outcome.Cause("client", "client_closed"), "x")])
    record.decode(record.encode(made))


@given(st.text("0123456789.-,:² \u0661", max_size=20))
def test_digits_of_other_scripts_are_no_numbers(text: str) -> None:
    from_line(line("200", t=text, dt=text, ut=text, us=text, d=text, bi=text), [])


def test_gateways_line_is_one_of_ours(tmp_path: object) -> None:
    """The twin that other tests write with says what nginx would."""
    import msgspec

    text = Gateway.text(Gateway.__new__(Gateway), 1, 5, n="1")
    assert msgspec.json.decode(text, type=LogLine).d == "5"
