"""What a client posts: one form, each field once, and the client's credentials in one place.

In: a call's header fields and body, hostile. Out: fields by name, and `Claimed`, whom it says it is; or
Malformed for what RFC 6749 forbids: anything in the query, another content type, a field given twice (3.2),
credentials in two places (2.3). Nothing is repaired; a field without a value counts as left out (3.1). Pure.
"""

from __future__ import annotations

import base64
import re
from typing import Final, NamedTuple
from urllib.parse import unquote_to_bytes

from gatebook.portal import assertion
from gatebook.portal.call import Call

MAX_FIELDS: Final = 32
MAX_SECRET: Final = 512
_TYPE: Final = b"application/x-www-form-urlencoded"
_BASIC: Final = re.compile(rb"basic +([A-Za-z0-9+/]+={0,2})", re.IGNORECASE)


class Malformed(Exception):
    """The text is for the client, and names nothing that it sent."""


class Claimed(NamedTuple):
    """Whom a client says it is, by a secret or by an assertion. Nothing of it is to be believed yet."""

    client_id: str
    secret: bytes
    signed: bool = False  # `secret` is an assertion


def read_form(call: Call) -> dict[str, str]:
    """Raises Malformed."""
    if "?" in call.asked.uri:
        raise Malformed("a query; parameters and credentials belong into the body")
    types = call.header(b"content-type")
    if len(types) != 1 or types[0].partition(b";")[0].strip().lower() != _TYPE:
        raise Malformed("the content type is not application/x-www-form-urlencoded")
    if call.header(b"content-encoding"):
        raise Malformed("an encoded body")
    return _fields(call.body)


def read_query(call: Call) -> dict[str, str]:
    """The same of a page that a browser is sent to. Raises Malformed."""
    return _fields(call.asked.uri.partition("?")[2].encode("utf-8", "surrogateescape"))


def _fields(data: bytes) -> dict[str, str]:
    fields: dict[str, str] = {}
    seen: set[str] = set()
    for pair in data.split(b"&") if data else []:
        name, _, value = (_decoded(part) for part in pair.partition(b"="))
        if name in seen:
            raise Malformed("a parameter is given twice")
        seen.add(name)
        if len(seen) > MAX_FIELDS:
            raise Malformed("too many parameters")
        if value:
            fields[name] = value
    return fields


def claimed(call: Call, fields: dict[str, str]) -> Claimed | None:
    """None when no credentials are there that we take. Raises Malformed."""
    headers = call.header(b"authorization")
    if len(headers) > 1:
        raise Malformed("two Authorization headers")
    in_body = fields.get("client_secret")
    if "client_assertion" in fields or "client_assertion_type" in fields:
        if headers or in_body is not None:
            raise Malformed("credentials of two kinds")
        return _of_assertion(fields)
    if not headers:
        client_id = fields.get("client_id")
        return None if client_id is None or in_body is None else Claimed(client_id, in_body.encode())
    if in_body is not None:
        raise Malformed("credentials both in the Authorization header and in the body")
    found = _of_header(headers[0])
    if found is not None and fields.get("client_id", found.client_id) != found.client_id:
        raise Malformed("two client ids")
    return found


def _of_assertion(fields: dict[str, str]) -> Claimed:
    text = fields.get("client_assertion", "").encode()
    if fields.get("client_assertion_type") != assertion.TYPE:
        raise Malformed("a client assertion of another type")
    client_id = assertion.subject_of(text) or ""  # nobody, then
    if client_id and fields.get("client_id", client_id) != client_id:
        raise Malformed("two client ids")
    return Claimed(client_id, text, signed=True)


def _of_header(header: bytes) -> Claimed | None:
    found = _BASIC.fullmatch(header.strip())
    if found is None:
        return None
    try:
        text = base64.b64decode(found[1], validate=True)
    except ValueError:
        raise Malformed("an Authorization header that is not in form") from None
    if base64.b64encode(text) != found[1] or b":" not in text:
        raise Malformed("an Authorization header that is not in form")
    client_id, _, secret = text.partition(b":")
    return Claimed(_decoded(client_id), _decoded(secret).encode())


def _decoded(text: bytes) -> str:
    """application/x-www-form-urlencoded, printable text without control characters."""
    if re.search(rb"%(?![0-9A-Fa-f]{2})", text):
        raise Malformed("a broken escape")
    try:
        found = unquote_to_bytes(text.replace(b"+", b" ")).decode("utf-8")
    except UnicodeDecodeError:
        raise Malformed("text that is not UTF-8") from None
    if found and not found.isprintable():
        raise Malformed("text that is not printable")
    return found
