"""Configuration -> nginx.conf, as data that crossplane turns into bytes.

In: the configuration, where things lie, what this nginx can do. Out: file name -> bytes, for
`nginx.write(files, paths.nginx)`. The same input always gives the same bytes. Names within the file count
from the folder that nginx is started in; only logs, sockets and certificates lie elsewhere.
Never reads a file or asks the machine; raises EnvironmentFault for a path that nginx cannot be told. Pure.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final

from gatebook.config.model import Configuration, Listener
from gatebook.gateway import guarded, headers, portal
from gatebook.gateway.facts import NginxFacts
from gatebook.gateway.nginx import CONF
from gatebook.gateway.tree import Block, Directive, build, directive, file, milliseconds
from gatebook.paths import Paths
from gatebook.wire import (
    CERTIFICATE_TOO_LARGE,
    DENIAL_STATUSES,
    FROM_GUARD,
    LOG_OF_PROBE,
    LOG_WITH_DECISION,
    LOG_WITHOUT_DECISION,
    MAX_CERTIFICATE_BYTES,
    MAX_OFFER_BYTES,
    OFFER_TOO_LARGE,
    TO_GUARD,
)

# For TLS 1.2: forward secrecy and authenticated encryption only. TLS 1.3 has nothing else.
CIPHERS: Final = (
    "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:"
    "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:"
    "ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305"
)
CONNECTIONS: Final = 16384  # of a worker; one request in flight takes three: client, guard, upstream
BACKLOG: Final = 4096
KEPT_TO_GUARD: Final = 512  # idle connections of a worker; with fewer, bursts pay for new ones
KEPT_TO_UPSTREAM: Final = 64


def render(configuration: Configuration, paths: Paths, facts: NginxFacts) -> dict[str, bytes]:
    files = max(1024, min(4 * CONNECTIONS, facts.open_files))
    top: Block = [directive("load_module", file(module)) for module in facts.modules]
    if facts.root:
        # Root's workers would change to `nobody`, who cannot open the guards' sockets: those lie in a
        # folder that is its owner's alone.
        top.append(directive("user", "root", "root"))
    top += [
        directive("daemon", "off"),
        directive("worker_processes", configuration.gateway.workers),
        directive("worker_rlimit_nofile", files),
        directive("worker_shutdown_timeout", "30s"),
        directive("pid", "nginx.pid"),
        directive("lock_file", "nginx.lock"),
        directive("error_log", file(paths.logs / "error.log"), "info"),  # failed TLS handshakes stand at info
        directive("events", block=[directive("worker_connections", min(CONNECTIONS, files - 64))]),
        directive("http", block=_http(configuration, paths, facts)),
    ]
    return {CONF: build(top)}


def _http(configuration: Configuration, paths: Paths, facts: NginxFacts) -> Block:
    return [
        *_own_files(facts),
        directive("variables_hash_max_size", 2048),
        directive("types", block=[]),  # or nginx would guess a type from the path's ending
        directive("default_type", "application/octet-stream"),
        directive("server_tokens", "off"),
        directive("merge_slashes", "off"),  # the guard refuses them; here they only must not be rewritten
        directive("absolute_redirect", "off"),
        directive("log_not_found", "off"),
        *_log(paths),
        *_bounds(configuration, facts),
        *headers.cookies(configuration),
        *_maps(configuration),
        *headers.from_proxies(configuration),
        *_guards(configuration, paths),
        *portal.top(configuration, paths),
        *(_upstream(configuration, name) for name in sorted(configuration.upstreams)),
        *(_server(configuration, paths, listener, facts) for listener in configuration.listen),
    ]


def _own_files(facts: NginxFacts) -> Block:
    """Folders that nginx makes at its start, used or not; else they would be the build's, perhaps root's."""
    protocols = [p for p in ("fastcgi", "uwsgi", "scgi") if f"--without-http_{p}_module" not in facts.flags]
    return [directive(f"{name}_temp_path", f"temp-{name}") for name in ("client_body", "proxy", *protocols)]


def _access_log(paths: Paths) -> str:
    return file(paths.logs / "access.log")


def _log(paths: Paths) -> Block:
    """One line a request, by one write each: unbuffered, so that kill -9 loses none."""
    decided = FROM_GUARD["Gatebook-Decision"]
    access = _access_log(paths)
    found: Block = [_format(guarded.PROBE_FORMAT, LOG_OF_PROBE)]
    for name, fields, when in (
        ("gatebook_decided", LOG_WITH_DECISION, (0, 1)),
        ("gatebook_undecided", LOG_WITHOUT_DECISION, (1, 0)),
    ):
        # Not `if=$gatebook_decision`: an index of 0 would not count as one.
        found += [
            _map(decided, f"${name}", {"": when[0], "default": when[1]}),
            _format(name, fields),
            directive("access_log", access, name, f"if=${name}"),
        ]
    # What was asked, from the request line as it came: an error page has changed $uri and $request_method.
    # Only printable ASCII, for the line is JSON whatever a client sends.
    return [
        _map("$request", "$gatebook_asked_method", {"~^([A-Z_-]{1,32}) ": "$1", "default": ""}),
        _map("$request", "$gatebook_asked_path", {"~^[A-Z_-]+ ([!->@-~]*)": "$1", "default": ""}),
        _map("$host", "$gatebook_asked_host", {"~^([!-~]*)": "$1", "default": ""}),
        _map("$ssl_server_name", "$gatebook_asked_sni", {"~^([!-~]*)": "$1", "default": ""}),
        *found,
    ]


def _format(name: str, fields: Mapping[str, str]) -> Directive:
    return directive("log_format", name, "escape=json", json.dumps(fields, separators=(",", ":")))


def _map(source: str, variable: str, cases: Mapping[str, object]) -> Directive:
    return directive("map", source, variable, block=[directive(case, value) for case, value in cases.items()])


def _bounds(configuration: Configuration, facts: NginxFacts) -> Block:
    gateway = configuration.gateway
    bodies = [u.max_body for u in configuration.upstreams.values() if u.max_body is not None]
    found: Block = [
        # An attacker has a /64 of IPv6 addresses at least: those count as one.
        _map(
            "$remote_addr",
            "$gatebook_neighbourhood",
            {"~^((?:[0-9a-f]+:){4})": "$1", "~^((?:[0-9a-f]+:){1,3}:)": "$1", "default": "$binary_remote_addr"},
        ),
        directive(
            "limit_req_zone",
            "$gatebook_neighbourhood",
            "zone=gatebook_requests:10m",
            f"rate={gateway.flood.requests_per_second}r/s",
        ),
        directive("limit_conn_zone", "$gatebook_neighbourhood", "zone=gatebook_connections:10m"),
        directive("limit_req", "zone=gatebook_requests", f"burst={gateway.flood.burst}", "nodelay"),
        directive("limit_conn", "gatebook_connections", gateway.flood.connections),
        directive("limit_req_status", 429),
        directive("limit_conn_status", 429),
        directive("client_max_body_size", guarded.body_limit(max([gateway.max_body, *bodies]))),
        # One line of a head fills at most one buffer, the head both.
        directive("client_header_buffer_size", "2k"),
        directive("large_client_header_buffers", 2, gateway.max_header // 2),
        directive("client_header_timeout", milliseconds(gateway.header_timeout)),
        directive("client_body_timeout", milliseconds(gateway.body_timeout)),
        directive("reset_timedout_connection", "on"),
        directive("ignore_invalid_headers", "on"),
        directive("underscores_in_headers", "off"),
    ]
    if facts.version >= (1, 27, 4):
        found.append(directive("keepalive_min_timeout", "10s"))  # or a reload cuts connections in use
    return found


def _maps(configuration: Configuration) -> Block:
    """Variables of single requests, each evaluated when first used."""
    strip = FROM_GUARD["Gatebook-Strip"]
    sent = [headers.variable_of(name) for name in headers.credential_headers(configuration)]
    callers = "".join(headers.callers(configuration))
    return [
        _map("$status", "$gatebook_title", {"default": "Error"} | {str(k): v for k, v in guarded.TITLES.items()}),
        _map("$status", "$gatebook_again", {"429": 1, "503": 1, "default": ""}),
        _map(
            FROM_GUARD["Gatebook-Status"],
            "$gatebook_denied_again",
            {str(status): FROM_GUARD["Gatebook-Retry-After"] for status in DENIAL_STATUSES} | {"default": 1},
        ),
        _map(
            FROM_GUARD["Gatebook-Type"],
            "$gatebook_denied_type",
            {"": guarded.JSON, "default": FROM_GUARD["Gatebook-Type"]},
        ),
        # Nothing is upgraded but HTTP/1.1 to WebSocket. An h2c upgrade would be a tunnel past the guard.
        _map(
            "$server_protocol $http_connection",
            "$gatebook_wish",
            {r"~*^HTTP/1\.1 (?:.*,)?[ \t]*upgrade[ \t]*(?:,|$)": "$http_upgrade", "default": ""},
        ),
        _map("$gatebook_wish", "$gatebook_upgrade", {"websocket": "websocket", "default": ""}),
        _map("$gatebook_upgrade", "$gatebook_connection", {"websocket": "upgrade", "default": ""}),
        *(
            _map(
                strip,
                headers.kept_credential(number),
                {"": variable, "0": variable, "proof": variable, "default": ""},
            )
            for number, variable in enumerate(sent)
        ),
        _map(strip, headers.KEPT_PROOF, {"": "$http_dpop", "0": "$http_dpop", "default": ""}),
        _certificate(configuration),
        _offered(),
        # A credential stays with one guard, wherever it comes from, so that its limits are exact.
        _map(callers, "$gatebook_caller", {"": "$binary_remote_addr", "default": callers}),
    ]


def _certificate(configuration: Configuration) -> Directive:
    """The client's certificate for the guard. One that is too large goes nowhere, but is not the same as none."""
    variable = TO_GUARD["Gatebook-Certificate"]
    if not configuration.asks_for_certificates:
        return _map("$pid", variable, {"default": ""})
    sent = "$ssl_client_escaped_cert"
    cases = {"": "", f"~^.{{1,{MAX_CERTIFICATE_BYTES}}}$": sent, "default": CERTIFICATE_TOO_LARGE}
    return _map(sent, variable, cases)


