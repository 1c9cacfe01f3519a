"""What others may know of our token service: its keys, and how it is talked to. Public documents.

RFC 7517 (JWKS), RFC 8414 (authorization server metadata), and the same under the path of OpenID Connect
Discovery 1.0, where most libraries look. Never says anything of clients.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final, get_args

from starlette.responses import Response

from gatebook.config.model import Algorithm, Configuration
from gatebook.identity.own import ALGORITHM
from gatebook.portal.call import Call
from gatebook.portal.signing import Signing

TOKEN: Final = "/.gatebook/token"  # noqa: S105 - a path
REVOKE: Final = "/.gatebook/revoke"
JWKS: Final = "/.gatebook/jwks.json"
DOCUMENTS: Final = (
    "/.gatebook/.well-known/openid-configuration",
    "/.well-known/oauth-authorization-server/.gatebook",  # RFC 8414, 3.1: before the issuer's path
)
CLIENT_METHODS: Final = ("client_secret_basic", "client_secret_post", "private_key_jwt")
GRANTS: Final = ("client_credentials", "refresh_token")
_PUBLIC: Final[Mapping[str, str]] = {"Cache-Control": "public, max-age=300", "X-Content-Type-Options": "nosniff"}


class Metadata:
    def __init__(self, configuration: Configuration, signing: Signing) -> None:
        self._signing = signing
        url = configuration.own_issuer.removesuffix("/.gatebook")
        self._document = json.dumps(
            {
                "issuer": configuration.own_issuer,
                "token_endpoint": url + TOKEN,
                "revocation_endpoint": url + REVOKE,
                "jwks_uri": url + JWKS,
                "grant_types_supported": GRANTS,
                "response_types_supported": [],
                "token_endpoint_auth_methods_supported": CLIENT_METHODS,
                "token_endpoint_auth_signing_alg_values_supported": get_args(Algorithm),
                "revocation_endpoint_auth_methods_supported": CLIENT_METHODS,
                "revocation_endpoint_auth_signing_alg_values_supported": get_args(Algorithm),
                "access_token_signing_alg_values_supported": [ALGORITHM],
            }
        ).encode()

    async def document(self, call: Call) -> Response:
        await call.record("public")
        return Response(self._document, 200, _PUBLIC, "application/json")

    async def jwks(self, call: Call) -> Response:
        await call.record("public")
        return Response(self._signing.jwks(), 200, _PUBLIC, "application/jwk-set+json")
