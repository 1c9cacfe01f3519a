"""What `gatebook verify` ends with: how complete the log is, as lines of text and as JSON. No logic.

In: the report's account of entries, and the totals of records where they were read. Out: every number of both,
zeros as well, so that nobody has to know what is left out.
"""

from __future__ import annotations

import datetime
from dataclasses import asdict
from typing import Any

from gatebook.access.totals import Kind, Totals
from gatebook.cli.report import harmless, say
from gatebook.ledger.verify.account import Account


def told(account: Account, totals: Totals | None) -> dict[str, Any]:
    """`totals` None: no reader's key, so records were not counted."""
    return {
        "starts": {"clean": account.clean, "unclean": account.unclean},
        "policies": account.policies,
        "heartbeats": {
            "count": account.heartbeats,
            "longest_silence_us": account.silence_us,
            "last": None if account.last_us is None else _time(account.last_us),
        },
        "losses": [
            {**kind._asdict(), "entries": count, "missing": account.missing[kind]}
            for kind, count in sorted(account.losses.items())
        ],
        "records": None if totals is None else _records(totals),
    }


def _records(totals: Totals) -> dict[str, Any]:
    counted = asdict(totals)
    alone = {source: count for source, count in sorted(totals.alone.items()) if count}
    return {**counted, "alone": alone, "decisions": totals.decisions, "outcomes": totals.outcomes}


def say_completeness(account: Account, totals: Totals | None) -> None:
    say("completeness:")
    if totals is None:
        _line("records", "not counted: they were not read")
    else:
        _say_records(totals)
    for kind, count in sorted(account.losses.items()):
        _line("lost", f"{account.missing[kind]} of the {kind.producer}'s, {kind.reason}; {count} LOSS entries")
    if not account.losses:
        _line("lost", "nothing: no LOSS entry")
    last = "" if account.last_us is None else f", the last at {_time(account.last_us)}"
    silence = f"{account.silence_us / 1e6:.0f} s without one at most"
    _line("heartbeats", f"{account.heartbeats}{last}; {silence}")
    _line("starts", f"{account.clean + account.unclean}: {account.clean} clean, {account.unclean} not")
    _line("policies", f"{account.policies} POLICY entries")


def _say_records(totals: Totals) -> None:
    _line("allowed", _kind(totals.allowed))
    _line("denied", _kind(totals.denied))
    sources = ", ".join(f"{count} {source}" for source, count in sorted(totals.alone.items()) if count)
    _line("outcomes", f"{totals.outcomes}, of them {totals.alone.total()} without a decision" + _in(sources))
    for count, what in (
        (totals.repeated, "of a decision that had one before, or that is not known"),
        (totals.missing, "missing: the recorder knew that these requests had ended"),
        (totals.undecided, "of requests that were let through without a decision on record"),
    ):
        if count:
            _line("", f"{count} {what}")
    _line("other", f"{totals.others} records")
    wrong = f"{totals.contradicted} differ" if totals.contradicted else "all agree"
    _line(
        "compared", f"{totals.checked} heartbeats with the records before them: {wrong}; {_not(totals.unchecked)}"
    )
    _line("numbered", f"{totals.numbered} decided requests over HTTP/1")


def _kind(kind: Kind) -> str:
    said = f"{kind.total}: {kind.outcome} with an outcome, {kind.unknown} outcome_unknown, {kind.open} open"
    return said + (f", {kind.untold} of which it cannot be told" if kind.untold else "")


def _in(text: str) -> str:
    return f" ({text})" if text else ""


def _not(unchecked: int) -> str:
    return f"{unchecked} times ended without one"


def _time(time_us: int) -> str:
    try:
        return datetime.datetime.fromtimestamp(time_us // 1_000_000, datetime.UTC).isoformat()
    except (ValueError, OverflowError, OSError):
        return f"{time_us} us"  # whatever a heartbeat says, it is shown


def _line(name: str, text: str) -> None:
    say(f"  {name:<11}{harmless(text)}")
