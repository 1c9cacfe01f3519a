"""A real portal process with a recorder's twin beside it, and a client that speaks as the gateway does."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
from tests.guard.place import Place, Process
from tests.guard.twin import Aside

from gatebook import record

URL = "https://api.acme.example"
OWN = {"own": {"type": "gatebook"}}
_numbers = itertools.count(1)


def gateway_fields(method: str, uri: str, **changed: str | None) -> dict[str, str]:
    """What our nginx sets; None leaves one out."""
    known: dict[str, str | None] = {
        "Gatebook-Request-Id": f"{next(_numbers):032x}",
        "Gatebook-Method": method,
        "Gatebook-Uri": uri,
        "Gatebook-Host": "api.acme.example",
        "Gatebook-Protocol": "HTTP/1.1",
        "Gatebook-Address": "192.0.2.7",
        "Gatebook-Port": "54321",
        "Gatebook-Tls": "TLSv1.3",
        "Gatebook-Cipher": "TLS_AES_256_GCM_SHA384",
        "Gatebook-Connection": "1",
        "Gatebook-Connection-Request": "1",
        "Gatebook-Worker": str(os.getpid()),
    }
    return {name: value for name, value in {**known, **changed}.items() if value is not None}


class PortalProcess(Process):
    """`python -m gatebook.portal STATE`."""

    def __init__(self, place: Place, wrapper: tuple[str, ...] = ()) -> None:
        self.path = place.paths.portal_socket
        self.log = place.paths.state.parent / "portal.log"
        with self.log.open("ab") as log:
            command = [*wrapper, sys.executable, "-m", "gatebook.portal", str(place.paths.state)]
            self.popen = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def page(self, path: str) -> tuple[int, bytes]:
        with self.connect() as connection:
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: portal\r\n\r\n".encode())
            with contextlib.closing(http.client.HTTPResponse(connection)) as answer:
                answer.begin()
                return answer.status, answer.read()

    def until(self, holds: Callable[[], Any], what: str) -> None:
        def alive() -> Any:
            assert self.popen.poll() is None, f"the portal has ended:\n{self.said()}"
            return holds()

        super().until(alive, what)

    def is_ready(self) -> bool:
        try:
            return bool(self.status()["ready"])
        except (FileNotFoundError, ConnectionError, http.client.HTTPException):
            return False

    def wait(self) -> None:
        self.until(self.is_ready, "the portal")


class House:
    """State folder, recorder's twin, portal."""

    def __init__(self, folder: Path, **sections: Any) -> None:
        self.sections = {"identity": OWN, "portal": {"url": URL}, **sections}
        self.place = Place(folder, **self.sections)
        self.paths = self.place.paths
        self.recorder = Aside(self.paths.recorder_socket)
        self.portal = PortalProcess(self.place)
        self.portal.wait()

    def again(self, wrapper: tuple[str, ...] = ()) -> None:
        """Another portal on what the last one has left."""
        self.portal.close()
        self.portal = PortalProcess(self.place, wrapper)
        self.portal.wait()

    @property
    def records(self) -> list[record.Record]:
        return [record.decode(item.record) for item in self.recorder.do(lambda: list(self.recorder.twin.items))]

    @property
    def decisions(self) -> list[record.Decision]:
        return [each for each in self.records if isinstance(each, record.Decision)]

    def ask(
        self, path: str, method: str = "POST", *, gateway: dict[str, str | None] | None = None, **more: Any
    ) -> httpx2.Response:
        headers = [
            *dict(more.pop("headers", {})).items(),
            *gateway_fields(method, path, **(gateway or {})).items(),
        ]
        with self.client() as client:
            return client.request(method, path, headers=headers, **more)

    def client(self) -> httpx2.Client:
        transport = httpx2.HTTPTransport(uds=str(self.portal.path))
        return httpx2.Client(transport=transport, base_url="http://portal", timeout=20.0)

    def close(self) -> None:
        self.portal.close()
        self.recorder.stop()
        self.place.close()


@contextmanager
def house(folder: Path, **sections: Any) -> Iterator[House]:
    made = House(folder, **sections)
    try:
        yield made
    finally:
        made.close()
