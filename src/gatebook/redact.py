"""What is dropped, cut, masked or pseudonymised before a record exists.

In: the request's facts as the gateway gives them and the configuration's `audit`. Out: the parts of a
record, or the names that need a pseudonym (`subject:<provider>:<subject>`, `address:<ip>`), which the
caller resolves and hands back. Never lets through a credential: not by a header or query name that the
configuration keeps, and, as far as its form betrays it, not inside a path, a header or an error text.
Pure, but for bounded memos and a seal's salt.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import Any, Final, Generic, Literal, NamedTuple, TypeVar
from urllib.parse import unquote

from gatebook.config.model import ApiKeyProvider, Configuration
from gatebook.identity.types import Identity
from gatebook.record import MAX_TEXT_BYTES, ClientPart, IdentityPart, RequestPart, SealedPart, TLSPart, cut
from gatebook.scrub import Scrubber, visible
from gatebook.sealed import seal

__all__ = ["Redactor", "cipher_name", "problems", "protocol_version", "scrub", "tls_version", "visible"]

MAX_VALUE_BYTES = 512  # of one kept query value or header
MAX_KEPT_BYTES = 8 << 10  # of all kept query values, and of all kept headers
MAX_QUERY_PAIRS = 256  # looked at
MAX_NAMES = 64  # of roles, groups or scopes
MAX_ROLES_BYTES = 8 << 10
MAX_NAMES_BYTES = 2 << 10  # of groups, and of scopes
_MEMO_PARTS = 1024

# Header fields that carry credentials, whatever the configuration says.
CREDENTIAL_HEADERS = frozenset(
    {
        "authorization",
        "proxy-authorization",
        "cookie",
        "cookie2",
        "set-cookie",
        "set-cookie2",
        "x-api-key",
        "api-key",
        "apikey",
        "x-api-token",
        "x-auth-token",
        "x-access-token",
        "x-id-token",
        "x-refresh-token",
        "x-forwarded-access-token",
        "x-forwarded-authorization",
        "x-original-authorization",
        "x-amz-security-token",
        "x-goog-iap-jwt-assertion",
        "x-amzn-oidc-data",
        "x-amzn-oidc-accesstoken",
        "cf-access-jwt-assertion",
        "x-ms-token-aad-access-token",
        "x-ms-token-aad-id-token",
        "x-vault-token",
        "x-gitlab-token",
        "private-token",
        "x-csrf-token",
        "x-xsrf-token",
        "authentication",
        "x-authorization",
        "dpop",
        "x-client-cert",
        "x-ssl-client-cert",
        "client-cert",
    }
)
CREDENTIAL_QUERY = frozenset(
    {
        "access_token",
        "id_token",
        "refresh_token",
        "token",
        "auth_token",
        "authorization",
        "api_key",
        "apikey",
        "api-key",
        "key",
        "password",
        "passwd",
        "pwd",
        "secret",
        "client_secret",
        "client_assertion",
        "assertion",
        "code",
        "jwt",
        "session",
        "sessionid",
        "session_id",
        "sig",
        "signature",
        "x-amz-signature",
        "x-amz-security-token",
        "x-goog-signature",
        "samlresponse",
        "code_verifier",
        "ticket",
        "otp",
        "pin",
    }
)

_PROTOCOLS = {"HTTP/1.0": "1.0", "HTTP/1.1": "1.1", "HTTP/2.0": "2", "HTTP/2": "2", "HTTP/3.0": "3", "HTTP/3": "3"}
_TLS_VERSIONS = {"TLSv1": "1.0", "TLSv1.0": "1.0", "TLSv1.1": "1.1", "TLSv1.2": "1.2", "TLSv1.3": "1.3"}
# OpenSSL's names of TLS 1.2 suites -> IANA's. TLS 1.3 suites have IANA's names already.
_CIPHERS = {
    f"{key}-{short}": f"TLS_{key.replace('-', '_')}_WITH_{long}"
    for key in ("ECDHE-ECDSA", "ECDHE-RSA", "DHE-RSA")
    for short, long in (
        ("AES128-GCM-SHA256", "AES_128_GCM_SHA256"),
        ("AES256-GCM-SHA384", "AES_256_GCM_SHA384"),
        ("CHACHA20-POLY1305", "CHACHA20_POLY1305_SHA256"),
    )
}


def protocol_version(text: str) -> str:
    """`HTTP/2.0` -> `2`; what is unknown, and what is already in the record's form, stays."""
    return _PROTOCOLS.get(text, text)


def tls_version(text: str) -> str:
    """`TLSv1.3` -> `1.3`."""
    return _TLS_VERSIONS.get(text, text)


def cipher_name(text: str) -> str:
    """`ECDHE-RSA-AES128-GCM-SHA256` -> `TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256`."""
    return _CIPHERS.get(text, text)


class Known(NamedTuple):
    """What a name stands for: its pseudonym, 32 hex digits, and its key where policy seals."""

    pseudonym: str
    key: bytes = b""


T = TypeVar("T")


