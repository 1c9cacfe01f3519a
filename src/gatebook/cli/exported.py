"""`gatebook verify --exported`: tells what `sinks.exported` finds. No logic."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from gatebook.cli.report import harmless, paint, say, say_json
from gatebook.errors import EnvironmentFault, Incomplete, Tampered
from gatebook.ledger.note import Verifier
from gatebook.ledger.prove import Tree
from gatebook.sinks.exported import Line, check, lines_of

MAX_TOLD = 100

Exported = Annotated[
    Path | None,
    typer.Option(
        help="A sink's records, exported as lines of JSON: are they in the log, and do they say what it says?",
        show_default=False,
    ),
]


def verify_exported(path: Path, ledger: Path, verifier: Verifier, *, as_json: bool) -> int:
    """The exit code: 0 when every line is verified."""
    counts: Counter[str] = Counter()
    told: list[Line] = []
    tree = Tree(ledger, verifier)
    size = tree.checkpoint().size
    try:
        with path.open("rb") as stream:
            for line in check(lines_of(stream), tree, verifier.name):
                counts[line.verdict] += 1
                if line.verdict not in ("verified", "a trial") and len(told) < MAX_TOLD:
                    told.append(line)
    except OSError as error:
        raise EnvironmentFault(f"{path}: {(error.strerror or str(error)).lower()}") from None
    lied = counts["altered"] + counts["not in the log"] + counts["unreadable"]
    unproven = counts["not proven"]
    code = Tampered.exit_code if lied else Incomplete.exit_code if unproven else 0
    if as_json:
        say_json({"verified": code == 0, "size": size, "counts": counts, "lines": [one._asdict() for one in told]})
        return code
    for one in told:
        where = f"{harmless(one.id)}: " if one.id else ""
        say(f"line {one.number}: {paint(one.verdict, '33', sys.stdout)}: {where}{harmless(one.why)}")
    if lied + unproven > len(told):
        say(f"and {lied + unproven - len(told)} more")
    trials = counts["a trial"]
    total = sum(counts.values()) - trials
    said = paint("verified", "32", sys.stdout) if code == 0 else paint("not verified", "31", sys.stdout)
    say(f"{said}: {counts['verified']} of {total} lines are in the log of {size} entries, and say what it says")
    if trials:
        say(f"passed over: {trials} of `gatebook sinks test`, which are in no log")
    say("that nothing is missing from the file is not shown: compare how many there are")
    return code
