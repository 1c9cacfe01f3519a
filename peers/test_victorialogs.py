"""A log database of others', VictoriaLogs, takes and has what sinks send by OTLP, Splunk's collector and syslog.

`make test-peers` builds it from the Go module proxy. Its reading of Datadog's protocol knows flat logs alone, and
its reading of Elasticsearch's no data streams, so it is no judge of those.
"""

from __future__ import annotations

import json
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter
from tests.ports import free_port
from tests.sinks.test_delivery import ids, traffic
from tests.sinks.twin import Sink

from gatebook.config.sinks import Sink as Settings
from gatebook.sinks.make import make

PROGRAM = Path(__file__).parents[1] / ".peers" / "bin" / "victoria-logs"


class VictoriaLogs:
    def __init__(self, folder: Path) -> None:
        self.port, self.syslog = free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.process = subprocess.Popen(
            [
                PROGRAM,
                f"-storageDataPath={folder}",
                "-retentionPeriod=100y",
                f"-httpListenAddr=127.0.0.1:{self.port}",
                f"-syslog.listenAddr.tcp=127.0.0.1:{self.syslog}",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._until(lambda: self._get("/health") == b"OK", "VictoriaLogs to answer")

    def _get(self, path: str) -> bytes:
        try:
            with urllib.request.urlopen(self.url + path, timeout=5) as answer:
                return bytes(answer.read())
        except OSError:
            return b""

    def _until(self, holds: Any, what: str) -> Any:
        end = time.monotonic() + 30
        while not (found := holds()):
            assert time.monotonic() < end, f"waited in vain for {what}"
            time.sleep(0.1)
        return found

    def rows(self, query: str, count: int) -> list[dict[str, str]]:
        asked = urllib.parse.urlencode({"query": query, "start": "2020-01-01T00:00:00Z", "limit": "1000"})

        def found() -> list[dict[str, str]]:
            lines = [json.loads(line) for line in self._get(f"/select/logsql/query?{asked}").splitlines()]
            return lines if len(lines) >= count else []

        rows: list[dict[str, str]] = self._until(found, f"{count} rows")
        return rows


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VictoriaLogs]:
    made = VictoriaLogs(tmp_path_factory.mktemp("victorialogs"))
    yield made
    made.process.terminate()
    made.process.wait(20)


def send(folder: Path, settings: dict[str, Any], requests: int) -> None:
    """Through the whole loop."""
    made: Any = make(TypeAdapter(Settings).validate_python(settings))
    made.limits = made.limits._replace(linger_s=0, items=7)
    try:
        delivery = Sink(folder, traffic(requests), made).run()
    finally:
        made.close()
    assert delivery.cursor.sent == requests


def test_otlp(logs: VictoriaLogs, tmp_path: Path) -> None:
    send(tmp_path, {"type": "otlp", "url": f"{logs.url}/insert/opentelemetry"}, 20)
    rows = logs.rows('service.name:="gatebook"', 20)
    assert sorted(row["log.record.uid"] for row in rows) == sorted(ids(*range(0, 40, 2)))
    (row,) = (row for row in rows if row["log.record.uid"] == ids(2)[0])
    assert row["http.request.method"] == "GET"
    assert row["http.response.status_code"] == "200"
    assert row["_time"] == "2023-11-14T22:13:21Z"
    assert json.loads(row["gatebook.ledger"])[0]["index"] == 2


def test_splunk_collector(logs: VictoriaLogs, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("a-token")
    settings = {
        "type": "splunk_hec",
        "url": f"{logs.url}/insert/splunk",
        "token": {"file": str(tmp_path / "token")},
        "index": "api_audit",
    }
    send(tmp_path, settings, 20)
    rows = logs.rows('source:="gatebook"', 20)
    assert sorted(row["event.event_id"] for row in rows) == sorted(ids(*range(0, 40, 2)))
    assert {row["event.action"] for row in rows} == {"allowed"}


def test_syslog(logs: VictoriaLogs, tmp_path: Path) -> None:
    send(tmp_path, {"type": "syslog", "address": f"tcp://127.0.0.1:{logs.syslog}"}, 20)
    rows = logs.rows('app_name:="gatebook"', 20)
    assert sorted(json.loads(row["_msg"])["id"] for row in rows) == sorted(ids(*range(0, 40, 2)))
    assert {row["hostname"] for row in rows} == {"node-1"}
