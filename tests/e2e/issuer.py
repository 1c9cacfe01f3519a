"""An issuer of tokens whose every claim a test chooses: discovery and keys over loopback HTTP, in a thread.

The certified provider of tests/peers issues what it should; this one issues what an attacker would like.
"""

from __future__ import annotations

import http.server
import json
import threading
import time
import uuid
from typing import Any

from joserfc import jwt
from joserfc.jwk import ECKey, KeyParameters, RSAKey


class Issuer:
    """`algorithm`: RS256 or ES256."""

    def __init__(self, algorithm: str = "RS256") -> None:
        named: KeyParameters = {"alg": algorithm, "use": "sig", "kid": "one"}
        self.algorithm = algorithm
        self.key: RSAKey | ECKey = (
            RSAKey.generate_key(2048, named) if algorithm == "RS256" else ECKey.generate_key("P-256", named)
        )
        self.fetches = 0
        issuer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer.fetches += 1
                if self.path == "/.well-known/openid-configuration":
                    found: Any = {"issuer": issuer.url, "jwks_uri": f"{issuer.url}/jwks"}
                else:
                    found = {"keys": [issuer.key.as_dict(private=False), {"kty": "unheard-of", "kid": "two"}]}
                body = json.dumps(found).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *said: Any) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def token(
        self,
        subject: str = "alice",
        *,
        lifetime_s: float = 300.0,
        key: RSAKey | ECKey | None = None,
        **claims: Any,
    ) -> str:
        """A token of `subject`, valid unless the claims say otherwise; a claim of None is left out."""
        now = int(time.time())
        known = {
            "iss": self.url,
            "sub": subject,
            "aud": "orders-api",
            "iat": now,
            "exp": int(now + lifetime_s),
            "jti": str(uuid.uuid4()),
            "client_id": "web",
        }
        told = {name: value for name, value in {**known, **claims}.items() if value is not None}
        header = {"alg": self.algorithm, "kid": "one", "typ": "at+jwt"}
        return jwt.encode(header, told, key or self.key)

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
