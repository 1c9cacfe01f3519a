"""Who can read the log: readers come and go, old segments are wrapped for them, and private keys leave this host.

In: public keys in PEM; a reader's private key, where old segments are to be opened for somebody else. What is done
is on record before it takes effect, by the file in keys/ that says so, or by the recorder's order for DEKs. New
segments follow within five minutes, without a restart. Never takes the last reader, and never deletes a private
key before its copy has been opened.
"""

from __future__ import annotations

import base64
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple

from gatebook import record
from gatebook.config.model import Configuration
from gatebook.errors import EnvironmentFault, UsageError
from gatebook.kms import sealed
from gatebook.ledger import keys
from gatebook.ledger.deks import Deks
from gatebook.ledger.files import Files
from gatebook.ledger.rewrap import rows_for
from gatebook.paths import Paths
from gatebook.recorder.keyring import MAX_DEKS
from gatebook.recorder.submit import order, submit

NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")
NOWHERE, OPEN, LOCKED, IN_KMS = "no", "open", "passphrase", "kms"


class Standing(NamedTuple):
    """A recipient. `private`: whether its private key lies on this host, and how; `no` as far as keys/ shows."""

    name: str
    id: str
    private: str


def standing(folder: Path) -> list[Standing]:
    here = _private_here(folder)
    return [
        Standing(name, one.id.hex()[:16], here.get(one.id, NOWHERE))
        for name, one in keys.named_recipients(folder).items()
    ]


def _private_here(folder: Path) -> dict[bytes, str]:
    found: dict[bytes, str] = {}
    kept = folder / sealed.FILE
    if kept.exists():
        found[bytes.fromhex(sealed.parse(keys.read_key_file(kept, secret=False), str(kept)).reader)] = IN_KMS
    if (folder / keys.READER_KEY).exists():
        try:
            found[keys.load_reader(folder).id] = OPEN
        except keys.Locked:
            # Which one it is shows only when it is opened; it was put there as the first one's.
            found[keys.load_recipient(folder / keys.READER_PUB).id] = LOCKED
    return found


