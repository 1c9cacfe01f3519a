"""The demo's OpenID provider, for demonstrations only: discovery, keys, tokens by client_credentials.

Run as `python -m gatebook.demo.provider --port 9002`. Its clients and their secrets stand below for
everybody to read, so a token of it is worth nothing outside a demo. Its key is made at the start and
never written anywhere: after a restart no earlier token is valid. Two parameters of the token endpoint
exist here alone: `lifetime`, in seconds, which below zero gives a token that has expired already, and
`plain=yes`, which gives the token as plain text, to be typed into a shell.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import secrets
import time
from collections.abc import Callable
from typing import Final, NamedTuple
from urllib.parse import parse_qsl, unquote_plus

from joserfc import jwt
from joserfc.jwk import RSAKey
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from gatebook.demo.serve import main

AUDIENCE: Final = "orders-api"
LIFETIME_S: Final = 300
MAX_LIFETIME_S: Final = 3600
MAX_BODY_BYTES: Final = 8 << 10
NOT_KEPT: Final = {"Cache-Control": "no-store"}


class Client(NamedTuple):
    """One of the demo's callers. The secret is no secret."""

    secret: str
    roles: tuple[str, ...]
    tenant: str


CLIENTS: Final = {
    "alice": Client("alice-demo-secret", ("reader",), "acme"),
    "bob": Client("bob-demo-secret", (), "globex"),
    "carol": Client("carol-demo-secret", ("admin",), "acme"),
}


class _Refused(Exception):
    """An error of RFC 6749, section 5.2."""

    def __init__(self, error: str, status: int = 400) -> None:
        super().__init__(error)
        self.status = status


def application(issuer: str, clock: Callable[[], float] = time.time) -> Starlette:
    key = RSAKey.generate_key(2048, {"use": "sig", "alg": "RS256", "kid": secrets.token_hex(8)})

    async def discovery(request: Request) -> Response:  # noqa: ARG001 - one shape for all endpoints
        return JSONResponse(
            {
                "issuer": issuer,
                "jwks_uri": f"{issuer}/jwks",
                "token_endpoint": f"{issuer}/token",
                "grant_types_supported": ["client_credentials"],
                "response_types_supported": [],
                "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": ["RS256"],
                "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
            }
        )

    async def jwks(request: Request) -> Response:  # noqa: ARG001
        return JSONResponse({"keys": [key.as_dict(private=False)]})

    async def token(request: Request) -> Response:
        try:
            form = await _form(request)
            name = _authenticated(request.headers.get("authorization", ""), form)
            if "grant_type" not in form:
                raise _Refused("invalid_request")
            if form["grant_type"] != "client_credentials":
                raise _Refused("unsupported_grant_type")
            lifetime_s = _lifetime(form)
        except _Refused as refused:
            asked = {"WWW-Authenticate": 'Basic realm="demo"'} if refused.status == 401 else {}
            return JSONResponse({"error": str(refused)}, refused.status, NOT_KEPT | asked)
        value = jwt.encode({"alg": "RS256", "typ": "at+jwt", "kid": key.kid}, claims(name, lifetime_s), key)
        if form.get("plain") == "yes":
            return PlainTextResponse(value, headers=NOT_KEPT)
        said = {"access_token": value, "token_type": "Bearer", "expires_in": max(0, lifetime_s)}
        return JSONResponse(said, headers=NOT_KEPT)

    def claims(name: str, lifetime_s: int) -> dict[str, object]:
        """An expired token was issued LIFETIME_S before its end, like any other."""
        client, now = CLIENTS[name], int(clock())
        return {
            "iss": issuer,
            "aud": AUDIENCE,
            "sub": name,
            "client_id": name,
            "iat": now if lifetime_s >= 0 else now + lifetime_s - LIFETIME_S,
            "exp": now + lifetime_s,
            "jti": secrets.token_hex(16),
            "roles": list(client.roles),
            "tenant": client.tenant,
        }

    return Starlette(
        routes=[
            Route("/.well-known/openid-configuration", discovery),
            Route("/jwks", jwks),
            Route("/token", token, methods=["POST"]),
        ]
    )


async def _form(request: Request) -> dict[str, str]:
    data = b""
    async for chunk in request.stream():
        data += chunk
        if len(data) > MAX_BODY_BYTES:
            raise _Refused("invalid_request")
    try:
        pairs = parse_qsl(data.decode("ascii"), strict_parsing=True, max_num_fields=32)
    except ValueError:
        raise _Refused("invalid_request") from None
    if len(dict(pairs)) != len(pairs):  # a parameter sent twice
        raise _Refused("invalid_request")
    return dict(pairs)


def _authenticated(header: str, form: dict[str, str]) -> str:
    """The client's name, by Basic authentication or by the form."""
    name, secret = form.get("client_id", ""), form.get("client_secret", "")
    if header.lower().startswith("basic "):
        try:
            name, _, secret = base64.b64decode(header[6:].strip(), validate=True).decode("ascii").partition(":")
        except (ValueError, binascii.Error):
            raise _Refused("invalid_client", 401) from None
        name, secret = unquote_plus(name), unquote_plus(secret)
    client = CLIENTS.get(name)
    if client is None or not hmac.compare_digest(client.secret.encode(), secret.encode()):
        raise _Refused("invalid_client", 401)
    return name


def _lifetime(form: dict[str, str]) -> int:
    text = form.get("lifetime", str(LIFETIME_S))
    if not text.removeprefix("-").isdecimal() or not text.isascii() or len(text) > 5:
        raise _Refused("invalid_request")
    return max(-MAX_LIFETIME_S, min(int(text), MAX_LIFETIME_S))


if __name__ == "__main__":
    main(application, "An OpenID provider for demonstrations only, on loopback.")
