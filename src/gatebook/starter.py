"""What `gatebook init` makes: a commented configuration, its schema, keys, a development certificate.

In: a folder, the deployment's name, the time. Out: the paths made. All is made in a folder beside its
final place and then moved there, the configuration last: a crash leaves either no `gatebook.yaml`, and
so nothing that would be used, or everything. Never writes over anything that exists: keys least of all,
since a ledger cannot be continued or read without them.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

from gatebook import certificates
from gatebook.config.schema import FILE_NAME as SCHEMA_FILE
from gatebook.config.schema import schema_text
from gatebook.config.value import NAME
from gatebook.errors import ConfigError, EnvironmentFault, Problem
from gatebook.ledger.keys import create_keys
from gatebook.paths import Paths, make_private

CONFIG_FILE = "gatebook.yaml"
NODE = "node-1"  # the model's default
_PLACES = ("state", "tls", SCHEMA_FILE, CONFIG_FILE)  # in the order they are moved to


def initialise(folder: Path, name: str, now: datetime.datetime) -> list[Path]:
    """Makes everything. Raises ConfigError for the name, EnvironmentFault for the folder."""
    if not re.fullmatch(NAME, name):
        expected = "lower-case letters, digits, '-', '_', '.', of at most 64 characters"
        raise ConfigError([Problem("--name", 0, 0, "", f"found {name!r}", expected)])
    return _make(folder, _PLACES, name, now)


def renew_certificate(folder: Path, now: datetime.datetime) -> list[Path]:
    """Makes the development certificate alone, where the folder `tls` has been moved away."""
    return _make(folder, ("tls",), "", now)


def starter_text(name: str = "acme") -> str:
    """The commented configuration."""
    text = resources.files("gatebook").joinpath("starter.yaml").read_text("utf-8")
    plain = re.fullmatch(r"[a-z][a-z0-9-]*", name) and name not in ("true", "false", "null")
    written = name if plain else json.dumps(name)
    return re.sub(r"^name: acme *(?=#)", lambda _: f"name: {written} ".ljust(36), text, count=1, flags=re.M)


def _make(folder: Path, places: tuple[str, ...], name: str, now: datetime.datetime) -> list[Path]:
    existing = [str(folder / place) for place in places if os.path.lexists(folder / place)]
    if existing:
        raise EnvironmentFault(
            f"nothing was written, because there is already {', '.join(existing)}; "
            f"name another folder, or move {'it' if len(existing) == 1 else 'them'} away first"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _staging(folder) as staging:
            # A crash from here on leaves .gatebook-init-*: keys that nothing was sealed with.
            if "state" in places:
                _write_state(staging / "state", f"{name}/{NODE}")
            _write_tls(staging / "tls", certificates.development(now))
            if CONFIG_FILE in places:
                _write(staging / SCHEMA_FILE, schema_text().encode(), 0o644)
                _write(staging / CONFIG_FILE, starter_text(name).encode(), 0o644)
            for place in places:
                # A crash between two moves leaves no gatebook.yaml: the next init names what is there.
                _move(staging / place, folder / place)
            _sync(folder)
    except OSError as error:
        raise EnvironmentFault(f"{error.filename or folder}: {(error.strerror or str(error)).lower()}") from error
    return [folder / place for place in places]


@contextlib.contextmanager
def _staging(folder: Path) -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix=".gatebook-init-", dir=folder))  # mode 0700
    try:
        yield made
    finally:
        shutil.rmtree(made)


def _write_state(state: Path, origin: str) -> None:
    paths = Paths(state)
    make_private(paths.state)
    make_private(paths.keys)
    create_keys(paths.keys, origin)
    for secret in ("pseudonym.key", "fingerprint.key"):
        _write(paths.keys / secret, secrets.token_bytes(32), 0o600)
    _sync(paths.keys)


def _write_tls(folder: Path, made: certificates.Development) -> None:
    folder.mkdir()
    _write(folder / "ca.pem", made.ca, 0o644)
    _write(folder / "server.pem", made.certificate, 0o644)
    _write(folder / "server.key", made.key, 0o600)
    _sync(folder)


def _write(path: Path, data: bytes, mode: int) -> None:
    """A new file, synced, with exactly this mode; in a folder that nobody else sees yet."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        os.fchmod(descriptor, mode)
        stream.write(data)
        stream.flush()
        os.fsync(descriptor)


def _move(source: Path, target: Path) -> None:
    """Fails where `target` exists, even if it came into being a moment ago."""
    if source.is_dir():
        source.rename(target)  # fails unless target is an empty folder
    else:
        os.link(source, target)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
