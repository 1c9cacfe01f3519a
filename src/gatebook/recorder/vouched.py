"""What each witness did last, in `state/witnesses.json`, so that a new recorder need not ask and tell it anew.

It is a help, not evidence: without it each witness is asked what it cosigned last, and says so by a 409. So it is
replaced as a whole but not synced, and one that cannot be read counts as none. Never holds a cosignature.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

from gatebook.ledger.files import Files

MAX_BYTES = 1 << 20


class Seen(msgspec.Struct):
    """One witness. `time_s`: of its last cosignature, by its clock. `error` empty: it cosigned when asked last."""

    name: str
    key: str  # vkey
    size: int = 0
    time_s: int = 0
    failures: int = 0  # in a row
    error: str = ""
    silent: bool = False
    disagrees: bool = False


class Vouched(msgspec.Struct):
    """`met_size`, `met_s`: the last checkpoint cosigned by enough. `error`: why the policy cannot be used."""

    version: Literal[1] = 1
    witnesses: list[Seen] = []
    met_size: int = 0
    met_s: int = 0
    anchored_s: int = 0
    error: str = ""

    def of(self, name: str, key: str) -> Seen:
        """That witness, made known if it was not."""
        for seen in self.witnesses:
            if seen.key == key:
                seen.name = name
                return seen
        self.witnesses.append(Seen(name, key))
        return self.witnesses[-1]


def read(path: Path) -> Vouched:
    """A new one where there is none, or none that can be read."""
    try:
        with path.open("rb") as stream:
            return msgspec.json.decode(stream.read(MAX_BYTES), type=Vouched)
    except (OSError, ValueError):
        return Vouched()


def write(path: Path, vouched: Vouched) -> None:
    """Raises OSError."""
    Files().store(path, msgspec.json.encode(vouched), durable=False)
