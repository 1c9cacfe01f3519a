"""Items to Splunk's HTTP Event Collector, in the words of its Common Information Model.

Without acknowledgement a 200 means: in the receiver's queue. With it, a batch counts once the indexers have it.
Splunk says so once only and then forgets, so the cursor has to move right then; where it does not say so in time,
the batch is sent again on another channel. Nothing there keeps duplicates out: the indexed field `event_id` tells.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Sequence
from typing import Any, Final

from gatebook.config import secret
from gatebook.config.sinks import SplunkSink
from gatebook.sinks.destination import Answer, Delivered, Divide, Limits, Partly, Pause, Piece, Retry
from gatebook.sinks.fields import document
from gatebook.sinks.http import Client, Response, judge
from gatebook.sinks.item import Item, encode

_EVENT = "/services/collector/event"
_ACK = "/services/collector/ack"
_PAUSE: Final = frozenset({1, 2, 3, 4, 7, 10, 11, 14, 16, 21, 22})  # a token, an index or a channel
_REFUSED: Final = frozenset({6, 12, 13, 15})  # one event of the batch
_BUSY: Final = frozenset({8, 9, 18, 19, 20, 23, 24, 25, 26, 27})
POLL_S = 1.0


class SplunkDestination:
    limits = Limits(items=1000, batch_bytes=1_000_000, item_bytes=900_000)

    def __init__(self, settings: SplunkSink, wait: Callable[[float], object] = time.sleep) -> None:
        """Raises EnvironmentFault."""
        self._settings = settings
        self._wait = wait
        self._channel = str(uuid.uuid4())
        token = secret.read(settings.token).decode("latin-1")
        self._client = Client(settings, settings.url, {"Authorization": f"Splunk {token}"})

    def encode(self, item: Item) -> bytes:
        made: dict[str, Any] = {
            "time": item.time_us / 1_000_000,
            "source": "gatebook",
            "sourcetype": f"{self._settings.sourcetype}:{item.kind}",
            "host": item.id.split("/")[1],
            "event": document(item, "cim"),
            "fields": {"event_id": item.id, "ledger_index": item.index},
        }
        if self._settings.index is not None:
            made["index"] = self._settings.index
        return encode(made)

    def send(self, batch: Sequence[Piece]) -> Answer:
        body = b"\n".join(piece.data for piece in batch)
        headers = {"X-Splunk-Request-Channel": self._channel} if self._settings.acknowledge else {}
        response = self._client.post(body, "application/json", path=_EVENT, headers=headers)
        if isinstance(response, Retry):
            return response
        told = response.json()
        told = told if isinstance(told, dict) else {}
        answer = _judge(response, told, len(batch))
        if not isinstance(answer, Delivered) or not self._settings.acknowledge:
            return answer
        ack = told.get("ackId")
        if not isinstance(ack, int):
            return Pause(
                "it gives no acknowledgements: switch `useACK` on for this token, or `acknowledge` off here"
            )
        return self._acknowledged(ack)

    def _acknowledged(self, ack: int) -> Answer:
        until = time.monotonic() + self._settings.acknowledge_timeout
        why = "no acknowledgement"
        while time.monotonic() < until:
            path = f"{_ACK}?channel={self._channel}"
            response = self._client.post(encode({"acks": [ack]}), "application/json", path=path)
            if isinstance(response, Retry):
                why = response.why
            elif response.status == 200:
                told = response.json()
                acks = told.get("acks") if isinstance(told, dict) else None
                if isinstance(acks, dict) and acks.get(str(ack)) is True:
                    return Delivered()
            else:
                why = f"{response.status} {response.words}".strip()
            self._wait(POLL_S)
        self._channel = str(uuid.uuid4())
        return Retry(f"{why} within {self._settings.acknowledge_timeout:g} s: sent again on another channel")

    def close(self) -> None:
        self._client.close()


def _judge(response: Response, told: dict[str, Any], size: int) -> Answer:
    """By the collector's own code, where it gives one."""
    code = told.get("code")
    said = f"{response.status} {response.words}".strip()
    if 200 <= response.status < 300:
        return Delivered() if code in (0, None) else Retry(said)
    if code in _PAUSE:
        return Pause(said)
    if code in _REFUSED:
        bad = told.get("invalid-event-number")
        if isinstance(bad, int) and 0 <= bad < size:
            # Nothing of a batch with a bad event is taken.
            return Partly({bad: said}, tuple(n for n in range(size) if n != bad), said)
        return Divide(said)
    if code in _BUSY:
        return Retry(said, response.retry_after_s)
    return Divide(said) if response.status == 413 else judge(response)
