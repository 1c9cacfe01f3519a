"""The zip of a bundle: the same bytes for the same content, and read with suspicion.

Written: fixed times and modes, names in the caller's order, tiles stored, texts deflated. Read: only what the
writer gives. Members follow each other without a gap from byte 0 on, each spelt in its own head as in the
directory, nothing is encrypted, and no name comes twice, so that no two programs see two different bundles.
Nothing is ever unpacked to a disk, and no member is read beyond what its reader asks for.
"""

from __future__ import annotations

import hashlib
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

from gatebook.errors import Damaged, EnvironmentFault

MAX_DIRECTORY_BYTES: Final = 16 << 20
MAX_MEMBERS: Final = 120_000
EPOCH: Final = (1980, 1, 1, 0, 0, 0)
MODE: Final = 0o100644 << 16
_WRONG = (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError, ValueError)

_END = struct.Struct("<4s4H2LH")
_END64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR64 = struct.Struct("<4sLQL")
_HEAD = struct.Struct("<4s5H3L2H")
_EXTRA64 = struct.Struct("<2H2Q")
_FULL = 0xFFFF_FFFF


class Members:
    """The members of a zip that is open."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._zip = archive

    def names(self) -> list[str]:
        return self._zip.namelist()

    def __contains__(self, name: object) -> bool:
        try:
            self._zip.getinfo(str(name))
        except KeyError:
            return False
        return True

    def read(self, name: str, max_bytes: int) -> bytes:
        """Raises Damaged when it is missing, cannot be read, or is longer."""
        with self.open(name) as stream:
            data = stream.read(max_bytes + 1)
        if len(data) > max_bytes:
            raise Damaged(f"{name}: is longer than {max_bytes} bytes")
        return data

    @contextmanager
    def open(self, name: str) -> Iterator[IO[bytes]]:
        """Raises Damaged, while it is read too."""
        if name not in self:
            raise Damaged(f"{name}: is missing")
        try:
            with self._zip.open(name) as stream:
                yield stream
        except _WRONG as error:
            raise Damaged(f"{name}: cannot be read: {error}") from None

    def sha256(self, name: str) -> str:
        hashed = hashlib.sha256()
        with self.open(name) as stream:
            while data := stream.read(1 << 20):
                hashed.update(data)
        return hashed.hexdigest()


class Writer(Members):
    """Writes members in order; what is written can be read at once. `stream` can be read and sought in."""

    def __init__(self, stream: IO[bytes]) -> None:
        super().__init__(zipfile.ZipFile(stream, "w", allowZip64=True))

    def add(self, name: str, data: bytes, *, packed: bool = True) -> None:
        with self.adding(name, packed=packed, large=False) as stream:
            stream.write(data)

    @contextmanager
    def adding(self, name: str, *, packed: bool = True, large: bool = True) -> Iterator[IO[bytes]]:
        info = zipfile.ZipInfo(name, EPOCH)
        info.create_system, info.external_attr = 3, MODE
        info.compress_type = zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED
        with self._zip.open(info, "w", force_zip64=large) as stream:
            yield stream

    def close(self) -> None:
        self._zip.close()


@contextmanager
def opened(path: Path) -> Iterator[Members]:
    """Raises EnvironmentFault when the system does not give the file, Damaged when it is no bundle's zip."""
    try:
        stream = path.open("rb")
    except OSError as error:
        raise EnvironmentFault(f"{path}: {(error.strerror or str(error)).lower()}") from None
    with stream:
        directory, count = _directory(stream)
        try:
            archive = zipfile.ZipFile(stream)
        except _WRONG as error:
            raise Damaged(f"no zip that can be read: {error}") from None
        with archive:
            _check_layout(stream, archive, directory, count)
            yield Members(archive)


def _directory(stream: IO[bytes]) -> tuple[int, int]:
    """Where the directory begins, and how many members it has: known before it is read, whatever its size."""
    size = stream.seek(0, 2)
    stream.seek(max(0, size - 98))
    tail = stream.read(98)
    if len(tail) < _END.size:
        raise Damaged(f"no zip: {size} bytes")
    end = size - _END.size
    magic, disk, first, here, count, length, offset, comment = _END.unpack(tail[-22:])
    if magic != b"PK\x05\x06" or comment or disk or first or here != count:
        raise Damaged("the zip does not end as one of ours: it was cut off, or something was added")
    if tail[-42:-38] == b"PK\x06\x07" and len(tail) == 98:
        end -= _LOCATOR64.size + _END64.size
        _, disk, at, disks = _LOCATOR64.unpack(tail[-42:-22])
        magic, _, _, _, _, _, here, count, length, offset = _END64.unpack(tail[:56])
        if magic != b"PK\x06\x06" or disk or disks != 1 or at != end or here != count:
            raise Damaged("the zip does not end as one of ours: its large directory is not where it should be")
    if offset + length != end or length > MAX_DIRECTORY_BYTES or count > MAX_MEMBERS:
        raise Damaged(f"the zip's directory claims {count} members in {length} bytes from byte {offset} on")
    return int(offset), int(count)


def _check_layout(stream: IO[bytes], archive: zipfile.ZipFile, directory: int, count: int) -> None:
    infos = archive.infolist()
    if len(infos) != count:
        raise Damaged(f"the zip's directory holds {len(infos)} members, and says that it holds {count}")
    if len({info.filename for info in infos}) != len(infos):
        raise Damaged("a name comes twice in the zip: who else reads it may see another content")
    at = 0
    for info in infos:
        name = info.orig_filename
        plain = name.isascii() and name.isprintable() and "\\" not in name and info.filename == name
        if not plain or info.flag_bits or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise Damaged(f"{name!r}: is not stored in the zip as a bundle's members are")
        if info.date_time != EPOCH or info.comment or info.create_system != 3 or info.external_attr != MODE:
            raise Damaged(f"{name!r}: is not marked as a bundle's members are")
        if info.compress_type == zipfile.ZIP_STORED and info.compress_size != info.file_size:
            raise Damaged(f"{name!r}: is stored with two lengths")
        if info.header_offset != at:
            raise Damaged(f"{name!r}: begins at byte {info.header_offset} of the zip; expected {at}")
        at = _behind(stream, info)
    if at != directory:
        raise Damaged(f"the zip's directory begins at byte {directory}; its members end at {at}")


def _behind(stream: IO[bytes], info: zipfile.ZipInfo) -> int:
    """Where the member ends. Its own head has to say what the directory says."""
    stream.seek(info.header_offset)
    name = info.orig_filename.encode()
    data = stream.read(_HEAD.size + len(name) + _EXTRA64.size)
    if len(data) < _HEAD.size + len(name):
        raise Damaged(f"{info.filename}: is cut off")
    magic, _, flags, method, _, _, crc, packed, full, named, extra = _HEAD.unpack(data[: _HEAD.size])
    if extra == _EXTRA64.size and (packed, full) == (_FULL, _FULL):
        kind, _, full, packed = _EXTRA64.unpack(data[_HEAD.size + len(name) :][: _EXTRA64.size])
        extra -= _EXTRA64.size if kind == 1 else 0
        added = _EXTRA64.size
    else:
        added = 0
    same = (magic, flags, method, crc, packed, full, named, extra) == (
        b"PK\x03\x04",
        0,
        info.compress_type,
        info.CRC,
        info.compress_size,
        info.file_size,
        len(name),
        0,
    )
    if not same or data[_HEAD.size : _HEAD.size + len(name)] != name:
        raise Damaged(f"{info.filename}: says something else of itself than the zip's directory does")
    return info.header_offset + _HEAD.size + len(name) + added + info.compress_size
