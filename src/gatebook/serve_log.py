"""The public half of a ledger over HTTP, as C2SP's tlog-tiles has it, for monitors, witnesses and auditors.

In: GET and HEAD of exactly spelt paths: `checkpoint`, `keys`, tiles, bundles, stamps; from anybody. Out: files of
`ledger/log/`, with headers for caches. A partial file that has gone is cut from the full one, so a path always
gives the same bytes; a tile is there only once a published checkpoint covers it, for until then a crash may
change it. Never follows a link, never opens what no path of ours names, and writes nothing. Everything it gives
is public, so it asks nobody who he is; but what is public here need not be so for each page that a browser on
this network shows: no header opens it to those.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import re
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from email.utils import formatdate
from pathlib import Path
from typing import Final, NamedTuple

import uvicorn
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from gatebook import web
from gatebook.errors import Damaged, EnvironmentFault
from gatebook.ledger.chain import KEYS_FILE, MAX_KEYS_BYTES
from gatebook.ledger.note import MAX_NOTE_BYTES, parse_checkpoint, parse_note
from gatebook.ledger.tiles import MAX_BUNDLE_BYTES, bundle_path, encode_bundle, parse_bundle, tile_path
from gatebook.ledger.tree import HASH_BYTES, TILE_LEVELS, TILE_WIDTH

MAX_CONCURRENT: Final = 256
BACKLOG: Final = 256
KEEP_ALIVE_S: Final = 30
DRAIN_S: Final = 5
MAX_STAMP_BYTES: Final = 64 << 10

FOR_EVER: Final = "public, max-age=31536000, immutable"
FOR_A_DAY: Final = "public, max-age=86400, immutable"  # as true for ever, but nobody asks for it for long
ASK_EACH_TIME: Final = "no-cache"

_TILE: Final = re.compile(
    rb"/tile/(?P<kind>entries|[0-7])/(?P<number>(?:x[0-9]{3}/){0,5}[0-9]{3})(?:\.p/(?P<width>[1-9][0-9]{0,2}))?"
)
_ANCHOR: Final = re.compile(rb"/(anchors/(?:0|[1-9][0-9]{0,18})\.(checkpoint|tsr|cosigned))")
_STAMP_TYPES: Final = {
    "checkpoint": "text/plain; charset=utf-8",
    "cosigned": "text/plain; charset=utf-8",
    "tsr": "application/timestamp-reply",
}

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Tile(NamedTuple):
    """A tile's or a bundle's place. `level` None: a bundle."""

    level: int | None
    number: int
    width: int

    @property
    def end(self) -> int:
        """The size of the smallest tree that has it."""
        return (self.number * TILE_WIDTH + self.width) << (TILE_LEVELS * (self.level or 0))

    def path(self, width: int) -> str:
        if self.level is None:
            return bundle_path(self.number, width)
        return tile_path(self.level, self.number, width)


def parse_tile_path(path: bytes) -> Tile | None:
    """None for every spelling but the one that tlog-tiles gives."""
    found = _TILE.fullmatch(path)
    if found is None:
        return None
    number = int(found["number"].replace(b"x", b"").replace(b"/", b""))
    width = TILE_WIDTH if found["width"] is None else int(found["width"])
    if found["width"] is not None and width >= TILE_WIDTH:
        return None
    level = None if found["kind"] == b"entries" else int(found["kind"])
    tile = Tile(level, number, width)
    return tile if b"/" + tile.path(width).encode() == path else None


class Stored(NamedTuple):
    data: bytes
    changed_s: float


class Folder:
    """`log/`, read below its own descriptor, a step at a time: no link and no `..` leads out of it."""

    def __init__(self, path: Path) -> None:
        """Raises EnvironmentFault."""
        try:
            self._root = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            why = (error.strerror or str(error)).lower()
            raise EnvironmentFault(f"{path}: no public log to serve: {why}; has gatebook ever run here?") from None

    def close(self) -> None:
        os.close(self._root)

    def read(self, name: str, max_bytes: int) -> Stored | None:
        """None when there is no such regular file, or a longer one. Raises OSError when the system fails."""
        *folders, file = name.split("/")
        at = self._root
        try:
            with suppress(FileNotFoundError, NotADirectoryError):
                for folder in folders:
                    at, left = os.open(folder, _FOLDER, dir_fd=at), at
                    if left != self._root:
                        os.close(left)
                return _read(os.open(file, _FILE, dir_fd=at), max_bytes)
        except OSError as error:
            if error.errno != errno.ELOOP:  # what O_NOFOLLOW says to a link
                raise
        finally:
            if at != self._root:
                os.close(at)
        return None


def _read(descriptor: int, max_bytes: int) -> Stored | None:
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_size > max_bytes:
            return None
        with open(descriptor, "rb", buffering=0, closefd=False) as stream:
            return Stored(stream.read(found.st_size), found.st_mtime)
    finally:
        os.close(descriptor)


class Log:
    """Path -> answer. Remembers one number, the size that it last saw published."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._size = 0

    def answer(self, path: bytes, known: str) -> Response:
        """`known`: the ETag of what the asker has already."""
        if path == b"/" + KEYS_FILE.encode():
            keys = self._folder.read(KEYS_FILE, MAX_KEYS_BYTES)
            return _give(keys.data, "text/plain; charset=utf-8", ASK_EACH_TIME) if keys else _missing()
        if path in (b"/checkpoint", b"/cosigned"):
            return self._checkpoint(path[1:].decode(), known)
        tile = parse_tile_path(path)
        if tile is not None:
            return self._tile(tile)
        anchor = _ANCHOR.fullmatch(path)
        if anchor is not None:
            found = self._folder.read(anchor[1].decode(), MAX_STAMP_BYTES)
            if found is not None:
                return _give(found.data, _STAMP_TYPES[anchor[2].decode()], FOR_A_DAY)
        return _missing()

    def _checkpoint(self, name: str, known: str) -> Response:
        found = self._folder.read(name, MAX_NOTE_BYTES)
        if found is None:
            return _missing()
        # No answer goes by the file's time: two checkpoints may be of the same second.
        tag = f'"{hashlib.sha256(found.data).hexdigest()[:32]}"'
        headers = {"ETag": tag, "Last-Modified": formatdate(found.changed_s, usegmt=True)}
        if known and tag in [each.strip().removeprefix("W/") for each in known.split(",")]:
            return Response(status_code=304, headers={**headers, "Cache-Control": ASK_EACH_TIME})
        return _give(found.data, "text/plain; charset=utf-8", ASK_EACH_TIME, headers)

    def _tile(self, tile: Tile) -> Response:
        if tile.end > self._size:
            self._size = self._published()
        if tile.end > self._size:
            return _missing()
        found = self._folder.read(tile.path(tile.width), MAX_BUNDLE_BYTES)
        if found is None and tile.width < TILE_WIDTH:
            return self._beginning(tile)
        if found is None:
            return _missing()
        lasting = FOR_EVER if tile.width == TILE_WIDTH else FOR_A_DAY
        return _give(found.data, "application/octet-stream", lasting)

    def _beginning(self, tile: Tile) -> Response:
        """A partial file may go once the full one is there, which begins as it did."""
        full = self._folder.read(tile.path(TILE_WIDTH), MAX_BUNDLE_BYTES)
        if full is None:
            return _missing()
        if tile.level is not None:
            data = full.data[: tile.width * HASH_BYTES]
        else:
            data = encode_bundle(parse_bundle(full.data)[: tile.width])
        return _give(data, "application/octet-stream", FOR_A_DAY)

    def _published(self) -> int:
        found = self._folder.read("checkpoint", MAX_NOTE_BYTES)
        return 0 if found is None else parse_checkpoint(parse_note(found.data).text).size


