"""Splunk: a twin of the HTTP Event Collector, with acknowledgements that are told only once."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.sinks.receiver import Receiver, Reply, Request
from tests.sinks.test_delivery import ids, traffic
from tests.sinks.twin import Sink

from gatebook.config.sinks import SplunkSink
from gatebook.sinks.destination import Answer, Delivered, Divide, Partly, Pause, Piece, Retry
from gatebook.sinks.splunk import SplunkDestination
from gatebook.sinks.stream import Place, Stream

TOKEN = "0b5e5a0c-0000-4000-8000-000000000001"


def code(status: int, number: int, text: str, **more: Any) -> Reply:
    return Reply(status, json.dumps({"text": text, "code": number, **more}).encode())


class Collector:
    """A twin of HEC as its documentation and its code table have it.

    A batch with one bad event is refused whole, and the event's number told. With `acks` a channel is needed; an
    acknowledgement is true once the batch is indexed, after `polls` questions, and is then forgotten.
    """

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.bad: set[str] = set()
        self.whole: list[Reply] = []
        self.acks = False
        self.polls = 1
        self.lose = 0  # so many acknowledgements never come
        self.channels: dict[str, dict[int, int]] = {}

    def __call__(self, request: Request) -> Reply:
        if request.headers.get("authorization") != f"Splunk {TOKEN}":
            return code(403, 4, "Invalid token")
        if request.path.startswith("/services/collector/ack"):
            return self._ack(request)
        if self.whole:
            return self.whole.pop(0)
        assert request.path == "/services/collector/event"
        channel = request.headers.get("x-splunk-request-channel")
        if self.acks and channel is None:
            return code(400, 10, "Data channel is missing")
        found, text, decoder = [], gzip.decompress(request.body).decode(), json.JSONDecoder()
        at = 0
        while at < len(text):
            event, at = decoder.raw_decode(text, at)
            found.append(event)
            while at < len(text) and text[at].isspace():
                at += 1
        for number, event in enumerate(found):
            assert set(event) <= {"time", "host", "source", "sourcetype", "index", "event", "fields"}
            if any(isinstance(value, dict) for value in event["fields"].values()):
                return code(400, 15, "Error in handling indexed fields", **{"invalid-event-number": number})
            if event["fields"]["event_id"] in self.bad:
                return code(400, 6, "Invalid data format", **{"invalid-event-number": number})
        self.events += found
        if not self.acks:
            return code(200, 0, "Success")
        assert channel is not None
        pending = self.channels.setdefault(channel, {})
        number = len(pending)
        pending[number] = 10**9 if self.lose > 0 else self.polls
        self.lose -= 1
        return code(200, 0, "Success", ackId=number)

    def _ack(self, request: Request) -> Reply:
        pending = self.channels[request.path.partition("channel=")[2]]
        told = {}
        for number in json.loads(gzip.decompress(request.body))["acks"]:
            pending[number] = pending.get(number, -1) - 1
            told[str(number)] = pending[number] == 0
        return Reply(200, json.dumps({"acks": told}).encode())

    @property
    def ids(self) -> list[str]:
        return [event["fields"]["event_id"] for event in self.events]


@pytest.fixture
def collector() -> Collector:
    return Collector()


@pytest.fixture
def receiver(collector: Collector) -> Iterator[Receiver]:
    made = Receiver(collector)
    yield made
    made.close()


OPEN: list[SplunkDestination] = []


@pytest.fixture(autouse=True)
def _closing() -> Iterator[None]:
    yield
    while OPEN:
        OPEN.pop().close()


def destination(receiver: Receiver, tmp_path: Path, token: str = TOKEN, **more: Any) -> SplunkDestination:
    (tmp_path / "hec.token").write_text(token)
    settings = {"type": "splunk_hec", "url": receiver.url, "token": {"file": str(tmp_path / "hec.token")}, **more}
    OPEN.append(made := SplunkDestination(SplunkSink.model_validate(settings), wait=lambda _: None))
    return made


def pieces(made: SplunkDestination, requests: int = 3) -> list[Piece]:
    return [Piece(item, made.encode(item)) for item in Stream(traffic(requests), Place()).read(100)]


def send(made: SplunkDestination) -> Answer:
    return made.send(pieces(made))


def test_events_arrive_with_their_ids_as_indexed_fields(
    tmp_path: Path, receiver: Receiver, collector: Collector
) -> None:
    Sink(tmp_path, traffic(5), destination(receiver, tmp_path, index="api_audit")).run()  # type: ignore[arg-type]
    assert collector.ids == ids(0, 2, 4, 6, 8)
    event = collector.events[1]
    assert event["index"] == "api_audit"
    assert event["sourcetype"] == "gatebook:access"
    assert event["event"]["action"] == "allowed"
    assert event["event"]["http_method"] == "GET"
    assert event["time"] == 1_700_000_001.0


def test_bad_event_is_set_aside_and_the_rest_of_its_batch_arrives(
    tmp_path: Path, receiver: Receiver, collector: Collector
) -> None:
    collector.bad = {ids(4)[0]}
    sink = Sink(tmp_path, traffic(5), destination(receiver, tmp_path))  # type: ignore[arg-type]
    sink.run()
    assert sorted(collector.ids) == sorted(ids(0, 2, 6, 8))
    assert [line["id"] for line in sink.refused()] == ids(4)


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (code(403, 1, "Token disabled"), Pause),
        (code(401, 2, "Token is required"), Pause),
        (code(401, 3, "Invalid authorization"), Pause),
        (code(403, 4, "Invalid token"), Pause),
        (code(400, 6, "Invalid data format"), Divide),
        (code(400, 6, "Invalid data format", **{"invalid-event-number": 1}), Partly),
        (code(400, 6, "Invalid data format", **{"invalid-event-number": 99}), Divide),
        (code(400, 7, "Incorrect index"), Pause),
        (code(500, 8, "Internal server error"), Retry),
        (code(503, 9, "Server is busy"), Retry),
        (code(400, 10, "Data channel is missing"), Pause),
        (code(400, 12, "Event field is required"), Divide),
        (code(400, 14, "ACK is disabled"), Pause),
        (code(503, 18, "HEC is unhealthy, queues are full"), Retry),
        (Reply(413, b"Content-Length of 99 too large"), Divide),
        (Reply(429), Retry),
        (Reply(502, b"<html>"), Retry),
        (Reply(200, b"not json"), Delivered),
        (code(200, 9, "Success, or so"), Retry),
    ],
    ids=lambda value: str(value)[:70] if isinstance(value, Reply) else value.__name__,
)
def test_answers(
    receiver: Receiver, collector: Collector, tmp_path: Path, reply: Reply, expected: type[Answer]
) -> None:
    collector.whole = [reply]
    assert isinstance(send(destination(receiver, tmp_path)), expected)


def test_batch_counts_once_it_is_acknowledged(receiver: Receiver, collector: Collector, tmp_path: Path) -> None:
    collector.acks, collector.polls = True, 3
    assert send(destination(receiver, tmp_path, acknowledge=True)) == Delivered()
    assert len(receiver.requests) == 1 + 3


def test_acknowledgement_that_never_comes_sends_again_on_another_channel(
    receiver: Receiver, collector: Collector, tmp_path: Path
) -> None:
    collector.acks, collector.lose = True, 1
    made = destination(receiver, tmp_path, acknowledge=True, acknowledge_timeout=1)
    answer = send(made)
    assert isinstance(answer, Retry)
    assert "another channel" in answer.why
    assert send(made) == Delivered()
    assert len(collector.channels) == 2
    assert collector.ids == ids(0, 2, 4) * 2  # a duplicate, which event_id tells


def test_token_without_acknowledgement_pauses(receiver: Receiver, tmp_path: Path) -> None:
    assert isinstance(send(destination(receiver, tmp_path, acknowledge=True)), Pause)


def test_wrong_token_is_not_told(receiver: Receiver, tmp_path: Path) -> None:
    answer = send(destination(receiver, tmp_path, token="wrong-token-value"))
    assert isinstance(answer, Pause)
    assert "wrong-token-value" not in answer.why
