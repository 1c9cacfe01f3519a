"""`gatebook log`: the newest access records, those that are wanted, and those still to come. No logic."""

from __future__ import annotations

import sys
import time
from typing import Annotated, Any

import msgspec
import typer

from gatebook.access import filter as wanted
from gatebook.access.find import Follower, newest
from gatebook.access.found import Access, Found, Strange, as_json
from gatebook.cli.line import HEADINGS, Columns, cells, colour_of
from gatebook.cli.opened import ReaderKey, open_log, tell_gaps
from gatebook.cli.option import DEFAULT_CONFIG, LOOK, ConfigPath
from gatebook.cli.report import note, paint

NEWEST = 50
POLL_S = 0.2
OPEN_AFTER_US = 5_000_000  # a decision that waits so long for its outcome is shown as open


def log(
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what comes, until Ctrl-C.")] = False,
    limit: Annotated[
        int | None,
        typer.Option(
            help=f"How many of the newest. Default: {NEWEST}, or all with --since.", min=0, show_default=False
        ),
    ] = None,
    since: Annotated[str | None, typer.Option(help="From then on: 10m, 2h, 7d, 2026-11-24.")] = None,
    until: Annotated[str | None, typer.Option(help="Up to then, not included.")] = None,
    identity: Annotated[
        str | None, typer.Option(help="A subject, client or provider; of a pseudonym 8 digits.")
    ] = None,
    route: Annotated[str | None, typer.Option(help="A route's name.")] = None,
    status: Annotated[str | None, typer.Option(help="What the client got: 403, 4xx, >=500, 400-404.")] = None,
    verdict: Annotated[str | None, typer.Option(help="allow or deny.")] = None,
    reason: Annotated[str | None, typer.Option(help="A reason, or a word of the error.")] = None,
    method: Annotated[str | None, typer.Option(help="An HTTP method.")] = None,
    shadow_differs: Annotated[
        bool, typer.Option("--shadow-differs", help="Only where rules in shadow mode would change the verdict.")
    ] = False,
    signals: Annotated[
        bool, typer.Option("--signals", help="Only where a credential came from somewhere new.")
    ] = False,
    everything: Annotated[
        bool, typer.Option("--all", help="Administrators', alerts and the system's records too.")
    ] = False,
    config: ConfigPath = DEFAULT_CONFIG,
    reader: ReaderKey = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, one object a line.")] = False,
) -> None:
    """Show who did what, when, on whose word, and with what result.

    Reads beside a running gatebook; disturbs nobody. A line is an access: a decision with its outcome.

    Example: `gatebook log --since 1h --status 4xx`, or `gatebook log --follow --json | jq .decision`
    """
    if follow and until is not None:
        raise typer.BadParameter("what is still to come is never before it", param_hint="--until with --follow")
    only = filter_of(
        since, until, identity, route, status, verdict, reason, method, shadow_differs, signals, everything
    )
    if limit is None:
        limit = NEWEST if since is None else 1 << 62
    opened, _ = open_log(config, reader)
    found = newest(opened, limit, only)
    following = Follower(opened, opened.size) if follow else None
    if following is not None:
        for access in [each for each in found if isinstance(each, Access) and each.open]:
            following.adopt(access.index)
            found.remove(access)
    show = _json_lines if as_json else _Lines(found)
    show(found)
    told = tell_gaps(opened)
    if following is None:
        if not found and not as_json:
            note("Nothing in the log is what was asked for.")
        return
    while True:
        sys.stdout.flush()
        time.sleep(POLL_S)
        fresh = following.new(time.time_ns() // 1000 - OPEN_AFTER_US)
        show([each for each in fresh if only.matches(each)])
        told = tell_gaps(opened, told)


def filter_of(
    since: str | None,
    until: str | None,
    identity: str | None,
    route: str | None,
    status: str | None,
    verdict: str | None,
    reason: str | None,
    method: str | None,
    shadow_differs: bool,
    signals: bool,
    everything: bool,
) -> wanted.Filter:
    now_us = time.time_ns() // 1000
    if verdict not in (None, "allow", "deny"):
        raise typer.BadParameter(f"{verdict!r}; expected allow or deny", param_hint="--verdict")
    try:
        return wanted.Filter(
            since_us=None if since is None else wanted.parse_time(since, now_us),
            until_us=None if until is None else wanted.parse_time(until, now_us),
            identity=identity,
            route=route,
            statuses=() if status is None else wanted.parse_status(status),
            verdict=verdict,
            reason=reason,
            method=method,
            shadow_differs=shadow_differs,
            signals=signals,
            events=everything,
        )
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


class _Lines:
    """A heading, then a line each."""

    def __init__(self, first: list[Found]) -> None:
        self._columns = Columns([cells(each) for each in first])
        self._headed = False

    def __call__(self, found: list[Found]) -> None:
        if found and not self._headed:
            self._headed = True
            sys.stdout.write(paint(self._columns.line(HEADINGS), "1", sys.stdout) + "\n")
        for each in found:
            line, colour = self._columns.line(cells(each)), colour_of(each)
            sys.stdout.write((line if colour is None else paint(line, colour, sys.stdout)) + "\n")


def _json_lines(found: list[Found]) -> None:
    for each in found:
        sys.stdout.write(json_line(each) + "\n")


def json_line(found: Found) -> str:
    """Accesses have no `kind`; everything else has one, and its `index`."""
    if isinstance(found, Access):
        return as_json(found).decode()
    told: dict[str, Any]
    if isinstance(found, Strange):
        told = {"kind": "unreadable", "why": found.why}
    else:
        told = msgspec.to_builtins(found.record)
    return msgspec.json.encode({"index": found.index, **told}).decode()


def register(app: typer.Typer) -> None:
    app.command(rich_help_panel=LOOK)(log)
