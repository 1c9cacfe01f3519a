"""`gatebook log` and `gatebook show`: what a person sees of the log, and what a script gets."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.access.ledger import decision, outcome, request_id
from tests.cli.logged import Logged

from gatebook import record
from gatebook.record import RequestPart

Run = Callable[..., Any]


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> Logged:
    return Logged(tmp_path_factory.mktemp("logged"))


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_log_shows_each_access_in_a_line_below_a_heading(run: Run, logged: Logged) -> None:
    shown = run("log", "-c", str(logged.config)).out.splitlines()
    assert shown[0].split() == ["TIME", "(UTC)", "ENTRY", "STATUS", "WHO", "REQUEST", "VERDICT", "MS"]
    assert [line.split()[3] for line in shown[1:]] == ["200", "403", "open", "400"]
    assert "staff:abababab" in shown[1]
    assert "allow: readers" in shown[1]
    assert "deny: no_rule" in shown[2]
    assert "refused by the gateway" in shown[4]


def test_log_in_json_is_a_record_a_line(run: Run, logged: Logged) -> None:
    found = lines(run("log", "--json", "-c", str(logged.config)).out)
    assert [each.get("id") for each in found] == [request_id(n) for n in (1, 2, 3, 4)]
    assert found[0]["decision_index"] == logged.first
    assert found[0]["origin"] == "acme/node-1"
    assert found[2]["open"] is True
    assert not any("kind" in each for each in found)


def test_everything_includes_what_administrators_did(run: Run, logged: Logged) -> None:
    found = lines(run("log", "--all", "--json", "-c", str(logged.config)).out)
    (admin,) = [each for each in found if each.get("kind") == "admin"]
    assert admin["action"] == "key.create"
    assert admin["index"] > logged.first
    assert "key.create" in run("log", "--all", "-c", str(logged.config)).out


@pytest.mark.parametrize(
    ("options", "numbers"),
    [
        (("--status", "4xx"), (2, 4)),
        (("--verdict", "deny"), (2,)),
        (("--identity", "abababab"), (1, 2, 3)),
        (("--route", "nowhere"), ()),
        (("--reason", "no_rule"), (2,)),
        (("--limit", "1"), (4,)),
        (("--since", "2023-11-14T22:13:22Z"), (2, 3, 4)),
        (("--until", "2023-11-14T22:13:22Z"), (1,)),
    ],
)
def test_filters(run: Run, logged: Logged, options: tuple[str, ...], numbers: tuple[int, ...]) -> None:
    found = lines(run("log", "--json", "-c", str(logged.config), *options).out)
    assert [each["id"] for each in found] == [request_id(number) for number in numbers]


@pytest.mark.parametrize("options", [("--status", "teapot"), ("--since", "yesterday"), ("--verdict", "maybe")])
def test_filter_that_means_nothing_is_wrong_usage(run: Run, logged: Logged, options: tuple[str, str]) -> None:
    ran = run("log", "-c", str(logged.config), *options)
    assert ran.code == 2
    assert options[1] in ran.err


def test_nothing_found_is_said_and_is_no_error(run: Run, logged: Logged) -> None:
    ran = run("log", "--route", "nowhere", "-c", str(logged.config))
    assert (ran.code, ran.out) == (0, "")
    assert "Nothing" in ran.err


def test_text_from_clients_reaches_no_terminal_as_it_came(run: Run, tmp_path: Path) -> None:
    logged = Logged(tmp_path)
    logged.add(decision(7, request=RequestPart(method="GET", path="/\x1b]0;owned\x07\n/x")))
    for command in (("log",), ("show", request_id(7))):
        shown = run(*command, "-c", str(logged.config)).out
        assert "\x1b" not in shown
        assert "\\x1b]0;owned\\x07" in shown


def test_gap_is_told_and_the_rest_is_shown(run: Run, tmp_path: Path) -> None:
    logged = Logged(tmp_path)
    segments = sorted((logged.paths.ledger / "segments").iterdir())
    data = bytearray(segments[0].read_bytes())
    data[-40] ^= 1
    segments[0].write_bytes(data)
    ran = run("log", "--json", "-c", str(logged.config))
    assert [each["id"] for each in lines(ran.out)][-2:] == [request_id(3), request_id(4)]
    assert "could not be read" in ran.err
    assert "gatebook verify" in ran.err


def test_nothing_logged_yet_says_what_to_do(run: Run, tmp_path: Path) -> None:
    run("init", str(tmp_path))
    ran = run("log", "-c", str(tmp_path / "gatebook.yaml"))
    assert ran.code == 3
    assert "gatebook run" in ran.err


def test_without_a_readers_key_nobody_reads(run: Run, tmp_path: Path) -> None:
    logged = Logged(tmp_path)
    key = logged.paths.keys / "reader.key"
    elsewhere = tmp_path / "elsewhere.key"
    key.rename(elsewhere)
    assert run("log", "-c", str(logged.config)).code == 3
    ran = run("log", "--json", "--reader", str(elsewhere), "-c", str(logged.config))
    assert len(lines(ran.out)) == 4


def test_following_up_to_a_moment_is_refused_instead_of_waiting_for_ever(run: Run, logged: Logged) -> None:
    ran = run("log", "--follow", "--until", "1m", "-c", str(logged.config))
    assert (ran.code, ran.out) == (2, "")
    assert "--until" in ran.err


@pytest.fixture
def following(tmp_path: Path) -> Iterator[tuple[Logged, subprocess.Popen[str]]]:
    logged = Logged(tmp_path)
    command = [sys.executable, "-m", "gatebook", "log", "--follow", "--json", "-c", str(logged.config)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    yield logged, process
    process.kill()
    process.communicate()


def test_follow_shows_what_comes_and_an_open_one_when_it_ends(
    following: tuple[Logged, subprocess.Popen[str]],
) -> None:
    logged, process = following
    assert process.stdout is not None
    for number in (1, 2, 4):
        assert json.loads(process.stdout.readline())["id"] == request_id(number)
    assert json.loads(process.stdout.readline())["open"] is True  # number 3, whose decision is old
    logged.add(decision(8), outcome(8, None))  # at once: an old decision alone would be shown as open
    found = json.loads(process.stdout.readline())
    assert (found["id"], found["response"]["status"]) == (request_id(8), 200)


# -- show -----------------------------------------------------------------------------------------------
def test_show_gives_all_of_one_request_and_its_place_in_the_signed_tree(run: Run, logged: Logged) -> None:
    shown = run("show", request_id(1), "-c", str(logged.config)).out
    for words in ("staff", "GET", "/orders/1", "rule", "readers", "127.0.0.1:9001"):
        assert words in shown
    assert f"entry {logged.first}, in the signed tree of " in shown


def test_show_in_json_is_the_access_record_and_what_is_proven(run: Run, logged: Logged) -> None:
    found = run("show", request_id(1), "--json", "-c", str(logged.config)).json()
    assert found["id"] == request_id(1)
    assert found["in_signed_tree"].keys() == {"decision", "outcome"}
    assert found["in_signed_tree"]["decision"] > found["outcome_index"]


def test_show_takes_a_receipt_or_the_number_of_an_entry(run: Run, logged: Logged) -> None:
    for name in (f"acme/node-1/{logged.first}", str(logged.first)):
        assert run("show", name, "--json", "-c", str(logged.config)).json()["id"] == request_id(1)


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ("f" * 32, "ask by its index: gatebook show acme/node-1/10"),
        ("00000000", "give more digits"),
        ("../../etc/passwd", "expected 8 to 32"),
        ("other/node-1/5", "this one is acme/node-1"),
        ("0", "no record of an access"),
        ("999999", "no record of an access"),
    ],
)
def test_show_says_why_there_is_nothing_to_show(run: Run, logged: Logged, wanted: str, said: str) -> None:
    ran = run("show", wanted, "-c", str(logged.config))
    assert (ran.code, ran.out) == (1, "")
    assert said in ran.err


def test_show_of_an_entry_that_is_not_in_the_signed_tree_is_tampering(run: Run, tmp_path: Path) -> None:
    logged = Logged(tmp_path)
    for tile in (logged.paths.ledger / "log" / "tile" / "0").rglob("*"):
        if tile.is_file():
            tile.write_bytes(bytes(len(tile.read_bytes())))
    assert run("show", request_id(1), "-c", str(logged.config)).code == 12


def test_records_are_what_the_guard_wrote(run: Run, logged: Logged) -> None:
    found = run("show", request_id(2), "--json", "-c", str(logged.config)).json()
    assert found["decision"]["reason"] == "no_rule"
    assert found["decision"]["reason"] in record.REASONS
