"""What must be true of a state folder after anything, and of all that its recorders ever wrote into it.

`audit` starts another recorder there, uses it, stops it, and then looks: all that clients had been told is there,
byte for byte; verification passes at levels 0 to 2; every checkpoint that anybody may have seen is a beginning of
one and the same log; what is open is what has no outcome; no key has sealed two frames under one number.
"""

from __future__ import annotations

import copy
import hashlib
import struct
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest
from tests.faults.breaking import Breaking
from tests.faults.machine import Machine, Told
from tests.ledger.caller import READER, VERIFIER, Contents, shown
from tests.ledger.disk import Step

from gatebook import record, wire
from gatebook.access.pairing import Pairing
from gatebook.ledger.segment import HEADER_BYTES, NO_DEK, SEALED, parse_header
from gatebook.ledger.verify import Private, Report, verify
from gatebook.paths import Paths
from gatebook.recorder import process

_HEAD = struct.Struct(">4sIQII")


def verified(paths: Paths) -> Report:
    private = Private(paths.deks, READER, Pairing())
    report = verify(paths.ledger, VERIFIER, lock=paths.lock, private=private)
    assert report.exit_code == 0, report
    assert [report.levels[level] for level in range(3)] == ["passed"] * 3, report
    return report


async def again(machine: Machine) -> None:
    """What clients do after a start: the same people, the same keys, and something new."""
    one = await machine.client()
    for name in [*machine.told.names, "carol"]:
        await one.name(name)
    for name, gone in list(machine.told.forgotten.items()):
        reply = await one.ask(wire.Pseudonym(name))
        assert isinstance(reply, wire.Pseudonymous)
        assert reply.pseudonym != gone, "who was forgotten is known again"
    for key in [*machine.told.used, b"9" * 32]:
        await one.use(key)
    await one.decide(9001, 9002)
    await machine.passes(1.2)
    await one.close()


def audit(machine: Machine, left: Path, steps: Sequence[Step], told: Told) -> Machine:
    """`left`: the state folder that remains of `machine` after `steps`. Returns the next life in it, over."""
    paths = Paths(left)
    life = Machine(paths, machine.configuration, Breaking(left), copy.deepcopy(told), machine.now_us)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(process, "machine", lambda: "the next boot")  # the gateway's logs are gone with memory
            error = life.live(again)
        assert error is None, error
        assert life.stands is not None
        assert len(life.told.records) == len(told.records) + 2, "it does not serve"
        verified(paths)
        found = Contents(left)
        for index, data in life.told.records.items():
            assert found.records.get(index) == data, f"acknowledged record {index} is gone"
        assert told.removed <= found.removed.keys(), "a record is there that was said to be removed"
        for checkpoint in [*shown(steps), *shown(life.disk.steps)]:
            assert checkpoint.size <= len(found.entries), "a published entry is gone"
            assert found.root(checkpoint.size) == checkpoint.root, f"two roots for {checkpoint.size} entries"
        assert life.stands.open == waiting(found, life.stands.size), "the memos say otherwise than the records"
        assert_no_nonce_twice([steps, life.disk.steps])
    finally:
        life.close()
    return life


def waiting(found: Contents, size: int) -> int:
    """How many decisions of the first `size` entries have no outcome there."""
    decisions: dict[str, int] = {}
    done: set[int] = set()
    early: set[str] = set()
    for index, data in found.records.items():
        made = record.decode(data)
        if index >= size:
            break
        if isinstance(made, record.Decision):
            decisions[made.id] = index
        elif isinstance(made, record.Outcome):
            if made.decision_index is not None:
                done.add(made.decision_index)
            elif made.id is not None:
                early.add(made.id)
    return len({index for request, index in decisions.items() if request not in early} - done)


def assert_no_nonce_twice(lives: Iterable[Sequence[Step]]) -> None:
    """Of everything that was ever written to segments, torn and taken back frames included."""
    sealed: dict[tuple[bytes, int], bytes] = {}
    segments: set[tuple[bytes, bytes]] = set()  # one that was written anew, without a record, has another key
    for steps in lives:
        deks: dict[int, bytes] = {}
        for step in steps:
            if step.name != "write":
                continue
            at = 0
            if step.data.startswith(b"GBSEG") and len(step.data) >= HEADER_BYTES:
                header = parse_header(step.data)
                ids = header.segment_id, header.dek_id
                assert ids not in segments, "a segment's id was given twice"
                assert header.dek_id == NO_DEK or header.dek_id not in deks.values(), "a key has two segments"
                segments.add(ids)
                deks[step.file] = header.dek_id
                at = HEADER_BYTES
            if step.file not in deks:
                continue
            while len(step.data) - at >= _HEAD.size:
                magic, number, _, n, length = _HEAD.unpack_from(step.data, at)
                end = at + _HEAD.size + length + 32 + (16 + 32 * n if magic == SEALED else 0)
                if magic == SEALED:
                    digest = hashlib.sha256(step.data[at:end]).digest()
                    assert sealed.setdefault((deks[step.file], number), digest) == digest, "a nonce was used twice"
                at = end
