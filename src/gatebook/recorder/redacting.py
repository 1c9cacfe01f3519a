"""The order `redact`: remove records from the ledger for good, and say so in it.

In: indices, the keys of the segments that hold them (whoever orders it has a reader's key, the recorder has none),
who wants it and why. Out: what was erased, on which record, and
which of them are `left` for the next order. Holds are asked first, for each record, by its
time and by whose it is; what cannot be told counts as held. Only decisions, outcomes and alerts can be removed:
never what an operator did, since erasures rest on that. Each segment is an erasure of its own, with its record.
"""

from __future__ import annotations

import datetime
import hashlib
import re
import time
from collections.abc import Iterable
from typing import Annotated, Any, Final, Literal, NamedTuple

import msgspec
from msgspec import Meta

from gatebook import holds, record
from gatebook.errors import EnvironmentFault, GatebookError, LedgerError, UsageError
from gatebook.holds import NOBODY, Hold
from gatebook.ledger import erase, segment
from gatebook.ledger.entry import EraseReason
from gatebook.ledger.erase import Anew, Closed
from gatebook.ledger.rewrite import Contents
from gatebook.ledger.segment import Keys
from gatebook.record import Alert, Decision, IdentityPart, Outcome
from gatebook.recorder import vault
from gatebook.recorder.hands import Hands, Parameters

MAX_RECORDS: Final = 64
REASONS: Final = {"request": EraseReason.REQUEST, "secret": EraseReason.SECRET, "other": EraseReason.OTHER}

_PSEUDONYM: Final = re.compile(r"[0-9a-f]{32}")
Removable = Decision | Outcome | Alert
_Hex16 = Annotated[str, Meta(pattern=r"\A[0-9a-f]{32}\Z")]
_Hex32 = Annotated[str, Meta(pattern=r"\A[0-9a-f]{64}\Z")]


class _Asked(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`keys`: DEK id -> DEK."""

    indices: Annotated[list[Annotated[int, Meta(ge=0, lt=1 << 62)]], Meta(min_length=1, max_length=MAX_RECORDS)]
    keys: Annotated[dict[_Hex16, _Hex32], Meta(max_length=MAX_RECORDS)]
    because: Literal["request", "secret", "other"]
    reason: Annotated[str, Meta(min_length=1, max_length=300)]
    actor: Annotated[str, Meta(pattern=r"\Aos:[0-9]{1,10}\Z")]


def redact(hands: Hands, parameters: Parameters) -> dict[str, Any]:
    """Raises EnvironmentFault when a hold forbids it, UsageError for what cannot be removed: nothing changed."""
    try:
        asked = msgspec.convert(parameters, _Asked, strict=True)
    except msgspec.ValidationError as error:
        raise UsageError(f"nothing was erased: {error}") from None
    with holds.standing(hands.paths.holds) as standing:
        try:
            found = _open(hands, asked)
            _check_holds(hands, standing, _records(found, asked.indices))
            now = datetime.datetime.now(datetime.UTC)
            why = f"erased on {now.date().isoformat()}: {asked.reason}"
            # One segment an order, so that others get a turn between two; the last first, for its outcomes are
            # told by a decision that lies before them.
            last = found.pop()
            anew = erase.without(hands.writer, last.old, last.keys, dict.fromkeys(last.within, why))
        except (LedgerError, ValueError) as error:
            raise EnvironmentFault(f"nothing was erased: {error}") from None
        left = [index for each in found for index in each.within]
        return {"erased": [_remove(hands, asked, anew)], "left": left}


class _Found(NamedTuple):
    """A segment, its keys, and those of the records that are in it; `known`: what their frames hold."""

    old: Closed
    keys: Keys
    known: Contents
    within: list[int]


def _open(hands: Hands, asked: _Asked) -> list[_Found]:
    """The segments that hold them, in order."""
    by_path: dict[str, _Found] = {}
    for index in sorted(set(asked.indices)):
        path = erase.holding(hands.writer, index)
        if path is None:
            raise UsageError(f"nothing was erased: there is no entry {index}")
        if path.name not in by_path:
            old = Closed.read(path)
            dek = asked.keys.get(old.header.dek_id.hex())
            if dek is None:
                raise UsageError(f"nothing was erased: no key was given for {path.name}; try again")
            keys = segment.derive(bytes.fromhex(dek))
            by_path[path.name] = _Found(old, keys, old.contents(keys, asked.indices), [])
        found = by_path[path.name]
        if not erase.is_there(found.known, index):
            raise UsageError(f"nothing was erased: entry {index} is no record, or was erased already")
        found.within.append(index)
    return list(by_path.values())


def _records(found: list[_Found], indices: Iterable[int]) -> dict[int, Removable]:
    made: dict[int, Removable] = {}
    for index in sorted(set(indices)):
        data = next(each.known[index] for each in found if index in each.within)
        try:
            decoded = record.decode(getattr(data, "record", b""))
        except ValueError:
            raise UsageError(f"nothing was erased: entry {index} is a record of another version") from None
        if not isinstance(decoded, Removable):
            raise UsageError(
                f"nothing was erased: entry {index} says what an operator or gatebook did; that is never removed"
            )
        made[index] = decoded
    return made


# -- holds ------------------------------------------------------------------------------------------------


def _check_holds(hands: Hands, standing: Iterable[Hold], records: dict[int, Removable]) -> None:
    standing = tuple(standing)
    found: dict[str, Hold] = {}
    for made in records.values():
        names = _names(hands, made, records)
        for hold in holds.blocking(standing, times_us=(made.time_us, made.time_us), names=names):
            found[hold.id] = hold
    try:
        holds.refuse(list(found.values()))
    except GatebookError as error:
        raise EnvironmentFault(str(error)) from None


def _names(hands: Hands, made: Removable, records: dict[int, Removable]) -> frozenset[str] | None:
    """By all that a hold may know the record's person by. None: whose it is is not known here."""
    if isinstance(made, Outcome):
        if made.decision_index is None:
            return NOBODY if made.request is not None else None  # a request that nobody was identified for
        decision = records.get(made.decision_index)
        return names_of(hands, decision.identity) if isinstance(decision, Decision) else None
    return names_of(hands, made.identity)


def names_of(hands: Hands, identity: IdentityPart | None) -> frozenset[str]:
    """The subject as it stands in the record, and the keyed hashes that it may be of."""
    if identity is None or identity.subject is None:
        return NOBODY
    subject = identity.subject
    found = {subject, hands.vault.lookup(f"subject:{identity.provider}:{subject}").hex()}
    if _PSEUDONYM.fullmatch(subject):
        found |= {row.lookup.hex() for row in vault.find(hands.paths.vault, subject)}
    return frozenset(found)


# -- the erasure ------------------------------------------------------------------------------------------


def _remove(hands: Hands, asked: _Asked, anew: Anew) -> dict[str, Any]:
    detail = {"indices": anew.indices, "because": asked.because, "reason": asked.reason}
    now_us = time.time_ns() // 1000
    # A crash behind this: it was ordered, as the record says, and not done, as no ERASE entry follows.
    index, order = hands.record(
        record.Admin(time_us=now_us, action="erase.record", actor=asked.actor, detail=detail)
    )
    authorisation = hashlib.sha256(order).digest()
    erase.redact(hands.writer, anew, REASONS[asked.because], authorisation)
    told = {"indices": anew.indices, "segment": anew.old.path.name, "order": index}
    return told | {"authorisation": authorisation.hex()}
