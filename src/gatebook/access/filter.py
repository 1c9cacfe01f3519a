"""Which access records are wanted, and the words for it on a command line. Pure.

    status    403   4xx   >=500   400-404   several with commas
    time      10m (ago)   2026-11-24   2026-11-24T17:20:00Z; without a zone it is UTC
    identity  a subject, client or provider; of a pseudonym 8 digits or more suffice

Parsing raises ValueError that says what would be right. A filter that nothing is asked of matches all.
"""

from __future__ import annotations

import datetime
import re
from typing import NamedTuple

from gatebook.access.found import Access, Event, Found

_STATUS = re.compile(
    r"(?P<one>\d{3})|(?P<class>[1-5])xx|(?P<sign>[<>]=?)(?P<bound>\d{3})|(?P<low>\d{3})-(?P<high>\d{3})",
    re.ASCII,
)
_AGO = re.compile(r"([0-9]{1,9})(s|m|h|d|w)")
_AGO_S = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_PSEUDONYM_PART = re.compile(r"[0-9a-f]{8,32}")

Statuses = tuple[tuple[int, int], ...]


def parse_status(text: str) -> Statuses:
    """Ranges of statuses, both ends included."""
    ranges = []
    for part in text.split(","):
        found = _STATUS.fullmatch(part.strip().lower())
        if found is None:
            raise ValueError(f"status {part.strip()!r}; expected 403, 4xx, >=500 or 400-404")
        if found["one"]:
            ranges.append((int(found["one"]), int(found["one"])))
        elif found["class"]:
            ranges.append((int(found["class"]) * 100, int(found["class"]) * 100 + 99))
        elif found["low"]:
            ranges.append((int(found["low"]), int(found["high"])))
        else:
            bound, sign = int(found["bound"]), found["sign"]
            ranges.append({"<": (0, bound - 1), "<=": (0, bound), ">": (bound + 1, 999), ">=": (bound, 999)}[sign])
    return tuple(ranges)


def parse_time(text: str, now_us: int) -> int:
    """Microseconds since 1970."""
    ago = _AGO.fullmatch(text.strip())
    if ago is not None:
        return now_us - int(ago[1]) * _AGO_S[ago[2]] * 1_000_000
    try:
        moment = datetime.datetime.fromisoformat(text.strip())
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=datetime.UTC)
        since = moment - datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
    except (ValueError, OverflowError):
        raise ValueError(f"time {text!r}; expected 10m, 2h, 7d, 2026-11-24 or 2026-11-24T17:20:00Z") from None
    return since // datetime.timedelta(microseconds=1)


class Filter(NamedTuple):
    """All that is given must hold. Times are of the decision: `since_us` included, `until_us` not."""

    since_us: int | None = None
    until_us: int | None = None
    identity: str | None = None
    route: str | None = None
    statuses: Statuses = ()
    verdict: str | None = None
    reason: str | None = None
    method: str | None = None
    shadow_differs: bool = False
    signals: bool = False  # only those with some
    events: bool = False  # administrators' and the system's records too, as far as times allow

    def matches(self, found: Found) -> bool:
        if isinstance(found, Access):
            return self._in_time(found.time_us) and self._matches(found)
        if self._asks_for_accesses:
            return False
        return self.events and (not isinstance(found, Event) or self._in_time(found.record.time_us))

    @property
    def _asks_for_accesses(self) -> bool:
        asked = (self.identity, self.route, self.statuses, self.verdict, self.reason, self.method)
        return any(asked) or self.shadow_differs or self.signals

    def _in_time(self, time_us: int) -> bool:
        if self.since_us is not None and time_us < self.since_us:
            return False
        return self.until_us is None or time_us < self.until_us

    def _matches(self, found: Access) -> bool:
        request, decision = found.request, found.decision
        if self.verdict is not None and (decision is None or decision.verdict != self.verdict):
            return False
        if self.route is not None and (request is None or request.route != self.route):
            return False
        if self.method is not None and (request is None or request.method.upper() != self.method.upper()):
            return False
        if self.statuses and not self._has_status(found.status):
            return False
        if self.shadow_differs and (decision is None or decision.shadow is None):
            return False
        if self.signals and not found.signals:
            return False
        if self.reason is not None and self.reason not in _reasons(found):
            return False
        return self.identity is None or self._is(found)

    def _has_status(self, status: int | None) -> bool:
        return status is not None and any(low <= status <= high for low, high in self.statuses)

    def _is(self, found: Access) -> bool:
        who, wanted = found.identity, self.identity or ""
        if who is None:
            return False
        if wanted in (who.subject, who.client, who.provider):
            return True
        return bool(who.subject and _PSEUDONYM_PART.fullmatch(wanted) and who.subject.startswith(wanted))


def _reasons(found: Access) -> set[str]:
    """The decision's reason, and the word for what went wrong after it."""
    words = {found.decision.reason} if found.decision is not None else set()
    if found.error is not None:
        words |= {found.error.detail, found.error.source}
    return words
