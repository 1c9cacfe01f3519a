"""`gatebook policy test`: cases against the configuration's policy. No logic: that is `trial`'s."""

from __future__ import annotations

import datetime
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from gatebook.cli.option import DEFAULT_CONFIG, SET_UP, ConfigPath, Grants, Json
from gatebook.cli.report import harmless, paint, say, say_json, warn
from gatebook.config.source import Source
from gatebook.errors import EnvironmentFault
from gatebook.trial.cases import read_cases
from gatebook.trial.junit import junit
from gatebook.trial.opened import open_judge
from gatebook.trial.suite import Reached, Result, coverage, run


def try_cases(
    cases: Annotated[list[Path], typer.Argument(metavar="CASES...", help="YAML files of cases.")],
    junit_file: Annotated[
        Path | None, typer.Option("--junit", help="Write JUnit XML there, too.", show_default=False)
    ] = None,
    grants: Grants = True,
    config: ConfigPath = DEFAULT_CONFIG,
    as_json: Json = False,
) -> None:
    """Judge requests by the policy and compare with what is expected. For your CI.

    Says which cases fail, with their lines, and which rules no case reaches. Nothing is sent, counted or
    recorded; nginx, keys and a state folder are not needed. Where there is one, grants in force count.
    Exit code 0 if all cases pass, 1 if one fails.

    Example: `gatebook policy test cases.yaml --junit policy.xml`
    """
    judge, source, unread = open_judge(config, grants)
    now = datetime.datetime.now(datetime.UTC)
    if unread:
        warn(f"no grant counts, they cannot be read: {unread}")
    located = [(path, read_cases(path, judge.configuration, now.timestamp())) for path in cases]
    results = [result for path, each in located for result in run(judge, each, path)]
    reached = coverage(judge, results)
    if junit_file is not None:
        try:
            junit_file.write_bytes(junit(results, now))
        except OSError as error:
            raise EnvironmentFault(f"{junit_file}: {(error.strerror or str(error)).lower()}") from None
    failed = [result for result in results if result.wrong]
    if as_json:
        say_json(_json(results, reached, source))
    else:
        _say(results, failed, reached, source)
    raise typer.Exit(1 if failed else 0)


def _json(results: list[Result], reached: list[Reached], source: Source) -> dict[str, Any]:
    return {
        "ok": not any(result.wrong for result in results),
        "cases": [
            {
                "name": result.name,
                "file": result.file,
                "line": result.line,
                "ok": not result.wrong,
                "wrong": result.wrong,
                "verdict": result.found.verdict,
                "status": result.found.status,
                "reason": result.found.reason,
                "rule": result.found.rule,
                "route": result.route,
                "grants": result.found.grants,
            }
            for result in results
        ],
        "rules": [
            {"route": each.route, "rule": each.rule, "line": _line(each, source), "reached": each.reached}
            for each in reached
        ],
    }


def _say(results: list[Result], failed: list[Result], reached: list[Reached], source: Source) -> None:
    for result in failed:
        word = paint("failed:", "31", sys.stdout)
        said = f"{result.file}:{result.line}: {result.name}: {'; '.join(result.wrong)}"
        say(f"{word} {harmless(said)}")
    for result in results:
        if result.found.grants:
            by = " and ".join(result.found.grants)
            say(f"{harmless(f'{result.file}:{result.line}: {result.name}')}: allowed only by grant {by}")
    for each in reached:
        if not each.reached:
            name = f"rule {each.route}/{each.rule}" if each.rule is not None else f"route {each.route}"
            say(f"{source.file}:{_line(each, source)}: {name} is not reached by any case")
    count = sum(each.reached for each in reached)
    word = paint("failed", "31", sys.stdout) if failed else paint("ok", "32", sys.stdout)
    failures = f", {len(failed)} failed" if failed else ""
    say(f"{word}: {len(results)} cases{failures}; {count} of {len(reached)} rules reached")


def _line(each: Reached, source: Source) -> int:
    return source.value_at(each.location)[0]


def register(app: typer.Typer) -> None:
    group = typer.Typer(no_args_is_help=True, help="Try the policy before it bites.")
    group.command("test")(try_cases)
    app.add_typer(group, name="policy", rich_help_panel=SET_UP)
