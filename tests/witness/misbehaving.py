"""A server that answers add-checkpoint with whatever bytes a test gives it, real sockets and all."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator


class Misbehaving:
    """`answers` are given in turn, the last one again and again. `drip_s`: between two bytes of it."""

    def __init__(self, *answers: bytes, drip_s: float = 0.0, close: bool = False) -> None:
        self.answers = list(answers)
        self.drip_s = drip_s
        self.close = close
        self.asked: list[bytes] = []
        self.connections = 0
        self._talks: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self.url = ""

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[Misbehaving]:
        server = await asyncio.start_server(self._begin, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/w"
        try:
            yield self
        finally:
            server.close()
            for talk, writer in list(self._talks.items()):
                writer.close()
                talk.cancel()
            await asyncio.gather(*self._talks, return_exceptions=True)

    def _begin(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._talks[asyncio.get_running_loop().create_task(self._talk(reader, writer))] = writer

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(
                    int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")
                )
                self.asked.append(head + await reader.readexactly(length))
                await self._answer(writer, self.answers.pop(0) if len(self.answers) > 1 else self.answers[0])
                if self.close:
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _answer(self, writer: asyncio.StreamWriter, answer: bytes) -> None:
        if not self.drip_s:
            writer.write(answer)
        for at in range(len(answer) if self.drip_s else 0):
            writer.write(answer[at : at + 1])
            await writer.drain()
            await asyncio.sleep(self.drip_s)
        await writer.drain()


def http(status: int, body: bytes | str = b"", *headers: str) -> bytes:
    data = body.encode() if isinstance(body, str) else body
    head = "".join(f"{line}\r\n" for line in (f"HTTP/1.1 {status} X", f"Content-Length: {len(data)}", *headers))
    return head.encode() + b"\r\n" + data
