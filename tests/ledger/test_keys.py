"""Keys: never written over, never taken from a file that others can read, wrapped for exactly one reader."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from gatebook.errors import Damaged, EnvironmentFault, GatebookError, Tampered
from gatebook.ledger.keys import (
    WRAPPED_BYTES,
    Wrapped,
    create_keys,
    load_reader,
    load_recipients,
    load_signer,
    load_verifier,
    unwrap,
    wrap,
)

ORIGIN = "acme/node-1"
DEK, DEK_ID = bytes(range(32)), bytes(range(16))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    create_keys(tmp_path, ORIGIN)
    return tmp_path


def test_keys_are_made_for_each_other(folder: Path) -> None:
    signer = load_signer(folder)
    assert signer.name == ORIGIN
    assert load_verifier(folder).vkey == signer.vkey == load_verifier(folder / "log.pub").vkey
    (recipient,) = load_recipients(folder)
    assert recipient.id == load_reader(folder).id == load_reader(folder / "reader.key").id


def test_secret_keys_are_their_owners_alone_whatever_the_umask(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        create_keys(tmp_path, ORIGIN)
    finally:
        os.umask(old)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes == {"log.key": 0o600, "log.pub": 0o644, "reader.key": 0o600, "reader.pub": 0o644}


@pytest.mark.parametrize("name", ["log.key", "log.pub", "reader.key", "reader.pub"])
def test_existing_key_is_never_written_over(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"precious")
    with pytest.raises(FileExistsError):
        create_keys(tmp_path, ORIGIN)
    assert (tmp_path / name).read_bytes() == b"precious"


def test_two_ledgers_share_no_key(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    create_keys(other, ORIGIN)
    assert load_signer(other).vkey != load_signer(folder).vkey
    assert load_reader(other).id != load_reader(folder).id


@pytest.mark.parametrize(
    ("name", "load"), [("log.key", load_signer), ("reader.key", load_reader)], ids=["log", "reader"]
)
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602])
def test_secret_that_others_can_read_or_change_is_refused(
    folder: Path, name: str, load: Callable[[Path], object], mode: int
) -> None:
    (folder / name).chmod(mode)
    with pytest.raises(EnvironmentFault, match="chmod 600"):
        load(folder)


LOADERS: list[tuple[str, Callable[[Path], object]]] = [
    ("log.key", load_signer),
    ("log.pub", load_verifier),
    ("reader.key", load_reader),
    ("reader.pub", load_recipients),
]


@pytest.mark.parametrize(("name", "load"), LOADERS, ids=[name for name, _ in LOADERS])
def test_missing_key_says_which_and_where_from(folder: Path, name: str, load: Callable[[Path], object]) -> None:
    (folder / name).unlink()
    with pytest.raises(EnvironmentFault, match=name):
        load(folder)


@pytest.mark.parametrize("data", [b"", b"\xff\xfe", b"x" * 5000, b"PRIVATE+KEY+a+b+c\n"], ids=repr)
@pytest.mark.parametrize(("name", "load"), LOADERS, ids=[name for name, _ in LOADERS])
def test_garbage_in_a_key_file_is_refused_by_its_name(
    folder: Path, name: str, load: Callable[[Path], object], data: bytes
) -> None:
    (folder / name).write_bytes(data)
    with pytest.raises(Damaged, match=name):
        load(folder)


def test_key_of_another_kind_is_no_reader(folder: Path) -> None:
    key = Ed25519PrivateKey.generate()
    (folder / "reader.key").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    (folder / "reader.pub").write_bytes(
        key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )
    for load in (load_reader, load_recipients):
        with pytest.raises(Damaged, match="X25519"):
            load(folder)


def test_folder_in_place_of_a_key_is_a_fault_of_the_machine(folder: Path) -> None:
    (folder / "log.key").unlink()
    (folder / "log.key").mkdir()
    with pytest.raises(EnvironmentFault, match="directory"):
        load_signer(folder)


def test_further_recipients_are_found_and_counted_once(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "auditor"
    other.mkdir()
    create_keys(other, ORIGIN)
    (folder / "reader-auditor.pub").write_bytes((other / "reader.pub").read_bytes())
    (folder / "reader-again.pub").write_bytes((folder / "reader.pub").read_bytes())
    found = [recipient.id for recipient in load_recipients(folder)]
    assert found == [load_reader(folder).id, load_reader(other).id]


def test_wrapped_dek_opens_for_its_reader_under_its_id_alone(folder: Path, tmp_path: Path) -> None:
    (recipient,) = load_recipients(folder)
    wrapped = wrap(DEK, DEK_ID, recipient)
    assert len(wrapped.data) == WRAPPED_BYTES
    assert wrapped.recipient == recipient.id
    assert unwrap(wrapped, DEK_ID, load_reader(folder)) == DEK
    with pytest.raises(Tampered):
        unwrap(wrapped, bytes(16), load_reader(folder))
    other = tmp_path / "other"
    other.mkdir()
    create_keys(other, ORIGIN)
    with pytest.raises(Tampered):
        unwrap(wrapped, DEK_ID, load_reader(other))


@pytest.mark.parametrize("at", [0, 31, 32, 63, 64, 79])
def test_touched_wrapped_dek_does_not_open(folder: Path, at: int) -> None:
    (recipient,) = load_recipients(folder)
    wrapped = wrap(DEK, DEK_ID, recipient)
    bad = bytearray(wrapped.data)
    bad[at] ^= 1
    with pytest.raises(Tampered):
        unwrap(Wrapped(wrapped.recipient, bytes(bad)), DEK_ID, load_reader(folder))


@pytest.mark.parametrize("data", [b"", bytes(31), bytes(80), b"\xff" * 80], ids=["empty", "short", "zero", "ones"])
def test_nonsense_in_place_of_a_wrapped_dek_is_an_error_of_ours(folder: Path, data: bytes) -> None:
    with pytest.raises(GatebookError):
        unwrap(Wrapped(bytes(32), data), DEK_ID, load_reader(folder))


def test_same_dek_never_wraps_to_the_same_bytes(folder: Path) -> None:
    (recipient,) = load_recipients(folder)
    assert wrap(DEK, DEK_ID, recipient) != wrap(DEK, DEK_ID, recipient)
