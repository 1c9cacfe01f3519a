"""Items to an OpenTelemetry collector: OTLP over HTTP, protobuf, by the semantic conventions.

Only 429, 502, 503 and 504 may be tried again; a 200 may say that some records were rejected without saying which:
those are lost to the collector's own rules, and are counted as elsewhere. `log.record.uid` tells duplicates.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs, ScopeLogs

from gatebook import __version__
from gatebook.config import secret
from gatebook.config.sinks import OTLPSink
from gatebook.sinks.destination import Answer, Delivered, Divide, Limits, Pause, Piece, Retry
from gatebook.sinks.fields import SEMCONV_URL, document, facts, level, line
from gatebook.sinks.http import Client
from gatebook.sinks.item import Item, encode

_SEVERITY: Final = {"info": 9, "warn": 13, "error": 17}
_AGAIN: Final = (429, 502, 503, 504)


class OTLPDestination:
    limits = Limits(items=1000, batch_bytes=4 << 20, item_bytes=1 << 20)

    def __init__(self, settings: OTLPSink) -> None:
        """Raises EnvironmentFault."""
        headers = {name: secret.read(value).decode("latin-1") for name, value in settings.headers.items()}
        self._client = Client(settings, settings.url, headers)

    def encode(self, item: Item) -> bytes:
        """One LogRecord."""
        known = facts(item)
        word = level(item, known)
        made = LogRecord(
            time_unix_nano=item.time_us * 1000,
            severity_number=_SEVERITY[word],  # type: ignore[arg-type]  # an enum, which takes its numbers
            severity_text=word.upper(),
            body=AnyValue(string_value=line(item, known)),
            event_name=f"gatebook.{item.kind}",
        )
        trace = known.get("trace_id")
        if isinstance(trace, str) and len(trace) == 32:
            made.trace_id = bytes.fromhex(trace)
        _fill(made.attributes, document(item, "otel", known))
        _fill(made.attributes, {"gatebook.ledger": encode(known["ledger"]).decode()})
        return bytes(made.SerializeToString(deterministic=True))

    def send(self, batch: Sequence[Piece]) -> Answer:
        scope = ScopeLogs(schema_url=SEMCONV_URL)
        scope.scope.name, scope.scope.version = "gatebook", __version__
        scope.log_records.extend(LogRecord.FromString(piece.data) for piece in batch)
        resource = ResourceLogs(scope_logs=[scope], schema_url=SEMCONV_URL)
        origin = batch[0].item.id.split("/")
        about = {"service.name": "gatebook", "service.namespace": origin[0], "service.instance.id": origin[1]}
        _fill(resource.resource.attributes, about | {"service.version": __version__})
        body = ExportLogsServiceRequest(resource_logs=[resource]).SerializeToString(deterministic=True)
        response = self._client.post(body, "application/x-protobuf", path="/v1/logs")
        if isinstance(response, Retry):
            return response
        said = f"{response.status} {response.words}".strip()
        if 200 <= response.status < 300:
            return _taken(response.body)
        if response.status in _AGAIN:
            return Retry(said, response.retry_after_s)
        if response.status in (400, 413):
            return Divide(said)
        return Pause(said)

    def close(self) -> None:
        self._client.close()


def _taken(body: bytes) -> Answer:
    try:
        partial = ExportLogsServiceResponse.FromString(body).partial_success
    except DecodeError:
        return Delivered()  # some answer in JSON, or with nothing
    if partial.rejected_log_records > 0:
        note = f"{partial.rejected_log_records} rejected: {partial.error_message[:200]}"
        return Delivered(elsewhere=partial.rejected_log_records, note=note)
    return Delivered()


def _fill(attributes: Any, document: dict[str, Any], before: str = "") -> None:
    """Attributes are flat, with dots in their names. Made in place: a message of its own for each costs twice."""
    for name, value in document.items():
        if isinstance(value, dict):
            _fill(attributes, value, f"{before}{name}.")
        else:
            made = attributes.add()
            made.key = before + name
            _set(made.value, value)


def _set(made: AnyValue, value: Any) -> None:
    match value:
        case str():
            made.string_value = value
        case bool():
            made.bool_value = value
        case int():
            made.int_value = value
        case float():
            made.double_value = value
        case list() | tuple():
            made.array_value.SetInParent()
            for one in value:
                _set(made.array_value.values.add(), one)
        case _:
            made.string_value = str(value)