class Names(NamedTuple, Generic[T]):
    """What needs a pseudonym before the record can be made, or what is known of it; None: nothing does."""

    subject: T | None
    address: T | None


NO_NAMES: Final[Names[Any]] = Names(None, None)


class Redactor:
    """`audit` of one configuration, compiled. Names that `problems` objects to are dropped all the same."""

    def __init__(self, configuration: Configuration) -> None:
        audit = configuration.audit
        forbidden = _credential_headers(configuration)
        self._address = audit.address
        self._subject = audit.subject
        self.seals = "seal" in (audit.address, audit.subject)
        self.pseudonymises_addresses = audit.address == "pseudonym"
        self._query = frozenset(name for name in audit.query.keep if name.lower() not in CREDENTIAL_QUERY)
        self._headers = tuple(sorted({name.lower() for name in audit.headers.keep} - forbidden))
        self._tls_parts: dict[tuple[str | None, ...], TLSPart] = {}
        self.scrub = Scrubber().scrub

    @property
    def kept_headers(self) -> tuple[str, ...]:
        """In lower case. Of these a record says by leaving one out that it was not sent."""
        return self._headers

    @property
    def kept_query(self) -> frozenset[str]:
        return self._query

    def names(self, identity: Identity | None, address: str) -> Names[str]:
        """The names to be resolved by the vault, in its own spelling; also what something is sealed under."""
        subject = found = None
        if identity is not None and (self._subject != "keep" or self._address == "seal"):
            subject = f"subject:{identity.provider}:{identity.subject}"
        if self._address == "pseudonym" or (self._address == "seal" and identity is None):
            found = canonical_address(address)
        return Names(subject, None if found is None else f"address:{found}")

    def sealed(
        self, request_id: str, identity: Identity | None, address: str, known: Names[Known]
    ) -> SealedPart | None:
        """What policy keeps under a key: the caller's own, or the address's where nobody was identified."""
        if not self.seals:
            return None
        under = known.address if identity is None else known.subject
        values = {}
        if identity is not None and self._subject == "seal":
            values["subject"] = cut(visible(identity.subject), 512)
        whole = canonical_address(address) if self._address == "seal" else None
        if whole is not None:
            values["address"] = whole
        if under is None or not under.key or not values:
            return None
        return seal(values, under.pseudonym, under.key, request_id)

    def address(self, address: str) -> str | None:
        """The address as a record may hold it in clear: whole, its network, or nothing."""
        if self._address in ("truncate", "seal"):
            return network_of(address)
        return canonical_address(address) if self._address == "keep" else None

    def query(self, query: str) -> dict[str, str]:
        """Kept names with their decoded values; of a name sent twice all values, joined with ", "."""
        result: dict[str, str] = {}
        if not query or not self._query:
            return result
        for pair in query.split("&", MAX_QUERY_PAIRS)[:MAX_QUERY_PAIRS]:
            name, _, value = pair.partition("=")
            if "%" in name or "+" in name:
                name = _decoded(name)
            if name in self._query:
                value = _decoded(value)
                result[name] = f"{result[name]}, {value}" if name in result else value
        return self._bounded(result)

    def headers(self, headers: Mapping[str, str]) -> dict[str, str]:
        """Kept names (lower case) with their values."""
        result = {}
        for name in self._headers:
            value = headers.get(name)
            if value is not None:
                result[name] = value
        return self._bounded(result)

    def _bounded(self, texts: dict[str, str]) -> dict[str, str]:
        room = MAX_KEPT_BYTES
        for name, value in texts.items():
            value = self._fit(value, MAX_VALUE_BYTES)
            room -= len(value)
            texts[name] = value if room >= 0 else "…[dropped: too much is kept of this request]"
        return texts

    def _fit(self, text: str, max_bytes: int) -> str:
        """`text` scrubbed and cut. What lies far beyond the cut is not even looked at: that costs time."""
        beyond = len(text) - 2 * max_bytes
        text = self.scrub(text if beyond <= 0 else text[: 2 * max_bytes])
        if 4 * len(text) <= max_bytes:
            return text
        text = cut(text, max_bytes)
        return text if beyond <= 0 else f"{text}…[and {beyond} more]"

    def request_part(
        self,
        *,
        method: str,
        path: str,
        query: str = "",
        route: str | None = None,
        host: str | None = None,
        protocol: str | None = None,
        headers: Mapping[str, str] | None = None,
        claimed_id: str | None = None,
        unclear: tuple[Literal["query", "headers"], ...] = (),
    ) -> RequestPart:
        """What was asked. `path` is as received, canonical or not; `route` is the configuration's own name."""
        return RequestPart(
            method=method if method.isalpha() and len(method) <= 20 else self._fit(method, 128),
            path=self._fit(path, MAX_TEXT_BYTES),
            route=route,
            host=host and self._fit(host, 256),
            protocol=protocol and (_PROTOCOLS.get(protocol) or self._fit(protocol, 128)),
            query=self.query(query) if query else {},
            headers=self.headers(headers) if headers else {},
            claimed_id=claimed_id and self._fit(claimed_id, 256),
            unclear=unclear,
        )

    def client_part(self, address: str, port: int | None, pseudonym: str | None = None) -> ClientPart | None:
        """From where. A port goes only with a whole address or its pseudonym: alone it says nothing."""
        mode = self._address
        if mode == "drop":
            return None
        if mode in ("truncate", "seal"):
            return ClientPart(address=network_of(address))
        return ClientPart(address=pseudonym if mode == "pseudonym" else canonical_address(address), port=port)

    def tls_part(
        self,
        version: str | None,
        cipher: str | None = None,
        group: str | None = None,
        sni: str | None = None,
        certificate: str | None = None,
    ) -> TLSPart | None:
        """How. None for a connection without TLS."""
        if not version:
            return None
        key = (version, cipher, group, sni, certificate)
        part = self._tls_parts.get(key)
        if part is None:
            part = TLSPart(
                version=_TLS_VERSIONS.get(version) or cut(visible(version), 128),
                cipher=cipher and (_CIPHERS.get(cipher) or cut(visible(cipher), 128)),
                group=group and cut(visible(group), 128),
                sni=sni and self._fit(sni, 256),
                certificate=certificate,
            )
            if len(self._tls_parts) >= _MEMO_PARTS:
                self._tls_parts.clear()
            self._tls_parts[key] = part
        return part

    def identity_part(self, identity: Identity, subject: str | None, credential: str) -> IdentityPart:
        """Who. `subject` is the pseudonym, unless policy keeps subjects; `credential` a keyed fingerprint."""
        return IdentityPart(
            provider=identity.provider,
            method=identity.method,
            subject=cut(visible(identity.subject), 512) if self._subject == "keep" else subject,
            client=identity.client and cut(visible(identity.client), 512),
            credential=credential,
            roles=_bounded(identity.own_roles, MAX_ROLES_BYTES),
            groups=_bounded(identity.groups, MAX_NAMES_BYTES),
            scopes=_bounded(identity.scopes, MAX_NAMES_BYTES),
            granted=tuple(role for _, role in identity.grants),
        )


