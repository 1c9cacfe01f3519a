"""Items to a data stream of Elasticsearch or OpenSearch, by `_bulk`, in the words of ECS.

Each item is a `create` under its own id: what is there already answers 409, which is as good as stored. A 200 says
nothing by itself; each item has an answer of its own. Some are stored, but in the stream's failure store: those
are counted as elsewhere. An id is unique within one backing index, so what is sent again after a rollover is there
twice; `event.id` tells.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from typing import Any

from gatebook.config import secret
from gatebook.config.sinks import ElasticsearchSink
from gatebook.sinks.destination import Answer, Divide, Limits, Partly, Pause, Piece, Retry
from gatebook.sinks.fields import document
from gatebook.sinks.http import Client, judge, words
from gatebook.sinks.item import Item, encode

_ANSWER = "errors,items.*.status,items.*.error.type,items.*.error.reason,items.*.failure_store"


class ElasticsearchDestination:
    limits = Limits(items=1000, batch_bytes=5 << 20, item_bytes=1 << 20)

    def __init__(self, settings: ElasticsearchSink) -> None:
        """Raises EnvironmentFault."""
        self._path = f"/{settings.data_stream}/_bulk?filter_path={_ANSWER}"
        kind, dataset, namespace = settings.data_stream.split("-", 2)
        self._stream = {"type": kind, "dataset": dataset, "namespace": namespace}
        self._client = Client(settings, settings.url, _credentials(settings))

    def encode(self, item: Item) -> bytes:
        action = {"create": {"_id": item.id}}
        made = document(item, "ecs") | {"data_stream": self._stream}
        return encode(action) + b"\n" + encode(made) + b"\n"

    def send(self, batch: Sequence[Piece]) -> Answer:
        body = b"".join(piece.data for piece in batch)
        response = self._client.post(body, "application/x-ndjson", path=self._path)
        if isinstance(response, Retry):
            return response
        if response.status == 413:
            return Divide(f"413 {response.words}".strip())
        if response.status != 200:
            return judge(response)
        told = response.json()
        items = told.get("items") if isinstance(told, dict) else None
        if not isinstance(items, list) or len(items) != len(batch):
            return Retry(
                "answered 200, but not with an answer for each item; is there something else at this address?"
            )
        return _judge(items)

    def close(self) -> None:
        self._client.close()


def _credentials(settings: ElasticsearchSink) -> dict[str, str]:
    if settings.api_key is not None:
        return {"Authorization": f"ApiKey {secret.read(settings.api_key).decode('latin-1')}"}
    if settings.username is not None and settings.password is not None:
        pair = settings.username.encode() + b":" + secret.read(settings.password)
        return {"Authorization": f"Basic {base64.b64encode(pair).decode()}"}
    return {}


def _judge(items: list[Any]) -> Answer:
    refused: dict[int, str] = {}
    again: list[int] = []
    duplicates = elsewhere = 0
    why = ""
    for number, item in enumerate(items):
        told = item.get("create") if isinstance(item, dict) else None
        status = told.get("status") if isinstance(told, dict) else None
        if told is None or not isinstance(status, int):
            return Retry("an answer that is none for one of the items")
        said = words(json.dumps(told.get("error"))) if told.get("error") is not None else ""
        if status == 409:
            duplicates += 1
        elif 200 <= status < 300:
            elsewhere += told.get("failure_store") == "used"
        elif status == 429 or status >= 500:
            again.append(number)
            why = f"{status} {said}"
        elif status in (401, 403, 404):
            return Pause(f"{status} {said}")  # what was stored of this batch answers 409 the next time
        else:
            refused[number] = f"{status} {said}"
    return Partly(refused, tuple(again), why, duplicates, elsewhere)
