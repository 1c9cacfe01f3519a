"""The page that a refused person sees: no text becomes HTML, and its policy lets in nothing but its own style."""

from __future__ import annotations

import base64
import hashlib
import re

from gatebook.page import SECURITY_POLICY, button, html, link

HOSTILE = "\"><script>alert(1)</script>'&"


def test_no_text_becomes_html() -> None:
    found = html(HOSTILE, HOSTILE, link(HOSTILE, HOSTILE) + button(HOSTILE, HOSTILE), HOSTILE)
    assert "<script" not in found
    assert (
        re.findall(r'(?:href|action)="([^"]*)"', found)
        == ["&quot;&gt;&lt;script&gt;alert(1)&lt;/script&gt;&#x27;&amp;"] * 2
    )


def test_policy_allows_the_style_of_the_page_by_its_hash_and_nothing_else() -> None:
    found = html("Log out", "This ends it.")
    (style,) = re.findall("<style>(.*)</style>", found)
    hashed = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"style-src 'sha256-{hashed}'" in SECURITY_POLICY
    assert "default-src 'none'" in SECURITY_POLICY
    assert "unsafe" not in SECURITY_POLICY
    assert "style=" not in found


def test_page_is_one_line_as_a_header_field_has_to_be() -> None:
    assert html("a", "b", link("/c", "d"), "0" * 32).isprintable()
