"""Which items a sink's settings ask for. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from gatebook.config.sinks import Sink
from gatebook.errors import EnvironmentFault
from gatebook.policy.where import compile_where
from gatebook.sinks.item import Item, encode, plain


def wanted(settings: Sink) -> Callable[[Item], bool]:
    """By kind, then by `where`. What this version cannot read is always sent. Raises EnvironmentFault."""
    kinds = {*settings.records, "unreadable"}
    if settings.where is None:
        return lambda item: item.kind in kinds
    try:
        where = compile_where(settings.where)
    except ValueError as error:
        raise EnvironmentFault(f"where: {error}") from None

    def wants(item: Item) -> bool:
        return item.kind in kinds and (item.kind == "unreadable" or where.holds(item.kind, _as_sent(item)))

    return wants


def _as_sent(item: Item) -> dict[str, Any]:
    """Our own form as it looks behind JSON: that is what CEL takes."""
    return msgspec.json.decode(encode(plain(item)), type=dict[str, Any])
