"""The locations of a server: ask the guard about everything, then jump to the upstream it names.

    location /                        auth_request -> guard; allowed: try_files jumps to …
    = /.gatebook/upstream/<name>      one an upstream, internal: forwards the bytes that were decided on
    @denied                           answers what the guard said
    @unfit                            the same as / where nginx does not like the client's certificate
    = /.gatebook/problem              answers what nginx itself refuses, and every failure
    = /.gatebook/live, = …/ready      for load balancers; their lines in the log are numbers alone
    = /.gatebook/token, …             pages of the portal, where there is one (portal)
    /.gatebook/                       anything else below: 404 to a client, 503 if the guard named it

A request is never forwarded but through `location /` and a guard that answered 2xx to it. Pure.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

from gatebook.config.model import Configuration, Upstream
from gatebook.gateway import headers
from gatebook.gateway.facts import NginxFacts
from gatebook.gateway.tree import Block, Directive, directive, file, milliseconds
from gatebook.wire import DENIAL_STATUSES, FROM_GUARD

GUARDS: Final = "gatebook_guard"  # upstream group
PROBE_FORMAT: Final = "gatebook_probe"  # of the log
_ASK: Final = "/.gatebook/guard"
PROBLEM: Final = "/.gatebook/problem"
_UPSTREAM: Final = "/.gatebook/upstream/"
_UNFIT: Final = "@unfit"
JSON: Final = "application/problem+json"

# What nginx may answer by itself: status -> title. 494 to 497 are its own numbers, see _OWN.
TITLES: Final = {
    400: "Bad request",
    403: "Forbidden",
    404: "Not found",
    405: "Method not allowed",
    408: "Request timed out",
    409: "Conflict",
    411: "Length required",
    412: "Precondition failed",
    413: "Request body too large",
    414: "Request URI too long",
    415: "Unsupported media type",
    416: "Range not satisfiable",
    421: "Misdirected request",
    429: "Too many requests",
    431: "Request header too large",
    500: "Internal error",
    501: "Not implemented",
    502: "Bad gateway",
    503: "Service unavailable",
    504: "Gateway timed out",
    505: "HTTP version not supported",
    507: "Insufficient storage",
}
_OWN: Final = {494: 431, 495: 400, 496: 400, 497: 400}  # 497: plain HTTP to a TLS port


def group_of(name: str) -> str:
    """The upstream group's name; `name` has been checked by the configuration's own type."""
    return f"gatebook_upstream_{name}"


def host_of(upstream: Upstream) -> tuple[str, str, int]:
    """Scheme, `host[:port]` as in the URL, and the port."""
    parts = urlsplit(upstream.url)
    return parts.scheme, parts.netloc, parts.port or (443 if parts.scheme == "https" else 80)


def body_limit(max_body: int) -> int:
    """nginx reads 0 as no limit at all; one byte is the least it can say."""
    return max(1, max_body)


def error_pages(without: tuple[int, ...] = ()) -> Block:
    """nginx's own refusals become problems with the request's id; an upstream's answers pass as they are."""
    plain = [status for status in TITLES if status not in (*without, 431)]
    return [
        directive("error_page", *plain, PROBLEM),
        *(
            directive("error_page", own, f"={status}", PROBLEM)
            for own, status in _OWN.items()
            if own not in without
        ),
    ]


def locations(configuration: Configuration, facts: NginxFacts, access_log: str) -> Block:
    return [
        directive("location", "/", block=_guarded(configuration)),
        *(
            directive("location", _UNFIT, block=_guarded(configuration))
            for _ in range(configuration.asks_for_certificates)
        ),
        _ask(configuration),
        *(_forward(configuration, name, facts) for name in sorted(configuration.upstreams)),
        _denied(),
        _problem(),
        _nowhere(),
        *_probes(access_log),
    ]