class Deployment(NamedTuple):
    """Where, and who acts."""

    configuration: Configuration
    paths: Paths
    actor: str

    def record(self, action: str, **detail: Any) -> None:
        made = record.Admin(time_us=time.time_ns() // 1000, action=action, actor=self.actor, detail=detail)
        submit(self.configuration, [made])


def check_new(deployment: Deployment, name: str, recipient: keys.Recipient) -> None:
    """Raises EnvironmentFault or UsageError when `add` would."""
    if not NAME.fullmatch(name):
        raise UsageError(f"{name!r}: a reader's name is lower-case letters, digits and '-', at most 32")
    folder = deployment.paths.keys
    there = keys.named_recipients(folder) if any(folder.glob("reader*.pub")) else {}
    if name in there:
        raise EnvironmentFault(f"there is a reader {name} already; remove it first, or choose another name")
    for other, one in there.items():
        if one.id == recipient.id:
            raise EnvironmentFault(f"this key is that of reader {other} already")
    if len(there) >= keys.MAX_READERS:
        raise EnvironmentFault(f"there are {keys.MAX_READERS} readers already; remove one first")


def add(deployment: Deployment, name: str, recipient: keys.Recipient) -> None:
    """From the next segment on. Raises EnvironmentFault or UsageError, nothing having been changed."""
    check_new(deployment, name, recipient)
    deployment.record("keys.add", reader=name, key=recipient.id.hex())
    # A crash here: on record, but not a reader.
    Files().store(deployment.paths.keys / keys.recipient_file(name), keys.public_pem(recipient.key), durable=True)


def remove(deployment: Deployment, name: str) -> keys.Recipient:
    """From the next segment on. Raises EnvironmentFault."""
    folder = deployment.paths.keys
    there = keys.named_recipients(folder)
    if name not in there:
        raise EnvironmentFault(f"no reader {name}; there are {', '.join(there)}")
    if len(there) == 1:
        raise EnvironmentFault(f"{name} is the only reader: nobody could read what comes; add another one first")
    deployment.record("keys.remove", reader=name, key=there[name].id.hex())
    # A crash here: on record, but still a reader.
    files = Files()
    files.remove(folder / keys.recipient_file(name))
    files.sync_folder(folder)
    return there[name]


class Rewrapped(NamedTuple):
    """`changed`: parts that were added. `shut`: DEKs that the key that was used does not open."""

    changed: int
    shut: int


def rewrap(
    deployment: Deployment, reader: keys.Reader, progress: Callable[[int], None] = lambda _: None
) -> Rewrapped:
    """Every old segment for every reader of now. May be stopped and begun again."""
    there = keys.named_recipients(deployment.paths.keys)
    deployment.record("keys.rewrap", readers=sorted(there), by=reader.id.hex()[:16])
    deks, changed, unreadable, shut = Deks(deployment.paths.deks), 0, 0, set[bytes]()
    for recipient in there.values():
        for portion in rows_for(recipient, deks, reader, MAX_DEKS):
            shut.update(portion.shut)
            if portion.rows:
                told = _order(deployment, "keys.wrap", _rows(portion.rows))
                changed, unreadable = changed + int(told["changed"]), unreadable + int(told["unreadable"])
                progress(changed)
    return Rewrapped(changed, len(shut) + unreadable)


def _rows(rows: dict[bytes, keys.Wrapped]) -> dict[str, Any]:
    return {dek_id.hex(): base64.b64encode(one.recipient + one.data).decode() for dek_id, one in rows.items()}


def _order(deployment: Deployment, verb: str, parameters: dict[str, Any]) -> dict[str, Any]:
    return order(deployment.configuration, verb, parameters)


class Taken(NamedTuple):
    """`changed`: parts that were taken away. `only`: DEKs that keep theirs, having no other reader.

    `unreadable`: DEKs whose file is not whole, so that nobody reads with it.
    """

    changed: int
    only: int
    unreadable: int


def take_from_old(deployment: Deployment, reader_id: bytes) -> Taken:
    """That reader's part of every old segment's DEK. Copies that were made before still have it."""
    ids = Deks(deployment.paths.deks).ids()
    changed = only = unreadable = 0
    for at in range(0, len(ids), MAX_DEKS):
        named = [one.hex() for one in ids[at : at + MAX_DEKS]]
        told = _order(deployment, "keys.unwrap", {"reader": reader_id.hex(), "deks": named})
        changed, only = changed + int(told["changed"]), only + int(told["only_reader"])
        unreadable += int(told["unreadable"])
    return Taken(changed, only, unreadable)


def check_free(path: Path) -> None:
    """Raises EnvironmentFault when `write_new` would, as far as that shows before."""
    if path.exists() or path.is_symlink():
        raise EnvironmentFault(f"{path}: exists already; name another file")
    if not path.parent.is_dir() or not os.access(path.parent, os.W_OK | os.X_OK):
        raise EnvironmentFault(f"{path.parent}: no folder that can be written to; name another file")


def write_new(path: Path, data: bytes) -> None:
    """A private file, durable on return; never over another one. Raises EnvironmentFault."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(descriptor)
        Files().sync_folder(path.parent)
    except FileExistsError:
        raise EnvironmentFault(f"{path}: exists already; name another file") from None
    except OSError as error:
        raise EnvironmentFault(f"{path}: {(error.strerror or str(error)).lower()}") from None


def take_away(deployment: Deployment, copy: Path, open_copy: Callable[[Path], keys.Reader]) -> None:
    """Delete reader.key, `copy` having been opened: from then on nothing on this host reads without that copy.

    Raises EnvironmentFault, reader.key being still there.
    """
    folder = deployment.paths.keys
    reader = keys.load_reader(folder)
    if open_copy(copy).id != reader.id:
        raise EnvironmentFault(f"{copy}: holds another key than {folder / keys.READER_KEY}, which was not deleted")
    deployment.record(
        "keys.take_away", key=reader.id.hex(), to="kms" if copy.name == sealed.FILE else "passphrase"
    )
    # A crash here: on record, but reader.key is still there; `gatebook keys show` says so.
    files = Files()
    files.remove(folder / keys.READER_KEY)
    files.sync_folder(folder)
