"""The error log's words find the request that they are about, in whatever order the lines are read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.guard.place import configured

from gatebook import record
from gatebook.recorder.gatewaylog import GatewayLog
from gatebook.recorder.journal import Journal
from gatebook.wire import Item

REFUSED = "connect() failed (111: Connection refused) while connecting to upstream"
SHORT = "upstream prematurely closed connection while sending to client"
RETRIED = "upstream prematurely closed connection while reading response header from upstream"


class Ledger:
    """`journal.Ledger` in memory."""

    def __init__(self) -> None:
        self.records: list[record.Record] = []

    def append(self, records: Sequence[bytes], memo: bytes = b"") -> int:
        first = len(self.records)
        self.records += [record.decode(data) for data in records]
        return first

    def sync(self) -> None:
        pass


class Log:
    """A gateway's log folder, and what the recorder makes of it."""

    def __init__(self, folder: Path) -> None:
        self.ledger = Ledger()
        self.journal = Journal()
        self._folder = folder
        for name in ("access.log", "error.log"):
            (folder / name).touch()
        self._log = GatewayLog(
            folder, self.journal, configured(), lambda: None, lambda name: bytes(16), lambda pid: True
        )

    def decide(self, path: str) -> int:
        """An allowed request; its decision's index."""
        made = record.Decision(
            id=f"{len(self.ledger.records):032x}",
            time_us=1,
            request=record.RequestPart(method="GET", path=path),
            decision=record.DecisionPart(
                verdict="allow", status=200, reason="rule", configuration="", durability="before-access"
            ),
        )
        told: list[int] = []
        self.journal.add([Item(record.encode(made), 7, made.id)], told.append)
        self.journal.commit(self.ledger)
        return told[0]

    def line(self, decision: int, status: str, upstream: str, connection: str = "3") -> None:
        fields = {"i": f"{decision:032x}", "d": str(decision), "r": "rule", "p": "7", "c": connection, "n": "1"}
        fields |= {"t": "1.000", "s": status, "ok": "OK", "ua": "127.0.0.1:1", "us": upstream}
        with (self._folder / "access.log").open("a") as stream:
            stream.write(json.dumps(fields) + "\n")

    def error(self, words: str, path: str, connection: str = "3") -> None:
        said = f'{words}, client: 127.0.0.1, server: , request: "GET {path} HTTP/1.1", host: "x"'
        with (self._folder / "error.log").open("a") as stream:
            stream.write(f"2026/11/24 20:00:00 [error] 7#7: *{connection} {said}\n")

    def outcomes(self) -> list[tuple[int | None, Any]]:
        """Decision and error of every outcome so far."""
        self._log.tick(1.0)
        self.journal.commit(self.ledger)
        found = [each for each in self.ledger.records if isinstance(each, record.Outcome)]
        return [(each.decision_index, each.error and each.error.detail) for each in found]


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path)


def test_words_that_are_read_before_the_line_of_the_request_before_find_their_own(log: Log) -> None:
    first, second = log.decide("/orders/1"), log.decide("/down")
    log.line(first, "200", "200")
    log.error(REFUSED, "/down?page=2")
    assert log.outcomes() == [(first, None)]
    log.line(second, "502", "502")
    assert log.outcomes()[1:] == [(second, "connect_refused")]


def test_requests_that_share_a_connection_share_no_words(log: Log) -> None:
    good, bad = log.decide("/orders/1"), log.decide("/orders/2")
    log.error(SHORT, "/orders/2")
    log.line(good, "200", "200")
    log.line(bad, "200", "200")
    assert log.outcomes() == [(good, None), (bad, "closed_early")]


def test_words_of_a_request_that_never_ends_are_forgotten(log: Log) -> None:
    log.error(SHORT, "/orders/1")
    indices = [log.decide("/orders/2") for _ in range(5)]
    for index in indices:
        log.line(index, "200", "200")
    late = log.decide("/orders/1")
    log.line(late, "200", "200")
    assert log.outcomes() == [(index, None) for index in [*indices, late]]


def test_answer_that_is_no_http_is_the_upstreams_doing(log: Log) -> None:
    index = log.decide("/orders/1")
    log.error("upstream sent no valid HTTP/1.0 header while reading response header from upstream", "/orders/1")
    log.line(index, "009", "200")
    assert log.outcomes() == [(index, "invalid_response")]


def test_try_that_was_repeated_with_success_is_no_error(log: Log) -> None:
    index = log.decide("/orders/1")
    log.error(RETRIED, "/orders/1")
    log.line(index, "200", "502, 200")
    assert log.outcomes() == [(index, None)]


def test_requests_for_one_path_on_one_connection_have_their_own_words_each(log: Log) -> None:
    indices = [log.decide("/down") for _ in range(3)]
    for index in indices:
        log.error(REFUSED, "/down")
        log.line(index, "502", "502")
    assert log.outcomes() == [(index, "connect_refused") for index in indices]


def test_failure_without_words_is_not_taken_for_the_upstreams_answer(log: Log) -> None:
    index = log.decide("/down")
    log.line(index, "502", "502")
    assert log.outcomes() == [(index, "bad_gateway")]


def test_masked_path_matches_by_connection_alone(log: Log) -> None:
    index = log.decide("/orders/[masked]")
    log.error(REFUSED, "/orders/eyJsecret")
    log.line(index, "502", "502")
    assert log.outcomes() == [(index, "connect_refused")]
