"""The report of a bundle, for people: one page of HTML that needs nothing else, and README.txt.

In: what was recomputed of the bundle. Out: text, the same for the same bundle, so that whoever verifies can write
it anew and compare. No script, nothing from elsewhere; a Content-Security-Policy says so to the browser. What a
client sent, such as a path, is text in it and never markup. Pure.
"""

from __future__ import annotations

import base64
import hashlib
import re
from importlib import resources
from typing import Any, Final, NamedTuple

from jinja2 import Environment, StrictUndefined

from gatebook import record
from gatebook.access.found import Event
from gatebook.errors import LedgerError
from gatebook.evidence.archive import Members
from gatebook.evidence.examine import Examined
from gatebook.evidence.manifest import Manifest, iso
from gatebook.evidence.tally import Tally, Verdicts
from gatebook.ledger.entry import LossReason
from gatebook.ledger.note import MAX_NOTE_BYTES, parse_note
from gatebook.ledger.verify.report import entries

MAX_ROWS: Final = 12
_ANCHOR = re.compile(r"log/anchors/([0-9]{1,19})\.tsr")
_ERASED: Final = {1: "a person's key", 2: "one record", 3: "a segment's key"}

_environment = Environment(
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)


class Row(NamedTuple):
    """A line of a table with a bar: of 100, how much of it each part takes."""

    names: tuple[str, ...]
    verdicts: Verdicts
    widths: tuple[float, float, float]


class Bar(NamedTuple):
    """A column of the chart over time: heights of 100, from below."""

    label: str
    verdicts: Verdicts
    heights: tuple[float, float, float]


def readme(claims: Manifest) -> str:
    return _text("readme.txt").replace("ORIGIN", claims.origin)


def _text(name: str) -> str:
    return resources.files("gatebook.evidence").joinpath(name).read_text("utf-8")


def render(members: Members, claims: Manifest, examined: Examined) -> str:
    style = _text("report.css")
    hashed = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    tally = examined.tally
    return _environment.from_string(_text("report.html")).render(
        style=style,
        policy=f"default-src 'none'; style-src 'sha256-{hashed}'; base-uri 'none'; form-action 'none'",
        claims=claims,
        examined=examined,
        report=examined.report,
        tally=tally,
        bars=_bars(tally),
        scale=_top(tally),
        width=_duration(tally.width_s),
        people=sum(bool(who) for _, who in tally.callers),
        routes=_rows({(name,): each for name, each in tally.routes.items()}),
        callers=_rows(tally.callers),
        reasons=_counted({(name, _title(name)): n for name, n in tally.reasons.items()}),
        errors=_counted(dict(tally.errors)),
        statuses=_counted({(name,): n for name, n in tally.statuses.items()}),
        acts=_counted({(name,): n for name, n in tally.acts.items()}),
        events=[_event(each) for each in tally.events],
        losses=[_loss(index, loss) for index, loss in examined.losses[:MAX_ROWS]],
        erasures=[
            (index, _ERASED.get(each.kind, f"kind {each.kind}")) for index, each in examined.erasures[:MAX_ROWS]
        ],
        more_erasures=max(0, len(examined.erasures) - MAX_ROWS),
        configurations=sorted(tally.configurations.items(), key=lambda item: (-item[1], item[0])),
        covered=entries(claims.first, claims.end) if claims.end > claims.first else "no entry",
        signers=_signers(members),
        anchors=anchored_sizes(members),
        before=None if examined.before_us is None else iso(examined.before_us),
        after=None if examined.after_us is None else iso(examined.after_us),
        findings=examined.report.findings[:100],
        max_rows=MAX_ROWS,
    )


def anchored_sizes(members: Members) -> list[int]:
    """Sizes of the checkpoints in the bundle that have a time stamp."""
    return sorted(int(found[1]) for name in members.names() if (found := _ANCHOR.fullmatch(name)))


