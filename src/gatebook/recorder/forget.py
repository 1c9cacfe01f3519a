"""The order `forget`: destroy a person's rows of the vault, and say so in the ledger, both or neither.

In: a person as a keyed hash, or an address; who wants it and why. Out: where the ledger says so. The erasure
is begun in the vault, an `erase.subject` record says who and why, the rows are destroyed, an ERASE entry each says
that they are, the erasure is done with. The next process goes on with what was begun before it writes anything
else: no record comes between an erasure's beginning and its own record. While somebody reads the vault, bytes of
the rows stay: ERASE waits for that, and nobody else does (`go_on`). Never writes the person's name.
"""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
import structlog
from msgspec import Meta

from gatebook import holds, record
from gatebook.errors import EnvironmentFault, GatebookError, UsageError
from gatebook.ledger.entry import RECORD_PREFIX, Erase, Erased, EraseReason, encode, parse
from gatebook.ledger.read import entries_since
from gatebook.ledger.writer import Writer
from gatebook.recorder.hands import Hands, Parameters
from gatebook.recorder.vault import Erasure, Vault
from gatebook.redact import canonical_address

MAX_LISTED: Final = 256  # pseudonyms in the record; each has its own ERASE
NOBODY: Final = "nothing was erased: the vault has no row of that person"
_NO_FILE: Final = bytes(32)

log = structlog.get_logger("recorder")


class _Asked(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    lookup: Annotated[str, Meta(pattern=r"\A[0-9a-f]{64}\Z")] | None = None
    address: Annotated[str, Meta(max_length=64)] | None = None
    provider: Annotated[str, Meta(max_length=64)] | None = None
    reason: Annotated[str, Meta(min_length=1, max_length=300)]
    actor: Annotated[str, Meta(pattern=r"\Aos:[0-9]{1,10}\Z")]


def forget(hands: Hands, parameters: Parameters) -> dict[str, Any]:
    """Raises EnvironmentFault when a hold forbids it or there is nobody to forget: nothing has changed then.

    With `begun` alone, which says why, when it could not be finished at once.
    """
    try:
        asked = msgspec.convert(parameters, _Asked, strict=True)
    except msgspec.ValidationError as error:
        raise UsageError(f"nothing was erased: {error}") from None
    lookup = _lookup(hands.vault, asked)
    with holds.standing(hands.paths.holds) as standing:
        rows = hands.vault.rows(lookup)
        pseudonyms = [row.pseudonym for row in rows]
        names = frozenset({lookup.hex(), *(each.hex() for each in pseudonyms)})
        try:
            holds.refuse(holds.blocking(standing, names=names))
        except GatebookError as error:
            raise EnvironmentFault(str(error)) from None
        if not rows:
            raise EnvironmentFault(NOBODY)
        made = record.Admin(
            time_us=time.time_ns() // 1000,
            action="erase.subject",
            actor=asked.actor,
            detail={
                **({"provider": asked.provider} if asked.address is None else {"of": "an address"}),
                "pseudonyms": [each.hex() for each in pseudonyms[:MAX_LISTED]],
                "rows": len(rows),
                "reason": asked.reason,
            },
        )
        data = record.encode(made)
        # A crash before this: nothing has happened. After it: the next process finishes.
        begun = hands.vault.begin_erasure(hands.writer.synced, EraseReason.REQUEST, data, pseudonyms)
        told = finish(hands.writer, hands.vault, begun, hands.paths.ledger / "segments")
    if told is None:
        return {
            "begun": "begun, and goes on by itself: somebody reads the vault; the rows are gone for everybody, "
            "but their bytes are in its files until the reader (a backup?) has ended and gatebook runs; "
            f"`gatebook subject receipt {pseudonyms[0].hex()}` has the receipt then"
        }
    return told | {"origin": hands.configuration.origin, "began": [row.began for row in rows]}


def _lookup(vault: Vault, asked: _Asked) -> bytes:
    if asked.lookup is not None and asked.address is None:
        return bytes.fromhex(asked.lookup)
    address = canonical_address(asked.address or "")
    if asked.lookup is not None or address is None:
        raise UsageError("nothing was erased: expected a keyed name, or an address such as 192.0.2.7")
    return vault.lookup(f"address:{address}")


def finish_all(writer: Writer, vault: Vault, segments: Path) -> None:
    """What a process that is gone has begun. Call before anything else is appended."""
    for begun in vault.unfinished():
        finish(writer, vault, begun, segments)


def go_on(writer: Writer, vault: Vault, segments: Path) -> None:
    """Finish what had to wait for a reader, once nobody reads the vault. As an order: all before it is durable."""
    if vault.unread():
        finish_all(writer, vault, segments)


def finish(writer: Writer, vault: Vault, begun: Erasure, segments: Path) -> dict[str, Any] | None:
    """Each step that is not done yet; all of it durable on return. None when the last ones have to wait."""
    told, erased = vault.on_record.get(begun.id) or (
        _on_record(begun, segments) if writer.synced > begun.size else (None, {})
    )
    if told is None:
        told = writer.append([begun.record])
        # A crash here, or before the record is durable: the rows are all there, and this step comes again.
        writer.sync()
    vault.on_record[begun.id] = told, erased
    # The rows go before ERASE says that they have gone: what it says is true whenever it can be read.
    if not vault.destroy(begun.pseudonyms):
        log.warning("an erasure waits: somebody reads the vault, so bytes of it cannot be wiped yet", record=told)
        return None
    # A crash here: nobody is known by these pseudonyms any more, and the next process says so.
    authorisation = hashlib.sha256(begun.record).digest()
    for pseudonym in begun.pseudonyms:
        if pseudonym not in erased:
            entry = Erase(Erased.SUBJECT, pseudonym, _NO_FILE, _NO_FILE, begun.reason, authorisation)
            erased[pseudonym] = writer.append_entry(entry)
    # A crash here: the first of these entries may be durable; the next process finds which, and adds the rest.
    writer.sync()
    # A crash here: all is said and done, and the next process finds that it is.
    vault.finish_erasure(begun.id)
    return {
        "record": told,
        "authorisation": authorisation.hex(),
        "erased": [
            {
                "index": erased[each],
                "pseudonym": each.hex(),
                "entry": encode(
                    Erase(Erased.SUBJECT, each, _NO_FILE, _NO_FILE, begun.reason, authorisation)
                ).hex(),
            }
            for each in begun.pseudonyms
        ],
    }


def _on_record(begun: Erasure, segments: Path) -> tuple[int | None, dict[bytes, int]]:
    """Where the erasure's record is, and the ERASE entries, as far as they were written. Needs no key.

    The first record since it was begun is its own: nothing else is written before it is finished.
    """
    told: int | None = None
    erased: dict[bytes, int] = {}
    for index, data in entries_since(segments, begun.size):
        if data[: len(RECORD_PREFIX)] == RECORD_PREFIX:
            told = index if told is None else told
            continue
        entry = parse(data)
        if isinstance(entry, Erase) and entry.kind == Erased.SUBJECT and entry.object_id in begun.pseudonyms:
            erased[entry.object_id] = index
    return told, erased
