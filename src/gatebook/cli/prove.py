"""`gatebook prove`: one record with its proof, in a file that anybody can check. No logic."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from gatebook.cli.opened import ReaderKey, find_access, index_of, log_verifier, open_log, tell_gaps
from gatebook.cli.option import DEFAULT_CONFIG, LOOK, ConfigPath
from gatebook.cli.report import note
from gatebook.errors import EnvironmentFault, GatebookError, LedgerError
from gatebook.ledger.proof import Proof, encode_proof, record_entry
from gatebook.ledger.prove import Inclusion, Tree
from gatebook.ledger.read import Reader
from gatebook.paths import Paths


def prove(
    request: Annotated[
        str,
        typer.Argument(
            metavar="REQUEST_ID",
            help="The X-Request-ID of an answer, or 8 digits or more of it; a Gatebook-Receipt; or an index.",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="A new file, such as x.tlog-proof. Default: stdout.", show_default=False),
    ] = None,
    outcome: Annotated[
        bool, typer.Option("--outcome", help="Prove what came of the request, not what was decided.")
    ] = False,
    config: ConfigPath = DEFAULT_CONFIG,
    reader: ReaderKey = None,
) -> None:
    """Prove one record: write it with its proof into a file, which discloses nothing else of the log.

    Of a request it is the decision, unless --outcome is given; of an index, the record of that entry. Whoever
    has the file and the log's public key checks it with `gatebook verify FILE --key log.pub`.

    Example: `gatebook prove 3f2a9c1e -o x.tlog-proof`, or `gatebook prove acme/node-1/4711 --outcome`
    """
    opened, paths = open_log(config, reader)
    index = _index(opened, request, outcome)
    found = next(opened.disclosed(index, index + 1), None)
    tell_gaps(opened)
    if found is None:
        raise GatebookError(f"entry {index} is no record, or cannot be read: only records can be disclosed")
    _, salt, record = found
    inclusion = _inclusion(paths, index, record_entry(salt, record))
    if inclusion is None:
        raise EnvironmentFault(
            f"entry {index} is not signed for yet: the next checkpoint covers it, within a second while gatebook "
            f"runs; try again then"
        )
    data = encode_proof(Proof(index, tuple(inclusion.path), inclusion.note, salt, record))
    if out is None:
        sys.stdout.write(data.decode())
    else:
        write_new(out, data)
        size = inclusion.checkpoint.size
        note(f"{out}: entry {index}, proven to be in the signed tree of {size} entries of {opened.origin}")
        note(f"check it anywhere: gatebook verify {out} --key log.pub")


def _inclusion(paths: Paths, index: int, entry: bytes) -> Inclusion | None:
    """By the last checkpoint that witnesses vouch for, if it covers the entry; else by the last one."""
    verifier = log_verifier(paths)
    if (paths.ledger / "log" / "cosigned").exists():
        with suppress(LedgerError):  # `gatebook verify` says what is wrong with it
            found = Tree(paths.ledger, verifier, "cosigned").inclusion(index, entry)
            if found is not None:
                return found
    return Tree(paths.ledger, verifier).inclusion(index, entry)


def _index(opened: Reader, wanted: str, outcome: bool) -> int:
    index = index_of(opened, wanted)
    if index is not None and not outcome:
        return index
    found = find_access(opened, wanted)
    which = found.outcome_index if outcome else found.decision_index
    if which is None and outcome:
        raise GatebookError(
            f"{wanted}: no outcome is on record yet; `gatebook show {wanted}` tells when there is one"
        )
    if which is None:
        raise GatebookError(f"{wanted}: was refused before a decision was made; prove its --outcome instead")
    return which


def write_new(path: Path, data: bytes) -> None:
    """A new file for its owner alone: it may tell of people. Raises EnvironmentFault, never writes over one."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
    except FileExistsError:
        raise EnvironmentFault(f"{path}: is there already; name a new file") from None
    except OSError as error:
        raise EnvironmentFault(f"{path}: {(error.strerror or str(error)).lower()}") from None


def register(app: typer.Typer) -> None:
    app.command(rich_help_panel=LOOK)(prove)
