"""What the handler of an order works with: the ledger's writer, the vault, the configuration, the paths.

Handed to every handler in `orders.ORDERS`. Never used outside an order: what it appends comes between nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from gatebook import record
from gatebook.config.model import Configuration
from gatebook.ledger.entry import Entry
from gatebook.ledger.writer import Writer
from gatebook.paths import Paths
from gatebook.recorder.vault import Vault


class Hands(NamedTuple):
    """What a handler works with. Nothing of it is durable before `writer.sync`."""

    configuration: Configuration
    paths: Paths
    writer: Writer
    vault: Vault

    def record(self, made: record.Record) -> tuple[int, bytes]:
        """Append a record; its index, and its exact bytes."""
        data = record.encode(made)
        return self.writer.append([data]), data

    def enter(self, entry: Entry) -> int:
        """Append an entry that is no record; its index."""
        return self.writer.append_entry(entry)


Parameters = dict[str, Any]
Handler = Callable[[Hands, Parameters], dict[str, Any]]
