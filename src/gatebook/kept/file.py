"""One kept file: read strictly, replaced as a whole under a lock, each change announced before it takes effect.

In and out: a document, a msgspec struct with a `version`. Trust: whoever can write such a file decides what holds
here, so a link, a foreign owner, a mode that lets others in, and any byte that we would not have written are
refused, never repaired. The lock lies beside the file and is made after it; so where the lock is and the file is
not, the file was lost, and that is refused too: it never counts as an empty one. A change is announced (put on
record) before it takes effect, and never takes effect if that fails. Blocks: the disk, the lock, the announcement.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

import msgspec

from gatebook.errors import EnvironmentFault

LOCK_PATIENCE_S = 15.0

D = TypeVar("D", bound=msgspec.Struct)


@dataclass(frozen=True)
class Kind(Generic[D]):
    """What one kind of kept file holds. `empty` is the document of a file that was never written."""

    title: str  # for people: "API keys"
    command: str  # what changes it, and shows it with `list`: "gatebook key"
    document: type[D]
    empty: D
    check: Callable[[D], object]  # raises ValueError for what no type can say
    max_bytes: int = 16 << 20


class Signature(NamedTuple):
    """What differs between two files of one name."""

    device: int
    inode: int
    size: int
    modified_ns: int
    changed_ns: int

    @classmethod
    def of(cls, found: os.stat_result) -> Signature:
        return cls(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


class Content(NamedTuple, Generic[D]):
    document: D
    signature: Signature | None  # None: there is no file, and never was


def read(path: Path, kind: Kind[D]) -> Content[D]:
    """Raises EnvironmentFault for a file that is not ours, not private, not in order, or gone."""
    try:
        descriptor = _opened(path)
    except FileNotFoundError:
        if not os.path.lexists(_lock_of(path)):
            return Content(kind.empty, None)
        # The file is made before its lock: one that was made between the two looks is there now.
        try:
            descriptor = _opened(path)
        except OSError:
            raise EnvironmentFault(
                f"{path}: is gone, with {kind.title} that were in effect; restore it from a backup, "
                f"or remove {_lock_of(path)} too and begin anew without any"
            ) from None
    except OSError as error:
        why = "is a link" if path.is_symlink() else _words(error)
        raise EnvironmentFault(f"{path}: cannot be read: {why}") from None
    try:
        found = os.fstat(descriptor)
        _check_private(path, found)
        with os.fdopen(descriptor, "rb", closefd=False) as stream:
            data = stream.read(kind.max_bytes + 1)
    except OSError as error:
        raise EnvironmentFault(f"{path}: cannot be read: {_words(error)}") from None
    finally:
        os.close(descriptor)
    return Content(_parse(path, kind, data), Signature.of(found))


def _opened(path: Path) -> int:
    return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)


def _lock_of(path: Path) -> Path:
    return path.with_name(path.name + ".lock")


def _check_private(path: Path, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise EnvironmentFault(f"{path}: not a file; move it away")
    if found.st_uid != os.geteuid():
        raise EnvironmentFault(
            f"{path}: owned by uid {found.st_uid}, but this process runs as uid {os.geteuid()}; "
            f"find out who wrote it"
        )
    if stat.S_IMODE(found.st_mode) & 0o077:
        raise EnvironmentFault(
            f"{path}: mode {stat.S_IMODE(found.st_mode):04o} lets others in; find out who could, "
            f"then run `chmod 600 {path}`"
        )


def _parse(path: Path, kind: Kind[D], data: bytes) -> D:
    try:
        if len(data) > kind.max_bytes:
            raise ValueError(f"more than {kind.max_bytes} bytes")
        document = msgspec.json.decode(data, type=kind.document, strict=True)
        # Writing it again finds what parsers forgive: a field given twice, one left out, another spelling.
        if _encode(document) != data:
            raise ValueError("the bytes are others than those of its content")
        kind.check(document)
    except ValueError as error:
        raise EnvironmentFault(
            f"{path}: not as gatebook writes it: {error}; restore it from a backup, "
            f"or move it and {_lock_of(path).name} away and begin anew without any {kind.title}"
        ) from None
    return document


def _encode(document: msgspec.Struct) -> bytes:
    return msgspec.json.format(msgspec.json.encode(document), indent=1) + b"\n"


@dataclass(frozen=True)
class Change(Generic[D]):
    """One change under way: nobody else's comes between. `document` is what is in effect now."""

    document: D
    _path: Path
    _kind: Kind[D]

    def become(self, document: D, announce: Callable[[], object]) -> None:
        """`document` is in effect once this returns. Raises EnvironmentFault, or what `announce` raised."""
        data = _encode(document)
        if len(data) > self._kind.max_bytes:
            raise EnvironmentFault(
                f"{self._path}: would grow beyond {self._kind.max_bytes} bytes; nothing was changed"
            )
        _replace(self._path, data, announce, f"`{self._kind.command} list`")


@contextlib.contextmanager
def change(path: Path, kind: Kind[D], patience_s: float | None = None) -> Iterator[Change[D]]:
    """One change at a time. Raises EnvironmentFault as `read`, or when another one does not end."""
    if read(path, kind).signature is None:
        _begin(path, kind)
    with _locked(path, kind, patience_s):
        yield Change(read(path, kind).document, path, kind)


def _begin(path: Path, kind: Kind[D]) -> None:
    """The file before its lock, so that a lock without a file means a loss; never over another's."""
    try:
        with _written(path, _encode(kind.empty)) as temporary, contextlib.suppress(FileExistsError):
            path.hardlink_to(temporary)
        _sync(path.parent)
    except OSError as error:
        raise EnvironmentFault(f"{path}: not changed: {_words(error)}") from error


@contextlib.contextmanager
def _locked(path: Path, kind: Kind[D], patience_s: float | None) -> Iterator[None]:
    beside = _lock_of(path)
    deadline = time.monotonic() + (LOCK_PATIENCE_S if patience_s is None else patience_s)
    try:
        descriptor = os.open(beside, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise EnvironmentFault(f"{beside}: {_words(error)}") from None
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise EnvironmentFault(f"{beside}: another `{kind.command}` holds it; try again") from None
                time.sleep(0.05)
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _written(path: Path, data: bytes) -> Iterator[Path]:
    """A private file beside `path` with `data`, synced; it is removed unless it has been renamed."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")  # mode 0600
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(descriptor)
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def _replace(path: Path, data: bytes, announce: Callable[[], object], shown_by: str) -> None:
    try:
        with _written(path, data) as temporary:
            # A crash here leaves a file that nobody reads, and nothing on record.
            announce()
            # A crash here leaves on record what did not come into effect; what is in effect is always on record.
            temporary.replace(path)
    except OSError as error:
        raise EnvironmentFault(f"{path}: not changed: {_words(error)}") from error
    # A crash here may still undo the change, but nobody has been told of it yet.
    try:
        _sync(path.parent)
    except OSError as error:
        raise EnvironmentFault(
            f"{path}: changed, but the disk did not confirm it ({_words(error)}); see what {shown_by} says"
        ) from error


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _words(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
