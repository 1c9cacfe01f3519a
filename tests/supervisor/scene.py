"""The supervisor in this process, everything below it real: recorder, guard, nginx, and an upstream that says ok.

`Stage` makes the folder and tells what lies there; `play` runs a scene beside a running supervisor and stops it.
"""

from __future__ import annotations

import asyncio
import datetime
import http.client
import http.server
import json
import os
import shutil
import signal
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import structlog
from tests.ports import free_port

from gatebook import record, starter
from gatebook.config import effective
from gatebook.ledger import keys
from gatebook.ledger.read import Reader
from gatebook.paths import Paths
from gatebook.supervisor import control
from gatebook.supervisor.service import Supervisor, checked, only_one

DEADLINE_S = 40.0

Scene = Callable[[Supervisor], Awaitable[None]]


class _Ok(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


async def until(holds: Callable[[], Any] | Callable[[], Awaitable[Any]], what: str) -> Any:
    async with asyncio.timeout(DEADLINE_S):
        while True:
            found = holds()
            if asyncio.iscoroutine(found):
                found = await found
            if found:
                return found
            await asyncio.sleep(0.02)
    raise AssertionError(what)


class Stage:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        starter.initialise(folder, "acme", datetime.datetime.now(datetime.UTC))
        self.config = folder / "gatebook.yaml"
        self.paths = Paths(folder / "state")
        self.port = free_port()
        self._upstream = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Ok)
        threading.Thread(target=self._upstream.serve_forever, daemon=True).start()
        here = f"http://127.0.0.1:{self._upstream.server_address[1]}"
        self.configuration: dict[str, Any] = {
            "version": 1,
            "name": "acme",
            "state_dir": "./state",
            "listen": [{"address": f"127.0.0.1:{self.port}"}],
            "identity": {"partners": {"type": "api_key"}},
            "upstreams": {"orders": {"url": here}},
            "routes": [self.route("public", "/public")],
            "guard": {"acknowledgement_timeout": "1s"},
        }
        self.write()
        self.said: list[dict[str, Any]] = []

    @staticmethod
    def route(name: str, path: str, upstream: str = "orders") -> dict[str, Any]:
        return {"name": name, "path": path, "methods": ["GET"], "upstream": upstream, "identity": "none"}

    def write(self) -> None:
        self.config.write_text(json.dumps(self.configuration))  # JSON is YAML

    def play(self, scene: Scene, ready: bool = True) -> None:
        """Start, let the scene happen once it is ready, stop as SIGTERM does."""

        def note(_logger: object, _name: str, event: structlog.typing.EventDict) -> str:
            self.said.append(dict(event))
            raise structlog.DropEvent

        async def run() -> None:
            supervisor = Supervisor(self.config, checked(self.config))
            running = asyncio.create_task(supervisor.run())
            try:
                if ready:
                    await until(lambda: supervisor.started or running.done(), "readiness")
                await scene(supervisor)
            finally:
                if not running.done():
                    os.kill(os.getpid(), signal.SIGTERM)
                async with asyncio.timeout(DEADLINE_S):
                    await running

        before = structlog.get_config()
        structlog.configure(processors=[note], cache_logger_on_first_use=False)
        try:
            with only_one(self.paths):
                asyncio.run(run())
        finally:
            structlog.configure(**before)

    def events(self, *names: str) -> list[str]:
        """Who it was, for each event of these names, in order."""
        return [str(event["child"]) for event in self.said if event["event"] in names]

    # -- what there is ----------------------------------------------------------------------------------
    async def ask(self, command: str) -> dict[str, Any]:
        return await asyncio.to_thread(control.ask, self.paths.control_socket, command)

    async def status_of(self, path: str) -> int:
        def get() -> int:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
            try:
                connection.request("GET", path)
                return connection.getresponse().status
            finally:
                connection.close()

        return await asyncio.to_thread(get)

    def digest(self) -> str:
        return effective.read(self.paths.effective).digest().hex()

    def records(self) -> list[record.Record]:
        key = keys.load_reader(self.paths.keys)
        reader = Reader(self.paths.ledger, "acme/node-1", self.paths.deks, key)
        return [record.decode(data) for _, data in reader.forwards()]

    def applied(self) -> list[dict[str, Any]]:
        return [
            each.detail
            for each in self.records()
            if isinstance(each, record.Admin) and each.action == "configuration.apply"
        ]

    def close(self) -> None:
        self._upstream.shutdown()
        self._upstream.server_close()
        shutil.rmtree(self.paths.runtime, ignore_errors=True)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False