def client_certificates(asks: bool) -> Block:
    """For a server with TLS. The guard judges certificates; that TLS has proved their keys is nginx's word.

    nginx finds some of them unfit on its own (495: expired, of another purpose), which is no reason to pass over
    the guard: what it would ask about any other request it asks about these. Such a connection is closed after
    one answer.
    """
    if not asks:
        return []
    return [
        directive("ssl_verify_client", "optional_no_ca"),
        directive("recursive_error_pages", "on"),  # or a denial there would not find its own page
        directive("error_page", 495, "=", _UNFIT),
    ]


def _guarded(configuration: Configuration) -> Block:
    """Everything a client may ask."""
    return [
        # HTTP/0.9 has neither headers nor a status to answer with.
        directive("if", "$server_protocol", "=", "", block=[directive("return", 505)]),
        *headers.cleaned(configuration),
        directive("auth_request", _ASK),
        *(
            directive("auth_request_set", variable, headers.variable_of(name).replace("http", "upstream_http", 1))
            for name, variable in FROM_GUARD.items()
        ),
        # With `=` the denial's own status counts. 500 is what auth_request makes of a guard that is
        # dead, hangs, or answers anything it should not.
        directive("error_page", 401, 403, "=", "@denied"),
        directive("error_page", 500, "=503", PROBLEM),
        *error_pages(without=(403, 500)),
        directive("root", "nothing"),  # no such folder: no file is ever served
        directive("try_files", "/.none", _UPSTREAM + FROM_GUARD["Gatebook-Upstream"]),
    ]


def _ask(configuration: Configuration) -> Directive:
    """The subrequest to the guard. Its answer has no body; it fits into the buffer or is no answer."""
    return directive(
        "location",
        "=",
        _ASK,
        block=[
            directive("internal"),
            directive("proxy_pass", f"http://{GUARDS}/decide"),
            directive("proxy_http_version", "1.1"),
            directive("proxy_pass_request_body", "off"),
            *headers.to_guard(configuration),
            directive("proxy_ignore_headers", *headers.NOT_OBEYED),
            # Not asked twice: the first guard may have decided, and recorded, and died before it answered.
            directive("proxy_next_upstream", "off"),
            directive("proxy_connect_timeout", "1s"),
            directive("proxy_send_timeout", "1s"),
            directive("proxy_read_timeout", milliseconds(configuration.guard.acknowledgement_timeout + 0.5)),
            # A client that leaves now still gets the line that names its decision.
            directive("proxy_ignore_client_abort", "on"),
            *head_buffer(),
        ],
    )


def _forward(configuration: Configuration, name: str, facts: NginxFacts) -> Directive:
    """To one upstream. `$request_uri` is byte for byte what the guard decided on."""
    upstream = configuration.upstreams[name]
    scheme, host, _ = host_of(upstream)
    limit = configuration.gateway.max_body if upstream.max_body is None else upstream.max_body
    return directive(
        "location",
        "=",
        _UPSTREAM + name,
        block=[
            directive("internal"),
            directive("client_max_body_size", body_limit(limit)),
            directive("proxy_pass", f"{scheme}://{group_of(name)}$request_uri"),
            directive("proxy_http_version", "1.1"),
            directive("proxy_redirect", "off"),
            *headers.to_upstream(configuration, host),
            *headers.from_upstream(),
            # Nothing waits in a file: bodies stream both ways.
            directive("proxy_request_buffering", "off"),
            directive("proxy_buffering", "off"),
            directive("proxy_max_temp_file_size", "0"),
            *head_buffer(),
            # For a kept connection that the upstream had just closed, and for names with several addresses.
            # nginx never repeats a POST or PATCH that was sent, nor anything with a body.
            directive("proxy_next_upstream", "error"),
            directive("proxy_connect_timeout", milliseconds(upstream.connect_timeout)),
            directive("proxy_send_timeout", milliseconds(upstream.timeout)),
            directive("proxy_read_timeout", milliseconds(upstream.timeout)),
            directive("proxy_socket_keepalive", "on"),
            *(_verified(upstream, facts) if scheme == "https" else []),
            *error_pages(),
        ],
    )


