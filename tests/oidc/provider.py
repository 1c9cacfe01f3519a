"""A certified OpenID provider (npm's oidc-provider) as a process of its own, and a client of it.

`with serve({"reader": Client(roles=["reader"])}) as provider:` gives the issuer and tokens, signed with RS256 or
opaque. Nothing of gatebook is in it: what it issues is what a stranger's software would issue. The
process ends with the pipe to it, so that it never outlives the tests, whatever becomes of them.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal
from urllib.parse import parse_qs, urlsplit

import httpx2

PEERS = Path(__file__).parents[1] / "peers"
_DEADLINE_S = 20.0


@dataclass(frozen=True)
class Client:
    """Who may ask for tokens, and what is in them."""

    secret: str = "a-secret-of-tests"
    claims: Mapping[str, Any] = field(default_factory=dict)
    lifetime_s: int = 300
    format: Literal["jwt", "opaque"] = "jwt"
    auth: Literal["client_secret_basic", "client_secret_post", "private_key_jwt"] = "client_secret_basic"
    keys: tuple[Mapping[str, Any], ...] = ()  # public ones, for private_key_jwt
    redirects: tuple[str, ...] = ()  # where people are sent who have logged in; then it gets no tokens of its own
    after_logout: tuple[str, ...] = ()
    backchannel: str = ""
    people: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # name -> claims
    refreshes: bool = False  # beside redirects: it gets access and refresh tokens for those people
    bound: bool = False  # its tokens are bound to a TLS certificate


@dataclass(frozen=True)
class Provider:
    issuer: str
    clients: Mapping[str, Client]

    def get_token(
        self,
        client: str,
        audience: str = "orders-api",
        scope: str = "orders:read",
        proof: str | None = None,
        certificate: bytes | None = None,
    ) -> str:
        """An access token by client_credentials, bound by `proof` (DPoP) or to a certificate (DER).

        Raises on any answer but 200.
        """
        form = {"grant_type": "client_credentials", "resource": f"urn:{audience}", "scope": scope}
        headers = {} if proof is None else {"DPoP": proof}
        if certificate is not None:
            headers["Client-Cert"] = f":{base64.b64encode(certificate).decode()}:"
        answer = self._post("/token", client, form, headers)
        token = answer.json()["access_token"]
        assert isinstance(token, str)
        return token

    def log_in(self, client: str, person: str, audience: str = "orders-api") -> dict[str, Any]:
        """The answer of the token endpoint after `person` has gone through login and consent, page by page."""
        back = self.clients[client].redirects[0]
        verifier = secrets.token_urlsafe(32)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
        asked = {
            "client_id": client,
            "response_type": "code",
            "redirect_uri": back,
            "scope": "openid offline_access orders:read",
            "resource": f"urn:{audience}",
            "prompt": "consent",
            "code_challenge": challenge,
            "code_challenge_method": "S256",
        }
        pages = [{"prompt": "login", "login": person, "password": "any"}, {"prompt": "consent"}]
        with httpx2.Client(base_url=self.issuer, timeout=_DEADLINE_S, trust_env=False) as browser:
            answer = browser.get("/auth", params=asked)
            while not answer.headers.get("location", "").startswith(back):
                if answer.is_redirect:
                    answer = browser.get(answer.headers["location"])
                else:
                    assert answer.status_code == 200, answer.text
                    answer = browser.post(str(answer.url), data=pages.pop(0))
        (code,) = parse_qs(urlsplit(answer.headers["location"]).query)["code"]
        form = {"grant_type": "authorization_code", "code": code, "redirect_uri": back, "code_verifier": verifier}
        told: dict[str, Any] = self._post("/token", client, form | {"resource": f"urn:{audience}"}).json()
        return told

    def refresh(self, client: str, token: str, audience: str = "orders-api") -> dict[str, Any]:
        form = {"grant_type": "refresh_token", "refresh_token": token, "resource": f"urn:{audience}"}
        told: dict[str, Any] = self._post("/token", client, form).json()
        return told

    def revoke(self, client: str, token: str) -> None:
        self._post("/token/revocation", client, {"token": token})

    def introspect(self, client: str, token: str) -> Any:
        return self._post("/token/introspection", client, {"token": token}).json()

    def _post(
        self, path: str, client: str, form: Mapping[str, str], headers: Mapping[str, str] = MappingProxyType({})
    ) -> httpx2.Response:
        answer = httpx2.post(
            self.issuer + path,
            auth=(client, self.clients[client].secret),
            data=dict(form),
            headers=headers,
            timeout=_DEADLINE_S,
            trust_env=False,
        )
        answer.raise_for_status()
        return answer


@contextmanager
def serve(clients: Mapping[str, Client], ca: Path | None = None) -> Iterator[Provider]:
    """A provider with fresh keys on a port of its own; it trusts `ca` where it tells of logouts."""
    node = shutil.which("node")
    assert node, "no node here: `make test` installs it"
    assert (PEERS / "node_modules").is_dir(), "no oidc-provider here: `make test` installs it"
    told = {
        name: {
            "secret": c.secret,
            "claims": dict(c.claims),
            "lifetime": c.lifetime_s,
            "format": c.format,
            "auth": c.auth,
            "bound": c.bound,
            **({"keys": c.keys} if c.keys else {}),
            **(
                {
                    "redirects": c.redirects,
                    "refreshes": c.refreshes,
                    "afterLogout": c.after_logout,
                    "backchannel": c.backchannel,
                    "people": {person: dict(claims) for person, claims in c.people.items()},
                }
                if c.redirects
                else {}
            ),
        }
        for name, c in clients.items()
    }
    process = subprocess.Popen(
        [node, str(PEERS / "provider.mjs"), json.dumps(told)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, **({"NODE_EXTRA_CA_CERTS": str(ca)} if ca is not None else {})},
    )
    with process:  # which closes the pipes, and so ends it
        try:
            assert process.stdout is not None
            issuer = process.stdout.readline().strip()
            assert issuer, "oidc-provider did not start"
            yield Provider(issuer, clients)
        finally:
            process.terminate()
