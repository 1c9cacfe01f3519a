"""Where wrapped segment keys lie: one small file a key, `<dek id>.json`, outside the segments.

In: a segment's key, already wrapped for each recipient. Out: what was put in. Mutable on purpose: deleting a
file shreds every copy of its segment, those on write-once storage included. Never holds a key in the clear.
Trust: whoever changes a file makes its segment unreadable, and cannot make it say something else; lost files
cost content, never proofs.
"""

from __future__ import annotations

import base64
import json
import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path

from gatebook.errors import Damaged, Incomplete

_MAX_FILE_BYTES = 64 << 10
_NAME = re.compile(r"[0-9a-f]{32}\.json")


class DekStore:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def _path(self, dek_id: bytes) -> Path:
        return self._folder / f"{dek_id.hex()}.json"

    def put(self, dek_id: bytes, wrapped: Mapping[str, bytes]) -> None:
        """`wrapped`: recipient id -> wrapped key. Durable on return. Raises OSError."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        told = {name: base64.b64encode(data).decode() for name, data in wrapped.items()}
        data = json.dumps({"v": 1, "dek_id": dek_id.hex(), "wrapped": told}).encode() + b"\n"
        descriptor, temporary = tempfile.mkstemp(dir=self._folder, prefix=".dek-")  # mode 0600
        try:
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            # A crash up to here leaves a stray file, and no segment that needs it.
            Path(temporary).replace(self._path(dek_id))
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        self._sync()  # before this returns nothing is sealed with the key

    def get(self, dek_id: bytes) -> dict[str, bytes]:
        """Raises Incomplete when there is none (erased, or lost), Damaged when it is not what `put` wrote."""
        path = self._path(dek_id)
        try:
            with path.open("rb") as stream:
                told = json.loads(stream.read(_MAX_FILE_BYTES))
            if told["v"] != 1 or told["dek_id"] != dek_id.hex():
                raise ValueError("another key's")
            return {str(name): base64.b64decode(text, validate=True) for name, text in told["wrapped"].items()}
        except FileNotFoundError:
            raise Incomplete(f"{path}: no such key: its segment was erased, or the key is lost") from None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise Damaged(f"{path}: {error}") from None

    def delete(self, dek_id: bytes) -> None:
        """Durable on return: from here on nobody opens the segment. Raises OSError."""
        self._path(dek_id).unlink(missing_ok=True)
        self._sync()

    def ids(self) -> list[bytes]:
        """Every key that is there, in no order."""
        if not self._folder.is_dir():
            return []
        return [bytes.fromhex(p.stem) for p in self._folder.iterdir() if _NAME.fullmatch(p.name)]

    def _sync(self) -> None:
        descriptor = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
