"""Which header fields pass the gateway, in which direction, and who sets them.

To the guard and to the upstreams goes what the client sent, without the fields that could be mistaken for
somebody else's word: FORGEABLE are cleared before anybody is asked, and ours are set instead. A client's
`Gatebook-*` never reaches anybody, nor does an upstream's reach a client. Pure data.
"""

from __future__ import annotations

import ipaddress
from typing import Final

from gatebook.config.model import LOGIN_COOKIE, OWN_COOKIES, SESSION_COOKIE, Configuration
from gatebook.gateway.tree import Block, directive
from gatebook.page import SECURITY_POLICY
from gatebook.wire import FROM_GUARD, TO_GUARD, UPSTREAMS_FIELD, upstreams_mark

# Cleared from every request. The last three let a POST pass for another method behind us.
FORGEABLE: Final = (
    "Gatebook-*",
    "X-Forwarded-*",
    "Forwarded",
    "X-Real-IP",
    "X-Client-IP",
    "X-Cluster-Client-IP",
    "True-Client-IP",
    "X-Original-URL",
    "X-Original-URI",
    "X-Original-Method",
    "X-Original-Host",
    "X-Rewrite-URL",
    "X-Host",
    "Client-Cert",
    "Client-Cert-Chain",
    "X-Client-Cert*",
    "X-SSL-*",
    "SSL-Client-*",
    "Proxy",
    "Proxy-Connection",
    "HTTP2-Settings",
    "X-HTTP-Method",
    "X-HTTP-Method-Override",
    "X-Method-Override",
)

# Set for guard and upstream alike; the variables are filled in `location /`.
_FORWARDED: Final = {
    "X-Forwarded-For": "$gatebook_for",
    "X-Forwarded-Proto": "$gatebook_proto",
    "X-Forwarded-Host": "$gatebook_host",
    "X-Forwarded-Port": "$gatebook_port",
}
_OURS: Final = {"for": "$remote_addr", "proto": "$scheme", "host": "$http_host", "port": "$server_port"}
_IDENTITY: Final = ("Gatebook-Subject", "Gatebook-Roles", "Gatebook-Provider", "Gatebook-Receipt")

# An upstream's wishes to nginx itself. X-Accel-Redirect would let it choose a location of ours.
NOT_OBEYED: Final = (
    "X-Accel-Redirect",
    "X-Accel-Expires",
    "X-Accel-Limit-Rate",
    "X-Accel-Buffering",
    "X-Accel-Charset",
)


KEPT_PROOF: Final = "$gatebook_proof"  # a DPoP proof (RFC 9449); empty when the guard wants it to end here


def credential_headers(configuration: Configuration) -> list[str]:
    """Every header that may carry a credential, `Authorization` first."""
    keys = {p.header.lower(): p.header for p in configuration.identity.values() if p.type == "api_key"}
    return ["Authorization", *(keys[name] for name in sorted(keys))]


def variable_of(header: str) -> str:
    """nginx's variable with what the client sent in this header."""
    return "$http_" + header.lower().replace("-", "_")


def kept_credential(number: int) -> str:
    """The variable that is empty when the guard wants the credential stripped."""
    return f"$gatebook_credential_{number}"


def callers(configuration: Configuration) -> list[str]:
    """Variables with all that a client may send to say who it is; one of them is not empty."""
    sent = [variable_of(name) for name in credential_headers(configuration)]
    return [*sent, _SESSION] if configuration.logins else sent


_SESSION: Final = "$gatebook_session"
_FOREIGN_COOKIES: Final = "$gatebook_foreign_cookies"


def cookies(configuration: Configuration) -> Block:
    """Who may see which cookies: an upstream sees all but ours, each of which may stand first or later.

    Where more of ours are left, sent twice or in a spelling that is not a browser's, it sees none at all.
    """
    if not configuration.logins:
        return []
    found: Block = []
    source = "$http_cookie"
    for number, name in enumerate((SESSION_COOKIE, LOGIN_COOKIE)):
        variable = f"$gatebook_cookies_{number}"
        first, later = f"~^{name}=[^;]*(?:; *)?(.*)$", f"~^(.*?); *{name}=[^;]*(.*)$"
        cases = [directive(first, "$1"), directive(later, "$1$2"), directive("default", source)]
        found.append(directive("map", source, variable, block=cases))
        source = variable
    cases = [directive(f"~*{OWN_COOKIES}", ""), directive("default", source)]
    found.append(directive("map", source, _FOREIGN_COOKIES, block=cases))
    cases = [directive(f"~(?:^|; *){SESSION_COOKIE}=([^;]*)", "$1"), directive("default", "")]
    return [*found, directive("map", "$http_cookie", _SESSION, block=cases)]


def trusted_networks(configuration: Configuration) -> list[str]:
    """As nginx writes them: it knows prefix lengths only, no netmasks."""
    return [str(ipaddress.ip_network(text)) for text in configuration.gateway.trusted_proxies]


