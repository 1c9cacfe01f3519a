"""The kinds of value in the configuration: durations, sizes, names, addresses and the like.

In: what a person wrote. Out: seconds, bytes, absolute paths, or the text itself once it is known to be
what it should be. Every refusal is a ValueError that begins with `expected`. What passes here may be put
into the gateway's configuration, so nothing passes that only looks right. Pure, but for `~` in paths.
"""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Annotated, Final
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, WithJsonSchema

_UNITS_S = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800, "y": 31536000}
_UNITS_B = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
_DURATION = r"([0-9]{1,12}(?:\.[0-9]{1,12})?)(ms|[smhdwy])"
_PERIODS_S = {"second": 1, "minute": 60, "hour": 3600, "day": 86400}
_SIZE = r"([0-9]{1,15})([kKmMgG]?)[bB]?"
RATE: Final = r"([0-9]{1,12}) */ *(second|minute|hour|day)"
NAME: Final = r"^[a-z0-9]([a-z0-9_.-]{0,62}[a-z0-9])?$"


def parse_duration(value: object) -> float:
    """`15s`, `1h`, `90d`, `500ms`, or a number of seconds -> seconds."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        seconds = float(value)
    else:
        found = re.fullmatch(_DURATION, str(value))
        if not found:
            raise ValueError("expected a duration such as 500ms, 15s, 10m, 1h or 90d")
        seconds = float(found[1]) * _UNITS_S[found[2]]
    if not 0 < seconds <= 100 * _UNITS_S["y"]:
        raise ValueError("expected a duration of more than 0 and at most 100y")
    return seconds


def parse_size(value: object) -> int:
    """`64k`, `10m`, `1g`, or a number of bytes -> bytes."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    found = re.fullmatch(_SIZE, str(value))
    if not found:
        raise ValueError("expected a size such as 64k, 10m or 1g")
    return int(found[1]) * _UNITS_B[found[2].lower()]


def _resolve(value: object, info: ValidationInfo) -> object:
    base = (info.context or {}).get("base")
    if isinstance(value, str) and (not value or not value.isprintable()):
        raise ValueError("expected a file's path")
    if isinstance(value, (str, Path)) and base is not None:
        try:
            return Path(base) / Path(value).expanduser()
        except RuntimeError:  # ~somebody
            raise ValueError("expected a path below a home folder that exists") from None
    return value


Duration = Annotated[
    float,
    BeforeValidator(parse_duration),
    WithJsonSchema({"type": ["string", "number"], "pattern": rf"^{_DURATION}$", "exclusiveMinimum": 0}),
]
Size = Annotated[
    int,
    BeforeValidator(parse_size),
    Field(ge=0, le=1 << 50),
    WithJsonSchema({"type": ["string", "integer"], "pattern": rf"^{_SIZE}$", "minimum": 0}),
]
FilePath = Annotated[Path, BeforeValidator(_resolve)]
Name = Annotated[str, Field(pattern=NAME, description="lower-case letters, digits, '-', '_', '.'")]


# RFC 6749, appendix A.1: printable ASCII.
ClientId = Annotated[str, Field(pattern=r"^[ -~]{1,256}$", description="printable ASCII")]


# RFC 6749, appendix A.4.
ScopeName = Annotated[str, Field(pattern=r"^[!#-\[\]-~]{1,256}$", description="a scope")]

# A path of our own origin, with or without a query: printable ASCII without space, quote, '#' or backslash.
LOCAL_PATH: Final = r"/(?:[!$&-\[\]-~]|%[0-9A-Fa-f]{2})*"
_MAX_LOCAL = 1024


def is_local_path(text: str) -> bool:
    """Whether a browser that is sent there stays here, and outside of gatebook's own pages."""
    if len(text) > _MAX_LOCAL or not re.fullmatch(LOCAL_PATH, text):
        return False
    path = text.partition("?")[0]
    return "//" not in path and not path.startswith("/.gatebook")


def _local_path(value: str) -> str:
    if not is_local_path(value):
        raise ValueError("expected a path of this gateway, such as /goodbye")
    return value


LocalPath = Annotated[str, AfterValidator(_local_path)]


def _environment_name(value: object) -> object:
    # What stands here by mistake may be the secret itself: it is not shown.
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,127}", value):
        raise ValueError("expected a variable's name of letters, digits and '_', found something else")
    return value


EnvironmentName = Annotated[str, BeforeValidator(_environment_name)]


def _method(value: str) -> str:
    if not re.fullmatch(r"[A-Z]{1,20}", value):
        raise ValueError("expected an HTTP method in capitals, such as GET")
    if value in ("CONNECT", "TRACE"):
        raise ValueError(f"expected a method that may be forwarded, found {value}")
    return value


