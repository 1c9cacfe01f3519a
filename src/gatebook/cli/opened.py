"""Opens a deployment's ledger for reading, as commands need it: with the reader's key, beside a running writer.

Errors name the file that is missing and what to do. Never writes, never takes the ledger's lock.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gatebook.cli.report import warn
from gatebook.config.load import state_dir
from gatebook.errors import EnvironmentFault
from gatebook.ledger import keys
from gatebook.ledger.note import Verifier
from gatebook.ledger.read import Reader
from gatebook.paths import Paths, check_private

ReaderKey = Annotated[
    Path | None,
    typer.Option(
        "--reader", help="The reader's private key, if it is not in the state folder.", show_default=False
    ),
]


def open_log(config: Path, reader_key: Path | None) -> tuple[Reader, Paths]:
    """Raises ConfigError, EnvironmentFault, or Damaged for a key that is none."""
    paths = Paths(state_dir(config))
    check_private(paths.state)
    if not (paths.ledger / "segments").is_dir():
        raise EnvironmentFault(f"{paths.ledger}: nothing has been logged yet; start `gatebook run` first")
    key = keys.load_reader(reader_key or paths.keys)
    return Reader(paths.ledger, log_verifier(paths).name, paths.deks, key), paths


def log_verifier(paths: Paths) -> Verifier:
    """The log's public key."""
    return keys.load_verifier(paths.keys)


def tell_gaps(reader: Reader, told: int = 0) -> int:
    """Warn of what could not be read since `told` gaps were told of; returns how many there are now."""
    for gap in reader.gaps[told:]:
        last = gap.first_index + gap.n - 1
        which = f"entry {gap.first_index}" if gap.n == 1 else f"entries {gap.first_index} to {last}"
        warn(f"{which} could not be read: {gap.why}; `gatebook verify` says more")
    return len(reader.gaps)
