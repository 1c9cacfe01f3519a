"""A real nginx between a guard and an upstream that do as a test tells them and remember what they saw.

`Rig` starts all three; `ask` sends one request over TLS; `settled` gives the access log's lines. The guard
and the upstream run in one thread's event loop and understand just enough HTTP/1.1 to be exact about it.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import functools
import json
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from tests.gateway.message import (
    OK,
    Answer,
    Behaviour,
    Seen,
    allow,
    guard_says,
    read_answer,
    read_body,
    read_request,
    responds,
)
from tests.ports import free_port

from gatebook import certificates
from gatebook.config.model import Configuration
from gatebook.gateway import nginx, render
from gatebook.paths import Paths

DEADLINE_S = 20.0
T = TypeVar("T")


class Rig:
    def __init__(self, folder: Path, binary: Path | None) -> None:
        self.paths = Paths(folder / "state")
        self.binary = binary
        self.folder = folder
        self.guarded: list[Seen] = []
        self.asked: list[int] = []  # which guard each of `guarded` was
        self.forwarded: list[Seen] = []
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._servers: list[asyncio.Server] = []
        self._writers: set[asyncio.StreamWriter] = set()
        self._process: subprocess.Popen[bytes] | None = None
        made = certificates.development(datetime.datetime.now(datetime.UTC))
        for name, data in {"ca": made.ca, "server": made.certificate, "key": made.key}.items():
            (folder / f"{name}.pem").write_bytes(data)
        self._numbers = 0
        self._read = self._words = 0
        self.before_nginx: Callable[[], None] = lambda: None  # called when all but nginx is there
        self.reset()

    # -- what a test sets -------------------------------------------------------------------------------
    def reset(self) -> None:
        """Forget all that has happened, once it has: a late line would belong to what comes next."""
        if self._process is not None:
            self.settled()
        self.guarded.clear()
        self.asked.clear()
        self.forwarded.clear()
        self.decide: Callable[[Seen], bytes | None] = lambda seen: allow()
        self.behave: Behaviour = responds(OK)
        self.before_body: Callable[[], None] = lambda: None  # the upstream has a head and some of the body
        self.release = asyncio.Event()
        self.release.set()
        if self.access_log.exists():
            self._read = len(self.all_lines())
            self._words = (self.paths.logs / "error.log").stat().st_size

    @property
    def access_log(self) -> Path:
        return self.paths.logs / "access.log"

    @property
    def error_log(self) -> str:
        """What nginx has said since the test began."""
        return (self.paths.logs / "error.log").read_bytes()[self._words :].decode("utf-8", "replace")

    # -- life -------------------------------------------------------------------------------------------
    def start(self, **sections: Any) -> None:
        self._thread.start()
        for folder in (self.paths.state, self.paths.runtime, self.paths.logs):
            folder.mkdir(mode=0o700)
        for number in range(sections.get("guard", {}).get("processes", 1)):
            self.start_guard(number)
        plain = self.run(asyncio.start_server(self._serve_upstream, "127.0.0.1", 0))
        secure = self.run(asyncio.start_server(self._serve_upstream, "127.0.0.1", 0, ssl=self._server_tls()))
        self._servers += [plain, secure]
        self.configuration = self._configure(plain.sockets[0].getsockname()[1], secure.sockets[0].getsockname()[1])
        self.configuration = self.configuration.model_validate(
            _merged(self.configuration.model_dump(mode="json"), sections)
        )
        self.facts = nginx.find(self.configuration)
        nginx.write(render.render(self.configuration, self.paths, self.facts), self.paths.nginx)
        nginx.test(self.facts, self.paths.nginx)
        self.before_nginx()
        self._process = subprocess.Popen(nginx.argv(self.facts, self.paths.nginx), umask=0o077)
        self.until(self._accepts)

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(DEADLINE_S)
            finally:
                self._process.kill()
        self.run(self._close())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()
        shutil.rmtree(self.paths.runtime)

    async def _close(self) -> None:
        for server in self._servers:
            server.close()
        for writer in list(self._writers):
            writer.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    def worker(self) -> int:
        assert self._process is not None
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text()
        return int(children.split()[0])

    def start_guard(self, number: int = 0) -> None:
        path = self.paths.guard_socket(number)
        path.unlink(missing_ok=True)
        serve = functools.partial(self._serve_guard, number)
        self._servers.append(self.run(asyncio.start_unix_server(serve, str(path), limit=1 << 20)))

    def stop_guard(self) -> None:
        """The socket file stays and nobody listens: what a killed process leaves."""

        async def close() -> None:
            self._servers.pop(0).close()
            for writer in list(self._writers):
                writer.close()

        self.run(close())

    def _server_tls(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.folder / "server.pem", self.folder / "key.pem")
        return context

    def _configure(self, plain: int, secure: int) -> Configuration:
        tls = {"certificate": str(self.folder / "server.pem"), "key": str(self.folder / "key.pem")}
        self.unused = socket.socket()  # bound, never listening: a connection to it is refused
        self.unused.bind(("127.0.0.1", 0))
        here = f"http://127.0.0.1:{plain}"
        self.upstream_host = f"127.0.0.1:{plain}"
        ca = str(self.folder / "ca.pem")
        return Configuration.model_validate(
            {
                "version": 1,
                "name": "acme",
                "state_dir": str(self.paths.state),
                "listen": [
                    {"address": f"127.0.0.1:{free_port()}", "tls": tls},
                    {"address": f"127.0.0.1:{free_port()}"},
                    {"address": f"127.0.0.1:{free_port()}", "tls": tls | {"min_version": "1.3"}},
                ],
                "identity": {
                    "partners": {"type": "api_key"},
                    "machines": {"type": "api_key", "header": "X-Machine-Key"},
                },
                "upstreams": {
                    "orders": {"url": here},
                    "small": {"url": here, "max_body": 10},
                    "large": {"url": here, "max_body": "2m"},
                    "slow": {"url": here, "timeout": "200ms"},
                    "secure": {"url": f"https://localhost:{secure}", "ca": ca},
                    "impostor": {"url": f"https://localhost:{secure}"},
                    "gone": {"url": f"http://127.0.0.1:{self.unused.getsockname()[1]}"},
                },
                "gateway": {
                    "nginx": None if self.binary is None else str(self.binary),
                    "max_body": "1m",
                    "header_timeout": "1s",
                    "body_timeout": "1s",
                },
                "guard": {"acknowledgement_timeout": "200ms"},
                "routes": [
                    {"name": "all", "path": "/", "methods": ["GET"], "upstream": "orders", "identity": "none"}
                ],
            }
        )

    def _accepts(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, "nginx has ended"
        try:
            with socket.create_connection(self.address(1), timeout=1):
                return True
        except ConnectionError:
            return False

    # -- the two behind nginx ---------------------------------------------------------------------------
    async def _serve_guard(self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with self._kept(writer):
            while (seen := await read_request(reader)) is not None:
                self.guarded.append(seen)
                self.asked.append(number)
                await self.release.wait()
                said = self.decide(seen)
                if said is None:
                    return
                writer.write(said)

    async def _serve_upstream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with self._kept(writer):
            while (seen := await read_request(reader)) is not None:
                if int(seen.one("Content-Length") or 0):
                    await self._peek(reader)
                try:
                    seen = seen._replace(body=await read_body(seen, reader))
                except (asyncio.IncompleteReadError, ValueError, ConnectionError):
                    seen = seen._replace(body=b"(cut)")
                self.forwarded.append(seen)
                with contextlib.suppress(ConnectionError):  # a client that leaves is no fault of the upstream's
                    await self.behave(seen, reader, writer)
                if writer.is_closing():
                    return

    async def _peek(self, reader: asyncio.StreamReader) -> None:
        """Wait for the first bytes of a body, and leave them there."""
        # asyncio's readers have no peek, and nothing tells of bytes that come.
        while not reader._buffer and not reader.at_eof():  # type: ignore[attr-defined]  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        self.before_body()

    @contextmanager
    def _kept(self, writer: asyncio.StreamWriter) -> Iterator[None]:
        self._writers.add(writer)
        try:
            yield
        finally:
            self._writers.discard(writer)
            writer.close()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(DEADLINE_S)

    def hold(self) -> None:
        self.loop.call_soon_threadsafe(self.release.clear)

    def go_on(self) -> None:
        self.loop.call_soon_threadsafe(self.release.set)

    # -- the client -------------------------------------------------------------------------------------
    def address(self, listener: int = 0) -> tuple[str, int]:
        found = self.configuration.listen[listener]
        return found.host, found.port

    def client_tls(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.folder / "ca.pem"))
        context.set_alpn_protocols(["http/1.1"])
        return context

    @contextmanager
    def connected(self, listener: int = 0, tls: ssl.SSLContext | None = None) -> Iterator[socket.socket]:
        with socket.create_connection(self.address(listener), timeout=DEADLINE_S) as plain:
            if self.configuration.listen[listener].tls is None:
                yield plain
                return
            with (tls or self.client_tls()).wrap_socket(plain, server_hostname="localhost") as secured:
                yield secured

    def exchange(
        self, data: bytes, listener: int = 0, method: str = "GET", tls: ssl.SSLContext | None = None
    ) -> Answer:
        """Send exact bytes, read one answer."""
        with self.connected(listener, tls) as connection:
            connection.sendall(data)
            return read_answer(connection, method)

    def ask(
        self,
        target: str = "/",
        *fields: str,
        method: str = "GET",
        body: bytes = b"",
        listener: int = 0,
        tls: ssl.SSLContext | None = None,
    ) -> Answer:
        lines = [f"{method} {target} HTTP/1.1", "Host: api.example:8443", "Connection: close", *fields]
        if body:
            lines.append(f"Content-Length: {len(body)}")
        return self.exchange("\r\n".join([*lines, "", ""]).encode("latin-1") + body, listener, method, tls)

    # -- what nginx wrote -------------------------------------------------------------------------------
    def until(self, holds: Callable[[], bool]) -> None:
        end = time.monotonic() + DEADLINE_S
        while not holds():
            assert time.monotonic() < end, "waited in vain"
            threading.Event().wait(0.01)

    def all_lines(self) -> list[bytes]:
        return self.access_log.read_bytes().splitlines()

    def new_lines(self) -> list[bytes]:
        return self.all_lines()[self._read :]

    def settled(self, count: int | None = None) -> list[dict[str, str]]:
        """The new lines of the access log, `count` of them if given, once there can be no further ones."""
        if count is not None:
            self.until(lambda: len(self.all_lines()) - self._read >= count)
        self._numbers += 1
        mark = f"/mark-{self._numbers}"
        before, self.decide = self.decide, lambda seen: guard_says(500)
        self.go_on()
        self.ask(mark, listener=1)
        self.decide = before
        self.until(lambda: any(mark.encode() in line for line in self.new_lines()))
        found = [json.loads(line) for line in self.new_lines()]
        lines = [line for line in found if line.get("q") != mark and line["i"]]  # a probe's has no id
        assert count is None or len(lines) == count, lines
        return lines

    def line(self) -> dict[str, str]:
        (found,) = self.settled(1)
        return found


def _merged(base: Any, over: Any) -> Any:
    if isinstance(base, dict) and isinstance(over, dict):
        return {**base, **{key: _merged(base.get(key), value) for key, value in over.items()}}
    return over


def descriptors(pid: int) -> list[str]:
    """What a process holds open."""
    folder = Path(f"/proc/{pid}/fd")
    return [str(entry.readlink()) for entry in folder.iterdir()]
