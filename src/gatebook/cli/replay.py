"""`gatebook replay`: recorded decisions, judged again under another policy. No logic: that is `replay`'s."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from gatebook import record
from gatebook.access.filter import parse_time
from gatebook.access.find import CLOCK_SLACK_US
from gatebook.cli.line import moment
from gatebook.cli.opened import ReaderKey, open_log, tell_gaps
from gatebook.cli.option import DEFAULT_CONFIG, LOOK, ConfigPath, Json
from gatebook.cli.report import harmless, paint, say, say_json
from gatebook.config import effective
from gatebook.config.load import examine
from gatebook.config.model import Configuration
from gatebook.errors import EnvironmentFault
from gatebook.ledger.read import Reader
from gatebook.paths import Paths
from gatebook.replay.judge import DIFFERENT, Replay, Said
from gatebook.replay.tally import Difference, Tally, who, word
from gatebook.trial.opened import open_judge

LISTED = 20
_IN_TABLE = 10
_EVERY = 256  # records between two looks at the progress bar
_DECISION = b'{"v":1,"kind":"decision",'

NOT_REPLAYED = (
    "who was identified, and by which provider, is taken from the record",
    "limits, one_time and revocations are left as they were",
    "rules in shadow mode are not enforced",
)


def replay(
    policy: Annotated[
        Path | None,
        typer.Option(
            "--with", help="The configuration to judge by. Default: --config itself.", show_default=False
        ),
    ] = None,
    since: Annotated[str | None, typer.Option(help="From then on: 10m, 2h, 7d, 2026-11-24.")] = None,
    until: Annotated[str | None, typer.Option(help="Up to then, not included.")] = None,
    limit: Annotated[int, typer.Option(help="How many differences are listed, the newest first.", min=0)] = LISTED,
    config: ConfigPath = DEFAULT_CONFIG,
    reader: ReaderKey = None,
    as_json: Json = False,
) -> None:
    """Judge recorded decisions again under another policy, and show what would be different.

    The rules are asked as the guard asks them. Nothing is enforced, counted or recorded. What the record holds too
    little for is unknown and counted by reason. Exit code 0 if nothing would be different, 1 if something would.

    Example: `gatebook replay --with new.yaml --since 7d`, or, where new.yaml has the same state_dir,
    `gatebook replay --config new.yaml --since 7d`
    """
    now_us = time.time_ns() // 1000
    since_us, until_us = (_time(text, now_us, name) for text, name in ((since, "--since"), (until, "--until")))
    judge = open_judge(policy or config, grants=False).judge  # records name the roles that were granted
    opened, paths = open_log(config, reader)
    replaying = Replay(judge, _configurations(config, paths))
    tally = Tally(limit)
    with _progress(opened.size, quiet=as_json) as tell:
        for index, decision in _decisions(opened, since_us, until_us, tell):
            if isinstance(decision, str):
                tally.pass_over(decision)
                continue
            tally.add(index, decision, replaying.judge(decision), stranger=not replaying.knows(decision))
    tell_gaps(opened)
    if as_json:
        say_json(_json(tally))
    else:
        _say(tally)
    raise typer.Exit(1 if tally.different else 0)


def _time(text: str | None, now_us: int, option: str) -> int | None:
    try:
        return None if text is None else parse_time(text, now_us)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=option) from None


def _configurations(config: Path, paths: Paths) -> Iterator[Configuration]:
    """That records may have been made under, as far as they are at hand: the one in force, and the file's."""
    with suppress(EnvironmentFault):  # never run, or by another version
        yield effective.read(paths.effective)
    found = examine(config)
    if found.configuration is not None and not found.problems:
        yield found.configuration


def _decisions(
    opened: Reader, since_us: int | None, until_us: int | None, tell: Callable[[int], None]
) -> Iterator[tuple[int, record.Decision | str]]:
    """The newest first; a text says why one cannot be read."""
    size = opened.size
    for count, (index, data) in enumerate(opened.backwards()):
        if count % _EVERY == 0:
            tell(size - index)
        if not data.startswith(_DECISION):
            continue
        try:
            decision = record.decode(data)
        except ValueError:
            yield index, "a record that this version cannot read"
            continue
        if not isinstance(decision, record.Decision) or (until_us is not None and decision.time_us >= until_us):
            continue
        if since_us is not None and decision.time_us < since_us:
            if decision.time_us < since_us - CLOCK_SLACK_US:
                return
            continue
        yield index, decision


