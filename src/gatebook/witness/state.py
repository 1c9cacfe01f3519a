"""What our own witness must never forget: the last checkpoint of each log that it cosigned. One folder.

    witness.key, witness.pub           its key, and the vkey for everybody
    lock                               held by the one process that cosigns
    logs/<origin hash>.pub             the vkey of a log that it watches; SHA-256 of the origin, in hex
    logs/<origin hash>.checkpoint      the note that it cosigned last, with the log's signature and its own
    evidence/                          signed checkpoints that contradict the one before

A checkpoint is on disk before its cosignature leaves `add`; never for a smaller tree, never for one whose
beginning is another than what was cosigned before, whatever comes at once. Trust: who can put back an older
folder makes it cosign a fork. Then the witness has to be given up, under this key, for good.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

import structlog

from gatebook.errors import Damaged, EnvironmentFault, LedgerBusy, LedgerError, Tampered
from gatebook.ledger.consistency import check_consistency
from gatebook.ledger.files import Files
from gatebook.ledger.note import (
    ED25519,
    MAX_NOTE_BYTES,
    Checkpoint,
    Cosigner,
    Note,
    Verifier,
    check_note,
    encode_note,
    parse_checkpoint,
    parse_note,
)
from gatebook.ledger.tree import EMPTY_ROOT
from gatebook.paths import check_private, make_private
from gatebook.witness.protocol import SIZE_TYPE, Request, parse_request

MAX_EVIDENCE: Final = 100
PLAIN: Final = "text/plain; charset=utf-8"
_KEY, _PUB, _LOCK = "witness.key", "witness.pub", "lock"
_HASH: Final = re.compile(r"[0-9a-f]{64}")

log = structlog.get_logger("witness")


class Reply(NamedTuple):
    """What an HTTP request is answered with."""

    status: int
    body: str
    content_type: str = PLAIN


class Watched(NamedTuple):
    """A log, and what was cosigned of it: None, if nothing."""

    log: Verifier
    checkpoint: Checkpoint | None
    time_s: int | None


def create(folder: Path, name: str, random: Callable[[int], bytes] = os.urandom) -> Cosigner:
    """A new witness with a key of its own. Raises EnvironmentFault where there is one."""
    cosigner = Cosigner(name, random(32))
    make_private(folder)
    files = Files()
    for each in ("logs", "evidence"):
        make_private(folder / each)
    try:
        for file, text in ((_KEY, cosigner.skey), (_PUB, cosigner.vkey)):
            descriptor = files.create(folder / file)
            try:
                files.write(descriptor, text.encode() + b"\n")
                files.sync(descriptor)
            finally:
                files.close(descriptor)
    except FileExistsError:
        raise EnvironmentFault(
            f"{folder}: is a witness already, and its key is kept; take another folder"
        ) from None
    files.sync_folder(folder)
    return cosigner


def add_log(folder: Path, vkey: str, *, new_key: bool = False) -> Verifier:
    """Have it cosign for a log, whether it runs or not. `new_key`: the log has changed its key.

    Raises EnvironmentFault, or Damaged when it is no log's key.
    """
    check_private(folder)
    verifier = Verifier.from_vkey(vkey)
    if verifier.algorithm != ED25519:
        raise Damaged(f"a key of algorithm {verifier.algorithm:02x}; expected {ED25519:02x}, that of a log")
    path = _path(folder, verifier.name, "pub")
    known = _read_log(path)
    if known is not None and known != verifier and not new_key:
        raise EnvironmentFault(
            f"{verifier.name}: watched already, with the key {known.key_id.hex()}; if the log has a new key, "
            f"and its operator says so, add it with --new-key"
        )
    Files().store(path, verifier.vkey.encode() + b"\n", durable=True)
    return verifier


def watched(folder: Path) -> list[Watched]:
    """All logs, by name. Raises Damaged or EnvironmentFault."""
    check_private(folder)
    own = load_key(folder).verifier
    found = []
    for path in (folder / "logs").glob("*.pub"):
        verifier = _read_log(path)
        if verifier is not None:
            found.append(_read_watched(folder, verifier, own))
    return sorted(found, key=lambda each: each.log.name)


def load_key(folder: Path) -> Cosigner:
    """Raises EnvironmentFault or Damaged."""
    path = folder / _KEY
    try:
        return Cosigner.from_skey(path.read_text("ascii").strip())
    except FileNotFoundError:
        raise EnvironmentFault(f"{path}: no such key; `gatebook witness init` makes one") from None
    except (OSError, ValueError) as error:
        raise EnvironmentFault(f"{path}: {error}") from None


def origin_hash(origin: str) -> str:
    return hashlib.sha256(origin.encode()).hexdigest()


def _path(folder: Path, origin: str, kind: str) -> Path:
    return folder / "logs" / f"{origin_hash(origin)}.{kind}"


def _read(path: Path) -> bytes | None:
    try:
        with path.open("rb") as stream:
            return stream.read(MAX_NOTE_BYTES * 2)
    except FileNotFoundError:
        return None


def _read_log(path: Path) -> Verifier | None:
    data = _read(path)
    return None if data is None else Verifier.from_vkey(data.decode("utf-8", "replace").strip())


def _read_watched(folder: Path, verifier: Verifier, own: Verifier) -> Watched:
    """Raises Damaged or Tampered unless this witness wrote exactly this."""
    path = _path(folder, verifier.name, "checkpoint")
    data = _read(path)
    if data is None:
        return Watched(verifier, None, None)
    try:
        checked = check_note(data, [own])
        checkpoint = open_text(checked.text)
    except LedgerError as error:
        raise type(error)(f"{path}: {error}; nothing is cosigned for this log any more") from None
    if checkpoint.origin != verifier.name:
        raise Tampered(f"{path}: is of {checkpoint.origin}; nothing is cosigned for {verifier.name} any more")
    return Watched(verifier, checkpoint, checked.signatures[0][1])


def open_text(text: str) -> Checkpoint:
    """The first three lines of a checkpoint; other logs may have lines of their own behind them."""
    lines = text.split("\n")
    if "" in lines[3:-1]:
        raise Damaged("an extension line of a checkpoint is not empty")
    return parse_checkpoint("\n".join(lines[:3]) + "\n")


class State:
    """The witness that runs. Any number of threads may use it."""

    def __init__(self, folder: Path, now_s: Callable[[], float], files: Files | None = None) -> None:
        """Raises EnvironmentFault when another process has it, or Damaged when what it kept is not whole."""
        check_private(folder)
        self._folder = folder
        self._now_s = now_s
        self._files = files or Files()
        self._cosigner = load_key(folder)
        self._own = self._cosigner.verifier
        self._mutex = threading.Lock()
        self._last: dict[str, Checkpoint | None] = {}
        self._descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._check_lock()  # deleted between open and flock: then this lock locks nothing
            self._last = {each.log.name: each.checkpoint for each in watched(folder)}
        except BlockingIOError:
            os.close(self._descriptor)
            raise EnvironmentFault(f"{folder}: another process is this witness; end that one first") from None
        except BaseException:
            os.close(self._descriptor)
            raise

    def close(self) -> None:
        os.close(self._descriptor)

    def _check_lock(self) -> None:
        """Raises LedgerBusy when somebody removed or replaced the file: another process may hold the new one."""
        mine = os.fstat(self._descriptor)
        try:
            found = (self._folder / _LOCK).lstat()
        except FileNotFoundError:
            found = None
        if found is None or (found.st_dev, found.st_ino) != (mine.st_dev, mine.st_ino):
            raise LedgerBusy(
                f"{self._folder / _LOCK}: removed or replaced under us; another process may be this witness: "
                f"nothing is cosigned any more; end all of them, and start one"
            )

    @property
    def vkey(self) -> str:
        return self._own.vkey

    def cosigned(self, name: str) -> bytes | None:
        """The note that was cosigned last, by the hash of its log's origin."""
        if not _HASH.fullmatch(name):
            return None
        return _read(self._folder / "logs" / f"{name}.checkpoint")

    def add(self, data: bytes) -> Reply:
        """add-checkpoint: the checks in the order of the protocol, then disk, then the cosignature."""
        try:
            request = parse_request(data)
            note = parse_note(request.note)
            checkpoint = open_text(note.text)
        except Damaged as error:
            return Reply(400, f"{error}\n")
        with self._mutex:  # what was cosigned last is looked up and replaced as one step
            return self._add(request, note, checkpoint)

    def _add(self, request: Request, note: Note, checkpoint: Checkpoint) -> Reply:
        origin = checkpoint.origin
        verifier = _read_log(_path(self._folder, origin, "pub"))
        if verifier is None:
            return Reply(404, "no such log here\n")
        try:
            check_note(request.note, [verifier])
        except Tampered:
            return Reply(403, "not signed by the key that is known here for this log\n")
        if origin not in self._last:
            self._last[origin] = _read_watched(self._folder, verifier, self._own).checkpoint
        if request.old > checkpoint.size:
            return Reply(400, f"the old size {request.old} is above the checkpoint's, {checkpoint.size}\n")
        last = self._last[origin]
        old, old_root = (last.size, last.root) if last else (0, EMPTY_ROOT)
        if request.old != old:
            return Reply(409, f"{old}\n", SIZE_TYPE)
        try:
            check_consistency(old, old_root, checkpoint.size, checkpoint.root, request.proof)
        except ValueError as error:
            self._keep_evidence(request, checkpoint)
            log.warning("inconsistent", origin=origin, cosigned=old, asked=checkpoint.size, why=str(error))
            return Reply(422, f"{error}\n")
        return self._cosign(note, checkpoint, verifier)

    def _cosign(self, note: Note, checkpoint: Checkpoint, verifier: Verifier) -> Reply:
        time_s = int(self._now_s())
        if time_s <= 0:
            return Reply(500, "this machine does not know what time it is\n")
        line = self._cosigner.cosign(note.text, time_s)
        theirs = [each for each in note.lines if (each.name, each.key_id) == (verifier.name, verifier.key_id)]
        kept = encode_note(Note(note.text, (*theirs[:1], line)))
        self._check_lock()
        self._files.store(_path(self._folder, checkpoint.origin, "checkpoint"), kept, durable=True)
        # A crash within `store`: the old note or the new one is there, and nobody has got the cosignature.
        self._last[checkpoint.origin] = checkpoint
        # A crash here: the log does not know that it was cosigned; it learns the size from a 409.
        return Reply(200, str(line))

    def _keep_evidence(self, request: Request, checkpoint: Checkpoint) -> None:
        """What the log's own key signed, though what was cosigned is no beginning of it, as far as is shown."""
        folder = self._folder / "evidence"
        name = f"{origin_hash(checkpoint.origin)}-{checkpoint.size}-{checkpoint.root.hex()[:16]}.checkpoint"
        if len(list(folder.iterdir())) < MAX_EVIDENCE and not (folder / name).exists():
            self._files.store(folder / name, request.note, durable=True)
