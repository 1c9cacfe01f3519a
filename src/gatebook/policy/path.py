"""The canonical path: which request targets gatebook understands well enough to decide on.

In: the request target as the client sent it. Out: its path's segments, percent-decoded, or None. What
is decided on is forwarded byte for byte, so a path that two decoders, normalisers or file systems could
read differently never passes: it is refused, never repaired. The rule, with its reasons, is written down
in docs/policy.md. Pure.
"""

from __future__ import annotations

import re
import unicodedata
from urllib.parse import unquote_to_bytes

from gatebook.record import MAX_TEXT_BYTES

MAX_PATH_BYTES = MAX_TEXT_BYTES  # so that a record always holds the whole path
MAX_QUERY_BYTES = 8 << 10

# A segment is never empty and never ends in a dot: that excludes "//", ".", "..", and the names that
# Windows takes for others. The letters are RFC 3986's pchar without ";", which servers strip or not.
_PLAIN = r"[A-Za-z0-9\-_~!$&'()*+,=:@]"
_PATH = re.compile(rf"(?:/(?:\.*+(?:{_PLAIN}++|%[0-9A-Fa-f]{{2}}))++)*+/?")
_QUERY = re.compile(r"[^\x00-\x20\x7f#]*")

# Escapes that are never needed (of letters, digits, "-", ".", "_", "~"), that change a path's structure
# for somebody ("/", "\", ";", "?", "#", control bytes), or that are escapes again once decoded.
FORBIDDEN_ESCAPE = re.compile(
    r"%(?:[01][0-9A-Fa-f]|2[3DEFdef]|3[0-9BFbf]|4[1-9A-Fa-f]|5[0-9AaCcFf]|6[1-9A-Fa-f]|7[0-9AaEeFf]"
    r"|25(?:[0-9A-Fa-f]{2}|u[0-9A-Fa-f]{4}))"
)
_STRUCTURE = frozenset("/\\.%")


def segments_of(path: str) -> list[str] | None:
    """The decoded segments of a canonical path, `[""]` for the root, a last "" for a trailing slash."""
    if len(path) > MAX_PATH_BYTES or path[:1] != "/" or _PATH.fullmatch(path) is None or ":$" in path:
        return None
    segments = path[1:].split("/")
    if "%" not in path:
        return segments
    if FORBIDDEN_ESCAPE.search(path) is not None:
        return None
    for position, segment in enumerate(segments):
        if "%" in segment:
            decoded = _decode(segment)
            if decoded is None:
                return None
            segments[position] = decoded
    return segments


def _decode(segment: str) -> str | None:
    try:
        text = unquote_to_bytes(segment).decode("utf-8")  # strict: overlong forms and surrogates fail
    except UnicodeDecodeError:
        return None
    if text != text.strip() or ":$" in text:
        return None
    if not text.isascii():
        for letter in text:
            if letter > "\x7f" and (
                unicodedata.category(letter) in ("Cc", "Zl", "Zp")
                or not _STRUCTURE.isdisjoint(unicodedata.normalize("NFKC", letter))
            ):
                return None
    return text


def query_is_clean(query: str) -> bool:
    """Whether a query may be forwarded unread: no control bytes, no space, no '#', not endless."""
    return len(query) <= MAX_QUERY_BYTES and _QUERY.fullmatch(query) is not None


def fold(segment: str) -> str:
    """What a server that ignores case, width and invisible letters takes a decoded segment for."""
    if segment.isascii():
        return segment.lower()
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", segment).casefold())
    return "".join(letter for letter in text if unicodedata.category(letter) != "Cf")
