"""Sessions of people who log in with a browser: the cookie, what stands in it, and which requests may use it.

A session is a JWT that the portal signs and that guards verify by the code and keys of any other token of ours;
its own issuer (one a provider) and `typ` keep it from being taken for an access token, and access tokens for it.
The cookie is found strictly: one of exactly this name, in whatever Cookie fields there are. A browser sends it
along whoever made it ask, so what changes something has to come from a page of this origin. Never holds a token
of the provider's. RFC 6265, Fetch Metadata (Sec-Fetch-*). Pure.
"""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import urlsplit

from gatebook.config.model import SESSION_COOKIE, Configuration, OIDCProvider
from gatebook.identity.jws import Unfit
from gatebook.identity.own import ALGORITHM
from gatebook.identity.types import Presented, Refusal

TYPE: Final = "gatebook-session+jwt"
METHOD: Final = "session"
MAX_BYTES: Final = 3800  # browsers keep cookies of up to 4096 bytes, with name and attributes
SKEW_S: Final = 5.0  # portal and guards run on one machine, but its clock may be set
CLAIM_OF_ISSUER: Final = "idp"
SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})


def issuer(configuration: Configuration, name: str) -> str:
    """The `iss` of sessions of this provider's people."""
    return f"{configuration.own_issuer}/sessions/{name}"


def audience(configuration: Configuration) -> str:
    return configuration.portal.url or ""


def as_oidc(configuration: Configuration, name: str, provider: OIDCProvider) -> OIDCProvider:
    """What is asked of a session, in the terms of any other token."""
    assert provider.login is not None  # noqa: S101 - whoever asks has looked
    return OIDCProvider(
        type="oidc",
        issuer=issuer(configuration, name),
        audience=[audience(configuration)],
        max_ttl=provider.login.session_ttl,
        clock_skew=SKEW_S,
        algorithms=[ALGORITHM],
    )


class Kind:
    """The check of a token's kind (see claims.check_type) for sessions of people whom `provider` vouches for."""

    def __init__(self, provider: OIDCProvider) -> None:
        self._issuer = provider.issuer

    def __call__(self, header: dict[str, Any], claims: dict[str, Any]) -> None:
        if header.get("typ") != TYPE:
            raise Unfit("token_type")
        # The provider of this name may have become another one since.
        if claims.get(CLAIM_OF_ISSUER) != self._issuer:
            raise Unfit("token_issuer")
        if not isinstance(claims.get("jti"), str) or not isinstance(claims.get("sid"), str):
            raise Unfit("token_claims")


def find(headers: list[tuple[bytes, bytes]], name: str = SESSION_COOKIE) -> bytes | Refusal | None:
    """The value of the one cookie of this name; two are ambiguous, even with the same value.

    Nothing but spaces and tabs is trimmed, quotes are not taken off, and only `;` separates: whoever reads more
    into a Cookie field can be made to see a name that no browser protects.
    """
    wanted = name.encode()
    found: bytes | None = None
    for field, value in headers:
        if field != b"cookie" or wanted not in value:
            continue
        for pair in value.split(b";"):
            key, equals, content = pair.strip(b" \t").partition(b"=")
            if key != wanted or not equals:
                continue
            if found is not None:
                return Refusal("credential_ambiguous")
            found = content
    if found is not None and len(found) > MAX_BYTES:
        return Refusal("token_malformed")
    return found


def is_cross_site(presented: Presented, origin: str) -> bool:
    """Whether a request that may change something comes from elsewhere than a page of this origin.

    Browsers say it in Sec-Fetch-Site, older ones in Origin; what says neither is no browser that a session was
    made for. A WebSocket is opened by a GET, but lasts and can change things.
    """
    told: dict[bytes, list[bytes]] = {b"sec-fetch-site": [], b"origin": []}
    opens_socket = False
    for name, value in presented.headers:
        if name in told:
            told[name].append(value)
        elif name == b"sec-websocket-key":
            opens_socket = True
    if presented.method in SAFE_METHODS and not opens_socket:
        return False
    if told[b"sec-fetch-site"]:
        # `none`: typed in or repeated by the person, which no page can bring about.
        return told[b"sec-fetch-site"] not in ([b"same-origin"], [b"none"])
    return told[b"origin"] != [origin_of(origin).encode()]


def origin_of(url: str) -> str:
    """As browsers write it (RFC 6454, 6.2)."""
    parts = urlsplit(url)
    default = {"https": 443, "http": 80}.get(parts.scheme)
    host = parts.hostname or ""
    host = f"[{host}]" if ":" in host else host
    port = "" if parts.port in (None, default) else f":{parts.port}"
    return f"{parts.scheme}://{host}{port}"


def is_navigation(headers: list[tuple[bytes, bytes]]) -> bool:
    """Whether a person waits for a page: a browser says so, or an old one asks for HTML before all else.

    For GET alone; whoever asks has looked. Never true for what a script fetched.
    """
    mode = [value for name, value in headers if name == b"sec-fetch-mode"]
    if mode:
        return mode == [b"navigate"]
    accept = [value for name, value in headers if name == b"accept"]
    return len(accept) == 1 and accept[0].split(b",")[0].partition(b";")[0].strip().lower() == b"text/html"
