"""A clock that is set by years, ahead and back, under a recorder or between two: nothing rests on what it says."""

from __future__ import annotations

import copy
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.faults.audit import assert_no_nonce_twice
from tests.faults.machine import Machine
from tests.ledger.caller import READER, VERIFIER, Contents, shown

from gatebook.access.pairing import Pairing
from gatebook.ledger.verify import Private, Report, verify

YEARS_US = 20 * 365 * 86_400 * 1_000_000


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared if os.access(shared, os.W_OK) else tmp_path) as folder:
        made = Machine.new(Path(folder) / "run")
        yield made
        made.close()


async def a_while(machine: Machine) -> None:
    one = await machine.client()
    await one.name("alice")
    number = len(machine.told.records) + 1
    await one.decide(number, number + 1)
    await machine.passes(61)
    for key in (b"1" * 32, *(bytes([number + at]) * 32 for at in range(5))):
        await one.use(key)
    await one.decide(number + 2)
    await machine.passes(2)
    await one.close()


def judged(machine: Machine) -> Report:
    found = Contents(machine.paths.state)
    assert machine.told.records.items() <= found.records.items()
    for checkpoint in shown(machine.disk.steps):
        assert found.root(checkpoint.size) == checkpoint.root
    assert_no_nonce_twice([machine.disk.steps])
    private = Private(machine.paths.deks, READER, Pairing())
    return verify(machine.paths.ledger, VERIFIER, lock=machine.paths.lock, private=private)


@pytest.mark.parametrize("while_it_runs", [True, False], ids=["running", "stopped"])
@pytest.mark.parametrize("jumps", [(-1,), (1,), (1, -1), (-1, 1), (-10,)], ids=str)
def test_clock_that_jumps_by_years_loses_forgets_and_forks_nothing(
    machine: Machine, jumps: tuple[int, ...], while_it_runs: bool
) -> None:
    async def jumping(machine: Machine) -> None:
        await a_while(machine)
        for years in jumps:
            machine.set_by_us += years * YEARS_US
            await a_while(machine)

    if while_it_runs:
        assert machine.live(jumping) is None
    else:
        assert machine.live(a_while) is None
        for years in jumps:
            machine.set_by_us += years * YEARS_US
            assert machine.live(a_while) is None
    told = copy.copy(machine.told.used)
    assert machine.live(a_while) is None, "a start on a ledger from another time"
    assert machine.told.used > told
    report = judged(machine)
    assert report.findings == [], "time that the clock has left out was taken for silence"
    said = " ".join(report.notes)
    assert ("clock was set ahead" in said) == (while_it_runs and 1 in jumps)
    assert ("clock went back" in said) == (while_it_runs and min(jumps) < 0)
