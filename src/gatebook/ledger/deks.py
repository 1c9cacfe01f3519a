"""The store of wrapped DEKs: one small file for each, `<dek_id>.dek`, in a folder of its own.

    "GBDEK\\0\\1\\n" 8 | dek_id 16 | n u32 | n * (recipient 32 || wrapped 80) | SHA256 of all before 32

It lies outside the segments so that deleting one file shreds every copy of its segment, WORM copies too.
Trust: whoever can delete here can make records unreadable, never change one or read one; who wants to keep
records has to keep this folder's copies. A DEK is durable here before its segment has a name.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Sequence
from pathlib import Path

from gatebook.errors import Damaged
from gatebook.ledger.files import Files
from gatebook.ledger.keys import MAX_READERS, WRAPPED_BYTES, Wrapped

MAX_RECIPIENTS = MAX_READERS
_MAGIC = b"GBDEK\0\1\n"
ROW_BYTES = 32 + WRAPPED_BYTES  # reader, wrapped DEK


def encode(dek_id: bytes, wrapped: Sequence[Wrapped]) -> bytes:
    """The file's bytes."""
    if not 1 <= len(wrapped) <= MAX_RECIPIENTS:
        raise ValueError(f"a DEK is wrapped for 1 to {MAX_RECIPIENTS} recipients, not {len(wrapped)}")
    body = (
        _MAGIC + dek_id + len(wrapped).to_bytes(4, "big") + b"".join(one.recipient + one.data for one in wrapped)
    )
    if len(body) != 28 + ROW_BYTES * len(wrapped):
        raise ValueError("an id, or a wrapped DEK, of a wrong length")
    return body + hashlib.sha256(body).digest()


def parse(data: bytes, dek_id: bytes) -> list[Wrapped]:
    """Raises Damaged unless the bytes are exactly the file of this DEK."""
    body = data[:-32]
    count = int.from_bytes(body[24:28], "big")
    whole = len(body) == 28 + ROW_BYTES * count and hashlib.sha256(body).digest() == data[-32:]
    if not whole or body[:8] != _MAGIC or not 1 <= count <= MAX_RECIPIENTS:
        raise Damaged(f"wrapped key {dek_id.hex()}: its file is not whole; restore it from a copy")
    if body[8:24] != dek_id:
        raise Damaged(f"wrapped key {dek_id.hex()}: its file is that of {body[8:24].hex()}")
    rows = (body[at : at + ROW_BYTES] for at in range(28, len(body), ROW_BYTES))
    return [Wrapped(row[:32], row[32:]) for row in rows]


class Deks:
    """The folder, which has to exist."""

    def __init__(self, folder: Path, files: Files | None = None) -> None:
        self._folder = folder
        self._files = files or Files()

    def _path(self, dek_id: bytes) -> Path:
        return self._folder / f"{dek_id.hex()}.dek"

    def put(self, dek_id: bytes, wrapped: Sequence[Wrapped]) -> None:
        """Durable on return. Raises FileExistsError rather than write over a key."""
        data = encode(dek_id, wrapped)
        descriptor = self._files.create(self._path(dek_id))
        try:
            self._files.write(descriptor, data)
            self._files.sync(descriptor)
        finally:
            self._files.close(descriptor)
        self._files.sync_folder(self._folder)
        # A crash before here leaves a file, whole or torn, that no segment names: nothing was sealed with it.

    def get(self, dek_id: bytes) -> list[Wrapped] | None:
        """None: there is none (any more), so nobody can read that segment. Raises Damaged."""
        try:
            with open(self._path(dek_id), "rb", opener=_without_waiting) as stream:
                data = stream.read(28 + ROW_BYTES * MAX_RECIPIENTS + 33) or b""
        except FileNotFoundError:
            return None
        except OSError as error:
            raise Damaged(f"{self._path(dek_id)}: {(error.strerror or str(error)).lower()}") from error
        return parse(data, dek_id)

    def replace(self, dek_id: bytes, wrapped: Sequence[Wrapped]) -> None:
        """The same DEK, for other readers. Durable on return; a crash leaves the one file or the other."""
        self._files.store(self._path(dek_id), encode(dek_id, wrapped), durable=True)

    def ids(self) -> list[bytes]:
        """Of all DEKs that are there."""
        names = (path.name.removesuffix(".dek") for path in self._folder.glob("*.dek"))
        return sorted(bytes.fromhex(name) for name in names if re.fullmatch(r"[0-9a-f]{32}", name))

    def delete(self, dek_id: bytes) -> None:
        """Nobody can read its segment again. Durable on return; it is no error when there is none."""
        path = self._path(dek_id)
        for name in (path, path.with_name(path.name + ".new")):  # `replace` may have been killed within
            with contextlib.suppress(FileNotFoundError):
                self._files.remove(name)
        # A crash before here may bring the file back: an erasure is done when this has returned, and only then.
        self._files.sync_folder(self._folder)

    def sweep(self) -> None:
        """What a `replace` that was killed has left: wrapped keys that no deletion knew of. Durable on return."""
        left = [path for path in self._folder.glob("*.new") if not path.is_dir()]
        for path in left:
            self._files.remove(path)
        if left:
            self._files.sync_folder(self._folder)


def _without_waiting(path: str, flags: int) -> int:
    """Somebody else's copy may hold a pipe in a file's place."""
    return os.open(path, flags | os.O_NONBLOCK)
