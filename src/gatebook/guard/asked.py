"""What the gateway asks about one request, from the header fields of its subrequest.

In: the `Gatebook-*` fields that the gateway sets and the client's own fields. Out: `Asked`, or ValueError
for anything that our gateway would not send: then the answer is no. The values are a client's and hostile;
that no client can set the fields themselves is the gateway's promise, and a doubled one breaks it. Pure.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote_to_bytes

import msgspec

from gatebook.identity.types import Presented
from gatebook.policy import joined
from gatebook.wire import CERTIFICATE_TOO_LARGE, TO_GUARD, UPSTREAMS_FIELD

OWN_FIELDS = {name.lower().encode(): name for name in (*TO_GUARD, UPSTREAMS_FIELD)}
PREFIX = b"gatebook-"

_ID = re.compile(r"[0-9a-f]{32}")
_MAX_NUMBER_DIGITS = 18  # fits into 64 bits, as the recorder's messages want it
_TRACE = re.compile(r"00-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")
_NO_TRACE = "0" * 32
_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----\n([A-Za-z0-9+/=\n]+)\n-----END CERTIFICATE-----\n")
TOO_LARGE = CERTIFICATE_TOO_LARGE.encode()


class Asked(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One request at the gateway. `headers` are the client's, names in lower case, in order."""

    id: str
    method: str
    uri: str
    host: str
    protocol: str
    address: str
    port: int
    tls: str
    cipher: str
    group: str
    sni: str
    ciphers: bytes = b""  # what the client offered, with colons between
    certificate: bytes = b""  # DER, of the client; b"" for none, TOO_LARGE for one that the gateway kept
    connection: int
    connection_request: int
    worker: int
    upstreams: str  # see wire.upstreams_mark
    headers: list[tuple[bytes, bytes]]


def text(value: bytes) -> str:
    """Bytes of a header field as text that gives the same bytes back."""
    return value.decode("utf-8", "surrogateescape")


class Fields(Mapping[str, str]):
    """Header fields as texts by lower-case name; of a field sent twice the values are joined.

    Read when they are asked for: most requests are decided without.
    """

    __slots__ = ("_read", "_sent")

    def __init__(self, sent: list[tuple[bytes, bytes]]) -> None:
        self._sent = sent
        self._read: dict[str, str] | None = None

    def _all(self) -> dict[str, str]:
        if self._read is None:
            self._read = joined([(text(name), text(value)) for name, value in self._sent])
        return self._read

    def __getitem__(self, name: str) -> str:
        return self._all()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())

    def __bool__(self) -> bool:
        return bool(self._sent)

    def get(self, name: str, default: Any = None) -> Any:
        """Without reading any other field."""
        wanted = name.encode()
        found = [value for sent, value in self._sent if sent == wanted]
        return text(b", ".join(found)) if found else default


def _number(value: bytes) -> int:
    if not value.isdigit() or len(value) > _MAX_NUMBER_DIGITS:
        raise ValueError("not a number, or too large")
    return int(value)


def parse(own: Mapping[bytes, bytes], headers: list[tuple[bytes, bytes]]) -> Asked:
    """`own`: the `Gatebook-*` fields by lower-case name. Raises ValueError."""
    try:
        request_id = own[b"gatebook-request-id"].decode("ascii")
        method, uri = text(own[b"gatebook-method"]), text(own[b"gatebook-uri"])
        address = own[b"gatebook-address"].decode("ascii")
        protocol = own[b"gatebook-protocol"].decode("ascii")
        connection = _number(own[b"gatebook-connection"])
        connection_request = _number(own[b"gatebook-connection-request"])
        worker = _number(own[b"gatebook-worker"])
    except KeyError as error:
        raise ValueError(f"no field {error}") from None
    if _ID.fullmatch(request_id) is None or not method or not uri:
        raise ValueError("a request without id, method or target")
    if not worker:
        raise ValueError("no gateway worker")
    get = own.get
    return Asked(
        id=request_id,
        method=method,
        uri=uri,
        host=text(get(b"gatebook-host", b"")),
        protocol=protocol,
        address=address,
        port=_number(get(b"gatebook-port", b"0")),
        tls=text(get(b"gatebook-tls", b"")),
        cipher=text(get(b"gatebook-cipher", b"")),
        group=text(get(b"gatebook-group", b"")),
        sni=text(get(b"gatebook-sni", b"")),
        ciphers=get(b"gatebook-ciphers", b""),
        certificate=_certificate(own[b"gatebook-certificate"]) if b"gatebook-certificate" in own else b"",
        connection=connection,
        connection_request=connection_request,
        worker=worker,
        upstreams=text(get(b"gatebook-upstreams", b"")),
        headers=headers,
    )


@functools.lru_cache(maxsize=1024)
def _certificate(field: bytes) -> bytes:
    """nginx's form of a certificate -> DER. Raises ValueError."""
    if field == TOO_LARGE:
        return TOO_LARGE
    found = _PEM.fullmatch(unquote_to_bytes(field))
    if found is None:
        raise ValueError("a certificate in no form of the gateway's")
    return base64.b64decode(found[1].replace(b"\n", b""), validate=True)


def certificate_sha256(asked: Asked) -> str | None:
    """Hex; None where there is no certificate, or its bytes are not known."""
    if not asked.certificate or asked.certificate is TOO_LARGE:
        return None
    return hashlib.sha256(asked.certificate).hexdigest()


def presented(asked: Asked) -> Presented:
    """What identification looks at. Scheme and host are the gateway's word, or a trusted proxy's."""
    told = {b"x-forwarded-proto": b"", b"x-forwarded-host": b""}
    for name, value in asked.headers:
        if name in told:
            told[name] = value
    scheme, host = (text(value) for value in told.values())
    url = f"{scheme}://{host}{asked.uri.partition('?')[0]}"
    return Presented(asked.headers, asked.method, url, asked.certificate)


def trace_id(headers: Mapping[str, str]) -> str | None:
    """The client's trace (W3C Trace Context, `traceparent`): a claim, and only in its one canonical form."""
    value = headers.get("traceparent")
    found = _TRACE.fullmatch(value) if value is not None else None
    return found[1] if found is not None and found[1] != _NO_TRACE else None
