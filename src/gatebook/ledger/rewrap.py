"""Segments that are sealed already, for a reader who came later: each DEK unwrapped by one reader, wrapped for
another.

Only what a reader can open can be opened for others. Gives rows, a portion at a time, and stores nothing: that is
the writer's. Never gives out a DEK itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from gatebook.errors import LedgerError
from gatebook.ledger.deks import Deks
from gatebook.ledger.keys import Reader, Recipient, Wrapped, unwrap, wrap


class Portion(NamedTuple):
    """`rows`: DEK id -> what to add to it. `shut`: ids of those that this reader cannot open."""

    rows: dict[bytes, Wrapped]
    shut: list[bytes]


def rows_for(recipient: Recipient, deks: Deks, reader: Reader, at_once: int) -> Iterator[Portion]:
    """All DEKs that `recipient` has no part of yet."""
    portion = Portion({}, [])
    for dek_id in deks.ids():
        try:
            there = {one.recipient: one for one in deks.get(dek_id) or []}
            if not there or recipient.id in there:
                continue
            own = there.get(reader.id)
            if own is None:
                portion.shut.append(dek_id)
                continue
            portion.rows[dek_id] = wrap(unwrap(own, dek_id, reader), dek_id, recipient)
        except LedgerError:
            portion.shut.append(dek_id)
        if len(portion.rows) >= at_once:
            yield portion
            portion = Portion({}, [])
    if portion.rows or portion.shut:
        yield portion
