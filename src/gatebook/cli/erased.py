"""Receipts of erasures: made once a checkpoint covers them, written, shown and checked. No logic."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from gatebook.cli.opened import log_verifier
from gatebook.cli.prove import write_new
from gatebook.cli.report import note, say, warn
from gatebook.errors import EnvironmentFault, LedgerError
from gatebook.ledger.entry import Erase, Erased, parse
from gatebook.ledger.note import Verifier
from gatebook.ledger.prove import Tree
from gatebook.ledger.read import entries_since
from gatebook.ledger.receipt import MAX_RECEIPT_BYTES, Line, check_receipt, encode_receipt, line
from gatebook.ledger.verify import Report
from gatebook.paths import Paths
from gatebook.recorder import vault

_ERASE = b"GB\x01\x05"
PATIENCE_S = 10.0  # a checkpoint comes each second


def await_receipt(paths: Paths, erased: list[dict[str, Any]], patience_s: float = PATIENCE_S) -> list[Line] | None:
    """The ERASE entries with their proofs; None when no checkpoint covers them in time."""
    tree = Tree(paths.ledger, log_verifier(paths))
    until = time.monotonic() + patience_s
    lines: list[Line] = []
    for each in erased:
        entry = bytes.fromhex(each["entry"])
        while (inclusion := tree.inclusion(each["index"], entry)) is None:
            if time.monotonic() > until:
                return None
            time.sleep(0.05)
        lines.append(line(each["index"], entry, inclusion))
    return lines


def say_receipt(
    origin: str, lines: list[Line] | None, erased: list[dict[str, Any]], out: Path | None, *, quiet: bool
) -> None:
    if not quiet:
        for each in erased:
            say(f"  entry {each['index']}: ERASE {each['pseudonym']}")
    if lines is None:
        again = f"gatebook subject receipt {erased[0]['pseudonym']}"
        warn(f"no checkpoint covers it yet, so there is no proof to hand out; later: `{again}`")
    elif out is not None:
        write_new(out, encode_receipt(origin, lines))
        note(f"{out}: the receipt; check it anywhere: gatebook verify {out} --key log.pub")
    elif not quiet:
        say(encode_receipt(origin, lines).decode().rstrip("\n"))


def erasures(paths: Paths, start: int = 0) -> list[tuple[int, bytes, Erase]]:
    """Of persons: (index, entry's bytes, entry) from `start` on, signed for or not yet. Needs no key."""
    found = []
    for index, data in entries_since(paths.ledger / "segments", start):
        entry = parse(data) if data.startswith(_ERASE) else None
        if isinstance(entry, Erase) and entry.kind == Erased.SUBJECT:
            found.append((index, data, entry))
    return found


def find_restored(report: Report, path: Path) -> None:
    """A vault that holds a row which the log says is destroyed is one from before: a finding for each."""
    for row in vault.among(path, sorted(report.forgotten)):
        what = f"has the row of {row.pseudonym.hex()}, which the log says was destroyed"
        meaning = "it was restored from before: whoever was forgotten is known again"
        report.found(1, "incomplete", path.name, what, meaning)


def verify_receipt(path: Path, verifier: Verifier) -> dict[str, Any]:
    """What the receipt proves. Raises LedgerError unless it does."""
    try:
        with path.open("rb") as stream:
            found = check_receipt(stream.read(MAX_RECEIPT_BYTES), verifier)
    except OSError as error:
        raise EnvironmentFault(f"{path}: {(error.strerror or str(error)).lower()}") from None
    except LedgerError as error:
        raise type(error)(f"{path}: {error}") from None
    return {
        "verified": True,
        "origin": verifier.name,
        "erased": [
            {
                "index": told.index,
                "pseudonym": told.pseudonym,
                "reason": erase.reason,
                "authorisation": erase.authorisation_sha256.hex(),
                "size": checkpoint.size,
            }
            for told, erase, checkpoint in found
        ],
    }


def say_verified(told: dict[str, Any]) -> None:
    for each in told["erased"]:
        say(f"entry {each['index']}: whoever was {each['pseudonym']} was forgotten (reason {each['reason']})")
    say(f"verified: the signed log of {told['origin']} says so; that the bytes are gone, no log can prove")
