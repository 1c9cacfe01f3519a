"""The small page of HTML that a person sees where gatebook itself answers: from the guard, and from the portal.

In: a title, a sentence, more HTML. Out: one line of HTML that needs nothing else, light or dark as one likes
it, as wide as the screen; and the policy that it is shown under: no script, nothing loaded, no frame, and of all
styles its own alone. Never holds a text that is not escaped. Pure.
"""

from __future__ import annotations

import base64
import hashlib
from html import escape
from typing import Final

_STYLE: Final = (
    ":root{color-scheme:light dark}"
    "body{font:1rem/1.5 system-ui,sans-serif;max-width:32rem;margin:12vh auto;padding:0 1.25rem;"
    "overflow-wrap:anywhere}"
    "h1{font-size:1.5rem;line-height:1.25}"
    "button{font:inherit;padding:.4rem 1rem}"
    "small{opacity:.75}"
)
_HASH: Final = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()

# No form-action: a logout's form is sent on to the provider, wherever that is.
SECURITY_POLICY: Final = f"default-src 'none'; style-src 'sha256-{_HASH}'; base-uri 'none'; frame-ancestors 'none'"


def html(title: str, said: str, more: str = "", request_id: str = "") -> str:
    """`more` is HTML; all else is text."""
    number = f"<p><small>Request {escape(request_id)}</small></p>" if request_id else ""
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style>"
        f"<h1>{escape(title)}</h1><p>{escape(said)}</p>{more}{number}</html>"
    )


def link(url: str, text: str) -> str:
    return f'<p><a href="{escape(url)}">{escape(text)}</a></p>'


def button(action: str, text: str) -> str:
    """Posts nothing to `action`."""
    return f'<form method="post" action="{escape(action)}"><button>{escape(text)}</button></form>'


def no_entry(status: int) -> str:
    """What a person is told beside the reason."""
    return "gatebook has not let you in." if status != 503 else "Please try again in a moment."