def _offered() -> Directive:
    """The client's list of ciphers for the guard. It may be as long as the client likes."""
    sent = "$ssl_ciphers"
    cases = {"": "", f"~^.{{1,{MAX_OFFER_BYTES}}}$": sent, "default": OFFER_TOO_LARGE}
    return _map(sent, TO_GUARD["Gatebook-Ciphers"], cases)


def _guards(configuration: Configuration, paths: Paths) -> Block:
    count = configuration.guard.processes
    servers = [
        # max_fails=0: a guard that failed once is asked again at once, not after ten seconds.
        directive("server", f"unix:{file(paths.guard_socket(number))}", "max_fails=0")
        for number in range(count)
    ]
    spread = [directive("hash", "$gatebook_caller", "consistent")] if count > 1 else []
    kept = [directive("keepalive", KEPT_TO_GUARD), directive("keepalive_requests", 1_000_000)]
    return [directive("upstream", guarded.GUARDS, block=[*spread, *servers, *kept])]


def _upstream(configuration: Configuration, name: str) -> Directive:
    _, host, port = guarded.host_of(configuration.upstreams[name])
    address = host if host.endswith(f":{port}") else f"{host}:{port}"
    return directive(
        "upstream",
        guarded.group_of(name),
        block=[
            directive("server", address),
            directive("keepalive", KEPT_TO_UPSTREAM),
            directive("keepalive_timeout", "4s"),  # before common servers' five: who closes first wins
        ],
    )


