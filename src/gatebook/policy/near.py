"""Why a request belongs to no route, in words: what is wrong with its path, and what it was perhaps meant for.

In: a method and a target that `Routes.match` did not find a route for. Out: words for an operator, never for a
client. What is canonical is decided by `path` alone; this only finds the words for it. Pure.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from urllib.parse import unquote, unquote_to_bytes

from gatebook.config.model import Configuration, Route
from gatebook.policy.path import (
    FORBIDDEN_ESCAPE,
    MAX_PATH_BYTES,
    MAX_QUERY_BYTES,
    fold,
    query_is_clean,
    segments_of,
)
from gatebook.policy.route import Part, parse_template

MAX_NEAR = 3
_ENOUGH = 0.6
_NEVER_NEEDED = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~"
_ALLOWED = re.compile(r"[A-Za-z0-9\-_~!$&'()*+,=:@./%]*")


def why_not_canonical(uri: str) -> str | None:
    """One reason, the first that is found; None for a target that is canonical."""
    path, mark, query = uri.partition("?")
    if mark and not query_is_clean(query):
        if len(query) > MAX_QUERY_BYTES:
            return f"the query is longer than {MAX_QUERY_BYTES} bytes"
        return "the query holds a space, a control byte or #"
    if segments_of(path) is not None:
        return None
    if not path.startswith("/"):
        return "it does not begin with /"
    if len(path) > MAX_PATH_BYTES:
        return f"it is longer than {MAX_PATH_BYTES} bytes"
    return next(_faults(path), "it could be read in more than one way")


def _faults(path: str) -> Iterator[str]:
    plain = _ALLOWED.match(path)
    if plain is not None and plain.end() < len(path):
        letter = path[plain.end()]
        yield (
            f"{letter!r} may only be sent percent-encoded"
            if letter not in ";\\"
            else f"{letter!r} is never accepted"
        )
    stray = re.search(r"%(?![0-9A-Fa-f]{2}).{0,2}", path)
    if stray is not None:
        yield f"{stray[0]!r} is no percent-escape"
    segments = path[1:].split("/")
    if "" in segments[:-1]:
        yield "it has an empty segment (//)"
    forbidden = FORBIDDEN_ESCAPE.search(path)
    if forbidden is not None:
        yield _about_escape(forbidden[0])
    for segment in segments:
        if segment.endswith("."):
            yield f"the segment {segment!r} ends in a dot"
    if ":$" in unquote(path):
        yield "':$' names a file's other stream on Windows"
    for segment in segments:
        try:
            text = unquote_to_bytes(segment).decode("utf-8")
        except UnicodeDecodeError:
            yield f"the segment {segment!r} is no UTF-8"
            continue
        if text != text.strip():
            yield f"the segment {segment!r} begins or ends with a space"
        elif not text.isascii():
            yield f"the segment {segment!r} holds a letter that somebody would take for a separator"


def _about_escape(escape: str) -> str:
    letter = chr(int(escape[1:3], 16))
    if len(escape) > 3:
        return f"{escape} is an escape of an escape"
    if letter in _NEVER_NEEDED:
        return f"{escape} is a needless escape of {letter!r}"
    return f"{escape} is an escape of {letter!r}, which somebody would take for structure"


def near(configuration: Configuration, method: str, path: str) -> list[tuple[Route, str]]:
    """At most MAX_NEAR routes that may have been meant, with what is different, the nearest first."""
    segments = segments_of(path)
    if segments is None:
        return []
    found: list[tuple[float, Route, str]] = []
    for route in configuration.routes:
        parts = parse_template(route.path)
        filled = _filled(parts, segments)
        whole = "/".join(segments)
        if filled == whole:
            difference = "" if method in route.methods else f"has {', '.join(route.methods)}"
            likeness = 3.0
        elif fold(filled.rstrip("/")) == fold(whole.rstrip("/")):
            difference, likeness = "differs in letter case, width or a slash at the end", 2.0
        else:
            difference, likeness = "resembles it", _likeness(parts, segments)
        if difference and likeness >= _ENOUGH:
            found.append((likeness, route, difference))
    found.sort(key=lambda each: -each[0])
    return [(route, difference) for _, route, difference in found[:MAX_NEAR]]


def _filled(parts: tuple[Part, ...], segments: list[str]) -> str:
    """The template, with what the path has in the places of its parameters."""
    texts = []
    for at, part in enumerate(parts):
        there = segments[at] if at < len(segments) else ""
        if part.kind == "rest":
            texts.append("/".join(segments[at:]) or f"{{{part.text}...}}")
        else:
            texts.append(part.text if part.kind == "literal" else there or f"{{{part.text}}}")
    return "/".join(texts)


def _likeness(parts: tuple[Part, ...], segments: list[str]) -> float:
    """How like the template's words are to what stands in their places; 1 for the same."""
    words = [(at, part.text) for at, part in enumerate(parts) if part.kind == "literal" and part.text]
    if not words:
        return 0.0
    there = [*segments, *[""] * len(parts)]
    ratios = [difflib.SequenceMatcher(None, word, there[at], autojunk=False).ratio() for at, word in words]
    missing = 0 if parts[-1].kind == "rest" and len(segments) > len(parts) else abs(len(segments) - len(parts))
    return sum(ratios) / len(ratios) - missing / 10
