"""A verdict -> the answer that the gateway understands (wire.FROM_GUARD). Pure.

204 allows and names the upstream; 401, only when the client is to be told 401, and 403 deny. `allow` and `deny`
make a head that lacks its end: `finish` adds it, with the receipt, and cannot fail. So whatever can go wrong with
an answer goes wrong before the decision is on record. Never lets a value break out of its header field, and
never makes a head that the gateway's buffer would not hold.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from urllib.parse import quote

from gatebook.limits import Taken
from gatebook.page import html, link, no_entry
from gatebook.record import REASONS

MAX_HEAD_BYTES = 15 << 10  # without the receipt; the gateway reads heads of up to 16 kB
_PLAIN = re.compile(r"[A-Za-z0-9._~@:/+=|-]*")


def plain(value: str) -> str:
    """The value, percent-encoded where it holds anything but letters, digits and `._~@:/+=|-`."""
    return value if _PLAIN.fullmatch(value) else quote(value, safe="@:/+=|", errors="surrogateescape")


def allow(
    *,
    reason: str,
    upstream: str,
    strip: str,
    who: tuple[str, Sequence[str], str] | None,
    taken: Taken | None,
    nonce: str = "",
) -> bytes:
    """`who`: subject, roles, provider. `strip`: see wire.FROM_GUARD. Raises ValueError where it is too much."""
    lines = ["HTTP/1.1 204 No Content", f"Gatebook-Reason: {reason}", f"Gatebook-Upstream: {upstream}"]
    if strip:
        lines.append(f"Gatebook-Strip: {strip}")
    if nonce:
        lines.append(f"Gatebook-Dpop-Nonce: {nonce}")
    if who is not None:
        subject, roles, provider = who
        lines.append(f"Gatebook-Subject: {plain(subject)}")
        lines.append(f"Gatebook-Provider: {provider}")
        if roles:
            lines.append(f"Gatebook-Roles: {','.join(plain(role) for role in roles)}")
    _limits(lines, taken)
    return _head(lines)


def deny(
    *,
    reason: str,
    request_id: str,
    allowed_methods: Sequence[str] = (),
    authenticate: str = "",
    login: str = "",
    taken: Taken | None = None,
    nonce: str = "",
) -> bytes:
    """What REASONS says of `reason`, and nothing about the policy.

    `login`: for a person who waits for a page, where to log in; who has no credential yet is sent there at once.
    """
    status, _, title = REASONS[reason]
    problem = {"type": "about:blank", "title": title, "status": status, "request_id": request_id}
    body = json.dumps(problem, separators=(",", ":")) if not login else _page(status, title, request_id, login)
    lines = [
        "HTTP/1.1 401 Unauthorized" if status == 401 else "HTTP/1.1 403 Forbidden",
        "Content-Length: 0",
        f"Gatebook-Status: {status}",
        f"Gatebook-Reason: {reason}",
        f"Gatebook-Problem: {body}",
    ]
    if allowed_methods:
        lines.append(f"Gatebook-Allow: {', '.join(allowed_methods)}")
    if status == 401 and authenticate:
        lines.append(f"Gatebook-Authenticate: {authenticate}")
    if login:
        lines.append("Gatebook-Type: text/html")
    if login and status == 303:
        lines.append(f"Gatebook-Location: {login}")
    if nonce:
        lines.append(f"Gatebook-Dpop-Nonce: {nonce}")
    if status == 503:
        lines.append("Gatebook-Retry-After: 1")
    _limits(lines, taken)
    return _head(lines)


def _page(status: int, title: str, request_id: str, login: str) -> str:
    """The same for a person: one line of HTML. All of it is ours, but for what is percent-encoded in `login`."""
    return html(title, no_entry(status), link(login, "Log in") if status == 401 else "", request_id)


def finish(head: bytes, receipt: tuple[str, int] | None = None) -> bytes:
    """The whole answer. `receipt`: the ledger's origin, and the index of the decision."""
    if receipt is None:
        return head + b"\r\n"
    origin, index = receipt
    return head + f"Gatebook-Decision: {index}\r\nGatebook-Receipt: {origin}/{index}\r\n\r\n".encode()


def plainly(status: str, body: bytes = b"") -> bytes:
    """An answer of the guard's own pages, such as `200 OK`."""
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def _limits(lines: list[str], taken: Taken | None) -> None:
    if taken is None:
        return
    for name, value in taken.fields():
        lines.append(f"{_FIELDS[name]}: {value}")


_FIELDS = {
    "RateLimit-Policy": "Gatebook-Ratelimit-Policy",
    "RateLimit": "Gatebook-Ratelimit",
    "Retry-After": "Gatebook-Retry-After",
}


def _head(lines: list[str]) -> bytes:
    head = ("\r\n".join(lines) + "\r\n").encode("ascii")
    if len(head) > MAX_HEAD_BYTES:
        raise ValueError(f"an answer of {len(head)} bytes; the gateway takes {MAX_HEAD_BYTES}")
    return head
