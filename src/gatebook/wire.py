"""What gatebook's processes say to each other: names of headers and log fields, messages to the recorder.

1. gateway -> guard: `auth_request` subrequests over a unix socket, HTTP/1.1. The client's own headers
   come along, those named `Gatebook-*` never do: the gateway strips and sets them (TO_GUARD).
2. guard -> gateway: 204 with FROM_GUARD headers allows; 401 (only when the client is to be told 401) or
   403 denies, and `Gatebook-Status` and `Gatebook-Problem` say what the client gets. Anything else,
   or silence, is 503 to the client.
3. gateway -> portal: requests below `/.gatebook/` (PORTAL_PAGES) over a unix socket, as the client sent
   them, with TO_GUARD's fields set; the answer names its decision as the guard's does, and passes on.
4. gateway -> recorder: one JSON line a request in the access log (LogLine), words in the error log.
5. guard, portal, CLI, supervisor -> recorder: messages on a unix socket, each `u32_be length || msgpack`; one
   reply for each, in order. A batch is appended as one unit: `first_index + i` is its i-th record's index.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable
from typing import Annotated, Any, Final

import msgspec

# -- 1. gateway -> guard: header -> nginx variable -----------------------------------------------------
TO_GUARD: Final[dict[str, str]] = {
    "Gatebook-Request-Id": "$request_id",
    "Gatebook-Method": "$request_method",
    "Gatebook-Uri": "$request_uri",
    "Gatebook-Host": "$http_host",
    "Gatebook-Protocol": "$server_protocol",
    "Gatebook-Address": "$remote_addr",
    "Gatebook-Port": "$remote_port",
    "Gatebook-Tls": "$ssl_protocol",
    "Gatebook-Cipher": "$ssl_cipher",
    "Gatebook-Group": "$ssl_curve",
    "Gatebook-Ciphers": "$gatebook_ciphers",  # what the client offered, or OFFER_TOO_LARGE
    "Gatebook-Sni": "$gatebook_asked_sni",  # never $ssl_server_name: a client may put line ends into it
    "Gatebook-Certificate": "$gatebook_certificate",  # PEM, percent-encoded; or CERTIFICATE_TOO_LARGE
    "Gatebook-Connection": "$connection",
    "Gatebook-Connection-Request": "$connection_requests",
    "Gatebook-Worker": "$pid",
}

MAX_CERTIFICATE_BYTES: Final = 12 << 10  # as it is encoded there
CERTIFICATE_TOO_LARGE: Final = "-"
MAX_OFFER_BYTES: Final = 2 << 10  # browsers offer about 500
OFFER_TOO_LARGE: Final = "-"

# A constant of the gateway's configuration, beside those: which upstreams this worker of the gateway knows.
UPSTREAMS_FIELD: Final = "Gatebook-Upstreams"


def upstreams_mark(names: Iterable[str]) -> str:
    """What stands for a set of upstreams; a worker of the gateway knows those of its own configuration only."""
    return hashlib.sha256("\n".join(sorted(names)).encode()).hexdigest()[:16]


# -- 2. guard -> gateway: header -> the nginx variable that auth_request_set fills ----------------------
FROM_GUARD: Final[dict[str, str]] = {
    "Gatebook-Decision": "$gatebook_decision",  # index of the decision's entry; absent if none was made
    "Gatebook-Receipt": "$gatebook_receipt",  # <origin>/<index>, passed on to the client
    "Gatebook-Reason": "$gatebook_reason",  # key of record.REASONS, for the log line only
    "Gatebook-Status": "$gatebook_status",  # denial: 303, 400, 401, 403, 404, 405, 429 or 503
    "Gatebook-Problem": "$gatebook_problem",  # denial: body, one line of ASCII
    "Gatebook-Type": "$gatebook_type",  # denial: its type; absent for application/problem+json
    "Gatebook-Retry-After": "$gatebook_retry_after",
    "Gatebook-Allow": "$gatebook_allow",  # 405: the Allow header
    "Gatebook-Authenticate": "$gatebook_authenticate",  # 401: the WWW-Authenticate header
    "Gatebook-Location": "$gatebook_location",  # 303: where a browser is to log in
    "Gatebook-Ratelimit": "$gatebook_ratelimit",  # the RateLimit header
    "Gatebook-Ratelimit-Policy": "$gatebook_ratelimit_policy",  # the RateLimit-Policy header
    "Gatebook-Upstream": "$gatebook_upstream",  # name of the upstream to forward to
    "Gatebook-Strip": "$gatebook_strip",  # not forwarded: "1": credentials and DPoP proof; "proof": that alone
    "Gatebook-Dpop-Nonce": "$gatebook_dpop_nonce",  # the DPoP-Nonce header
    "Gatebook-Subject": "$gatebook_subject",  # forwarded to the upstream as Gatebook-Subject …
    "Gatebook-Roles": "$gatebook_roles",  # … and Gatebook-Roles, comma-separated
    "Gatebook-Provider": "$gatebook_provider",
}
DENIAL_STATUSES: Final = (303, 400, 401, 403, 404, 405, 429, 503)


# -- 3. gateway -> portal: path -> what of the configuration it is there for ------------------------------
ISSUING: Final = "a provider of type gatebook"
LOGIN: Final = "a provider with login"
PORTAL_PAGES: Final[dict[str, str]] = {
    "/.gatebook/token": ISSUING,
    "/.gatebook/revoke": ISSUING,
    "/.gatebook/jwks.json": ISSUING,
    "/.gatebook/.well-known/openid-configuration": ISSUING,
    "/.well-known/oauth-authorization-server/.gatebook": ISSUING,  # RFC 8414, 3.1
    "/.gatebook/login": LOGIN,
    "/.gatebook/logout": LOGIN,
}
# One for each provider with login, its name after it. Their own, so that no provider is taken for another (RFC
# 9700, 4.4): what one has sent cannot be handed in as another's.
CALLBACK: Final = "/.gatebook/callback/"
BACKCHANNEL_LOGOUT: Final = "/.gatebook/backchannel-logout/"
PORTAL_MAX_BODY: Final = 16 << 10


# -- 4. gateway -> recorder: the access log -------------------------------------------------------------
class LogLine(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the access log, as nginx's `escape=json` writes it: every value is a string.

    The second group stands only in lines without a decision (`d` is empty): it says what was asked, since
    nothing else does. A load balancer's question has no id, and nothing but its number: no record is made of it.
    Names are short because a line is written for every request.
    """

    i: str  # $request_id
    d: str = ""  # $gatebook_decision: index, or empty
    r: str = ""  # $gatebook_reason
    u: str = ""  # $gatebook_upstream
    p: str = ""  # $pid
    c: str = ""  # $connection
    n: str = ""  # $connection_requests
    pr: str = ""  # $server_protocol
    t: str = ""  # $msec, seconds.milliseconds: when the line was written
    s: str = ""  # $status
    bi: str = ""  # $request_length
    bo: str = ""  # $bytes_sent
    dt: str = ""  # $request_time
    ok: str = ""  # $request_completion: "OK" or empty
    ua: str = ""  # $upstream_addr
    us: str = ""  # $upstream_status
    uc: str = ""  # $upstream_connect_time
    uh: str = ""  # $upstream_header_time
    ut: str = ""  # $upstream_response_time
    # only without a decision
    a: str = ""  # $remote_addr
    m: str = ""  # the method of the request line as it came
    q: str = ""  # its path, as it came, without the query: printable ASCII up to the first other byte
    h: str = ""  # $host, printable ASCII
    tv: str = ""  # $ssl_protocol
    tc: str = ""  # $ssl_cipher
    tn: str = ""  # $ssl_server_name, printable ASCII


