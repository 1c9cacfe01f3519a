"""What the error log has said, until the requests that it was about have their line. Pure.

In: lines of the error log. Out: failed handshakes, which nothing else tells of; and for a line of the access log
the words about its request. Both logs are read in turns, so words may come before the line of the request
before theirs. Trust: clients can write lines of their own making into this log (over HTTP/2, in a header with
line breaks); never is a line believed that may be one of those.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from gatebook.recorder.outcome import (
    MAX_MESSAGE_BYTES,
    ErrorLine,
    Said,
    explanation,
    handshake_failed,
    parse_error_line,
)

MAX_CONNECTIONS = 20_000
MAX_WORDS = 8
MAX_PASSED = 3


@dataclass
class _Kept:
    """`asked`: method and path of the request that it is about, where it says so."""

    said: Said
    asked: str | None
    passed: int = 0  # lines of other requests on this connection since


class Words:
    def __init__(self, *, begun: bool) -> None:
        """`begun`: some of the log was read by another process, perhaps a half of a client's own lines."""
        self._doubted_bytes = MAX_MESSAGE_BYTES if begun else 0  # that still come
        self._kept: OrderedDict[int, list[_Kept]] = OrderedDict()

    def hear(self, data: bytes) -> ErrorLine | None:
        """Takes one line; gives it back when it tells of a failed handshake."""
        line = parse_error_line(data.decode("utf-8", "replace"))
        length = len(data) + 1
        doubted = self._doubted_bytes > 0
        self._doubted_bytes = max(self._doubted_bytes - length, 0)
        if line is None:
            return None
        if line.quotes:
            self._doubted_bytes = max(self._doubted_bytes, MAX_MESSAGE_BYTES - length)
        if doubted or line.connection is None:
            return None
        if handshake_failed(line):
            return line
        said = explanation(line)
        if said is not None:
            self._keep(line.connection, _Kept(said, line.asked))
        return None

    def _keep(self, connection: int, kept: _Kept) -> None:
        known = self._kept.setdefault(connection, [])
        self._kept.move_to_end(connection)
        if len(known) < MAX_WORDS:
            known.append(kept)
        while len(self._kept) > MAX_CONNECTIONS:
            self._kept.popitem(last=False)

    def about(self, connection: int | None, asked: Callable[[], str | None]) -> list[Said]:
        """The words that may be about the request that this line is about, the oldest first.

        `asked`: method and path of the request, None where they are not known: then all may be its. The oldest are
        given up; others that fit may be those of the next request for the same.
        """
        if connection is None or connection not in self._kept:
            return []
        wanted = asked()
        mine: list[Said] = []
        others: list[_Kept] = []
        for kept in self._kept.pop(connection):
            fits = kept.asked is None or wanted is None or kept.asked == wanted
            if fits:
                mine.append(kept.said)
            if (not fits or len(mine) > 1) and kept.passed < MAX_PASSED:
                kept.passed += 1
                others.append(kept)
        if others:
            self._kept[connection] = others
        return mine