def head_buffer() -> Block:
    """For the head of an answer; nginx wants the number of the others to fit its size."""
    return [directive("proxy_buffer_size", "16k"), directive("proxy_buffers", 4, "16k")]


def _verified(upstream: Upstream, facts: NginxFacts) -> Block:
    bundle = upstream.ca or facts.ca_bundle
    found: Block = [
        directive("proxy_ssl_verify", "on"),
        directive("proxy_ssl_verify_depth", "4"),
        directive("proxy_ssl_protocols", "TLSv1.2", "TLSv1.3"),
        directive("proxy_ssl_server_name", "on"),
        directive("proxy_ssl_name", urlsplit(upstream.url).hostname or ""),
    ]
    # Without a bundle nginx refuses to start, which is right: nothing could be verified.
    return found if bundle is None else [*found, directive("proxy_ssl_trusted_certificate", file(bundle))]


def _denied() -> Directive:
    """`return` wants its status spelt out; a status that the guard should not say is 503."""
    status = FROM_GUARD["Gatebook-Status"]
    location, problem = FROM_GUARD["Gatebook-Location"], FROM_GUARD["Gatebook-Problem"]
    answers = [
        directive("if", status, "=", code, block=[directive("return", code, location if code == 303 else problem)])
        for code in DENIAL_STATUSES
    ]
    return directive(
        "location",
        "@denied",
        block=[
            directive("default_type", JSON),
            directive("more_set_headers", "Content-Type: $gatebook_denied_type"),
            *headers.of_denial(),
            *answers,
            directive("return", 503, _body(503, "Service unavailable")),
        ],
    )


def _body(status: object, title: str) -> str:
    return f'{{"type":"about:blank","title":"{title}","status":{status},"request_id":"$request_id"}}'


def _problem() -> Directive:
    """`error_page` has set the status, which outranks the 200 here."""
    return directive(
        "location",
        "=",
        PROBLEM,
        block=[
            directive("internal"),
            directive("client_max_body_size", 0),  # or a 413 over HTTP/2 would be refused once more
            directive("default_type", JSON),
            *headers.of_problem(),
            directive("return", 200, _body("$status", "$gatebook_title")),
        ],
    )


def _nowhere() -> Directive:
    """A client is told 404 by `internal`; what the guard named and is not there is our own fault."""
    return directive(
        "location",
        "^~",
        "/.gatebook/",
        block=[directive("internal"), *error_pages(), directive("return", 503)],
    )


def _probes(access_log: str) -> Block:
    """Whether nginx lives, and whether the guard would decide; no record is made of it.

    They have a line all the same, with their number on the connection: nobody could tell otherwise whether the
    line of a request behind them is missing.
    """
    quiet = [directive("access_log", access_log, PROBE_FORMAT), directive("default_type", "text/plain")]
    return [
        directive("location", "=", "/.gatebook/live", block=[*quiet, directive("return", 200, "live\n")]),
        directive(
            "location",
            "=",
            "/.gatebook/ready",
            block=[
                *quiet,
                directive("proxy_pass", f"http://{GUARDS}/ready"),
                directive("proxy_http_version", "1.1"),
                directive("proxy_pass_request_body", "off"),
                directive("proxy_pass_request_headers", "off"),
                directive("proxy_set_header", "Host", "guard"),
                directive("proxy_set_header", "Connection", ""),
                directive("proxy_set_header", "Content-Length", ""),
                directive("proxy_method", "GET"),
                directive("proxy_next_upstream", "off"),
                directive("proxy_connect_timeout", "1s"),
                directive("proxy_read_timeout", "2500ms"),
                directive("proxy_intercept_errors", "on"),
                directive("error_page", 400, 403, 404, 413, 429, 500, 502, 503, 504, "=", "@not_ready"),
            ],
        ),
        directive("location", "@not_ready", block=[*quiet, directive("return", 503, "not ready\n")]),
    ]
