"""What a guard needs of its surroundings: a state folder with a configuration, keys, and a runtime folder.

`Place` makes them and takes the runtime folder away again; `Process` is a real guard in it, with a socket to ask.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gatebook.config import effective
from gatebook.config.model import Configuration
from gatebook.identity import api_key_file
from gatebook.identity.keyed import Keys
from gatebook.paths import Paths, make_private

DEADLINE_S = 20.0
KEYS = Keys(names=bytes(32), fingerprints=bytes(range(32)))

READERS = [{"name": "readers", "roles": ["reader", "admin"]}]


def route(name: str, path: str, **more: Any) -> dict[str, Any]:
    known = {"methods": ["GET"], "upstream": "orders", "identity": ["partners"], "allow": READERS}
    return {"name": name, "path": path, **known, **more}


ROUTES = [
    route("health", "/healthz", identity="none", allow=[]),
    route("read-order", "/orders/{order_id}"),
    route("write-order", "/orders", methods=["POST", "PUT"], allow=[{"name": "admins", "roles": ["admin"]}]),
    route("scarce", "/scarce", limits=[{"name": "few", "per": "identity", "rate": "2/hour"}]),
    route("stripped", "/stripped", strip_credential=True),
    route("lax", "/lax", durability="after-response"),
    route("tenant", "/tenant", allow=[{"name": "own", "when": 'request.headers["x-tenant"] == "acme"'}]),
]


def configured(state: Path = Path("/nowhere/state"), **sections: Any) -> Configuration:
    known: dict[str, Any] = {
        "version": 1,
        "name": "acme",
        "state_dir": str(state),
        "listen": [{"address": "127.0.0.1:1"}],
        "identity": {"partners": {"type": "api_key"}, "machines": {"type": "api_key", "header": "X-Machine-Key"}},
        "upstreams": {"orders": {"url": "http://127.0.0.1:1"}},
        "routes": ROUTES,
        "guard": {"acknowledgement_timeout": "500ms"},
    }
    return Configuration.model_validate({**known, **sections})


class Place:
    def __init__(self, folder: Path, **sections: Any) -> None:
        self.paths = Paths(folder / "state")
        for private in (self.paths.state, self.paths.keys, self.paths.runtime):
            make_private(private)
        (self.paths.keys / "fingerprint.key").write_bytes(KEYS.fingerprints)
        (self.paths.keys / "pseudonym.key").write_bytes(KEYS.names)
        self.put_in_force(**sections)

    def put_in_force(self, **sections: Any) -> None:
        self.configuration = configured(self.paths.state, **sections)
        effective.write(self.configuration, self.paths.effective)

    def api_key(self, *roles: str, provider: str = "partners", subject: str | None = None) -> str:
        made = api_key_file.create(
            self.paths.api_keys,
            provider=provider,
            roles=roles,
            subject=subject,
            ttl_s=3600.0,
            now=time.time(),
            random=os.urandom,
            announce=lambda key: None,
        )
        return made.text

    def close(self) -> None:
        shutil.rmtree(self.paths.runtime)


class Process:
    """`python -m gatebook.guard STATE NUMBER`."""

    def __init__(self, place: Place, number: int = 0) -> None:
        self.path = place.paths.guard_socket(number)
        self.log = place.paths.state.parent / f"guard-{number}.log"
        with self.log.open("ab") as log:
            command = [sys.executable, "-m", "gatebook.guard", str(place.paths.state), str(number)]
            self.popen = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    @property
    def pid(self) -> int:
        return self.popen.pid

    def said(self) -> str:
        return self.log.read_text()

    def until(self, holds: Callable[[], Any], what: str) -> None:
        end = time.monotonic() + DEADLINE_S
        while not holds():
            assert time.monotonic() < end, f"waited in vain for {what}; it said:\n{self.said()}"
            threading.Event().wait(0.005)

    def connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(DEADLINE_S)
        try:
            connection.connect(str(self.path))
        except OSError:
            connection.close()
            raise
        return connection

    def page(self, path: str) -> tuple[int, bytes]:
        with self.connect() as connection:
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: guard\r\n\r\n".encode())
            answer = http.client.HTTPResponse(connection)
            answer.begin()
            return answer.status, answer.read()

    def is_ready(self) -> bool:
        assert self.popen.poll() is None, f"the guard has ended:\n{self.said()}"
        try:
            return self.page("/ready")[0] == 200
        except (FileNotFoundError, ConnectionRefusedError):
            return False

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.page("/status")[1])
        return found

    def signal(self, number: signal.Signals) -> None:
        self.popen.send_signal(number)

    def end(self) -> int:
        """SIGTERM; the exit code."""
        self.signal(signal.SIGTERM)
        return self.popen.wait(DEADLINE_S)

    def close(self) -> None:
        if self.popen.poll() is None:
            self.signal(signal.SIGCONT)
            self.popen.kill()
        self.popen.wait(DEADLINE_S)
