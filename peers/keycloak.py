"""A real Keycloak on loopback, in memory, with a realm of its own: clients with roles, secrets made for the run.

Needs Java and an unpacked distribution, whose folder the environment variable KEYCLOAK names (`make test-peers`
fetches it from Maven Central). `serve` starts it and ends it; what it says is shown when it does not start.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
from tests.ports import free_port

REALM = "acme"
AUDIENCE = "orders-api"
START_S = 240.0  # it compiles itself at its first start

_FOR_ORDERS = {
    "name": "for-orders",
    "protocol": "openid-connect",
    "protocolMapper": "oidc-audience-mapper",
    "config": {"included.custom.audience": AUDIENCE, "access.token.claim": "true"},
}


class Keycloak:
    """`clients`: client id -> realm roles. Every client may ask for tokens of its own, by client_credentials."""

    def __init__(self, home: Path, clients: dict[str, list[str]], bound: frozenset[str] = frozenset()) -> None:
        self.port = free_port()
        self.issuer = f"http://127.0.0.1:{self.port}/realms/{REALM}"
        self.secrets = {name: secrets.token_urlsafe(24) for name in (*clients, "gatebook")}
        self._home = home
        self._management = free_port()
        imports = home / "data" / "import"
        imports.mkdir(parents=True, exist_ok=True)
        (imports / f"{REALM}.json").write_text(json.dumps(self._realm(clients, bound)))

    def _realm(self, clients: dict[str, list[str]], bound: frozenset[str]) -> dict[str, Any]:
        def client(name: str) -> dict[str, Any]:
            return {
                "clientId": name,
                "secret": self.secrets[name],
                "publicClient": False,
                "serviceAccountsEnabled": True,
                "standardFlowEnabled": False,
                "protocolMappers": [_FOR_ORDERS],
                "attributes": {"dpop.bound.access.tokens": str(name in bound).lower()},
            }

        return {
            "realm": REALM,
            "enabled": True,
            "sslRequired": "none",
            "roles": {
                "realm": [{"name": role} for role in sorted({r for roles in clients.values() for r in roles})]
            },
            "clients": [client(name) for name in self.secrets],
            "users": [
                {
                    "username": f"service-account-{name}",
                    "enabled": True,
                    "serviceAccountClientId": name,
                    "realmRoles": roles,
                }
                for name, roles in clients.items()
            ],
        }

    def run(self, log: Path) -> subprocess.Popen[bytes]:
        command = [str(self._home / "bin" / "kc.sh"), "start-dev", "--db=dev-mem", "--import-realm"]
        command += [
            "--http-host=127.0.0.1",
            f"--http-port={self.port}",
            f"--http-management-port={self._management}",
        ]
        command += [f"--hostname=http://127.0.0.1:{self.port}"]
        with log.open("wb") as stream:
            # A session of its own: kc.sh and the virtual machine are ended together.
            return subprocess.Popen(command, stdout=stream, stderr=stream, start_new_session=True)

    def is_up(self) -> bool:
        with contextlib.suppress(httpx2.TransportError):
            return self._get("/.well-known/openid-configuration").status_code == 200
        return False

    def _get(self, path: str) -> httpx2.Response:
        return httpx2.get(self.issuer + path, trust_env=False, timeout=5.0)

    def token(self, client: str, **headers: str) -> str:
        """An access token of the client itself."""
        answer = httpx2.post(
            f"{self.issuer}/protocol/openid-connect/token",
            auth=(client, self.secrets[client]),
            data={"grant_type": "client_credentials"},
            headers=headers,
            trust_env=False,
            timeout=20.0,
        )
        assert answer.status_code == 200, answer.text
        return str(answer.json()["access_token"])

    def revoke(self, client: str, token: str) -> None:
        answer = httpx2.post(
            f"{self.issuer}/protocol/openid-connect/revoke",
            auth=(client, self.secrets[client]),
            data={"token": token, "token_type_hint": "access_token"},
            trust_env=False,
            timeout=20.0,
        )
        assert answer.status_code == 200, answer.text


@contextlib.contextmanager
def serve(folder: Path, clients: dict[str, list[str]], bound: frozenset[str] = frozenset()) -> Iterator[Keycloak]:
    home = Path(os.environ["KEYCLOAK"])
    keycloak = Keycloak(home, clients, bound)
    log = folder / "keycloak.log"
    process = keycloak.run(log)
    try:
        end = time.monotonic() + START_S
        while not keycloak.is_up():
            assert process.poll() is None, f"Keycloak has ended:\n{log.read_text()[-4000:]}"
            assert time.monotonic() < end, f"Keycloak does not start:\n{log.read_text()[-4000:]}"
            threading.Event().wait(0.5)
        yield keycloak
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(20)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
