"""Elasticsearch: a twin of `_bulk` on data streams, as strict as the published contract."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from tests.sinks.receiver import Receiver, Reply, Request
from tests.sinks.test_delivery import ids, traffic
from tests.sinks.twin import Sink

from gatebook.config.sinks import ElasticsearchSink
from gatebook.sinks.destination import Divide, Partly, Pause, Piece, Retry
from gatebook.sinks.elasticsearch import ElasticsearchDestination
from gatebook.sinks.stream import Place, Stream

STREAM = "logs-gatebook.access-default"
OK = {"status": 201}


class Bulk:
    """A twin of Elasticsearch 9's `_bulk` on one data stream: only `create`, `_id` unique, errors item by item.

    It refuses what the real one refuses: a body without its last newline, another content type, an action that a
    data stream does not take, a document without `@timestamp`. `odd`: answers for ids, before it takes them.
    """

    def __init__(self) -> None:
        self.documents: dict[str, dict[str, Any]] = {}
        self.odd: dict[str, list[dict[str, Any]]] = {}
        self.whole: list[Reply] = []

    def __call__(self, request: Request) -> Reply:
        if self.whole:
            return self.whole.pop(0)
        assert request.path.partition("?")[0] == f"/{STREAM}/_bulk"
        if request.headers.get("authorization") != "ApiKey a2V5":
            return Reply(401, b'{"error":{"type":"security_exception"},"status":401}')
        assert request.headers["content-type"] == "application/x-ndjson"
        body = gzip.decompress(request.body)
        if not body.endswith(b"\n"):
            return Reply(400, b'{"error":"The bulk request must be terminated by a newline [\\n]"}')
        lines = body.splitlines()
        items = [self._one(json.loads(a), json.loads(d)) for a, d in zip(lines[::2], lines[1::2], strict=True)]
        errors = any("error" in item for item in items)
        return Reply(200, json.dumps({"errors": errors, "items": [{"create": item} for item in items]}).encode())

    def _one(self, action: dict[str, Any], document: dict[str, Any]) -> dict[str, Any]:
        assert list(action) == ["create"], "only write ops with an op_type of create are allowed in data streams"
        ident = action["create"]["_id"]
        assert len(ident.encode()) <= 512
        if self.odd.get(ident):
            return self.odd[ident].pop(0)
        if "@timestamp" not in document:
            return {"status": 400, "error": {"type": "document_parsing_exception", "reason": "no @timestamp"}}
        if ident in self.documents:
            return {"status": 409, "error": {"type": "version_conflict_engine_exception", "reason": "exists"}}
        self.documents[ident] = document
        return OK


@pytest.fixture
def bulk() -> Bulk:
    return Bulk()


@pytest.fixture
def receiver(bulk: Bulk) -> Iterator[Receiver]:
    made = Receiver(bulk)
    yield made
    made.close()


@pytest.fixture
def destination(receiver: Receiver, tmp_path: Path) -> Iterator[ElasticsearchDestination]:
    (tmp_path / "es.key").write_text("a2V5\n")
    settings = {"type": "elasticsearch", "url": receiver.url, "api_key": {"file": str(tmp_path / "es.key")}}
    made = ElasticsearchDestination(ElasticsearchSink.model_validate(settings))
    yield made
    made.close()


def pieces(made: ElasticsearchDestination, requests: int = 3) -> list[Piece]:
    return [Piece(item, made.encode(item)) for item in Stream(traffic(requests), Place()).read(100)]


def test_documents_are_there_under_their_ids(
    tmp_path: Path, destination: ElasticsearchDestination, bulk: Bulk
) -> None:
    Sink(tmp_path, traffic(5), destination).run()  # type: ignore[arg-type]
    assert list(bulk.documents) == ids(0, 2, 4, 6, 8)
    document = bulk.documents[ids(4)[0]]
    assert document["event"]["id"] == ids(4)[0]
    assert document["data_stream"] == {"type": "logs", "dataset": "gatebook.access", "namespace": "default"}


def test_what_is_sent_again_is_there_once(destination: ElasticsearchDestination, bulk: Bulk) -> None:
    batch = pieces(destination)
    assert destination.send(batch) == Partly()
    assert destination.send(batch) == Partly(duplicates=3)
    assert len(bulk.documents) == 3


def test_success_that_is_none_is_seen(destination: ElasticsearchDestination, bulk: Bulk) -> None:
    """A 200 may hold items that were refused, items that were rejected for now, and items in the failure store."""
    zero, two, four = ids(0, 2, 4)
    bulk.odd[zero] = [{"status": 429, "error": {"type": "es_rejected_execution_exception", "reason": "queue"}}]
    bulk.odd[two] = [{"status": 400, "error": {"type": "document_parsing_exception", "reason": "failed to parse"}}]
    bulk.odd[four] = [{"status": 201, "failure_store": "used"}]
    answer = destination.send(pieces(destination))
    assert isinstance(answer, Partly)
    assert answer.again == (0,)
    assert list(answer.refused) == [1]
    assert "failed to parse" in answer.refused[1]
    assert answer.elsewhere == 1


def test_poisoned_document_is_set_aside_and_the_others_arrive(
    tmp_path: Path, destination: ElasticsearchDestination, bulk: Bulk
) -> None:
    bulk.odd[ids(2)[0]] = [{"status": 400, "error": {"type": "x", "reason": "limit of total fields"}}]
    bulk.odd[ids(4)[0]] = [{"status": 429}, {"status": 503}]
    sink = Sink(tmp_path, traffic(4), destination)  # type: ignore[arg-type]
    delivery = sink.run()
    assert sorted(bulk.documents) == sorted(ids(0, 4, 6))
    assert [line["id"] for line in sink.refused()] == ids(2)
    assert (delivery.cursor.sent, delivery.cursor.refused) == (3, 1)


def test_right_that_is_missing_pauses_and_loses_nothing(
    tmp_path: Path, destination: ElasticsearchDestination, bulk: Bulk
) -> None:
    bulk.odd[ids(2)[0]] = [{"status": 403, "error": {"type": "security_exception", "reason": "unauthorized"}}]
    sink = Sink(tmp_path, traffic(3), destination)  # type: ignore[arg-type]
    delivery = sink.run()
    assert sink.waits == [30.0]
    assert sorted(bulk.documents) == sorted(ids(0, 2, 4))
    assert delivery.cursor.duplicates == 2  # stored before the pause


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (Reply(413), Divide),
        (Reply(429), Retry),
        (Reply(502), Retry),
        (Reply(503), Retry),
        (Reply(401), Pause),
        (Reply(403), Pause),
        (Reply(404), Pause),
        (Reply(400), Divide),
        (Reply(200, b"<html>a proxy</html>"), Retry),
        (Reply(200, b'{"errors":false,"items":[]}'), Retry),
        (Reply(200, b'{"errors":false,"items":[1,2,3]}'), Retry),
        (Reply(200, b'{"items":[{"index":{"status":201}},{},{}]}'), Retry),
        (Reply(200, b"{}", cut=1), Retry),
    ],
    ids=lambda value: str(value)[:60] if isinstance(value, Reply) else value.__name__,
)
def test_answers_to_the_whole(
    destination: ElasticsearchDestination, bulk: Bulk, reply: Reply, expected: type[object]
) -> None:
    bulk.whole = [reply]
    assert isinstance(destination.send(pieces(destination)), expected)


def test_basic_authentication(receiver: Receiver, bulk: Bulk, tmp_path: Path) -> None:
    (tmp_path / "pw").write_text("s3cret")
    settings = {
        "type": "elasticsearch",
        "url": receiver.url,
        "username": "gatebook",
        "password": {"file": str(tmp_path / "pw")},
    }
    made = ElasticsearchDestination(ElasticsearchSink.model_validate(settings))
    made.send(pieces(made))
    made.close()
    sent = receiver.requests[0].headers["authorization"]
    assert base64.b64decode(sent.removeprefix("Basic ")) == b"gatebook:s3cret"


@pytest.mark.parametrize(
    "more",
    [
        {"username": "u"},
        {"password": {"env": "P"}},
        {"username": "u", "password": {"env": "P"}, "api_key": {"env": "K"}},
        {"data_stream": "../_all"},
        {"data_stream": "Logs-x-y"},
    ],
)
def test_settings_that_make_no_sense_are_refused(more: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ElasticsearchSink.model_validate({"type": "elasticsearch", "url": "https://es:9200", **more})