Method = Annotated[str, AfterValidator(_method)]


def _address(value: str) -> str:
    host, _, port = value.rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else None
    try:
        ipaddress.IPv4Address(host) if bare is None else ipaddress.IPv6Address(bare)
    except ValueError:
        raise ValueError("expected an IP address and a port, such as 127.0.0.1:8443 or [::1]:8443") from None
    if not re.fullmatch(r"[1-9][0-9]{0,4}", port) or int(port) > 65535:
        raise ValueError("expected a port between 1 and 65535 after the last ':'")
    if "%" in host:
        raise ValueError("expected an IP address without a zone")
    return value


Address = Annotated[str, AfterValidator(_address)]


_TAKEN_HEADERS = re.compile(
    r"accept|authorization|connection|content-.*|cookie|expect|host|keep-alive|te|trailer|transfer-encoding|upgrade"
    r"|via|x-request-id|gatebook-.*|x-forwarded-.*|sec-.*",
    re.IGNORECASE,
)


def _credential_header(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9-]{0,60}", value):
        raise ValueError("expected a header's name of letters, digits and '-'")
    if _TAKEN_HEADERS.fullmatch(value):
        raise ValueError("expected a header that nothing else uses, such as X-API-Key")
    return value


CredentialHeader = Annotated[str, AfterValidator(_credential_header)]


def _url(value: str) -> str:
    found = re.fullmatch(
        r"https?://(?:\[([0-9A-Fa-f:.]+)\]|[A-Za-z0-9][A-Za-z0-9._-]*)(?::([0-9]{1,5}))?/?", value
    )
    if not found or not 0 < int(found[2] or 80) < 65536:
        raise ValueError("expected http(s)://host:port, without a path")
    if found[1]:
        try:
            ipaddress.IPv6Address(found[1])
        except ValueError:
            raise ValueError("expected an IPv6 address between [ and ]") from None
    return value


Url = Annotated[str, AfterValidator(_url)]


def _authority_url(value: str) -> str:
    parts = urlsplit(value)
    try:
        port = parts.port
    except ValueError:
        port = 0
    plain = value.isascii() and value.isprintable() and " " not in value
    if not plain or parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise ValueError("expected an http(s) URL, such as http://timestamp.example.com/tsr")
    if parts.username is not None or parts.password is not None or parts.fragment:
        raise ValueError("expected a URL without user, password and fragment")
    return value


AuthorityUrl = Annotated[str, AfterValidator(_authority_url)]


def _public_url(value: str) -> str:
    parts = urlsplit(_url(value))
    host = parts.hostname or ""
    if parts.scheme == "http" and host != "localhost" and not _is_loopback(host):
        raise ValueError("expected an https URL, without a path; http on loopback only")
    return value.removesuffix("/")


def _sink_url(value: str) -> str:
    parts = urlsplit(_authority_url(value))
    host = parts.hostname or ""
    if parts.scheme == "http" and host != "localhost" and not _is_loopback(host):
        raise ValueError("expected an https URL; http on loopback only: records would be readable on the way")
    return value


def _syslog_address(value: str) -> str:
    parts = urlsplit(value)
    try:
        port = parts.port
    except ValueError:
        port = None
    host = parts.hostname or ""
    if parts.scheme not in ("tls", "tcp") or not host or not port or value != f"{parts.scheme}://{parts.netloc}":
        raise ValueError("expected tls://host:port")
    if parts.username is not None or (parts.scheme == "tcp" and host != "localhost" and not _is_loopback(host)):
        raise ValueError("expected tls://host:port; tcp on loopback only: records would be readable on the way")
    return value


SyslogAddress = Annotated[str, AfterValidator(_syslog_address)]
SinkUrl = Annotated[str, AfterValidator(_sink_url)]


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


PublicUrl = Annotated[str, AfterValidator(_public_url)]


def _network(value: str) -> str:
    try:
        ipaddress.ip_network(value)
    except ValueError:
        raise ValueError("expected an address or a network, such as 10.0.0.0/8") from None
    return value


Network = Annotated[str, AfterValidator(_network)]


def parse_rate(text: str) -> tuple[int, int]:
    """`100/minute` -> requests and seconds."""
    found = re.fullmatch(RATE, text)
    if not found:
        raise ValueError("expected a rate such as 100/minute (second, minute, hour, day)")
    return int(found[1]), _PERIODS_S[found[2]]


def exactly_one(value: object) -> object:
    """The number 1, which true and 1.0 only equal."""
    if type(value) is not int:
        raise ValueError("expected 1")
    return value
