"""Acts on the ledger itself: what only its writer may do, asked for by a verb and one JSON object.

An order runs alone: all that came before it is durable, nothing is taken while it runs. Its handler writes what
it has to, syncs, and answers with one JSON object. What it refuses (EnvironmentFault, UsageError) has changed
nothing; any other error ends the process, as nobody knows how far it came. The next verb is a handler in a module
of its own and a line in ORDERS.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

import msgspec

from gatebook import record
from gatebook.config.model import Configuration
from gatebook.errors import EnvironmentFault, UsageError
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

ORDERS: Final[dict[str, Handler]] = {}


def obey(hands: Hands, verb: str, parameters: bytes) -> bytes:
    """Raises EnvironmentFault or UsageError, nothing having been changed; or whatever ended it half-way."""
    handler = ORDERS.get(verb)
    if handler is None:
        raise EnvironmentFault(
            f"the recorder knows no order {verb!r}; it may be older than this program: restart it"
        )
    try:
        decoded = msgspec.json.decode(parameters, type=Parameters)
    except ValueError as error:
        raise UsageError(f"order {verb}: {error}") from None
    return msgspec.json.encode(handler(hands, decoded))