_OF_UPSTREAM: Final = ("ua", "us", "uc", "uh", "ut")
_LOG_NUMBER: Final[dict[str, str]] = {
    "p": "$pid",
    "c": "$connection",
    "n": "$connection_requests",
    "pr": "$server_protocol",
}
LOG_OF_PROBE: Final[dict[str, str]] = {"i": "", **_LOG_NUMBER}
LOG_WITH_DECISION: Final[dict[str, str]] = {
    "i": "$request_id",
    "d": "$gatebook_decision",
    "r": "$gatebook_reason",
    "u": "$gatebook_upstream",
    **_LOG_NUMBER,
    "t": "$msec",
    "s": "$status",
    "bi": "$request_length",
    "bo": "$bytes_sent",
    "dt": "$request_time",
    "ok": "$request_completion",
    "ua": "$upstream_addr",
    "us": "$upstream_status",
    "uc": "$upstream_connect_time",
    "uh": "$upstream_header_time",
    "ut": "$upstream_response_time",
}
LOG_WITHOUT_DECISION: Final[dict[str, str]] = LOG_WITH_DECISION | {
    "a": "$remote_addr",
    "m": "$gatebook_asked_method",
    "q": "$gatebook_asked_path",
    "h": "$gatebook_asked_host",
    "tv": "$ssl_protocol",
    "tc": "$ssl_cipher",
    "tn": "$gatebook_asked_sni",
}
LOG_OF_PORTAL: Final[dict[str, str]] = {
    **{name: variable for name, variable in LOG_WITH_DECISION.items() if name not in ("u", *_OF_UPSTREAM)},
    "d": "$upstream_http_gatebook_decision",
    "r": "$upstream_http_gatebook_reason",
}


