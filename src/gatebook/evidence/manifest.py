"""What a bundle says it is: `manifest.json`. Claims: whoever verifies recomputes each of them. Pure.

    {"format": "gatebook-evidence 1", "origin": …, "size": …, "root": …, "since": …, "until": …,
     "first": …, "end": …, "before": …, "after": …, "filters": {…}, "disclosed": …, "withheld": …,
     "software": …, "members": {name: SHA-256}}

It never says who made the bundle, or when: the same range gives the same bytes, whoever asks.
"""

from __future__ import annotations

import datetime
import re
from typing import Final, Literal

import msgspec

from gatebook.errors import Damaged

NAME: Final = "manifest.json"
MAX_BYTES: Final = 16 << 20
_HEX = re.compile(r"[0-9a-f]{64}")


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Of the log `origin`, proven by its tree of `size` entries: entries `first` to `end` - 1.

    They are those from `since_us` on and before `until_us`, as the log's times say. `before` and `after`: the
    heartbeats next to them, whose times show that the range is not shorter than it claims. `disclosed`: records
    in the bundle; `withheld`: records of the range that are not. Filters: option -> what was asked for.
    """

    format: Literal["gatebook-evidence 1"] = "gatebook-evidence 1"
    origin: str
    size: int
    root: str
    since: str
    until: str
    since_us: int
    until_us: int
    first: int
    end: int
    before: int | None
    after: int | None
    filters: dict[str, str]
    disclosed: int
    withheld: int
    software: str
    members: dict[str, str]


def iso(time_us: int) -> str:
    """`2026-11-24T20:26:01.123456Z`; what no calendar holds stays a number."""
    try:
        moment = datetime.datetime(1970, 1, 1) + datetime.timedelta(microseconds=time_us)
    except OverflowError:
        return str(time_us)
    return moment.isoformat() + "Z"


def encode(manifest: Manifest) -> bytes:
    return msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"


def parse(data: bytes) -> Manifest:
    """Raises Damaged on anything that `encode` does not give."""
    try:
        made = msgspec.json.decode(data, type=Manifest)
    except (ValueError, RecursionError) as error:
        raise Damaged(f"{NAME}: {error}") from None
    numbers: tuple[int, ...] = (
        made.size,
        made.since_us,
        made.until_us,
        made.first,
        made.end,
        made.disclosed,
        made.withheld,
    )
    numbers += tuple(each for each in (made.before, made.after) if each is not None)
    if any(not 0 <= number < 1 << 63 for number in numbers) or not made.first <= made.end <= made.size:
        raise Damaged(f"{NAME}: its numbers contradict each other")
    if any(edge is not None and edge >= made.size for edge in (made.before, made.after)):
        raise Damaged(f"{NAME}: its numbers contradict each other")
    if (made.since, made.until) != (iso(made.since_us), iso(made.until_us)) or made.since_us > made.until_us:
        raise Damaged(f"{NAME}: its times contradict each other")
    if not all(map(_HEX.fullmatch, made.members.values())) or encode(made) != data:
        raise Damaged(f"{NAME}: is spelt in one way only")
    return made