def _server(configuration: Configuration, paths: Paths, listener: Listener, facts: NginxFacts) -> Directive:
    listen: list[object] = [listener.address, f"backlog={BACKLOG}"]
    tls: Block = []
    asks = listener.tls is not None and configuration.asks_for_certificates
    if listener.tls is not None:
        listen.append("ssl")
        if facts.version >= (1, 25, 1):
            tls.append(directive("http2", "on"))
        else:
            listen.append("http2")
        tls += [
            directive("ssl_certificate", file(listener.tls.certificate)),
            directive("ssl_certificate_key", file(listener.tls.key)),
            directive("ssl_protocols", *(["TLSv1.2"] if listener.tls.min_version == "1.2" else []), "TLSv1.3"),
            directive("ssl_ciphers", CIPHERS),
            directive("ssl_prefer_server_ciphers", "off"),
            # Sessions are kept here, not in tickets whose key would open all of them.
            directive("ssl_session_tickets", "off"),
            # A session holds the certificate that was shown, or that there was none. So those from before
            # certificates were asked for are not resumed: they would be without one for an hour.
            directive("ssl_session_cache", f"shared:gatebook_tls{'_client' if asks else ''}:4m"),
            directive("ssl_session_timeout", "1h"),
            *guarded.client_certificates(asks),
        ]
    return directive(
        "server",
        block=[
            directive("listen", *listen),
            *tls,
            *guarded.error_pages(without=(495,) if asks else ()),
            *guarded.locations(configuration, facts, _access_log(paths)),
            *portal.locations(configuration, paths),
        ],
    )
