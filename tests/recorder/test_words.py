"""The error log's words find the request that they are about, in whatever order the lines are read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.recorder.place import Book, Desk, Gateway

REFUSED = "connect() failed (111: Connection refused) while connecting to upstream"
SHORT = "upstream prematurely closed connection while sending to client"
RETRIED = "upstream prematurely closed connection while reading response header from upstream"


class Log:
    """A gateway's log folder, and what the recorder makes of it."""

    def __init__(self, folder: Path) -> None:
        self.gateway = Gateway(folder / "logs")
        self.book = Book(folder)
        self.desk = Desk(self.book, self.gateway)
        self.decided = 0

    def decide(self, path: str) -> int:
        """An allowed request; its decision's index."""
        self.decided += 1
        return self.book.decide(self.decided, path=path)[0]

    def line(self, decision: int, status: str, upstream: str) -> None:
        self.gateway.line(decision, decision, s=status, us=upstream)

    def error(self, words: str, path: str) -> None:
        self.gateway.error(words, path=path)

    def outcomes(self) -> list[tuple[int | None, Any]]:
        """Decision and error of every outcome so far."""
        self.desk.read()
        return [(each.decision_index, each.error and each.error.detail) for each in self.book.outcomes()]


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    made = Log(tmp_path)
    yield made
    made.desk.close()
    made.gateway.close()
    made.book.close()


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
