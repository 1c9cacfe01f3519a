"""What the log holds of a person, as JSON, Markdown or one HTML page: for the person, who need know nothing of us.

In: what `person` collected, what is stored elsewhere, values that were unsealed by request id. Out: text. What a
client chose is escaped in HTML and made one line in Markdown. Never holds what it was not given. Pure.
"""

from __future__ import annotations

import datetime
import html
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from gatebook.access.found import Access, as_json
from gatebook.access.person import Collected, Person


class Report(NamedTuple):
    """`unsealed`: request id -> values; None where nobody asked for them. `elsewhere`: (store, what, remedy)."""

    origin: str
    made: datetime.datetime
    person: Person
    collected: Collected
    unsealed: Mapping[str, Mapping[str, str]] | None
    elsewhere: Sequence[tuple[str, str, str]]


HEADINGS = ("Time (UTC)", "Request", "Route", "Verdict", "Status", "From", "Sealed")
_CSS = (
    "body{font:16px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:70rem;padding:0 1rem}"
    "body{color:#111;background:#fff}"
    "table{border-collapse:collapse;width:100%}th,td{border-bottom:1px solid #ccc;padding:.3rem .5rem}"
    "th,td{text-align:left;vertical-align:top;overflow-wrap:anywhere}@media(prefers-color-scheme:dark){body{color:#eee;background:#111}}"
)


def to_json(report: Report) -> str:
    collected = report.collected
    accesses = []
    for each in collected.accesses:
        made = json.loads(as_json(each))
        opened = (report.unsealed or {}).get(each.id or "")
        if opened is not None:
            made["unsealed"] = dict(opened)
        accesses.append(made)
    said = {
        "origin": report.origin,
        "made": report.made.isoformat(timespec="seconds"),
        "provider": report.person.provider,
        "pseudonyms": sorted(report.person.pseudonyms),
        "counts": collected.counts(),
        "elsewhere": [dict(zip(("store", "what", "remedy"), each, strict=True)) for each in report.elsewhere],
        "accesses": accesses,
        "other_records": [{"index": each.index, **_plain(each.record)} for each in collected.events],
    }
    return json.dumps(said, ensure_ascii=False, indent=1) + "\n"


def _plain(made: Any) -> dict[str, Any]:
    plain: dict[str, Any] = msgspec.to_builtins(made)
    return plain


def to_markdown(report: Report) -> str:
    lines = [f"# {_title(report)}", "", *_words(report), ""]
    lines += ["## Accesses", "", f"| {' | '.join(HEADINGS)} |", "|" + "---|" * len(HEADINGS)]
    lines += [f"| {' | '.join(map(_cell, row))} |" for row in _rows(report)]
    lines += ["", "## Other records that mention you", ""]
    lines += [f"- {_cell(text)}" for text in _others(report)] or ["None."]
    lines += ["", "## What else is stored", ""]
    lines += [
        f"- {_cell(store)}: {_cell(what)} ({_cell(remedy)})" for store, what, remedy in report.elsewhere
    ] or ["Nothing."]
    return "\n".join(lines) + "\n"


def to_html(report: Report) -> str:
    def table() -> Iterator[str]:
        yield "<table><thead><tr>" + "".join(f"<th>{name}</th>" for name in HEADINGS) + "</tr></thead><tbody>"
        for row in _rows(report):
            yield "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>"
        yield "</tbody></table>"

    def listed(texts: Sequence[str], nothing: str) -> str:
        items = "".join(f"<li>{html.escape(text)}</li>" for text in texts)
        return f"<ul>{items}</ul>" if items else f"<p>{nothing}</p>"

    title = html.escape(_title(report))
    parts = [
        "<!doctype html>",
        f'<html lang="en"><head><meta charset="utf-8"><title>{title}</title>',
        # Nothing is fetched and nothing runs, whatever a client may have got into this page.
        """<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">""",
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<style>{_CSS}</style></head><body><h1>{title}</h1>",
        *(f"<p>{html.escape(text)}</p>" for text in _words(report) if text),
        "<h2>Accesses</h2>",
        *table(),
        "<h2>Other records that mention you</h2>",
        listed(list(_others(report)), "None."),
        "<h2>What else is stored</h2>",
        listed([f"{store}: {what} ({remedy})" for store, what, remedy in report.elsewhere], "Nothing."),
        "</body></html>",
    ]
    return "\n".join(parts) + "\n"


def _title(report: Report) -> str:
    return f"What the access log of {report.origin} holds of you"


def _words(report: Report) -> list[str]:
    counts = report.collected.counts()
    known = ", ".join(sorted(report.person.pseudonyms)) or "none"
    said = [
        f"Made on {report.made:%Y-%m-%d %H:%M} UTC from {counts['records_looked_at']} records. In them you are "
        f"called by these pseudonyms: {known}.",
        "",
        f"{counts['accesses']} accesses: {counts['allowed']} allowed, {counts['denied']} denied; "
        f"{counts['other_records']} other records mention you.",
    ]
    if counts["first_us"] is not None:
        said += [
            "",
            f"The first was on {moment(counts['first_us'])}, the last on {moment(counts['last_us'])} (UTC).",
        ]
    if counts["sealed"]:
        how = "and opened here" if report.unsealed is not None else "and not opened here"
        said += ["", f"In {counts['sealed']} of them more of you is sealed under your own key, {how}."]
    if counts["unreadable"]:
        said += ["", f"{counts['unreadable']} records could not be read by this version; some may be of you."]
    return said


def _rows(report: Report) -> Iterator[tuple[str, ...]]:
    for each in report.collected.accesses:
        opened = (report.unsealed or {}).get(each.id or "", {})
        sealed = ", ".join(f"{name}: {value}" for name, value in opened.items())
        yield (
            moment(each.time_us),
            f"{each.request.method} {each.request.path}" if each.request is not None else "-",
            (each.request.route if each.request is not None else None) or "-",
            each.decision.verdict if each.decision is not None else "-",
            str(each.status) if each.status is not None else "-",
            _from(each),
            sealed or ("yes" if each.sealed is not None else "-"),
        )


def _from(each: Access) -> str:
    return (each.client.address if each.client is not None else None) or "-"


def _others(report: Report) -> Iterator[str]:
    for each in report.collected.events:
        plain = _plain(each.record)
        kind = plain.get("action") or plain.get("alert") or plain.get("event")
        yield f"{moment(plain['time_us'])} {kind}: {json.dumps(plain.get('detail', {}), ensure_ascii=False)}"


def moment(time_us: int) -> str:
    try:
        found = datetime.datetime.fromtimestamp(time_us // 1_000_000, datetime.UTC)
    except (ValueError, OverflowError, OSError):
        return str(time_us)
    return found.strftime("%Y-%m-%d %H:%M:%S")


def _cell(text: str) -> str:
    """One line that Markdown takes for text: no table, link, image or HTML comes of what a client chose."""
    flat = " ".join(text.split())
    return "".join(f"\\{letter}" if letter in r"\`*_{}[]<>()#+!|&~" else letter for letter in flat)
