"""A way to identify: what each provider of the configuration is to the Identifier.

One object is one provider under one configuration; what it learned dies with that, but for its `Source`. It is
asked only for credentials of the kinds in `takes`. A Refusal names the provider when the credential is one of
its own (its issuer, its key), and nobody when it is not: then another may know it. Never answers for another
provider's credential, and never raises for what a client sent.
"""

from __future__ import annotations

from typing import Protocol

from gatebook.config.model import Provider
from gatebook.identity.types import Credential, Identity, Refusal


class Method(Protocol):
    @property
    def takes(self) -> frozenset[str]:
        """Kinds of credential: values of Credential.method."""

    def recall(self, credential: Credential, now: float) -> Identity | Refusal | None:
        """What is known without work; None: ask `verify`. Called for each request: must be quick."""

    async def verify(self, credential: Credential, now: float) -> Identity | Refusal:
        """May wait for the provider, but not long; may be cancelled, and that disturbs nobody else."""


class Source(Protocol):
    """What a provider's object learns from elsewhere. Handed on while `provider`, its configuration, stays."""

    @property
    def provider(self) -> Provider: ...

    def start(self) -> None:
        """Begins its work, waits for nothing; starting again changes nothing."""

    async def stop(self) -> None: ...
