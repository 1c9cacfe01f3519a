"""`gatebook run`, `gatebook reload`, `gatebook status`."""

from __future__ import annotations

import sys
from typing import Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from gatebook.cli.line import moment
from gatebook.cli.option import DEFAULT_CONFIG, RUN, ConfigPath, Json
from gatebook.cli.report import harmless, paint, say, say_json
from gatebook.config.load import state_dir
from gatebook.errors import ConfigError, EnvironmentFault, Problem
from gatebook.paths import Paths
from gatebook.supervisor import control, service


def run(config: ConfigPath = DEFAULT_CONFIG) -> None:
    """Start everything and stay in the foreground.

    Checks the configuration first, as `gatebook check` does. Ends on Ctrl-C or SIGTERM, after finishing what
    is under way; reads its configuration anew on SIGHUP or `gatebook reload`. A process that dies is
    restarted.

    Example: `gatebook run -c /etc/gatebook/gatebook.yaml`
    """
    service.run(config)


def reload(config: ConfigPath = DEFAULT_CONFIG, as_json: Json = False) -> None:
    """Have a running gatebook read its configuration anew.

    If anything is wrong with the new one, the old one stays in force and every problem is shown.

    Example: `gatebook reload && gatebook status`
    """
    answer = control.ask(_socket(config), "reload")
    if "error" in answer:
        if answer["problems"]:
            raise ConfigError([Problem(**problem) for problem in answer["problems"]])
        raise EnvironmentFault(str(answer["error"]))
    if as_json:
        say_json(answer)
        return
    digest = answer["configuration"][:16]
    done = paint("reloaded:", "32", sys.stdout)
    say(f"{done} configuration {digest} is in force{'' if answer['changed'] else ', as it was before'}")


def status(config: ConfigPath = DEFAULT_CONFIG, as_json: Json = False) -> None:
    """Show how a running gatebook stands. Exit code 0 when it is ready for requests, else 3.

    Example: `gatebook status --json | jq .ready`
    """
    answer = control.ask(_socket(config), "status")
    if as_json:
        say_json(answer)
    else:
        _show(answer)
    raise typer.Exit(0 if answer["ready"] else EnvironmentFault.exit_code)


def _socket(config: ConfigPath) -> Any:
    return Paths(state_dir(config)).control_socket


def _show(answer: dict[str, Any]) -> None:
    word = paint("ready", "32", sys.stdout) if answer["ready"] else paint("not ready", "31", sys.stdout)
    say(f"{word}: {harmless(', '.join(answer['listen']))}")
    say(f"configuration {answer['configuration'][:16]} from {harmless(answer['file'])}")
    say(f"{answer['entries']} entries in the ledger, {answer['open_decisions']} decisions await their outcome")
    if "timestamps" in answer["outside"]:
        say(_stamps(answer["outside"]["timestamps"]))
    if "witnesses" in answer["outside"]:
        _show_witnesses(answer["outside"]["witnesses"])
    if "retention" in answer["outside"]:
        _show_retention(answer["outside"]["retention"])
    table = Table(box=None, pad_edge=False)
    for heading in ("process", "pid", "for", "restarts"):
        table.add_column(heading, justify="left" if heading == "process" else "right")
    for process in answer["processes"]:
        since = f"{process['since_s']} s" if "since_s" in process else "down"
        table.add_row(process["role"], str(process["pid"] or ""), since, str(process["restarts"]))
    Console(highlight=False).print(table)


def _show_retention(told: dict[str, Any]) -> None:
    """What is kept longer than it should be, and why."""
    say(f"retention: records are kept for {told['records_s'] // 86400} days")
    for hold, count in sorted(told["held"].items()):
        say(f"  {count} segments that are older stay: hold {hold}")
    if told["clock_ahead_s"]:
        ahead = f"the clock is {told['clock_ahead_s']} s ahead of what is trusted, so nothing is destroyed by it"
        say(f"  {paint(ahead, '31', sys.stdout)}; if it is right: gatebook retention resume")
    if told["trouble"]:
        say(f"  {paint(harmless(told['trouble']), '31', sys.stdout)}")


def _stamps(stands: dict[str, Any]) -> str:
    last, failing = stands["last"], stands["failing"]
    said = "time stamps: none yet"
    if last is not None:
        by = f" by {last['authority']}" if last["authority"] else ""
        said = f"time stamps: the last one {moment(last['time_us'])}, over {last['size']} entries{by}"
    if failing is not None:
        why = f"failing since {moment(failing['since_us'])}: {failing['why']}"
        return f"{harmless(said)}; {paint(harmless(why), '31', sys.stdout)}"
    return harmless(said)


def _show_witnesses(told: dict[str, Any]) -> None:
    """Who vouches for the log, up to where; in red whoever contradicts it."""
    if told["error"]:
        say(f"{paint('policy of witnesses:', '31', sys.stdout)} {harmless(told['error'])}")
    if told["met_size"]:
        when = moment(told["met_s"] * 1_000_000)
        say(f"witnesses: {told['met_size']} entries are cosigned by enough of them, since {when}")
    table = Table(box=None, pad_edge=False)
    for heading in ("witness", "cosigned", "at", "last error"):
        table.add_column(heading, justify="right" if heading == "cosigned" else "left", overflow="fold")
    for seen in told["witnesses"]:
        colour = "bold red" if seen["disagrees"] else "red" if seen["silent"] else ""
        when = moment(seen["time_s"] * 1_000_000) if seen["time_s"] else "never"
        texts = (harmless(seen["name"]), str(seen["size"]), when, harmless(seen["error"]) or "-")
        table.add_row(*(Text(text, style=colour) for text in texts))
    Console(highlight=False).print(table)


def register(app: typer.Typer) -> None:
    for command in (run, reload, status):
        app.command(rich_help_panel=RUN)(command)
