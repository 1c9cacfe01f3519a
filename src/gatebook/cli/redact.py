"""`gatebook redact`: remove a request's records, or one record, from the ledger for good.

Finds what is meant with the reader's key and orders it; what may be removed, and how, is recorder.redacting's.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import typer

from gatebook import record
from gatebook.access.find import LOOK_BACK
from gatebook.access.found import Access, read
from gatebook.cli.actor import whoever
from gatebook.cli.opened import ReaderKey, find_access, index_of, open_log
from gatebook.cli.option import DEFAULT_CONFIG, SET_UP, ConfigPath, Json
from gatebook.cli.report import say, say_json
from gatebook.cli.revoke import deployment
from gatebook.errors import GatebookError
from gatebook.ledger.read import Reader
from gatebook.recorder.submit import order
from gatebook.scrub import Scrubber

PAUSE_S: Final = 0.2  # between two segments: guards that waited are answered before the next

_scrub = Scrubber().scrub


def redact(
    target: Annotated[
        str,
        typer.Argument(
            metavar="REQUEST_ID|INDEX",
            help="The X-Request-ID of an answer, or 8 digits or more of it: its decision and its outcome. Or a "
            "Gatebook-Receipt, or an entry's index of up to 7 digits: that record alone.",
        ),
    ],
    reason: Annotated[str, typer.Option(help="Why: a line, for the log and in the record's place.")],
    because: Annotated[
        Literal["secret", "request", "other"],
        typer.Option(help="What it is about: a secret that was recorded by mistake, or what a person asked for."),
    ] = "secret",
    config: ConfigPath = DEFAULT_CONFIG,
    reader: ReaderKey = None,
    as_json: Json = False,
) -> None:
    """Remove records for good, from every copy that has no key of its own. The log says who, when and why.

    Writes their segment anew and destroys the old one with its key; nothing brings them back. Proofs still hold.

    Example: `gatebook redact 3f2a9c1e --reason "a card number in the path"`
    """
    indices, keys = _find(config, reader, target.strip().lower())
    configuration, _ = deployment(config)
    parameters = {
        "keys": {dek_id.hex(): dek.hex() for dek_id, dek in keys.items()},
        "because": because,
        "reason": _scrub(reason)[:300],
        "actor": whoever().actor,
    }
    erased: list[dict[str, Any]] = []
    try:
        while indices:
            if erased:
                time.sleep(PAUSE_S)
            told = order(configuration, "redact", parameters | {"indices": indices})
            erased, indices = told["erased"] + erased, told["left"]
    finally:
        if erased:
            _say(erased, indices, as_json)


def _say(erased: list[dict[str, Any]], left: list[int], as_json: bool) -> None:
    if as_json:
        say_json({"erased": erased, "left": left})
        return
    for each in erased:
        which = ", ".join(map(str, each["indices"]))
        say(f"erased: {which}; on the order of entry {each['order']}, as `gatebook verify` finds it on record")
    if left:
        say(f"not erased: {', '.join(map(str, left))}; give the command again for each of them")


def _find(config: Path, reader: Path | None, wanted: str) -> tuple[list[int], dict[bytes, bytes]]:
    """The records' indices, and the keys of the segments that hold them."""
    opened, _ = open_log(config, reader)
    index = index_of(opened, wanted)
    indices = [index] if index is not None else _of_request(opened, find_access(opened, wanted))
    found = [opened.dek(each) for each in indices]
    return indices, dict(each for each in found if each is not None)


def _of_request(opened: Reader, one: Access) -> list[int]:
    """All records of the one request: its decision, and each outcome that is of it."""
    if one.outcome_index is None:
        raise GatebookError(
            f"nothing was erased: the outcome of {one.id} is not in the log yet, and would come after it; "
            f"wait for it, or erase entry {one.decision_index} alone"
        )
    first = one.decision_index if one.decision_index is not None else one.outcome_index
    indices = {first, one.outcome_index}
    for index, data in opened.forwards(first):
        if index > one.outcome_index + LOOK_BACK:
            break
        made = read(index, data) if b'"kind":"outcome"' in data else None
        if isinstance(made, record.Outcome) and (made.id == one.id or _is_of(made, one.decision_index)):
            indices.add(index)
    return sorted(indices)


def _is_of(made: record.Outcome, decision: int | None) -> bool:
    return made.id is None and decision is not None and made.decision_index == decision


def register(app: typer.Typer) -> None:
    app.command(rich_help_panel=SET_UP)(redact)
