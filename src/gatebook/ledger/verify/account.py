"""What a ledger says of its own completeness, counted from the entries that are no records: no key is needed.

In: those entries, in order, from `history`. Out: how often it began, under how many configurations, how long
nothing vouched for it, and what it says is missing. Bounded: one count for each kind of loss. Pure.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

from gatebook.ledger.entry import PRODUCER, Boot, Loss, LossReason


class LossKind(NamedTuple):
    """Who numbered what is missing (`ledger` or `gateway`), and why it is, as LossReason has it."""

    producer: str
    reason: str

    @classmethod
    def of(cls, loss: Loss) -> LossKind:
        known = {int(reason): reason.name.lower() for reason in LossReason}
        reason = known.get(loss.reason, f"reason {loss.reason}")
        return cls("ledger" if loss.producer == PRODUCER else "gateway", reason)


@dataclass
class Account:
    """`silence_us`: the longest time without a heartbeat, starts and what came before them left out.

    `losses` counts LOSS entries, `missing` what they say is not there. `last_us`: the last heartbeat's time.
    """

    clean: int = 0
    unclean: int = 0
    policies: int = 0
    heartbeats: int = 0
    silence_us: int = 0
    last_us: int | None = None
    losses: Counter[LossKind] = field(default_factory=Counter)
    missing: Counter[LossKind] = field(default_factory=Counter)

    def boot(self, boot: Boot) -> None:
        if boot.clean:
            self.clean += 1
        else:
            self.unclean += 1

    def loss(self, loss: Loss) -> None:
        kind = LossKind.of(loss)
        self.losses[kind] += 1
        self.missing[kind] += loss.last_seq - loss.first_seq + 1
