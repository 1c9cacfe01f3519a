"""Acts on the ledger itself: what only its writer may do, asked for by a verb and one JSON object.

An order runs alone: all that came before it is durable, nothing is taken while it runs. Its handler writes what
it has to, syncs, and answers with one JSON object. What it refuses (EnvironmentFault, UsageError) has changed
nothing; any other error ends the process, as nobody knows how far it came. The next verb is a handler in a module
of its own and a line in ORDERS.
"""

from __future__ import annotations

from typing import Final

import msgspec

from gatebook.errors import EnvironmentFault, UsageError
from gatebook.recorder.forget import forget
from gatebook.recorder.hands import Handler, Hands, Parameters
from gatebook.recorder.redacting import redact
from gatebook.recorder.retention import resume

__all__ = ["ORDERS", "Hands", "Parameters", "obey"]


ORDERS: Final[dict[str, Handler]] = {"forget": forget, "redact": redact, "retention.resume": resume}


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
