"""Opens a deployment's ledger for reading, as commands need it: with the reader's key, beside a running writer.

Errors name the file that is missing and what to do. Never writes, never takes the ledger's lock.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from gatebook.access.find import by_index, by_request_id
from gatebook.access.found import Access
from gatebook.cli.reader_key import load_reader
from gatebook.cli.report import harmless, note, warn
from gatebook.config.load import state_dir
from gatebook.errors import EnvironmentFault, GatebookError
from gatebook.ledger import keys
from gatebook.ledger.note import Verifier
from gatebook.ledger.read import Reader
from gatebook.paths import Paths, check_private

_ID = re.compile(r"[0-9a-f]{8,32}")
_INDEX = re.compile(r"(?:(?P<origin>[^/]+/[^/]+)/)?(?P<index>[0-9]{1,18})")

ReaderKey = Annotated[
    Path | None,
    typer.Option(
        "--reader",
        help="The reader's private key, if it is not in the state folder: PEM, or reader.kms.",
        show_default=False,
    ),
]


def open_log(config: Path, reader_key: Path | None) -> tuple[Reader, Paths]:
    """Raises ConfigError, EnvironmentFault, or Damaged for a key that is none."""
    paths = Paths(state_dir(config))
    check_private(paths.state)
    if not (paths.ledger / "segments").is_dir():
        raise EnvironmentFault(f"{paths.ledger}: nothing has been logged yet; start `gatebook run` first")
    key = load_reader(reader_key, paths.keys)
    return Reader(paths.ledger, log_verifier(paths).name, paths.deks, key), paths


def log_verifier(paths: Paths) -> Verifier:
    """The log's public key."""
    return keys.load_verifier(paths.keys)


def tell_gaps(reader: Reader, told: int = 0) -> int:
    """Warn of what could not be read since `told` gaps were told of; returns how many there are now."""
    for gap in reader.gaps[told:]:
        last = gap.first_index + gap.n - 1
        which = f"entry {gap.first_index}" if gap.n == 1 else f"entries {gap.first_index} to {last}"
        if gap.erased:
            note(harmless(f"{which}: {gap.why}"))
        else:
            warn(f"{which} could not be read: {gap.why}; `gatebook verify` says more")
    return len(reader.gaps)


def index_of(opened: Reader, wanted: str) -> int | None:
    """The entry that a receipt, or an index alone, names. Raises GatebookError for another ledger's receipt."""
    place = _INDEX.fullmatch(wanted.strip().lower())
    if place is None or not (place["origin"] or len(place["index"]) < 8):
        return None
    if place["origin"] not in (None, opened.origin):
        raise GatebookError(f"{wanted}: is of the ledger {place['origin']}; this one is {opened.origin}")
    return int(place["index"])


def find_access(opened: Reader, wanted: str) -> Access:
    """By request id, the beginning of one, receipt or index. Raises GatebookError unless it is exactly one."""
    wanted, index = wanted.strip().lower(), index_of(opened, wanted)
    if index is not None:
        found = by_index(opened, index)
        if found is None:
            erased = next((gap for gap in opened.gaps if gap.first_index == index and gap.erased), None)
            why = erased.why if erased is not None else "is no record of an access, or cannot be read"
            raise GatebookError(f"entry {index}: {why}")
        return found
    if _ID.fullmatch(wanted) is None:
        raise GatebookError(
            f"{wanted!r}: expected 8 to 32 hexadecimal digits, or a receipt such as acme/node-1/4711"
        )
    accesses = by_request_id(opened, wanted)
    if not accesses:
        raise GatebookError(
            f"no request {wanted} in the log; `gatebook log` shows the newest. If it was redacted, ask by its "
            f"index: gatebook show {opened.origin}/10, or whichever it was"
        )
    if len(accesses) > 1:
        raise GatebookError(
            f"{len(accesses)} requests begin with {wanted}: "
            + ", ".join(str(each.id) for each in accesses[:10])
            + "; give more digits"
        )
    return accesses[0]
