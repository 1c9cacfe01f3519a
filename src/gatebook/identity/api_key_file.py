"""The file that keeps API keys: state/api-keys.json, read strictly, replaced as a whole.

One JSON object: `{"version": 1, "keys": [...]}`, each key an api_key.ApiKey. Trust: whoever can write it can
let anybody in, so a link, a foreign owner, and a mode that lets others in are refused, never repaired; so is
anything in it that we would not write. Its loss locks every key out; a missing file is no keys. A change is
announced (put on record) before it takes effect, and never takes effect if that fails.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec

from gatebook.errors import EnvironmentFault, GatebookError
from gatebook.identity.api_key import ID, ApiKey, make_id, make_text
from gatebook.identity.strict import parse_object

MAX_BYTES = 16 << 20
LOCK_PATIENCE_S = 15.0

Announce = Callable[[ApiKey], object]


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


class Content(NamedTuple):
    keys: tuple[ApiKey, ...]
    signature: Signature | None  # None: there is no file


class _Document(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    version: Literal[1]
    keys: tuple[ApiKey, ...]


def read(path: Path) -> Content:
    """Raises EnvironmentFault for a file that is not ours, not private, or not in order."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return Content((), None)
    except OSError as error:
        why = "is a link" if path.is_symlink() else (error.strerror or str(error)).lower()
        raise EnvironmentFault(f"{path}: cannot be read: {why}") from None
    try:
        found = os.fstat(descriptor)
        _check_private(path, found)
        with os.fdopen(descriptor, "rb", closefd=False) as stream:
            data = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise EnvironmentFault(f"{path}: cannot be read: {(error.strerror or str(error)).lower()}") from None
    finally:
        os.close(descriptor)
    return Content(_parse(path, data), Signature.of(found))


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


def _parse(path: Path, data: bytes) -> tuple[ApiKey, ...]:
    try:
        if len(data) > MAX_BYTES:
            raise ValueError(f"more than {MAX_BYTES} bytes")
        keys = msgspec.convert(parse_object(data), _Document, strict=True).keys
        if len({key.id for key in keys}) != len(keys) or len({key.sha256 for key in keys}) != len(keys):
            raise ValueError("a key stands in it twice")
    except ValueError as error:
        raise EnvironmentFault(
            f"{path}: not as gatebook writes it: {error}; "
            f"restore it from a backup, or move it away and make new keys"
        ) from None
    return keys


class Made(NamedTuple):
    """`text` is the secret: shown to a person once, never written anywhere."""

    text: str
    key: ApiKey


def create(
    path: Path,
    *,
    provider: str,
    roles: tuple[str, ...],
    subject: str | None,
    ttl_s: float,
    now: float,
    random: Callable[[int], bytes],
    announce: Announce,
) -> Made:
    """A new key, in effect once this returns. Without a subject, it is the key's id. Raises GatebookError."""
    with _lock(path):
        keys = read(path).keys
        taken = {key.id for key in keys}
        key_id = next(name for name in iter(lambda: make_id(random), "") if name not in taken)
        text = make_text(key_id, random)
        fields = {
            "id": key_id,
            "provider": provider,
            "subject": key_id if subject is None else subject,
            "roles": roles,
            "created": int(now),
            "expires": int(now + ttl_s),
            "revoked": None,
            "sha256": hashlib.sha256(text.encode()).hexdigest(),
        }
        try:
            key = msgspec.convert(fields, ApiKey, strict=True)
        except msgspec.ValidationError:
            raise GatebookError(
                "the key was not made: roles are up to 64 words of ASCII without commas or spaces, "
                "a subject is up to 255 printable letters of ASCII"
            ) from None
        _replace(path, (*keys, key), lambda: announce(key))
    return Made(text, key)


def revoke(path: Path, key_id: str, *, now: float, announce: Announce) -> tuple[ApiKey, bool]:
    """The key, and whether this call revoked it (else it was revoked before). Raises GatebookError."""
    if not re.fullmatch(ID, key_id):  # it may be a secret with a slip in it: not to be shown
        raise GatebookError("that is no key's id; `gatebook key list` shows them all")
    with _lock(path):
        keys = read(path).keys
        found = next((key for key in keys if key.id == key_id), None)
        if found is None:
            raise GatebookError(f"there is no key {key_id}; `gatebook key list` shows them all")
        if found.revoked is not None:
            return found, False
        gone = msgspec.structs.replace(found, revoked=int(now))
        _replace(path, tuple(gone if key is found else key for key in keys), lambda: announce(gone))
    return gone, True


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    """One change at a time: a lock beside the file, which itself is replaced."""
    beside = path.with_name(path.name + ".lock")
    deadline = time.monotonic() + LOCK_PATIENCE_S
    try:
        descriptor = os.open(beside, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise EnvironmentFault(f"{beside}: {(error.strerror or str(error)).lower()}") from None
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise EnvironmentFault(f"{beside}: another `gatebook key` holds it; try again") from None
                time.sleep(0.05)
        yield
    finally:
        os.close(descriptor)


def _replace(path: Path, keys: tuple[ApiKey, ...], announce: Callable[[], object]) -> None:
    data = msgspec.json.format(msgspec.json.encode(_Document(version=1, keys=keys)), indent=1) + b"\n"
    if len(data) > MAX_BYTES:
        raise EnvironmentFault(f"{path}: would grow beyond {MAX_BYTES} bytes; nothing was changed")
    try:
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")  # mode 0600
        temporary = Path(name)
        try:
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(descriptor)
            # A crash here leaves a file that nobody reads, and nothing on record.
            announce()
            # A crash here leaves on record what did not come into effect; what is in effect is always on record.
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise EnvironmentFault(f"{path}: not changed: {(error.strerror or str(error)).lower()}") from error
    # A crash here may still undo the change, but nobody has been told of it yet.
    try:
        _sync(path.parent)
    except OSError as error:
        raise EnvironmentFault(
            f"{path}: changed, but the disk did not confirm it ({(error.strerror or str(error)).lower()}); "
            f"see what `gatebook key list` says"
        ) from error


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
