"""Tokens that were verified, by their SHA-256: what makes the second request with a token cheap.

In: verified identities alone, so a flood of bad tokens evicts nobody. Bounded by number and by the memory
that claims take; the least recently used goes first. One cache belongs to one provider under one
configuration, and an entry counts only while its key and algorithm are still published: the caller says
which are; of what no key vouches for the mark is None. Never outlives a token, nor what its provider's word
is good for: such an entry is removed when it is met. No I/O.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Container
from typing import NamedTuple

from gatebook.identity.jwk import Mark
from gatebook.identity.strict import weight
from gatebook.identity.types import Identity

MAX_TOKENS = 65_536
MAX_WEIGHT_BYTES = 256 << 20


class _Entry(NamedTuple):
    identity: Identity
    mark: Mark | None
    since: float
    until: float
    weight: int


class TokenCache:
    def __init__(self, max_tokens: int = MAX_TOKENS, max_weight_bytes: int = MAX_WEIGHT_BYTES) -> None:
        self._entries: OrderedDict[bytes, _Entry] = OrderedDict()
        self._max_tokens = max_tokens
        self._max_weight = max_weight_bytes
        self._weight = 0

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, digest: bytes, published: Container[Mark | None], now: float) -> Identity | None:
        entry = self._entries.get(digest)
        if entry is None:
            return None
        if not entry.since <= now < entry.until or entry.mark not in published:
            self._drop(digest)
            return None
        self._entries.move_to_end(digest)
        return entry.identity

    def put(
        self, digest: bytes, identity: Identity, mark: Mark | None, until: float, since: float = -math.inf
    ) -> None:
        """`since`: if the clock is set back, what was true then is not known to be true now."""
        self._drop(digest)
        size = 1000 + weight(identity.claims)
        self._entries[digest] = _Entry(identity, mark, since, until, size)
        self._weight += size
        while len(self._entries) > self._max_tokens or self._weight > self._max_weight:
            _, oldest = self._entries.popitem(last=False)
            self._weight -= oldest.weight

    def _drop(self, digest: bytes) -> None:
        entry = self._entries.pop(digest, None)
        if entry is not None:
            self._weight -= entry.weight
