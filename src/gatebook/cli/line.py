"""Access records as lines of text: one each, in columns, for a terminal. Pure.

In: what `access` found. Out: text that a terminal may show: whatever a client sent is made harmless here.
Columns keep their width while lines stream; what is longer moves its own line only. Never hides a record.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import Final

from gatebook.access.found import Access, Event, Found, Strange
from gatebook.cli.report import harmless
from gatebook.record import Admin, Alert, DecisionPart, IdentityPart, ShadowPart

HEADINGS: Final = ("TIME (UTC)", "ENTRY", "STATUS", "WHO", "REQUEST", "VERDICT", "MS")
_WIDEST: Final = (23, 12, 6, 28, 44, 44, 9)
_RIGHT: Final = frozenset({1, 6})
SHORT_PSEUDONYM: Final = 8


def moment(time_us: int) -> str:
    """`2026-11-24 20:26:01.123`; what no calendar holds stays a number."""
    try:
        found = datetime.datetime.fromtimestamp(time_us // 1000 / 1000, datetime.UTC)
    except (ValueError, OverflowError, OSError):
        return str(time_us)
    return found.strftime("%Y-%m-%d %H:%M:%S.") + f"{time_us // 1000 % 1000:03d}"


def cells(found: Found) -> tuple[str, ...]:
    """One text a column, harmless."""
    if isinstance(found, Access):
        made = _access(found)
    elif isinstance(found, Event):
        event = found.record
        said = " ".join(f"{key}={value}" for key, value in event.detail.items())
        match event:
            case Admin():
                what, who = event.action, event.actor
            case Alert():
                what, who, said = f"alert {event.alert}", _named(event.identity), f"{event.severity}: {said}"
            case _:
                what, who = event.event, "gatebook"
        made = (moment(event.time_us), str(found.index), "", who, what, said, "")
    else:
        made = ("", str(found.index), "", "", "unreadable", found.why, "")
    return tuple(harmless(text) for text in made)


def _access(found: Access) -> tuple[str, ...]:
    response, request = found.response, found.request
    status = "open" if found.open else str(found.status) if found.status is not None else "-"
    took = ""
    if response is not None and response.duration_us is not None:
        took = f"{response.duration_us / 1000:.0f}"
    asked = f"{request.method} {request.path}" if request is not None else "-"
    return moment(found.time_us), str(found.index), status, _named(found.identity), asked, _verdict(found), took


def _named(who: IdentityPart | None) -> str:
    if who is None:
        return "-"
    name = who.subject or ""
    if len(name) == 32 and name.isalnum():  # a pseudonym; `show` has all of it
        name = name[:SHORT_PSEUDONYM]
    return f"{who.provider}:{name}" if name else f"{who.provider}?"


def _verdict(found: Access) -> str:
    decision, error = found.decision, found.error
    if decision is None:
        said = "refused by the gateway"
    else:
        said = _ruled(decision)
        if decision.shadow is not None:
            said += f"; shadow: {_ruled(decision.shadow)}"
    if found.signals:
        said += f"; {', '.join(found.signals)}"
    if error is not None and (decision is None or error.detail != decision.reason):
        said += f"; {error.source}: {error.detail}"
    return said


def _ruled(part: DecisionPart | ShadowPart) -> str:
    """The verdict, and the rule that it was; why, where it was none or failed."""
    rules = part.reason in ("rule", "deny_rule")
    return f"{part.verdict}: {part.rule if rules and part.rule is not None else part.reason}"


class Columns:
    """Widths that fit the first lines, and that later lines keep to."""

    def __init__(self, first: Sequence[tuple[str, ...]]) -> None:
        self._widths = [
            min(widest, max([len(HEADINGS[at]), *(len(row[at]) for row in first)]))
            for at, widest in enumerate(_WIDEST)
        ]

    def line(self, row: Sequence[str]) -> str:
        parts = [
            text.rjust(width) if at in _RIGHT else text.ljust(width)
            for at, (text, width) in enumerate(zip(row, self._widths, strict=True))
        ]
        return "  ".join(parts).rstrip()


def colour_of(found: Found) -> str | None:
    """The ANSI colour of a line, or None: denied yellow, failed red."""
    if isinstance(found, Strange):
        return "31"
    if not isinstance(found, Access):
        return "31" if isinstance(found.record, Alert) else "36"
    if found.decision is not None and found.decision.verdict == "deny":
        return "33"
    if found.error is not None or found.decision is None:
        return "31"
    return None
