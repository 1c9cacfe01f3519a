"""Datadog: a twin of the logs intake, with its limits and its silent cut at 1 MB."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.access.ledger import T0, decision, outcome
from tests.sinks.receiver import Receiver, Reply, Request
from tests.sinks.test_delivery import ids, traffic
from tests.sinks.twin import Ledger, Sink

from gatebook import record
from gatebook.config.sinks import DatadogSink
from gatebook.sinks.datadog import DatadogDestination
from gatebook.sinks.destination import Answer, Delivered, Divide, Pause, Piece, Retry
from gatebook.sinks.stream import Place, Stream


class Intake:
    """A twin of `POST /api/v2/logs`: 202 for anything within the limits, 413 beyond; logs over 1 MB are cut."""

    def __init__(self) -> None:
        self.logs: list[dict[str, Any]] = []
        self.cut = 0
        self.whole: list[Reply] = []

    def __call__(self, request: Request) -> Reply:
        if self.whole:
            return self.whole.pop(0)
        assert request.path == "/api/v2/logs"
        if request.headers.get("dd-api-key") != "dd-key":
            return Reply(403, b'{"errors":["Forbidden"]}')
        body = gzip.decompress(request.body)
        if len(body) > 5_000_000:
            return Reply(413, b'{"errors":["Payload too large"]}')
        logs = json.loads(body)
        if not isinstance(logs, list) or len(logs) > 1000:
            return Reply(400, b'{"errors":["Bad request"]}')
        self.cut += sum(len(json.dumps(log)) > 1_000_000 for log in logs)
        self.logs += logs
        return Reply(202, b"{}")


@pytest.fixture
def intake() -> Intake:
    return Intake()


@pytest.fixture
def receiver(intake: Intake) -> Iterator[Receiver]:
    made = Receiver(intake)
    yield made
    made.close()


@pytest.fixture
def destination(receiver: Receiver, tmp_path: Path) -> Iterator[DatadogDestination]:
    (tmp_path / "dd.key").write_text("dd-key")
    settings = {
        "type": "datadog",
        "url": receiver.url,
        "api_key": {"file": str(tmp_path / "dd.key")},
        "tags": ["env:prod", "team:api"],
    }
    made = DatadogDestination(DatadogSink.model_validate(settings), clock=lambda: T0 / 1e6)
    yield made
    made.close()


def pieces(made: DatadogDestination, ledger: Ledger) -> list[Piece]:
    return [Piece(item, made.encode(item)) for item in Stream(ledger, Place()).read(100)]


def test_logs_arrive_with_standard_attributes(
    tmp_path: Path, destination: DatadogDestination, intake: Intake
) -> None:
    Sink(tmp_path, traffic(5), destination).run()  # type: ignore[arg-type]
    assert [log["gatebook"]["id"] for log in intake.logs] == ids(0, 2, 4, 6, 8)
    log = intake.logs[0]
    assert (log["ddsource"], log["service"], log["ddtags"]) == ("gatebook", "gatebook", "env:prod,team:api")
    assert log["http"]["method"] == "GET"
    assert log["http"]["status_code"] == 200
    assert log["status"] == "info"
    assert log["message"].startswith("GET /orders/0 allowed 200")
    assert log["gatebook"]["time_us"] == T0


def test_nothing_near_the_size_that_is_cut_in_silence_is_sent(
    tmp_path: Path, destination: DatadogDestination, intake: Intake
) -> None:
    roles = tuple(f"{'r' * 100}{n}" for n in range(200))
    large = decision(0, identity=record.IdentityPart(provider="staff", method="oidc", roles=roles))
    sink = Sink(tmp_path, Ledger(large, outcome(0, 0)), destination)  # type: ignore[arg-type]
    sink.run()
    assert intake.cut == 0
    assert len(intake.logs) + len(sink.refused()) == 1


def test_what_is_too_old_for_its_true_time_there_is_counted(destination: DatadogDestination) -> None:
    ledger = Ledger(decision(0, time_us=T0 - 19 * 3600 * 10**6), outcome(0, 0), decision(1), outcome(1, 2))
    answer = destination.send(pieces(destination, ledger))
    assert isinstance(answer, Delivered)
    assert answer.elsewhere == 1


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (Reply(202), Delivered),
        (Reply(400), Divide),
        (Reply(401), Pause),
        (Reply(403), Pause),
        (Reply(408), Retry),
        (Reply(413), Divide),
        (Reply(429), Retry),
        (Reply(500), Retry),
        (Reply(503), Retry),
    ],
    ids=lambda value: str(value.status) if isinstance(value, Reply) else value.__name__,
)
def test_answers(destination: DatadogDestination, intake: Intake, reply: Reply, expected: type[Answer]) -> None:
    intake.whole = [reply]
    assert isinstance(destination.send(pieces(destination, traffic(2))), expected)


def test_keys_keep_to_the_intakes_bounds(destination: DatadogDestination) -> None:
    def depth(value: Any) -> int:
        inner = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
        return 1 + max(map(depth, inner), default=0) if inner else 0

    def keys(value: Any) -> Iterator[str]:
        if isinstance(value, dict):
            for name, below in value.items():
                yield name
                yield from keys(below)

    (piece,) = pieces(destination, traffic(1))
    made = json.loads(piece.data)
    assert depth(made) < 10
    assert all(len(name) < 50 for name in keys(made))
