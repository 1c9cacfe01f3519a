"""The method `api_key`: keys of one provider, found in what a guard knows of the key file.

In: the content of a header that is the provider's. Out: an Identity, or a Refusal. A key opens by its own
provider's header alone, and only where that provider is accepted; while the key file cannot be used, nobody's
does. Never waits.
"""

from __future__ import annotations

from gatebook import kept
from gatebook.identity.api_key import KeyRing
from gatebook.identity.api_key_file import Document
from gatebook.identity.last_use import LastUse
from gatebook.identity.types import Credential, Identity, Refusal


class ApiKeyMethod:
    """`fellows` are the providers that share this one's header, itself among them."""

    takes = frozenset({"api_key"})

    def __init__(
        self, name: str, fellows: frozenset[str], watch: kept.Watch[Document, KeyRing], last_use: LastUse
    ) -> None:
        self._name = name
        self._fellows = fellows
        self._watch = watch
        self._last_use = last_use

    def recall(self, credential: Credential, now: float) -> Identity | Refusal:
        ring = self._watch.value
        if ring is None:
            return Refusal("provider_unavailable", self._name)
        found = ring.find(credential.value, now)
        if isinstance(found, Refusal):
            return found
        if found.provider != self._name or credential.provider not in self._fellows:
            return Refusal("key_unknown", found.provider)
        self._last_use.note(found.client or "", now)
        return found

    async def verify(self, credential: Credential, now: float) -> Identity | Refusal:
        return self.recall(credential, now)
