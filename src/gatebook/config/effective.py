"""The configuration in force, as every process of ours reads it: canonical JSON in the state folder.

The supervisor alone writes it, before it tells anybody to read it; its SHA-256 is what decisions name. Each one
that ever was in force is kept by that name as well, so that a decision can be held against the rules it names:
never one in force that is not kept. It holds no secret: secrets are only named in it.
Trust: the folder is private. It may be lost: `gatebook run` makes it anew from the person's YAML.
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from pathlib import Path
from typing import Final

from gatebook.config.model import Configuration
from gatebook.errors import EnvironmentFault

KEPT: Final = "configurations"
MAX_KEPT_BYTES: Final = 16 << 20
_DIGEST = re.compile(r"[0-9a-f]{64}")


def read(path: Path) -> Configuration:
    """Raises EnvironmentFault when it is not there or was written by another version."""
    try:
        return Configuration.model_validate_json(path.read_bytes())
    except (OSError, ValueError) as error:
        raise EnvironmentFault(f"{path}: {error}; `gatebook run` writes this file, start it again") from None


def write(configuration: Configuration, path: Path) -> None:
    """Replace it as a whole, mode 0600. Raises OSError."""
    folder = path.parent / KEPT
    folder.mkdir(mode=0o700, exist_ok=True)
    digest = configuration.digest().hex()
    if kept(path.parent, digest) is None:
        _replace(configuration, folder / f"{digest}.json")
        # A crash before the next line leaves a configuration that is kept and never was in force.
    _replace(configuration, path)


def kept(state: Path, digest: str) -> bytes | None:
    """The configuration of that SHA-256, in hex, as it was in force. None: not kept, or changed since."""
    if _DIGEST.fullmatch(digest) is None:
        return None
    try:
        with (state / KEPT / f"{digest}.json").open("rb") as stream:
            data = stream.read(MAX_KEPT_BYTES + 1)
    except OSError:
        return None
    return data if hashlib.sha256(data).hexdigest() == digest else None


def _replace(configuration: Configuration, path: Path) -> None:
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(configuration.effective())
            stream.flush()
            os.fsync(stream.fileno())
        # A crash before this line leaves the old configuration in force, after it the new one: either way the
        # next start writes it again.
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
