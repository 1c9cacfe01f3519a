"""A whole gatebook, as a user runs it: `gatebook init`, a configuration, `gatebook run`, real clients.

`Deployment` owns the processes it starts and ends them all. What it knows of the ledger it asks the
commands for; nothing in here looks inside.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
from tests.e2e.issuer import Issuer
from tests.e2e.upstream import Upstream
from tests.pki import Pair
from tests.ports import free_port

from gatebook.errors import EnvironmentFault
from gatebook.paths import Paths
from gatebook.supervisor import control

DEADLINE_S = 30.0
GATEBOOK = (sys.executable, "-m", "gatebook")


def until(holds: Callable[[], Any], what: str = "that", deadline_s: float = DEADLINE_S) -> Any:
    """Wait for a condition; its value when it holds."""
    end = time.monotonic() + deadline_s
    while not (found := holds()):
        assert time.monotonic() < end, f"waited in vain for {what}"
        threading.Event().wait(0.02)
    return found


class Deployment:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = folder / "gatebook.yaml"
        self.issuer = Issuer()
        self.upstream = Upstream()
        self.port, self.plain_port = free_port(), free_port()
        self._unused = socket.socket()  # bound, never listening: a connection to it is refused
        self._unused.bind(("127.0.0.1", 0))
        self.process: subprocess.Popen[bytes] | None = None
        self._closed = False
        self.cli("init", str(folder))
        self.configuration = self._configuration()
        self.write()
        self.paths = Paths(folder / "state")

    def _configuration(self) -> dict[str, Any]:
        def route(name: str, path: str, upstream: str = "orders", **more: Any) -> dict[str, Any]:
            rules = [{"name": "readers", "roles": ["reader", "admin"]}]
            known = {"methods": ["GET"], "identity": ["staff", "partners"], "allow": rules}
            return {"name": name, "path": path, "upstream": upstream, **known, **more}

        tenant = {"name": "own-tenant", "when": 'identity.claims.tenant == request.headers["x-tenant"]'}
        admins = [{"name": "admins", "roles": ["admin"]}]
        secret = [{"name": "secret", "paths": ["/items/secret"]}]
        return {
            "version": 1,
            "name": "acme",
            "state_dir": "./state",
            "listen": [
                {
                    "address": f"127.0.0.1:{self.port}",
                    "tls": {"certificate": "tls/server.pem", "key": "tls/server.key"},
                },
                {"address": f"127.0.0.1:{self.plain_port}"},
            ],
            "identity": {
                "staff": {"type": "oidc", "issuer": self.issuer.url, "audience": ["orders-api"]},
                "partners": {"type": "api_key"},
            },
            "upstreams": {
                "orders": {"url": self.upstream.url, "timeout": "1s"},
                "down": {"url": f"http://127.0.0.1:{self._unused.getsockname()[1]}"},
            },
            "routes": [
                {
                    "name": "health",
                    "path": "/healthz",
                    "methods": ["GET"],
                    "upstream": "orders",
                    "identity": "none",
                },
                route("read-order", "/orders/{order_id}"),
                route("write-order", "/orders", methods=["POST"], allow=admins),
                route("tenant", "/tenants/{id}", allow=[tenant]),
                route("scarce", "/scarce", limits=[{"name": "few", "per": "identity", "rate": "2/hour"}]),
                route("down", "/down", upstream="down"),
                # What path attacks want to get from, and to.
                route("public", "/public/{rest...}", identity="none", allow=[]),
                route("admin", "/admin/{rest...}", methods=["GET", "POST", "DELETE"], allow=admins),
                route("items", "/items/{id}", identity="none", allow=[], deny=secret),
                route("remove-item", "/items/{id}", methods=["DELETE", "PUT"], allow=admins),
            ],
            "guard": {"acknowledgement_timeout": "1s"},
        }

    def write(self) -> None:
        self.config.write_text(json.dumps(self.configuration))  # JSON is YAML

    # -- life -------------------------------------------------------------------------------------------
    def start(self, ready: bool = True, wrapper: tuple[str, ...] = ()) -> None:
        log = (self.folder / "gatebook.log").open("ab")
        command = [*wrapper, *GATEBOOK, "run", "-c", str(self.config)]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        log.close()
        if ready:
            try:
                until(self.ready, "readiness")
            except AssertionError as error:
                raise AssertionError(f"{error}; it said:\n{self.said()}") from None

    def ready(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, f"gatebook has ended:\n{self.said()}"
        return bool(self.paths.control_socket.exists() and self.status().get("ready"))

    def said(self) -> str:
        log = self.folder / "gatebook.log"
        return log.read_text() if log.exists() else ""

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(DEADLINE_S)
        self.process = None
        return code

    def close(self) -> None:
        """May be repeated."""
        if self._closed:
            return
        self._closed = True
        with contextlib.suppress(Exception):
            if self.process is not None:
                for pid in self.pids():
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGCONT)
                self.stop()
        if self.process is not None:
            self.process.kill()
            self.process.wait()
        self.upstream.stop()
        self.issuer.stop()
        self._unused.close()

    def reload(self) -> subprocess.CompletedProcess[str]:
        return self.cli("reload", "-c", str(self.config), check=False)

    def status(self) -> dict[str, Any]:
        """As `gatebook status --json` says it, asked without a process of its own: it is asked again and again."""
        try:
            return control.ask(self.paths.control_socket, "status")
        except EnvironmentFault:
            return {}

    def pid(self, role: str) -> int:
        (found,) = [p["pid"] for p in self.status()["processes"] if p["role"] == role]
        return int(found)

    def pids(self) -> list[int]:
        return [p["pid"] for p in self.status().get("processes", []) if p["pid"]]

    # -- the command line -------------------------------------------------------------------------------
    def cli(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run([*GATEBOOK, *arguments], capture_output=True, text=True, timeout=60, check=False)
        assert not check or done.returncode == 0, done.stderr + done.stdout
        return done

    def log(self, *arguments: str) -> list[dict[str, Any]]:
        """Access records (or all, with "--all"), newest last."""
        done = self.cli("log", "--json", "--limit", "1000000", "-c", str(self.config), *arguments)
        return [json.loads(line) for line in done.stdout.splitlines()]

    def access(self, request_id: str, **wanted: Any) -> dict[str, Any]:
        """The access record of one request, once its outcome is there."""

        def find() -> dict[str, Any] | None:
            found = [record for record in self.log() if record.get("id") == request_id]
            assert len(found) <= 1, found
            return found[0] if found and "outcome_index" in found[0] else None

        found: dict[str, Any] = until(find, f"the outcome of {request_id}")
        return found

    def verify(self) -> dict[str, Any]:
        """What `gatebook verify` says, which must be good."""
        done = self.cli("verify", "--json", "-c", str(self.config), check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    # -- clients ----------------------------------------------------------------------------------------
    @property
    def tls(self) -> ssl.SSLContext:
        """A new one each time: an HTTP client puts its own protocols into it."""
        return ssl.create_default_context(cafile=str(self.folder / "tls" / "ca.pem"))

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}"

    @contextlib.contextmanager
    def client(self, certificate: Pair | None = None, **more: Any) -> Iterator[httpx2.Client]:
        tls = self.tls
        if certificate is not None:
            tls.load_cert_chain(*certificate)
        with httpx2.Client(base_url=self.url, verify=tls, timeout=DEADLINE_S, trust_env=False, **more) as client:
            yield client

    def ask(
        self,
        path: str,
        token: str | None = None,
        method: str = "GET",
        certificate: Pair | None = None,
        **more: Any,
    ) -> httpx2.Response:
        headers = {**more.pop("headers", {}), **({"Authorization": f"Bearer {token}"} if token else {})}
        with self.client(certificate) as client:
            return client.request(method, path, headers=headers, **more)

    def reader(self, subject: str = "alice", **claims: Any) -> str:
        """A token that may read orders."""
        return self.issuer.token(subject, roles=["reader"], **claims)