@contextmanager
def _progress(total: int, quiet: bool) -> Iterator[Callable[[int], None]]:
    """A bar on stderr, if somebody may be looking."""
    console = Console(stderr=True)
    columns = (
        TextColumn("replaying"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("entries"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=quiet or not console.is_terminal) as bar:
        task = bar.add_task("", total=total)
        yield lambda done: bar.update(task, completed=done)


def _json(tally: Tally) -> dict[str, Any]:
    return {
        "ok": not tally.different,
        "decisions": tally.decisions,
        "judged": tally.judged,
        "same": tally.kinds["same"],
        "different": tally.different,
        "kinds": {kind: tally.kinds[kind] for kind in DIFFERENT},
        "routes": dict(tally.routes.most_common()),
        "rules": dict(tally.rules.most_common()),
        "identities": dict(tally.identities.most_common()),
        "differences": [_difference(each) for each in tally.listed],
        "shadow_differs": tally.shadow,
        "unknown": {
            "decisions": tally.kinds["unknown"],
            "verdict_alone_known": tally.verdict_alone,
            "why": dict(tally.why_unknown.most_common()),
        },
        "outside": {"decisions": tally.kinds["outside"], "why": dict(tally.why_outside.most_common())},
        "configuration_not_at_hand": tally.strangers,
        "not_replayed": list(NOT_REPLAYED),
    }


def _difference(each: Difference) -> dict[str, Any]:
    made = each.decision.decision
    before = Said(made.verdict, made.status, made.reason, made.rule, each.decision.request.route)
    after = each.found.now
    return {
        "kind": each.found.kind,
        "index": each.entry,
        "id": each.decision.id,
        "time_us": each.decision.time_us,
        "identity": who(each.decision),
        "method": each.decision.request.method,
        "path": each.decision.request.path,
        "was": before._asdict(),
        "now": None if after is None else after._asdict(),
    }


def _say(tally: Tally) -> None:
    for each in tally.listed:
        made = each.decision.decision
        before = Said(made.verdict, made.status, made.reason, made.rule, each.decision.request.route)
        request = f"{each.decision.request.method} {each.decision.request.path}"
        change = f"{_verdict(before)} -> {_verdict(each.found.now)}" if each.found.now is not None else ""
        colour = "31" if each.found.kind == "allow->deny" else "33"
        line = f"{moment(each.decision.time_us)}  {each.entry}  {who(each.decision)}  {request}  {change}"
        say(paint(harmless(line), colour, sys.stdout))
    hidden = tally.different - len(tally.listed)
    if hidden:
        say(f"… and {hidden} older ones; --limit shows more")
    if tally.different:
        say()
        for title, counts in (
            ("kind", Counter({str(kind): tally.kinds[kind] for kind in DIFFERENT if tally.kinds[kind]})),
            ("route", tally.routes),
            ("rule", tally.rules),
            ("identity", tally.identities),
        ):
            _table(f"different, by {title}", counts)
    if tally.kinds["unknown"]:
        _table(f"unknown: {tally.kinds['unknown']}, for want of", tally.why_unknown)
        if tally.verdict_alone:
            say(f"  of {tally.verdict_alone} of them the verdict is the same for certain, by whichever rule")
    if tally.kinds["outside"]:
        _table("not judged", tally.why_outside)
    if tally.shadow:
        say(f"rules in shadow mode would change the verdict of {tally.shadow}, if they were enforced")
    if tally.strangers:
        say(f"{tally.strangers} were made under configurations that are not at hand: more of them is unknown")
    for text in NOT_REPLAYED:
        say(f"note: {text}")
    verdict = paint(f"{tally.different} different", "33", sys.stdout) if tally.different else "none different"
    say(f"{verdict}: {tally.decisions} decisions, {tally.judged} judged, {tally.kinds['unknown']} unknown")


def _verdict(said: Said) -> str:
    return f"{said.verdict} {said.status}: {word(said)}"


def _table(title: str, counts: Counter[str]) -> None:
    say(f"{title}:")
    width = len(str(max(counts.values(), default=0)))
    for name, count in counts.most_common(_IN_TABLE):
        say(f"  {count:{width}}  {harmless(name)}")
    if len(counts) > _IN_TABLE:
        rest = sum(counts.values()) - sum(count for _, count in counts.most_common(_IN_TABLE))
        say(f"  {rest:{width}}  others")


def register(app: typer.Typer) -> None:
    app.command(rich_help_panel=LOOK)(replay)
