"""`gatebook show`: one access in full, and whether its entries are in the signed tree. No logic."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any

import typer

from gatebook.access.found import Access, as_json
from gatebook.cli.line import moment
from gatebook.cli.opened import ReaderKey, find_access, log_verifier, open_log, tell_gaps
from gatebook.cli.option import DEFAULT_CONFIG, LOOK, ConfigPath, Json
from gatebook.cli.report import harmless, paint, say
from gatebook.ledger.prove import Tree
from gatebook.ledger.read import Reader
from gatebook.record import SIGNALS

_GROUPS = ("identity", "request", "client", "tls", "decision", "limit", "response", "upstream", "error")


def show(
    request: Annotated[
        str,
        typer.Argument(
            metavar="REQUEST_ID",
            help="The X-Request-ID of an answer, or 8 digits or more of it; or a Gatebook-Receipt.",
        ),
    ],
    config: ConfigPath = DEFAULT_CONFIG,
    reader: ReaderKey = None,
    as_json_: Json = False,
) -> None:
    """Show everything that is on record of one request.

    Says of both its entries whether the signed tree holds them.

    Example: `gatebook show 3f2a9c1e`, or `gatebook show acme/node-1/4711 --json`
    """
    opened, paths = open_log(config, reader)
    found = find_access(opened, request)
    tell_gaps(opened)
    proven = _proven(opened, Tree(paths.ledger, log_verifier(paths)), found)
    if as_json_:
        sys.stdout.write(
            json.dumps(json.loads(as_json(found)) | {"in_signed_tree": proven}, ensure_ascii=False) + "\n"
        )
        return
    _say(found, proven)


def _proven(opened: Reader, tree: Tree, found: Access) -> dict[str, int | None]:
    """The size of the signed tree that holds each entry; None where no checkpoint covers it yet."""
    proven: dict[str, int | None] = {}
    for name, index in (("decision", found.decision_index), ("outcome", found.outcome_index)):
        entry = opened.entry(index) if index is not None else None
        if index is not None and entry is not None:
            inclusion = tree.inclusion(index, entry)
            proven[name] = inclusion.checkpoint.size if inclusion is not None else None
    return proven


def _say(found: Access, proven: dict[str, int | None]) -> None:
    record: dict[str, Any] = json.loads(as_json(found))
    _line("id", found.id or "none")
    _line("time", f"{moment(found.time_us)} UTC")
    if found.trace_id is not None:
        _line("trace", found.trace_id)
    if found.open:
        _line("open", "no outcome has been seen yet")
    for word in found.signals:
        _line("signal", f"{word}: {SIGNALS.get(word, 'unknown to this version')}")
    if found.sealed is not None:
        _line("sealed", f"under {found.sealed.under}; `gatebook unseal {found.id}` opens it, for whom that is")
    for group in _GROUPS:
        if group in record:
            say(paint(group, "36", sys.stdout))
            for name, value in record[group].items():
                if value != []:
                    _line(f"  {name}", _text(value))
    say(paint("ledger", "36", sys.stdout))
    _line("  origin", found.origin)
    for name, index in (("decision", found.decision_index), ("outcome", found.outcome_index)):
        if index is None:
            _line(f"  {name}", "none")
        elif proven.get(name) is not None:
            _line(f"  {name}", f"entry {index}, in the signed tree of {proven[name]} entries")
        else:
            _line(f"  {name}", f"entry {index}, not signed for yet: the next checkpoint covers it")


def _line(name: str, value: str) -> None:
    say(f"{name:<16}{harmless(value)}")


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key}: {inner}" for key, inner in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return ("no", "yes")[value] if isinstance(value, bool) else str(value)


def register(app: typer.Typer) -> None:
    app.command(rich_help_panel=LOOK)(show)
