"""JSON and base64url as they must be where a lie would pay: one meaning, one spelling.

In: bytes of a client's or a provider's. Out: plain data, or ValueError. Two parsers that disagree on what a
text means let one check what the other does not use; so a key given twice, NaN, a number beyond 64 bits,
half a character, deep nesting and every base64url text but the canonical one are refused, never repaired.
RFC 7515 (base64url), RFC 8259 and RFC 7493 (I-JSON). Pure.
"""

from __future__ import annotations

import base64
import json
import math
from typing import Any, NoReturn

MAX_DEPTH = 32
_MAX_INTEGER = (1 << 63) - 1


def decode_base64url(text: bytes) -> bytes:
    """The bytes of a canonical base64url text without padding. Raises ValueError."""
    data = base64.b64decode(text + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
    # Encoding again finds what decoding forgives: bits beyond the last byte, a letter too many.
    if base64.urlsafe_b64encode(data).rstrip(b"=") != text:
        raise ValueError("not canonical base64url")
    return data


def parse_object(data: bytes) -> dict[str, Any]:
    """One JSON object in UTF-8. Raises ValueError."""
    try:
        value = json.loads(data.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant)
        _examine(value, MAX_DEPTH)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is given twice")
    return found


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _examine(value: Any, depth: int) -> None:
    if isinstance(value, str):
        value.encode()  # a lone surrogate, spelt as an escape, is no text: UnicodeEncodeError, a ValueError
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError("a number is out of range")
    elif isinstance(value, int):
        if abs(value) > _MAX_INTEGER:
            raise ValueError("a number is out of range")
    elif isinstance(value, (dict, list)):
        if depth == 0:
            raise ValueError("nested too deeply")
        if isinstance(value, dict):
            for key in value:
                key.encode()
            value = value.values()
        for inner in value:
            _examine(inner, depth - 1)


def weight(value: Any) -> int:
    """Roughly the bytes of memory that parsed JSON takes: what bounds on caches count."""
    if isinstance(value, str):
        return 60 + 4 * len(value)
    if isinstance(value, dict):
        return 120 + sum(80 + weight(key) + weight(inner) for key, inner in value.items())
    if isinstance(value, list):
        return 60 + sum(10 + weight(inner) for inner in value)
    return 32