# -- 5. messages to the recorder ------------------------------------------------------------------------
class Item(msgspec.Struct, frozen=True, array_like=True):
    """One record to append. `worker` is the gateway worker's pid when an outcome is to follow, else 0."""

    record: bytes
    worker: int = 0
    request_id: str = ""


class Append(msgspec.Struct, frozen=True, array_like=True, tag="append"):
    items: list[Item]


class Appended(msgspec.Struct, frozen=True, array_like=True, tag="appended"):
    """The items are durable; the i-th has index `first_index + i`."""

    first_index: int


class Pseudonym(msgspec.Struct, frozen=True, array_like=True, tag="pseudonym"):
    """`name` is what the pseudonym stands for, such as `subject:staff:alice`; `sealing`: its key is needed."""

    name: str
    sealing: bool = False


class Pseudonymous(msgspec.Struct, frozen=True, array_like=True, tag="pseudonymous"):
    """16 bytes; the row that holds it is durable. Good until then (seconds since 1970; 0: for good), and as long
    as `erasures` is what the recorder says. `key`: 32 bytes where it was asked for."""

    pseudonym: bytes
    key: bytes = b""
    until: float = 0.0
    erasures: int = 0


class Once(msgspec.Struct, frozen=True, array_like=True, tag="once"):
    """`key`, a hash, is about to be used; it could be used until then, so until then it is remembered."""

    key: Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
    until_us: Annotated[int, msgspec.Meta(ge=0, lt=1 << 62)]


class Used(msgspec.Struct, frozen=True, array_like=True, tag="used"):
    """`first`: nobody had used it before, and nobody will again; that is durable."""

    first: bool


class Apply(msgspec.Struct, frozen=True, array_like=True, tag="apply"):
    """A configuration is about to be in force: a POLICY entry, and `record` beside it."""

    digest: bytes
    record: bytes


class Order(msgspec.Struct, frozen=True, array_like=True, tag="order"):
    """An act on the ledger itself; `verb` is a key of recorder.orders.ORDERS, `parameters` one JSON object."""

    verb: str
    parameters: bytes


class Obeyed(msgspec.Struct, frozen=True, array_like=True, tag="obeyed"):
    """It is done, and all that it had to write is durable. `result`: one JSON object."""

    result: bytes


class Status(msgspec.Struct, frozen=True, array_like=True, tag="status"):
    pass


class Stands(msgspec.Struct, frozen=True, array_like=True, tag="stands"):
    """How the recorder stands: `size` entries are durable, `open` decisions await their outcome. When `erasures`
    changes, somebody was forgotten: pseudonyms and keys that are remembered may be theirs."""

    size: int
    open: int
    pid: int
    erasures: int = 0
    outside: dict[str, Any] = {}  # who outside vouches for the ledger, by kind; for `gatebook status`


class Refused(msgspec.Struct, frozen=True, array_like=True, tag="refused"):
    """Nothing of the message was or will be acknowledged."""

    why: str


Message = Append | Pseudonym | Once | Apply | Order | Status
Reply = Appended | Pseudonymous | Used | Obeyed | Stands | Refused

MAX_MESSAGE_BYTES: Final = 8 << 20
_encoder = msgspec.msgpack.Encoder()
_messages: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(Message)
_replies: msgspec.msgpack.Decoder[Reply] = msgspec.msgpack.Decoder(Reply)
_length = struct.Struct(">I")


def pack(message: Message | Reply) -> bytes:
    """`u32_be length || msgpack`."""
    body = _encoder.encode(message)
    return _length.pack(len(body)) + body


def unpack_message(body: bytes) -> Message:
    """Raises ValueError (msgspec's) on anything that is not exactly a message."""
    return _messages.decode(body)


def unpack_reply(body: bytes) -> Reply:
    """Raises ValueError (msgspec's) on anything that is not exactly a reply."""
    return _replies.decode(body)


class Framer:
    """Splits a byte stream into message bodies. Raises ValueError on a length over MAX_MESSAGE_BYTES."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        buffer = self._buffer
        buffer += data
        bodies = []
        at = 0
        while len(buffer) - at >= 4:
            (length,) = _length.unpack_from(buffer, at)
            if length > MAX_MESSAGE_BYTES:
                raise ValueError(f"message of {length} bytes; at most {MAX_MESSAGE_BYTES} are allowed")
            if len(buffer) - at - 4 < length:
                break
            bodies.append(bytes(buffer[at + 4 : at + 4 + length]))
            at += 4 + length
        del buffer[:at]
        return bodies