def forwarded(configuration: Configuration) -> dict[str, str]:
    """What is told of the client, by variable: our own word, or what `from_proxies` makes of a trusted proxy's."""
    trusting = bool(configuration.gateway.trusted_proxies)
    return {
        f"$gatebook_{name}": f"$gatebook_client_{name}" if trusting else value for name, value in _OURS.items()
    }


def cleaned(configuration: Configuration) -> Block:
    """For a location that clients reach: takes in what is told of them, and clears what they may not say."""
    return [
        # `set` runs before the clearing, whatever their order here: both in the rewrite phase.
        *(directive("set", variable, value) for variable, value in forwarded(configuration).items()),
        directive("more_clear_input_headers", *FORGEABLE),
    ]


def from_proxies(configuration: Configuration) -> Block:
    """X-Forwarded-* of trusted proxies: the client's address is theirs to say, and we append the proxy's."""
    networks = trusted_networks(configuration)
    if not networks:
        return []
    trusted: Block = [directive("default", 0), *(directive(network, 1) for network in networks)]
    told = {name: f"$http_x_forwarded_{name}" for name in _OURS}
    return [
        *(directive("set_real_ip_from", network) for network in networks),
        directive("real_ip_header", "X-Forwarded-For"),
        directive("real_ip_recursive", "on"),
        directive("geo", "$realip_remote_addr", "$gatebook_trusted", block=trusted),
        *(
            directive(
                "map",
                f"$gatebook_trusted{told[name]}",
                f"$gatebook_client_{name}",
                block=[
                    directive("~^1.", told[name] + (", $realip_remote_addr" if name == "for" else "")),
                    directive("default", ours),
                ],
            )
            for name, ours in _OURS.items()
        ),
    ]


def to_guard(configuration: Configuration) -> Block:
    mark = {UPSTREAMS_FIELD: upstreams_mark(configuration.upstreams)}
    lines = {"Host": "guard", "Connection": "", "Content-Length": "", "Transfer-Encoding": "", "Upgrade": ""}
    return _set(lines | _FORWARDED | TO_GUARD | mark)


def to_portal() -> Block:
    return _set({"Host": "portal", "Connection": "", "Upgrade": ""} | _FORWARDED | TO_GUARD)


def to_upstream(configuration: Configuration, host: str) -> Block:
    lines = {"Host": host, "Connection": "$gatebook_connection", "Upgrade": "$gatebook_upgrade", **_FORWARDED}
    lines["X-Request-ID"] = "$request_id"
    lines["Gatebook-Request-Id"] = "$request_id"
    lines |= {name: FROM_GUARD[name] for name in _IDENTITY}
    for number, name in enumerate(credential_headers(configuration)):
        lines[name] = kept_credential(number)
    lines["DPoP"] = KEPT_PROOF
    if configuration.logins:
        lines["Cookie"] = _FOREIGN_COOKIES
    return _set(lines)


def _set(lines: dict[str, str]) -> Block:
    """nginx leaves out a field whose value is empty, and the client's field of that name with it."""
    return [directive("proxy_set_header", name, value) for name, value in lines.items()]


def from_upstream() -> Block:
    return [
        directive("proxy_hide_header", "X-Request-ID"),
        directive("proxy_ignore_headers", *NOT_OBEYED),
        directive("more_clear_headers", "Gatebook-*"),
        *to_client(),
    ]


def from_portal() -> Block:
    return [
        directive("proxy_ignore_headers", *NOT_OBEYED),
        directive("more_clear_headers", "Gatebook-*"),
        *_add(
            {
                "X-Request-ID": "$request_id",
                "Gatebook-Receipt": variable_of("Gatebook-Receipt").replace("http", "upstream_http", 1),
            }
        ),
    ]


def to_client() -> Block:
    """What every answer to a guarded request bears; nginx leaves out what is empty."""
    return _add(
        {
            "X-Request-ID": "$request_id",
            "Gatebook-Receipt": FROM_GUARD["Gatebook-Receipt"],
            "DPoP-Nonce": FROM_GUARD["Gatebook-Dpop-Nonce"],
            "RateLimit": FROM_GUARD["Gatebook-Ratelimit"],
            "RateLimit-Policy": FROM_GUARD["Gatebook-Ratelimit-Policy"],
        }
    )


def of_denial() -> Block:
    return to_client() + _add(
        {
            "Cache-Control": "no-store",  # it is one caller's, of this moment
            "Content-Security-Policy": SECURITY_POLICY,  # it may be a page
            "X-Content-Type-Options": "nosniff",
            "Retry-After": "$gatebook_denied_again",
            "Allow": FROM_GUARD["Gatebook-Allow"],
            "WWW-Authenticate": FROM_GUARD["Gatebook-Authenticate"],
        }
    )


def of_problem() -> Block:
    return to_client() + _add({"Cache-Control": "no-store", "Retry-After": "$gatebook_again"})


def _add(lines: dict[str, str]) -> Block:
    return [directive("add_header", name, value, "always") for name, value in lines.items()]
