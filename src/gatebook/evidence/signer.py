"""Whose key signed a bundle's checkpoint: the one that was given, or one that the log's KEY entries lead to.

In: a bundle's members, the note, the given key. Out: the key that counts, the others of the log, and how one led
to the other, in words. `log/keys` is believed for nothing: KEY entries of the tree say which keys are meant.
Never takes a key that no entry introduces, nor one whose turn is over. Pure, but for reading.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from gatebook.errors import Damaged, LedgerError, Tampered
from gatebook.evidence.archive import Members
from gatebook.evidence.tree import SignedTree, blocks_in
from gatebook.ledger.chain import MAX_KEYS_BYTES, Chain, long_id, parse_keys
from gatebook.ledger.entry import Key, parse
from gatebook.ledger.lock import open_signed
from gatebook.ledger.note import Checkpoint, SignatureLine, Verifier
from gatebook.ledger.tree import TILE_WIDTH

KEYS = "log/keys"
_KEY = b"GB\x01\x06"


class Signer(NamedTuple):
    """`keys`: the one that counts first, then the log's others. `said`: how the given one led to it."""

    checkpoint: Checkpoint
    keys: tuple[Verifier, ...]
    unknown: tuple[SignatureLine, ...]
    said: list[str]


def signer(members: Members, note: bytes, given: Verifier) -> Signer:
    """Raises Tampered or Damaged unless the given key, or one that it leads to, signed the checkpoint."""
    listed = parse_keys(members.read(KEYS, MAX_KEYS_BYTES), given.name) if KEYS in members else []
    signed = open_signed(note, *dict.fromkeys([given, *listed]))
    checkpoint = signed.checkpoint
    if checkpoint.origin != given.name:
        raise Tampered(f"is of the log {checkpoint.origin}; the key is of {given.name}")
    chain = Chain([given, *listed])
    for index, entry in key_entries(members, checkpoint):
        chain.take(index, entry)
    due = chain.at(checkpoint.size) or long_id(given)
    turn = chain.by_id(due)
    if turn is None or not chain.holds(long_id(given)) or turn not in signed.by:
        by = ", ".join(one.key_id.hex() for one in signed.by)
        if given in signed.by and chain.holds(long_id(given)):
            raise Tampered(
                f"is signed by key {by}; for {checkpoint.size} entries it is the turn of key {due[:4].hex()}"
            )
        raise Tampered(
            f"is signed by key {by}, to which no KEY entry leads from the given one, {given.key_id.hex()}"
        )
    if turn == given:
        return Signer(checkpoint, _first(given, listed, chain), signed.unknown, [])
    steps = ", ".join(
        f"key {one.old_id[:4].hex()} to {one.new_id[:4].hex()} at entry {one.at}" for one in chain.handovers
    )
    said = f"KEY entries lead from the given key to the one that signed ({steps}), each signed by the key before"
    return Signer(checkpoint, _first(turn, [given, *listed], chain), signed.unknown, [said])


def _first(key: Verifier, others: list[Verifier], chain: Chain) -> tuple[Verifier, ...]:
    named = [one for one in others if chain.handovers and chain.holds(long_id(one))]
    return tuple(dict.fromkeys([key, *named]))


def key_entries(members: Members, checkpoint: Checkpoint) -> Iterator[tuple[int, Key]]:
    """Those that are in the bundle, proven, in order. What is not proven is passed over here: it is a finding."""
    tree = SignedTree(members, checkpoint)
    for number in _blocks(members, checkpoint.size):
        try:
            inside = tree.entries(number)
        except LedgerError:
            continue
        for index, entry in enumerate(inside, number * TILE_WIDTH):
            if entry[:4] != _KEY:
                continue
            parsed = parse(entry)
            if not isinstance(parsed, Key):
                raise Damaged(f"entry {index}: is no KEY entry")
            yield index, parsed


def _blocks(members: Members, size: int) -> list[int]:
    try:
        return blocks_in(members, size)
    except LedgerError:
        return []
