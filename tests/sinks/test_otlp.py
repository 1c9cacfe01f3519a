"""OTLP: the protocol's own messages read what is sent; its rules about trying again are kept to the letter."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsPartialSuccess,
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)
from tests.access.ledger import T0
from tests.sinks.receiver import Receiver, Reply
from tests.sinks.test_delivery import ids, traffic
from tests.sinks.twin import Sink

from gatebook.config.sinks import OTLPSink
from gatebook.sinks.destination import Answer, Delivered, Divide, Pause, Piece, Retry
from gatebook.sinks.otlp import OTLPDestination
from gatebook.sinks.stream import Place, Stream


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.close()


@pytest.fixture
def destination(receiver: Receiver, tmp_path: Path) -> Iterator[OTLPDestination]:
    (tmp_path / "key").write_text("collector-key")
    settings = {"type": "otlp", "url": receiver.url, "headers": {"x-api-key": {"file": str(tmp_path / "key")}}}
    made = OTLPDestination(OTLPSink.model_validate(settings))
    yield made
    made.close()


def pieces(made: OTLPDestination, requests: int = 2) -> list[Piece]:
    return [Piece(item, made.encode(item)) for item in Stream(traffic(requests), Place()).read(100)]


def test_records_are_readable_by_the_protocols_own_messages(
    tmp_path: Path, destination: OTLPDestination, receiver: Receiver
) -> None:
    Sink(tmp_path, traffic(3), destination).run()  # type: ignore[arg-type]
    (request,) = receiver.requests
    assert request.path == "/v1/logs"
    assert request.headers["content-type"] == "application/x-protobuf"
    assert request.headers["x-api-key"] == "collector-key"
    sent = ExportLogsServiceRequest.FromString(gzip.decompress(request.body))
    (resource,) = sent.resource_logs
    about = {pair.key: pair.value.string_value for pair in resource.resource.attributes}
    assert about["service.name"] == "gatebook"
    assert about["service.instance.id"] == "node-1"
    records = resource.scope_logs[0].log_records
    assert [_attribute(one, "log.record.uid") for one in records] == ids(0, 2, 4)
    assert records[0].time_unix_nano == T0 * 1000
    assert records[0].severity_number == 9
    assert records[0].event_name == "gatebook.access"
    assert _attribute(records[0], "http.route") is None  # a route's name is none of its templates
    assert _attribute(records[0], "gatebook.route") == "read-order"


def _attribute(one: object, name: str) -> str | None:
    pairs = {pair.key: pair.value for pair in one.attributes}  # type: ignore[attr-defined]
    return pairs[name].string_value if name in pairs else None


def test_same_batch_is_the_same_bytes(destination: OTLPDestination, receiver: Receiver) -> None:
    batch = pieces(destination)
    destination.send(batch)
    destination.send(batch)
    assert receiver.requests[0].body == receiver.requests[1].body


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (200, Delivered),
        (201, Delivered),
        (202, Delivered),
        (429, Retry),
        (502, Retry),
        (503, Retry),
        (504, Retry),
        (500, Pause),
        (501, Pause),
        (408, Pause),
        (400, Divide),
        (413, Divide),
        (401, Pause),
        (404, Pause),
    ],
)
def test_answers(destination: OTLPDestination, receiver: Receiver, status: int, expected: type[Answer]) -> None:
    receiver.answer = lambda _: Reply(status)
    assert isinstance(destination.send(pieces(destination)), expected)


def test_partial_success_is_not_taken_for_success(destination: OTLPDestination, receiver: Receiver) -> None:
    partial = ExportLogsPartialSuccess(rejected_log_records=1, error_message="too old")
    told = ExportLogsServiceResponse(partial_success=partial).SerializeToString()
    receiver.answer = lambda _: Reply(200, told)
    answer = destination.send(pieces(destination))
    assert answer == Delivered(elsewhere=1, note="1 rejected: too old")


@pytest.mark.parametrize("body", [b"", b'{"partialSuccess":null}', b"\xff\xff\xff"])
def test_answer_that_is_no_message_is_a_success_all_the_same(
    destination: OTLPDestination, receiver: Receiver, body: bytes
) -> None:
    receiver.answer = lambda _: Reply(200, body)
    assert isinstance(destination.send(pieces(destination)), Delivered)
