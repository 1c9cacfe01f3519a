"""A guard's own parts in the test's process: real service, real identification, real sockets on both sides.

`Inside` holds them together and speaks as the gateway does; the recorder is the twin.
"""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

from tests.guard.place import KEYS, Place
from tests.guard.twin import DEADLINE_S, Twin, until

from gatebook import record
from gatebook.config.model import Configuration
from gatebook.guard.client import RecorderClient
from gatebook.guard.protocol import GuardProtocol
from gatebook.guard.rules import Rules
from gatebook.guard.service import Service
from gatebook.identity import Identifier
from gatebook.record import REASONS

PATIENCE = {"acknowledgement_timeout": "20s"}
IMPATIENCE = {"acknowledgement_timeout": "1s"}
_numbers = itertools.count(1)


def head(
    uri: str = "/orders/7", *fields: str | bytes, method: str = "GET", **own: str | None
) -> tuple[str, bytes]:
    """The id and the bytes of what our nginx asks. `own` changes its fields, as `Tls`; None leaves one out."""
    request_id = f"{next(_numbers):032x}"
    known: dict[str, str | None] = {
        "Request_Id": request_id,
        "Method": method,
        "Uri": uri,
        "Host": "api.acme.example",
        "Protocol": "HTTP/1.1",
        "Address": "192.0.2.7",
        "Port": "54321",
        "Tls": "TLSv1.3",
        "Cipher": "TLS_AES_256_GCM_SHA384",
        "Ciphers": "TLS_AES_256_GCM_SHA384:TLS_AES_128_GCM_SHA256",
        "Group": "X25519",
        "Sni": "api.acme.example",
        "Connection": "1",
        "Connection_Request": "1",
        "Worker": str(os.getpid()),
    }
    lines = [b"GET /decide HTTP/1.1", b"Host: guard", b"X-Forwarded-For: 192.0.2.7"]
    for name, value in {**known, **own}.items():
        if value is not None:
            lines.append(f"Gatebook-{name.replace('_', '-')}: {value}".encode())
    lines += [field if isinstance(field, bytes) else field.encode() for field in fields]
    return request_id, b"\r\n".join([*lines, b"", b""])


class Answer(NamedTuple):
    """What the guard said. `status` is what the client is to see."""

    id: str
    code: int
    fields: dict[str, str]

    @property
    def allowed(self) -> bool:
        return 200 <= self.code < 300

    @property
    def status(self) -> int:
        return 200 if self.allowed else int(self.fields["gatebook-status"])

    @property
    def reason(self) -> str:
        return self.fields["gatebook-reason"]

    @property
    def place(self) -> int | None:
        receipt = self.fields.get("gatebook-receipt")
        if receipt is None:
            assert "gatebook-decision" not in self.fields
            return None
        origin, _, index = receipt.rpartition("/")
        assert origin == "acme/node-1"
        assert self.fields["gatebook-decision"] == index
        return int(index)


class Line:
    """One connection of nginx's."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    def send(self, data: bytes) -> None:
        self._writer.write(data)

    async def read(self, request_id: str = "") -> Answer:
        """One answer; it must be whole, with no byte after it."""
        async with asyncio.timeout(DEADLINE_S):
            data = await self._reader.readuntil(b"\r\n\r\n")
        first, *lines = data.decode("ascii").split("\r\n")[:-2]
        version, code, _ = first.split(" ", 2)
        assert version == "HTTP/1.1"
        pairs = [line.partition(": ")[::2] for line in lines]
        fields = {name.lower(): value for name, value in pairs}
        assert len(fields) == len(pairs), f"a field that stands twice: {lines}"
        body = await self._reader.readexactly(int(fields.get("content-length", "0")))
        assert not body or code != "204"
        found = Answer(request_id, int(code), fields)
        if "gatebook-reason" in fields:
            _check(found)
        return found

    async def ask(self, uri: str = "/orders/7", *fields: str | bytes, **more: Any) -> Answer:
        request_id, data = head(uri, *fields, **more)
        self.send(data)
        return await self.read(request_id)

    async def is_closed(self) -> bool:
        async with asyncio.timeout(DEADLINE_S):
            return await self._reader.read(1) == b""

    def close(self) -> None:
        self._writer.close()


def _check(answer: Answer) -> None:
    """What holds of all answers to a question."""
    known = REASONS[answer.reason]
    if answer.allowed:
        assert answer.code == 204
        assert known.status == 200
        assert answer.fields["gatebook-upstream"]
    else:
        assert answer.code == (401 if answer.status == 401 else 403)
        assert answer.status == known.status >= 300
        assert not {"gatebook-upstream", "gatebook-subject", "gatebook-roles", "gatebook-strip"} & set(
            answer.fields
        )


class Inside:
    def __init__(self, place: Place) -> None:
        self.place = place
        self.twin = Twin(place.paths.recorder_socket)
        timeout_s = place.configuration.guard.acknowledgement_timeout
        self.recorder = RecorderClient(place.paths.recorder_socket, timeout_s)
        self.identifier = Identifier(place.configuration, place.paths)
        self.service = Service(self.rules(place.configuration), self.identifier, self.recorder)
        self.path = place.paths.guard_socket(0)
        self.connections: set[GuardProtocol] = set()
        self._lines: list[Line] = []

    def rules(self, configuration: Configuration, previous: Rules | None = None) -> Rules:
        return Rules(configuration, KEYS, previous)

    def reload(self, **sections: Any) -> None:
        """As SIGHUP does it."""
        self.place.put_in_force(**sections)
        rules = self.rules(self.place.configuration, self.service.rules)
        self.identifier.reconfigure(self.place.configuration)
        self.service.switch(rules)

    async def line(self) -> Line:
        made = Line(*await asyncio.open_unix_connection(str(self.path)))
        self._lines.append(made)
        return made

    async def ask(self, uri: str = "/orders/7", *fields: str | bytes, **more: Any) -> Answer:
        return await (await self.line()).ask(uri, *fields, **more)

    def decision(self, answer: Answer) -> record.Decision:
        """The record that an answer's receipt names."""
        assert answer.place is not None
        item = self.twin.items[answer.place]
        found = record.decode(item.record)
        assert isinstance(found, record.Decision)
        assert item.request_id == found.id
        assert item.worker == os.getpid()
        return found

    def decisions_of(self, answer: Answer) -> list[record.Decision]:
        return [each for each in self.twin.decisions if each.id == answer.id]

    async def start(self) -> None:
        await self.twin.start()
        await self.identifier.start()
        self.recorder.start()
        loop = asyncio.get_running_loop()
        self._server = await loop.create_unix_server(
            lambda: GuardProtocol(self.service, self.connections), str(self.path)
        )
        await until(lambda: self.recorder.up, "the recorder's twin")

    async def stop(self) -> None:
        self._server.close()
        for line in self._lines:
            line.close()
        await self.recorder.stop()
        await self.identifier.stop()
        self.twin.die()
        await until(lambda: not self.connections, "the connections to end")


@asynccontextmanager
async def inside(
    folder: Path, prepare: Callable[[Place], None] = lambda place: None, **sections: Any
) -> AsyncIterator[Inside]:
    place = Place(folder, **{"guard": PATIENCE, **sections})
    try:
        prepare(place)
        made = Inside(place)
        await made.start()
        try:
            yield made
        finally:
            await made.stop()
    finally:
        place.close()
