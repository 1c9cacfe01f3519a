"""A grant that has ended -> its `grant.complete` entry, with the number of accesses under it; once.

In: the grants' file and the ledger, which is counted as its reader. The entry is written first, then the file says
so; before it is written, the ledger is asked whether it is there already, so a crash between the two never makes a
second one. Without a reader's key that lies open in the state folder (no passphrase, no KMS) nothing can be
counted or looked up: the entry says so. Blocks: the ledger, the disk, the recorder. Called by the supervisor
alone, one call at a time.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import NamedTuple, Protocol

from gatebook import record
from gatebook.config.model import Configuration
from gatebook.errors import LedgerError
from gatebook.identity import grant_file
from gatebook.identity.grant import Grant
from gatebook.ledger import keys
from gatebook.ledger.read import Gap, Reader
from gatebook.paths import Paths
from gatebook.recorder.submit import submit

POLL_S = 1.0
SETTLE_S = 15  # between a grant's end and its count: what was allowed before is on record by then
CLOCK_SLACK_US = 3_600_000_000
_LOOK_EVERY = 1024  # entries between two looks at the time of one
ACTOR = "gatebook"


class Backwards(Protocol):
    """The part of `ledger.read.Reader` that is used here."""

    @property
    def gaps(self) -> list[Gap]: ...
    def backwards(self) -> Iterator[tuple[int, bytes]]: ...


class Count(NamedTuple):
    """`accesses`: allowed by the grant. `told`: that it is complete is on record."""

    accesses: int
    told: bool


def close_ended(configuration: Configuration, paths: Paths, now: float) -> list[str]:
    """Completes what has ended; returns their ids. Raises GatebookError."""
    done = []
    for grant in grant_file.read(paths.grants):
        end = grant.revoked if grant.revoked is not None else grant.ends
        if grant.decision == "approved" and not grant.completed and now >= end + SETTLE_S:
            _close(configuration, paths, grant)
            done.append(grant.id)
    return done


def _close(configuration: Configuration, paths: Paths, grant: Grant) -> None:
    reader = _reader(configuration, paths)
    found = count(reader, grant) if reader is not None else None

    def announce(ended: Grant) -> None:
        if found is not None and found.told:
            return  # by one that died before the file said so
        detail = ended.detail() | {"ended": ended.state(time.time())}
        if found is not None:
            detail["accesses"] = found.accesses
        else:
            detail["not_counted"] = "no reader's key lies open in the state folder"
        now_us = time.time_ns() // 1000
        submit(configuration, [record.Admin(time_us=now_us, action="grant.complete", actor=ACTOR, detail=detail)])

    grant_file.complete(paths.grants, grant.id, announce)


def _reader(configuration: Configuration, paths: Paths) -> Reader | None:
    if not (paths.keys / keys.READER_KEY).exists():
        return None
    try:
        key = keys.load_reader(paths.keys)
    except keys.Locked:
        return None
    return Reader(paths.ledger, configuration.origin, paths.deks, key)


def count(reader: Backwards, grant: Grant) -> Count:
    """From the ledger's end back to when it was decided. Raises LedgerError where a part cannot be read."""
    accesses, told = 0, False
    needle = f'"{grant.id}"'.encode()
    begin_us = (grant.decided or 0) * 1_000_000 - CLOCK_SLACK_US
    for number, (_, data) in enumerate(reader.backwards()):
        if needle in data:
            made = _decoded(data)
            if isinstance(made, record.Decision):
                accesses += grant.id in made.decision.grants
            elif isinstance(made, record.Admin) and made.action == "grant.complete":
                told = told or made.detail.get("id") == grant.id
        elif number % _LOOK_EVERY == 0:
            made = _decoded(data)
            if made is not None and made.time_us < begin_us:
                break
    unknown = [gap for gap in reader.gaps if not gap.erased]
    if unknown:
        raise LedgerError(f"accesses under grant {grant.id} cannot be counted: {unknown[0].why}")
    return Count(accesses, told)


def _decoded(data: bytes) -> record.Record | None:
    """None for a record of another version: that one names no grant of ours."""
    try:
        return record.decode(data)
    except ValueError:
        return None
