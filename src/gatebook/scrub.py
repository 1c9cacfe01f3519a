"""Free text made fit for a record: visible, and with what looks like a credential masked.

In: any text, such as a path, a header's value or a line of an error log. Out: printable text in which
each credential that its form betrays is `[masked]`. It is a net below the rule that credentials are never
written, not the rule itself: a password that looks like a word passes. Never makes a text printable by
dropping what was there. Linear in the text's length. Pure, but for a bounded memo.
"""

from __future__ import annotations

import re

MASK = "[masked]"
_MEMO_TEXTS = 4096
_MEMO_TEXT_LENGTH = 300
_LETTERS = r"[A-Za-z0-9\-._~+/%]"  # the letters of RFC 6750's token, and escapes

# Each pattern with the lower-case texts of which one must occur for it to be worth a try.
_PATTERNS: tuple[tuple[tuple[str, ...], re.Pattern[str], str], ...] = (
    (
        ("-----begin",),
        re.compile(r"-----BEGIN(?:[A-Z0-9 +]|%20){0,60}PRIVATE(?: |\+|%20)KEY-----.*", re.DOTALL),
        MASK,
    ),
    (("eyj",), re.compile(r"eyJ[A-Za-z0-9_\-=]{5,}+(?:(?:\.|%2[Ee])[A-Za-z0-9_\-=]*+)*+"), MASK),
    (("gbk_", "gbs_", "gbr_"), re.compile(r"gb[krs]_[A-Za-z0-9_\-]++", re.IGNORECASE), MASK),
    (
        ("bearer", "basic", "dpop", "digest", "negotiate"),
        re.compile(
            rf"\b(bearer|basic|dpop|digest|negotiate)((?:\s|%20|\+|:|=|%3[ad]){{1,4}}+){_LETTERS}{{4,}}+=*+",
            re.IGNORECASE,
        ),
        rf"\1\2{MASK}",
    ),
    (
        ("=", ":", "%3"),
        re.compile(
            r"((?:key|token|secret|passwo?r?d|passwd|pwd|sig|signature|assertion|credential|session|auth"
            r"|cookie|jwt|\bsid|[?&]code)[\"']?\s{0,2}(?:=|:|%3[ad])\s{0,2}[\"']?)"
            r"(?!\[masked\])[^\s\"'&;,<>(){}]++",
            re.IGNORECASE,
        ),
        rf"\1{MASK}",
    ),
    (("=", ":"), re.compile(r"(?<=[=:])(?<!sha256:)[A-Za-z0-9+_\-]{32,}+[A-Za-z0-9+/_=\-]*+"), MASK),
    (("://",), re.compile(r"(?<=://)[^/\s@]{1,400}@"), MASK + "@"),
    (("akia", "asia"), re.compile(r"\bA(?:KI|SI)A[A-Z0-9]{12,}+"), MASK),
    (
        ("gh", "glpat-", "xox"),
        re.compile(r"\b(?:gh[pousr]_|github_pat_|glpat-|xox[a-z]-)[A-Za-z0-9_\-]{8,}+"),
        MASK,
    ),
)
_NEEDLES = tuple(dict.fromkeys(needle for needles, _, _ in _PATTERNS for needle in needles))


def visible(text: str) -> str:
    """Printable text: undecodable bytes, control and format characters are spelt out as escapes."""
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else _spelt(letter) for letter in text)


def _spelt(letter: str) -> str:
    code = ord(letter)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that was no UTF-8, as `surrogateescape` carries it
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _masked(text: str) -> str:
    text = visible(text)
    low = text.lower()
    for needle in _NEEDLES:
        if needle in low:
            break
    else:
        return text
    for needles, pattern, replacement in _PATTERNS:
        if any(needle in low for needle in needles):
            text = pattern.sub(replacement, text)
    return text


class Scrubber:
    """`scrub` with a memory, for texts that come again and again, such as user agents."""

    def __init__(self) -> None:
        self._memo: dict[str, str] = {}

    def scrub(self, text: str) -> str:
        """`text` made visible, with what looks like a credential masked."""
        found = self._memo.get(text)
        if found is None:
            found = _masked(text)
            if len(text) <= _MEMO_TEXT_LENGTH:
                if len(self._memo) >= _MEMO_TEXTS:
                    self._memo.clear()
                self._memo[text] = found
        return found
