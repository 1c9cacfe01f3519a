"""Who may ask a provider while others send it bad tokens in floods: memory of who was let in, and of who was not.

In: SHA-256 of tokens, and what came of asking. Out: what is known of a token, and whether the provider has been
asked for nothing too often. Both memories are bounded: the oldest goes first. Never holds a token. No I/O; needs a
running loop for its clock.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict

from gatebook.identity.types import Refusal

MAX_VOUCHED = 65_536
MAX_REFUSED = 16_384
MAX_REFUSED_PER_S = 100.0  # tokens that were asked about only to be refused
BURST_S = 2.0


class Vouched:
    """Tokens whose last answer let them in, whether it still serves or not. They are asked about first."""

    def __init__(self) -> None:
        self._digests: OrderedDict[bytes, None] = OrderedDict()

    def __contains__(self, digest: bytes) -> bool:
        return digest in self._digests

    def add(self, digest: bytes) -> None:
        self._digests[digest] = None
        self._digests.move_to_end(digest)
        while len(self._digests) > MAX_VOUCHED:
            self._digests.popitem(last=False)

    def remove(self, digest: bytes) -> None:
        self._digests.pop(digest, None)


class Refused:
    """Tokens that were refused a moment ago, and whether there are too many of them."""

    def __init__(self) -> None:
        self._entries: OrderedDict[bytes, tuple[Refusal, float, float]] = OrderedDict()
        self._paid_s = float("-inf")  # by the loop's clock: when the provider has recovered from what it was asked

    def get(self, digest: bytes, now: float) -> Refusal | None:
        entry = self._entries.get(digest)
        if entry is None:
            return None
        refusal, since, until = entry
        if since <= now < until:
            return refusal
        del self._entries[digest]
        return None

    def put(self, digest: bytes, refusal: Refusal, until: float, now: float) -> None:
        self._entries[digest] = (refusal, now, until)
        while len(self._entries) > MAX_REFUSED:
            self._entries.popitem(last=False)
        self._paid_s = max(self._paid_s, asyncio.get_running_loop().time()) + 1 / MAX_REFUSED_PER_S

    def is_flooded(self) -> bool:
        return self._paid_s - asyncio.get_running_loop().time() > BURST_S
