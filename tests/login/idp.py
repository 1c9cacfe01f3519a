"""A provider that people log in at, whose every answer a test chooses; and a browser that does as it is told.

The certified provider of tests/peers answers as it should (test_browser); this one as an attacker would like.
"""

from __future__ import annotations

import base64
import hashlib
import http.server
import json
import secrets
import threading
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
from joserfc import jwt
from joserfc.jwk import RSAKey
from tests.e2e.deployment import Deployment

CLIENT, SECRET = "gatebook", "a-secret-of-tests"
EVENT = "http://schemas.openid.net/event/backchannel-logout"
NAVIGATES = {
    "Accept": "text/html,application/xhtml+xml",
    "Sec-Fetch-Mode": "navigate",
    "Sec-Fetch-Dest": "document",
    "Sec-Fetch-Site": "none",
}


class IdP:
    """`answers`: code -> claims of its ID token. `says_issuer`: RFC 9207. `checks_pkce`: as any should."""

    def __init__(self) -> None:
        self.key = RSAKey.generate_key(2048, {"alg": "RS256", "use": "sig", "kid": "one"})
        self.answers: dict[str, dict[str, Any]] = {}
        self.challenges: dict[str, str] = {}
        self.asked: list[dict[str, str]] = []
        self.says_issuer = True
        self.checks_pkce = True
        self.at_hash = True
        self.header: dict[str, Any] = {}
        idp = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer(200, idp._document() if "openid" in self.path else idp._jwks())

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                self._answer(*idp._token({name: values[0] for name, values in parse_qs(body).items()}))

            def _answer(self, status: int, found: Any) -> None:
                body = json.dumps(found).encode()
                self.send_response(status)
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

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _document(self) -> dict[str, Any]:
        return {
            "issuer": self.url,
            "jwks_uri": f"{self.url}/jwks",
            "authorization_endpoint": f"{self.url}/auth",
            "token_endpoint": f"{self.url}/token",
            "end_session_endpoint": f"{self.url}/logout",
            "authorization_response_iss_parameter_supported": self.says_issuer,
        }

    def _jwks(self) -> dict[str, Any]:
        return {"keys": [self.key.as_dict(private=False)]}

    def _token(self, form: dict[str, str]) -> tuple[int, dict[str, Any]]:
        self.asked.append(form)
        code = form.get("code", "")
        claims = self.answers.pop(code, None)
        digest = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        if claims is None or (self.checks_pkce and challenge != self.challenges[code]):
            return 400, {"error": "invalid_grant"}
        access = secrets.token_urlsafe(16)
        if self.at_hash:
            half = hashlib.sha256(access.encode()).digest()[:16]
            claims = {"at_hash": base64.urlsafe_b64encode(half).rstrip(b"=").decode(), **claims}
        return 200, {"access_token": access, "token_type": "Bearer", "id_token": self.sign(claims)}

    def sign(self, claims: Mapping[str, Any], key: RSAKey | None = None, **header: Any) -> str:
        """A claim of None is left out."""
        told = {name: value for name, value in claims.items() if value is not None}
        return jwt.encode({"alg": "RS256", "kid": "one", **self.header, **header}, told, key or self.key)

    def agree(self, url: str, subject: str = "alice", **claims: Any) -> str:
        """What the provider's page does once `subject` has logged in: the URL that the browser is sent back to."""
        assert url.startswith(f"{self.url}/auth?")
        asked = {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
        assert (asked["response_type"], asked["client_id"]) == ("code", CLIENT)
        assert asked["code_challenge_method"] == "S256"
        code, now = secrets.token_urlsafe(16), int(time.time())
        known = {"iss": self.url, "sub": subject, "aud": CLIENT, "iat": now, "exp": now + 300}
        known |= {"nonce": asked["nonce"], "sid": f"sid-of-{code}", "roles": ["reader"], "auth_time": now}
        self.answers[code] = {**known, **claims}
        self.challenges[code] = asked["code_challenge"]
        back = f"{asked['redirect_uri']}?code={code}&state={asked['state']}"
        return f"{back}&iss={self.url}" if self.says_issuer else back

    def logout_token(
        self, header: Mapping[str, Any] | None = None, key: RSAKey | None = None, **claims: Any
    ) -> str:
        now = int(time.time())
        known: dict[str, Any] = {"iss": self.url, "aud": CLIENT, "iat": now, "exp": now + 120}
        known |= {"jti": secrets.token_urlsafe(8), "events": {EVENT: {}}}
        return self.sign({**known, **claims}, key, **{"typ": "logout+jwt", **(header or {})})


class Browser:
    """Keeps cookies, follows nothing by itself."""

    def __init__(self, deployment: Deployment) -> None:
        self.deployment = deployment
        self.cookies: dict[str, str] = {}
        self.set: list[str] = []  # every Set-Cookie field, in order

    def ask(self, url: str, method: str = "GET", headers: Mapping[str, str] | None = None) -> httpx2.Response:
        path = url.removeprefix(self.deployment.url)
        assert path.startswith("/"), f"sent to another origin: {url}"
        sent = {**NAVIGATES, **(headers or {})}
        if self.cookies:
            sent.setdefault("Cookie", "; ".join(f"{name}={value}" for name, value in self.cookies.items()))
        answer = self.deployment.ask(path, method=method, headers=sent)
        for field in answer.headers.get_list("set-cookie"):
            self.set.append(field)
            name, _, value = field.partition(";")[0].partition("=")
            self.cookies[name] = value
            if "Max-Age=0;" in field:
                del self.cookies[name]
        return answer

    def go(self, path: str = "/orders/7") -> str:
        """From a page that asks for a login to the provider: its URL."""
        answer = self.ask(path)
        assert answer.status_code == 303, answer.text
        answer = self.ask(answer.headers["Location"])
        assert answer.status_code == 303, answer.text
        location: str = answer.headers["Location"]
        return location

    def log_in(self, idp: IdP, path: str = "/orders/7", subject: str = "alice", **claims: Any) -> httpx2.Response:
        """The answer of the callback."""
        return self.ask(idp.agree(self.go(path), subject, **claims))

    def post(self, path: str, site: str = "same-origin", **headers: str) -> httpx2.Response:
        return self.ask(path, "POST", {"Sec-Fetch-Site": site, **headers})
