"""What a person sees of the portal: small pages of HTML that need nothing else, and redirects.

In: a title, a sentence, a link or a form. Out: responses that no cache keeps and no other site shows in a frame.
Never puts anything into a page that has not been escaped. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Final

from starlette.responses import Response

_HEADERS: Final[Mapping[str, str]] = {
    "Cache-Control": "no-store",
    # No form-action: a logout's form is sent on to the provider, wherever that is.
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}
_STYLE: Final = (
    "body{font:1rem/1.5 system-ui,sans-serif;max-width:32rem;margin:15vh auto;padding:0 1rem}h1{font-size:1.5rem}"
)


def page(status: int, title: str, said: str, more: str = "", request_id: str = "") -> Response:
    """`more` is HTML; all else is text."""
    number = f"<p><small>Request {escape(request_id)}</small></p>" if request_id else ""
    text = (
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style>"
        f"<h1>{escape(title)}</h1><p>{escape(said)}</p>{more}{number}</html>"
    )
    return Response(text, status, _HEADERS, "text/html")


def link(url: str, text: str) -> str:
    return f'<p><a href="{escape(url)}">{escape(text)}</a></p>'


def button(action: str, text: str) -> str:
    """Posts nothing to `action`."""
    return f'<form method="post" action="{escape(action)}"><button>{escape(text)}</button></form>'


def send_to(url: str) -> Response:
    """With GET, whatever the request was."""
    return Response(b"", 303, {**_HEADERS, "Location": url})


def set_cookie(response: Response, name: str, value: str, max_age_s: int) -> None:
    """For this host alone (`__Host-`), over TLS alone, and for no script.

    Lax, since Strict would withhold it from the very request that a login ends with: the provider's page began it.
    """
    response.headers.append(
        "Set-Cookie", f"{name}={value}; Max-Age={max_age_s}; Path=/; Secure; HttpOnly; SameSite=Lax"
    )


def drop_cookie(response: Response, name: str) -> None:
    set_cookie(response, name, "", 0)