def _give(data: bytes, kind: str, lasting: str, more: dict[str, str] | None = None) -> Response:
    headers = {"Cache-Control": lasting, "X-Content-Type-Options": "nosniff", **(more or {})}
    return Response(data, media_type=kind, headers=headers)


def _missing() -> Response:
    return _refuse(404, "there is no such file in this log")


def _refuse(status: int, why: str, more: dict[str, str] | None = None) -> Response:
    # Not to be kept: what is not there now may be there in a second.
    return PlainTextResponse(why + "\n", status, {"Cache-Control": "no-store", **(more or {})})


def application(folder: Folder) -> ASGIApp:
    log = Log(folder)

    async def asgi(scope: Scope, receive: Receive, send: Send) -> None:
        await (await _answer(log, scope))(scope, receive, send)

    return asgi


async def _answer(log: Log, scope: Scope) -> Response:
    if scope["method"] not in ("GET", "HEAD"):
        return _refuse(405, "this log is only read", {"Allow": "GET, HEAD"})
    known = b",".join(value for name, value in scope["headers"] if name == b"if-none-match")
    try:
        # In a thread, since a disk may be slow. The path as it came: nothing in ours needs an escape.
        return await asyncio.to_thread(log.answer, scope["raw_path"], known.decode("latin-1"))
    except (OSError, Damaged):
        return _refuse(503, "this log cannot be read at the moment")


def bind(host: str, port: int) -> socket.socket:
    """Raises EnvironmentFault."""
    return web.listen(host, port, BACKLOG)


@contextmanager
def opened(path: Path) -> Iterator[Folder]:
    folder = Folder(path)
    try:
        yield folder
    finally:
        folder.close()


def serve(folder: Folder, listener: socket.socket) -> None:
    """Until SIGINT or SIGTERM."""
    settings = web.settings(
        application(folder),
        concurrent=MAX_CONCURRENT,
        backlog=BACKLOG,
        keep_alive_s=KEEP_ALIVE_S,
        drain_s=DRAIN_S,
    )
    uvicorn.Server(settings).run(sockets=[listener])
