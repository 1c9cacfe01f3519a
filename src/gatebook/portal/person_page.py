"""What a person sees of the portal: small pages, and redirects.

In: a title, a sentence, a link or a form (`page`). Out: responses that no cache keeps and no other site shows in a
frame. Never puts anything into a page that has not been escaped. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from starlette.responses import Response

from gatebook.page import SECURITY_POLICY, html

_HEADERS: Final[Mapping[str, str]] = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": SECURITY_POLICY,
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}


def page(status: int, title: str, said: str, more: str = "", request_id: str = "") -> Response:
    """`more` is HTML; all else is text."""
    return Response(html(title, said, more, request_id), status, _HEADERS, "text/html")


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