def _signers(members: Members) -> list[str]:
    try:
        note = parse_note(members.read("log/checkpoint", MAX_NOTE_BYTES))
    except LedgerError:
        return []
    return [line.name for line in note.lines]


def _title(reason: str) -> str:
    known = record.REASONS.get(reason)
    return known.title if known is not None else ""


def _bars(tally: Tally) -> list[Bar]:
    top = _top(tally)
    made = []
    for number, each in enumerate(tally.over_time):
        at = iso((tally.begin_s + number * tally.width_s) * 1_000_000)
        label = at[:10] if tally.width_s >= 86_400 else at[5:16].replace("T", " ")
        if tally.width_s < 60:
            label = at[11:19]
        made.append(Bar(label, each, _parts(each, top)))
    return made


def _top(tally: Tally) -> int:
    """Where the chart ends: the next 1, 2 or 5, times a power of ten."""
    most = max([1, *(each.total for each in tally.over_time)])
    tens = int("1" + "0" * (len(str(most)) - 1))
    return next(step * tens for step in (1, 2, 5, 10) if step * tens >= most)


def _parts(verdicts: Verdicts, top: int) -> tuple[float, float, float]:
    allowed, denied, refused = (round(100 * each / top, 2) for each in verdicts)
    return allowed, denied, refused


def _rows(counts: dict[Any, Verdicts]) -> list[Row]:
    """The most frequent first; MAX_ROWS, and one for the rest, without a bar."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1].total, item[0]))
    shown, rest = ordered[:MAX_ROWS], ordered[MAX_ROWS:]
    top = max([1, *(each.total for _, each in shown)])
    rows = [Row(tuple(names), each, _parts(each, top)) for names, each in shown]
    if rest:
        others = Verdicts()
        for _, each in rest:
            others = others.plus(each)
        filler = ("",) * (len(shown[0][0]) - 1)
        rows.append(Row((f"{len(rest)} more", *filler), others, (0, 0, 0)))
    return rows


def _counted(counts: dict[Any, int]) -> list[tuple[tuple[str, ...], int, float]]:
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    shown, rest = ordered[:MAX_ROWS], ordered[MAX_ROWS:]
    top = max([1, *(n for _, n in shown)])
    rows: list[tuple[tuple[str, ...], int, float]] = [
        (tuple(names), n, round(100 * n / top, 2)) for names, n in shown
    ]
    if rest:
        rows.append(((f"{len(rest)} more", *("",) * (len(shown[0][0]) - 1)), sum(n for _, n in rest), 0))
    return rows


def _event(found: Event) -> tuple[str, str, str, str]:
    """Time, what, who, details."""
    made = found.record
    told = ", ".join(f"{key}: {_said(value)}" for key, value in made.detail.items())
    match made:
        case record.Admin():
            what, who = made.action, made.actor
        case record.Alert():
            known = record.ALERTS.get(made.alert)
            what = f"alert: {made.alert}"
            who, told = made.severity, ". ".join(filter(None, (known.title if known else "", told)))
        case _:
            what, who = made.event, "gatebook"
    return iso(made.time_us), what, who, record.cut(told, 400)


def _said(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "none"
    return "none" if value is None else str(value)


def _loss(index: int, loss: Any) -> tuple[int, int, str]:
    words = {
        LossReason.TORN: "cut off by a crash before anybody was told of them",
        LossReason.NOT_WRITTEN: "refused by the disk; nobody was told of them",
        LossReason.NO_LINE: "lines that the gateway's log does not have",
        LossReason.CLOCK_SET: "seconds that the clock left out when it was set ahead; nothing is missing",
    }
    said = words.get(loss.reason, f"reason {loss.reason}")
    return index, loss.last_seq - loss.first_seq + 1, said


def _duration(seconds: int) -> str:
    for unit, word in ((86_400, "day"), (3600, "hour"), (60, "minute"), (1, "second")):
        if seconds % unit == 0:
            return f"{seconds // unit} {word}{'s' if seconds != unit else ''}"
    return f"{seconds} seconds"
