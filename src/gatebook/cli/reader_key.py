"""A reader's private key, however it is kept: open, under a passphrase, or in a KMS. Asks for what it needs.

A passphrase comes from the terminal, or from the file that GATEBOOK_READER_PASSPHRASE_FILE names; never from the
command line, where every process could read it. A KMS is found as Vault's own client finds it.
"""

from __future__ import annotations

import getpass
import os
import sys
from pathlib import Path

from gatebook.errors import EnvironmentFault
from gatebook.kms import sealed
from gatebook.kms.transit import Transit, access
from gatebook.ledger import keys

NAMED_BY = "GATEBOOK_READER_PASSPHRASE_FILE"


def load_reader(named: Path | None, folder: Path, passphrase_file: Path | None = None) -> keys.Reader:
    """From the file that was named, or from reader.key or reader.kms. Raises EnvironmentFault, Damaged."""
    path = named or default(folder)
    if path is not None and path.is_dir():
        path = default(path)
    if path is None:
        raise EnvironmentFault(f"{named or folder}: no reader's key on this host: name it with --reader FILE")
    if not path.exists():
        raise EnvironmentFault(f"{path}: no such file; --reader names the reader's private key, or a copy of it")
    data = keys.read_key_file(path, secret=False)
    if not data.startswith(sealed.MARK):
        return keys.load_reader(path, lambda place: passphrase(f"Passphrase of {place}: ", passphrase_file))
    found = sealed.parse(data, str(path))
    return sealed.unseal(found, transit(found.mount, found.key))


def default(folder: Path) -> Path | None:
    """The key that lies in keys/, if there is one."""
    return next((folder / name for name in (keys.READER_KEY, sealed.FILE) if (folder / name).exists()), None)


def transit(mount: str, key: str) -> Transit:
    return Transit(access(os.environ, Path.home()), mount, key)


def passphrase(prompt: str, file: Path | None = None, *, twice: bool = False) -> bytes:
    """Raises EnvironmentFault when nobody can be asked."""
    named = os.environ.get(NAMED_BY)
    path = file or (Path(named) if named else None)
    if path is not None:
        found = keys.read_key_file(path, secret=True).removesuffix(b"\n").removesuffix(b"\r")
        if not found:
            raise EnvironmentFault(f"{path}: empty; it should hold a passphrase")
        return found
    if not sys.stdin.isatty():
        raise EnvironmentFault(
            f"a passphrase is needed, and there is no terminal to ask on; name a file by {NAMED_BY}"
        )
    given = getpass.getpass(prompt)
    if twice and getpass.getpass("Once more: ") != given:
        raise EnvironmentFault("the two are not the same; nothing was done")
    return given.encode()