def _bounded(names: tuple[str, ...], room: int) -> tuple[str, ...]:
    """The first of them, and how many more there are, if there are."""
    kept: list[str] = []
    for name in names[:MAX_NAMES]:
        text = cut(visible(name), 128)
        room -= len(text.encode()) + 3
        if room < 0:
            break
        kept.append(text)
    if len(kept) < len(names):
        kept.append(f"…[and {len(names) - len(kept)} more]")
    return tuple(kept)


def scrub(text: str) -> str:
    """`text` made visible, with what looks like a credential masked."""
    return _SCRUBBER.scrub(text)


_SCRUBBER = Scrubber()


def _decoded(text: str) -> str:
    if "%" in text or "+" in text:
        return unquote(text.replace("+", " "), errors="backslashreplace")
    return text


def canonical_address(address: str) -> str | None:
    """The address in its one usual spelling, IPv4-mapped IPv6 as IPv4; None for anything else."""
    packed = _packed(address)
    if packed is None:
        return None
    return socket.inet_ntop(socket.AF_INET if len(packed) == 4 else socket.AF_INET6, packed)


def network_of(address: str) -> str | None:
    """The address's /24 (IPv4) or /48 (IPv6), as `192.0.2.0/24`; None for what is no address."""
    packed = _packed(address)
    if packed is None:
        return None
    if len(packed) == 4:
        return f"{packed[0]}.{packed[1]}.{packed[2]}.0/24"
    return socket.inet_ntop(socket.AF_INET6, packed[:6] + bytes(10)) + "/48"


def _packed(address: str) -> bytes | None:
    try:
        if ":" not in address:
            return socket.inet_pton(socket.AF_INET, address)
        packed = socket.inet_pton(socket.AF_INET6, address.partition("%")[0])
    except (OSError, ValueError):  # ValueError: NUL or letters beyond ASCII
        return None
    return packed[12:] if packed[:12] == b"\0" * 10 + b"\xff\xff" else packed


def _credential_headers(configuration: Configuration) -> frozenset[str]:
    own = {p.header.lower() for p in configuration.identity.values() if isinstance(p, ApiKeyProvider)}
    return CREDENTIAL_HEADERS | own


def problems(configuration: Configuration) -> list[tuple[tuple[str | int, ...], str, str]]:
    """Names in `audit` that carry credentials, as (location, message, expected)."""
    forbidden = _credential_headers(configuration)
    found: list[tuple[tuple[str | int, ...], str, str]] = []
    for index, name in enumerate(configuration.audit.headers.keep):
        if name.lower() in forbidden:
            place = ("audit", "headers", "keep", index)
            found.append((place, f"{name} carries a credential, which is never recorded", "another header"))
    for index, name in enumerate(configuration.audit.query.keep):
        if name.lower() in CREDENTIAL_QUERY:
            place = ("audit", "query", "keep", index)
            found.append((place, f"{name} carries a credential, which is never recorded", "another parameter"))
    return found
