"""Items to Datadog's intake of logs (v2), by its standard attributes.

A log over 1 MB is cut there, silently and with a 2xx, so none is sent that comes near it. What is older than 18
hours does not get its true time there: it stands in `gatebook.time_us`, and is counted as elsewhere. There is no
key against duplicates; `gatebook.id` tells them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Final

from gatebook.config import secret
from gatebook.config.sinks import DatadogSink
from gatebook.sinks.destination import Answer, Delivered, Divide, Limits, Piece, Retry
from gatebook.sinks.fields import document
from gatebook.sinks.http import Client, judge
from gatebook.sinks.item import Item, encode

OLDEST_US: Final = 18 * 3600 * 1_000_000


class DatadogDestination:
    limits = Limits(items=1000, batch_bytes=4_900_000, item_bytes=256_000)

    def __init__(self, settings: DatadogSink, clock: Callable[[], float] = time.time) -> None:
        """Raises EnvironmentFault."""
        self._settings = settings
        self._clock = clock
        url = settings.url or f"https://http-intake.logs.{settings.site}"
        key = secret.read(settings.api_key).decode("latin-1")
        self._client = Client(settings, url, {"DD-API-KEY": key})

    def encode(self, item: Item) -> bytes:
        made = document(item, "datadog")
        made["service"] = self._settings.service
        made.setdefault("gatebook", {})["time_us"] = item.time_us
        if self._settings.tags:
            made["ddtags"] = ",".join(self._settings.tags)
        return encode(made)

    def send(self, batch: Sequence[Piece]) -> Answer:
        body = b"[" + b",".join(piece.data for piece in batch) + b"]"
        response = self._client.post(body, "application/json", path="/api/v2/logs")
        if isinstance(response, Retry):
            return response
        answer = judge(response)
        if response.status == 413:
            return Divide(f"413 {response.words}".strip())
        if isinstance(answer, Delivered):
            before_us = int(self._clock() * 1_000_000) - OLDEST_US
            late = sum(piece.item.time_us < before_us for piece in batch)
            note = f"{late} are older than 18 h: their time there is not theirs" if late else ""
            return Delivered(elsewhere=late, note=note)
        return answer

    def close(self) -> None:
        self._client.close()
