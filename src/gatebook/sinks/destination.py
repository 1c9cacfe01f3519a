"""What the loop asks of a destination, and the five answers that there are. Pure.

A destination encodes one item and sends one batch. It is asked by one thread, blocks no longer than its timeout,
and never raises for what the other side does: that is an answer. What it cannot understand is a Retry, never a
Delivered.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from gatebook.sinks.item import Item


class Limits(NamedTuple):
    """Of one batch; `item_bytes`: of one item in it. A batch is sent when it is full or `linger_s` old."""

    items: int
    batch_bytes: int
    item_bytes: int
    linger_s: float = 1.0


class Piece(NamedTuple):
    item: Item
    data: bytes


@dataclass(frozen=True)
class Delivered:
    """All is stored. `duplicates`: so many were there before; `elsewhere`: stored, but not where they belong."""

    duplicates: int = 0
    elsewhere: int = 0
    note: str = ""


@dataclass(frozen=True)
class Retry:
    """None of it is known to be stored; the same again later, not before `after_s`."""

    why: str
    after_s: float | None = None


@dataclass(frozen=True)
class Pause:
    """Nothing will be stored until somebody puts something right: a key, a name, a right."""

    why: str


@dataclass(frozen=True)
class Divide:
    """The batch as a whole was refused: its halves again. Of a single item that is the last word."""

    why: str


@dataclass(frozen=True)
class Partly:
    """`refused`: position -> why, for good. `again`: positions to send once more. The others are stored."""

    refused: dict[int, str] = field(default_factory=dict)
    again: tuple[int, ...] = ()
    why: str = ""
    duplicates: int = 0
    elsewhere: int = 0
    after_s: float | None = None


Answer = Delivered | Retry | Pause | Divide | Partly


class Unfit(ValueError):
    """This item can have no form that the destination takes."""


class Destination(Protocol):
    @property
    def limits(self) -> Limits: ...
    def encode(self, item: Item) -> bytes:
        """Raises Unfit."""
        ...

    def send(self, batch: Sequence[Piece]) -> Answer: ...
    def close(self) -> None: ...
