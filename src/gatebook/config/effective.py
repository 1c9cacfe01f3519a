"""The configuration in force, as every process of ours reads it: canonical JSON in the state folder.

The supervisor alone writes it, before it tells anybody to read it; its SHA-256 is what decisions name.
Trust: the folder is private. It may be lost: `gatebook run` makes it anew from the person's YAML.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from gatebook.config.model import Configuration
from gatebook.errors import EnvironmentFault


def read(path: Path) -> Configuration:
    """Raises EnvironmentFault when it is not there or was written by another version."""
    try:
        return Configuration.model_validate_json(path.read_bytes())
    except (OSError, ValueError) as error:
        raise EnvironmentFault(f"{path}: {error}; `gatebook run` writes this file, start it again") from None


def write(configuration: Configuration, path: Path) -> None:
    """Replace it as a whole, mode 0600. Raises OSError."""
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
