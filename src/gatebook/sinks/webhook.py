"""Items by POST to a URL of somebody's own, signed as Standard Webhooks has it (standardwebhooks.com).

The body is a JSON array of items. `webhook-id` is made of the ids in it, so a batch that is sent again has the id
that it had; `webhook-signature` is HMAC-SHA256 over id, time and body. Any 2xx counts as stored: nothing else is
known.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import time
from collections.abc import Sequence

from gatebook.config import secret
from gatebook.config.sinks import WebhookSink
from gatebook.errors import EnvironmentFault
from gatebook.sinks.destination import Answer, Limits, Piece, Retry
from gatebook.sinks.fields import document
from gatebook.sinks.http import Client, judge
from gatebook.sinks.item import Item, encode

MIN_SECRET_BYTES = 24


class WebhookDestination:
    limits = Limits(items=500, batch_bytes=1 << 20, item_bytes=256 << 10)

    def __init__(self, settings: WebhookSink) -> None:
        """Raises EnvironmentFault."""
        self._key = _key(secret.read(settings.secret))
        self._format = settings.format
        self._client = Client(settings, settings.url, {}, compress=False)

    def encode(self, item: Item) -> bytes:
        return encode(document(item, self._format))

    def send(self, batch: Sequence[Piece]) -> Answer:
        body = b"[" + b",".join(piece.data for piece in batch) + b"]"
        ids = "\n".join(piece.item.id for piece in batch)
        message = f"msg_{hashlib.sha256(ids.encode()).hexdigest()[:32]}"
        now = str(int(time.time()))
        signed = hmac.digest(self._key, f"{message}.{now}.".encode() + body, "sha256")
        headers = {
            "webhook-id": message,
            "webhook-timestamp": now,
            "webhook-signature": f"v1,{base64.b64encode(signed).decode()}",
        }
        response = self._client.post(body, "application/json", headers=headers)
        return response if isinstance(response, Retry) else judge(response)

    def close(self) -> None:
        self._client.close()


def _key(text: bytes) -> bytes:
    """`whsec_` and base64, as such secrets are given out; anything else is taken as it is."""
    key = text
    if text.startswith(b"whsec_"):
        try:
            key = base64.b64decode(text[6:], validate=True)
        except binascii.Error:
            raise EnvironmentFault(
                "a webhook's secret begins with whsec_ and goes on in something that is no base64"
            ) from None
    if len(key) < MIN_SECRET_BYTES:
        raise EnvironmentFault(
            f"a webhook's secret has {len(key)} bytes; it should have at least {MIN_SECRET_BYTES}"
        )
    return key
