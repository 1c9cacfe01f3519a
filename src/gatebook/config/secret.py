"""Reads what the configuration only names: a secret in the environment or in a file.

In: a Secret. Out: its bytes, or EnvironmentFault, which names where it should have been. A secret is at most
MAX_SECRET_BYTES, not empty, and without the one line break that editors put at a file's end. Never keeps it, and
never says it.
"""

from __future__ import annotations

import os

from gatebook.config.base import Secret
from gatebook.errors import EnvironmentFault

MAX_SECRET_BYTES = 64 << 10


def read(secret: Secret) -> bytes:
    """Raises EnvironmentFault."""
    if secret.env is not None:
        place, found = f"environment variable {secret.env}", os.environb.get(secret.env.encode())
        if found is None:
            raise EnvironmentFault(f"{place}: not set; set it where gatebook is started")
    else:
        assert secret.file is not None  # noqa: S101 - one of the two is there
        place = str(secret.file)
        try:
            with secret.file.open("rb") as stream:
                found = stream.read(MAX_SECRET_BYTES + 1)
        except OSError as error:
            why = (error.strerror or str(error)).lower()
            raise EnvironmentFault(f"{place}: {why}; it should hold a secret") from None
        found = found.removesuffix(b"\n").removesuffix(b"\r")
    if not found or len(found) > MAX_SECRET_BYTES:
        what = "empty" if not found else f"more than {MAX_SECRET_BYTES} bytes"
        raise EnvironmentFault(f"{place}: {what}; it should hold a secret")
    return found
