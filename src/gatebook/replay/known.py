"""What a decision record says of its request: which of a condition's variables are known, and which are not.

In: a record, and the configuration it was made under, where that is at hand. Out: facts, an identity, and the
names of what is unknown. A text that was masked, cut or spelt out is unknown, and so is a header that may have
been sent without being kept. Never takes what is not on record for something that was not there. Pure.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from typing import NamedTuple

from gatebook import record
from gatebook.identity.types import Identity
from gatebook.policy import Facts
from gatebook.redact import Redactor
from gatebook.scrub import MASK

_PSEUDONYM = re.compile(r"[0-9a-f]{32}")
_NEVER = ("identity.claims", "identity.token_id", "identity.issued_at", "identity.bound")


class Seen(NamedTuple):
    """Of the request. `absent`: by map, the names that were not sent for certain."""

    facts: Facts
    query: Mapping[str, str]
    unknown: frozenset[str]
    absent: Mapping[str, frozenset[str]]


def exact(text: str) -> bool:
    """Whether the text is on record as it was sent: neither masked nor cut, and nothing spelt out."""
    return not (MASK in text or "…" in text or "\\" in text)


def seen(decision: record.Decision, redactor: Redactor | None) -> Seen:
    """`redactor`: of the configuration that the record was made under; None where that is not at hand."""
    asked, client, tls = decision.request, decision.client, decision.tls
    unknown: set[str] = set()

    def text(name: str, value: str | None) -> str | None:
        if value is not None and not exact(value):
            unknown.add(name)
        return value

    address = client.address if client is not None else None
    if not _is_address(address):
        unknown.add("client.address")
    port = client.port if client is not None else None
    if port is None:
        unknown.add("client.port")
    tls = tls or record.TLSPart()  # without TLS there is none of it
    facts = Facts(
        id=decision.id,
        method=asked.method,
        host=text("request.host", asked.host) or "",
        protocol=text("request.protocol", asked.protocol) or "",
        headers={name: value for name, value in asked.headers.items() if exact(value)},
        address=address or "",
        port=port or 0,
        tls_version=text("tls.version", tls.version),
        tls_cipher=text("tls.cipher", tls.cipher),
        tls_group=text("tls.group", tls.group),
        tls_sni=text("tls.sni", tls.sni),
        tls_certificate=tls.certificate,
    )
    kept_headers = frozenset(redactor.kept_headers) if redactor is not None else frozenset()
    kept_query = redactor.kept_query if redactor is not None else frozenset()
    return Seen(
        facts,
        {name: value for name, value in asked.query.items() if exact(value)},
        frozenset(unknown | {f"request.{each}" for each in asked.unclear}),
        {"request.headers": kept_headers - asked.headers.keys(), "request.query": kept_query - asked.query.keys()},
    )


def identity(part: record.IdentityPart) -> tuple[Identity, frozenset[str]]:
    """Somebody who was identified, and which variables of theirs are unknown."""
    unknown = set(_NEVER)
    if part.subject is None or not exact(part.subject) or _PSEUDONYM.fullmatch(part.subject):
        unknown.add("identity.subject")
    if part.client is not None and not exact(part.client):
        unknown.add("identity.client")
    lists = {"roles": (*part.roles, *part.granted), "groups": part.groups, "scopes": part.scopes}
    held = {kind: tuple(filter(exact, names or ())) for kind, names in lists.items()}
    unknown |= {
        f"identity.{kind}" for kind, names in lists.items() if names is None or len(held[kind]) < len(names)
    }
    made = Identity(
        provider=part.provider,
        method=part.method,
        subject=part.subject or "",
        client=part.client,
        roles=held["roles"],
        groups=held["groups"],
        scopes=held["scopes"],
        credential_sha256=b"",
        expires_at=float("inf"),
    )
    return made, frozenset(unknown)


def _is_address(text: str | None) -> bool:
    """A whole one: neither a network nor a pseudonym."""
    try:
        return text is not None and bool(ipaddress.ip_address(text))
    except ValueError:
        return False
