"""The locations of gatebook's own pages: exact paths below `/.gatebook/`, answered by the portal.

    = /.gatebook/token, …     one a page of wire.PORTAL_PAGES, if the configuration needs it

The portal decides and records for itself, so nobody asks the guard. What a client sends reaches it without the
fields that could be mistaken for our word, with a small body and at a small rate. A portal that is dead or hangs
is 503. Never matches by prefix: a path that is not listed is no page. Pure.
"""

from __future__ import annotations

import json
from typing import Final

from gatebook.config.model import Configuration
from gatebook.gateway import headers
from gatebook.gateway.guarded import PROBLEM, error_pages, head_buffer
from gatebook.gateway.tree import Block, directive, file
from gatebook.paths import Paths
from gatebook.wire import (
    BACKCHANNEL_LOGOUT,
    CALLBACK,
    ISSUING,
    LOG_OF_PORTAL,
    LOGIN,
    PORTAL_MAX_BODY,
    PORTAL_PAGES,
)

PORTAL: Final = "gatebook_portal"  # upstream group, flood zone and log format
_KEPT: Final = 16
_PATIENCE: Final = "10s"


def pages(configuration: Configuration) -> list[str]:
    needed = {
        name
        for name, is_there in ((ISSUING, configuration.token_service), (LOGIN, configuration.logins))
        if is_there
    }
    found = [path for path, wanted_by in PORTAL_PAGES.items() if wanted_by in needed]
    return found + [
        each + name for name in sorted(configuration.logins) for each in (CALLBACK, BACKCHANNEL_LOGOUT)
    ]


def top(configuration: Configuration, paths: Paths) -> Block:
    """What stands beside the servers."""
    if not configuration.needs_portal:
        return []
    rate = configuration.portal.requests_per_second
    decided = directive(
        "map",
        "$upstream_http_gatebook_decision",
        f"${PORTAL}_decided",
        block=[directive("", 0), directive("default", 1)],
    )
    undecided = directive("map", f"${PORTAL}_decided", f"${PORTAL}_undecided", block=[directive("0", 1)])
    return [
        directive(
            "upstream",
            PORTAL,
            block=[
                directive("server", f"unix:{file(paths.portal_socket)}", "max_fails=0"),
                directive("keepalive", _KEPT),
            ],
        ),
        directive("limit_req_zone", "$gatebook_neighbourhood", f"zone={PORTAL}:1m", f"rate={rate}r/s"),
        decided,
        undecided,
        directive("log_format", PORTAL, "escape=json", json.dumps(LOG_OF_PORTAL, separators=(",", ":"))),
    ]


def locations(configuration: Configuration, paths: Paths) -> Block:
    access = file(paths.logs / "access.log")
    return [
        directive(
            "location",
            "=",
            path,
            block=[
                # Where the portal has not answered, an error page has, and its line is the usual one.
                directive("access_log", access, PORTAL, f"if=${PORTAL}_decided"),
                directive("access_log", access, "gatebook_undecided", f"if=${PORTAL}_undecided"),
                directive("if", "$server_protocol", "=", "", block=[directive("return", 505)]),  # HTTP/0.9
                *headers.cleaned(configuration),
                directive(
                    "limit_req", "zone=gatebook_requests", f"burst={configuration.gateway.flood.burst}", "nodelay"
                ),
                directive(
                    "limit_req",
                    f"zone={PORTAL}",
                    f"burst={2 * configuration.portal.requests_per_second}",
                    "nodelay",
                ),
                directive("client_max_body_size", PORTAL_MAX_BODY),
                directive("client_body_buffer_size", PORTAL_MAX_BODY),  # credentials are in it: never in a file
                directive("proxy_pass", f"http://{PORTAL}"),
                directive("proxy_http_version", "1.1"),
                *headers.to_portal(),
                *headers.from_portal(),
                directive("proxy_max_temp_file_size", "0"),
                *head_buffer(),
                # Not asked twice: the first time may have been decided, recorded, and died before the answer.
                directive("proxy_next_upstream", "off"),
                directive("proxy_connect_timeout", "1s"),
                directive("proxy_send_timeout", _PATIENCE),
                directive("proxy_read_timeout", _PATIENCE),
                directive("proxy_ignore_client_abort", "on"),  # the line that names its decision is written
                directive("error_page", 502, 504, "=503", PROBLEM),
                *error_pages(without=(502, 504)),
            ],
        )
        for path in pages(configuration)
    ]
