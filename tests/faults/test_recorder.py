"""The whole recorder, stopped or refused at any operation of its disk: what a client was told is there, for good.

One story, told again and again: decisions of several guards, pseudonyms, things that are used once, lines of the
gateway's log, checkpoints, heartbeats, full tiles, segments that end, an orderly stop, another start. A sample is
tried; with GATEBOOK_FAULTS=all (`make test-faults`) every operation in every way.
"""

from __future__ import annotations

import asyncio
import errno
import os
import random
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.faults.audit import audit, verified
from tests.faults.breaking import Fault, ways
from tests.faults.machine import Machine, Story
from tests.ledger.caller import VERIFIER
from tests.ledger.disk import POLICIES, Policy

from gatebook.errors import LedgerFull
from gatebook.ledger import growing, keys, publish
from gatebook.recorder import process

ALL = os.environ.get("GATEBOOK_FAULTS") == "all"


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory, where there is one: thousands of state folders are built and thrown away here."""
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared if os.access(shared, os.W_OK) else tmp_path) as folder:
        yield Path(folder)


@pytest.fixture(autouse=True)
def short_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a story of seconds has heartbeats, segments that end, and tiles that are made durable."""
    monkeypatch.setattr(process, "HEARTBEAT_S", 5.0)
    monkeypatch.setattr(growing, "MAX_AGE_US", 9_000_000)
    monkeypatch.setattr(publish, "SETTLE_US", 8_000_000)


async def busy(machine: Machine) -> None:
    one, other, third = [await machine.client() for _ in range(3)]
    await one.name("alice")
    await one.decide(1, 2, 3)
    await one.use(b"1" * 32)
    await machine.passes(1.3)
    await asyncio.gather(one.decide(4, 5), other.decide(6), third.name("bob"))
    await other.decide(7, lines=False)
    await machine.passes(5)
    await one.decide(*range(100, 380))
    await machine.passes(4)
    await asyncio.gather(one.decide(8), other.use(b"2" * 32))
    await machine.passes(1.2)
    for client in (one, other, third):
        await client.close()


async def erasing(machine: Machine) -> None:
    """Records are removed from segments that are closed, and from the one that is not; a person is forgotten."""
    one = await machine.client()
    await one.name("alice")
    await one.name("bob")
    await one.decide(1, 2, 3)
    await machine.passes(10)
    await one.decide(4, 5)
    first, *_, last = machine.told.records or [0]
    await one.redact(first + 1)
    await one.forget("alice")
    await one.decide(6)
    await machine.passes(1.2)
    await one.redact(last)
    await one.close()


async def rotating(machine: Machine) -> None:
    """The log's key changes, twice."""
    one = await machine.client()
    await one.decide(1, 2)
    await one.rotate()
    await one.decide(3)
    await machine.passes(1.2)
    await one.rotate()
    await machine.passes(10)
    await one.decide(4)
    await one.close()


async def short(machine: Machine) -> None:
    one = await machine.client()
    await one.decide(10, 11)
    await one.close()


def told(folder: Path, fault: Fault, story: Story = busy) -> tuple[Machine, Exception | None]:
    """The story, up to where the fault ends it."""
    machine = Machine.new(folder, fault=fault)
    error = machine.live(story) or machine.live(short)
    machine.close()
    return machine, error


def test_story_has_enough_of_everything(memory: Path) -> None:
    """Or the tests below would try nothing."""
    machine, error = told(memory / "run", Fault(0))
    assert error is None
    names = set(machine.disk.names)
    assert names >= {"create", "write", "sync", "rename", "remove", "make_folder", "sync_folder", "sync_all"}
    assert len(list((machine.paths.ledger / "segments").iterdir())) >= 5
    assert (machine.paths.ledger / "log" / "tile" / "0" / "000").exists()
    assert b"tiles_durable 512" in machine.paths.lock.read_bytes()
    assert len(machine.promises) > 6
    assert len(machine.told.records) == 290
    report = verified(machine.paths)
    assert report.records > 570, "nearly all have outcomes"


def test_rotating_rotates(memory: Path) -> None:
    machine, error = told(memory / "run", Fault(0), rotating)
    assert error is None
    assert keys.load_verifier(machine.paths.keys) != VERIFIER
    verified(machine.paths)


def test_erasing_erases(memory: Path) -> None:
    machine, error = told(memory / "run", Fault(0), erasing)
    assert error is None
    assert len(machine.told.removed) == 2
    assert list(machine.told.forgotten) == ["alice"]
    assert list(machine.told.names) == ["bob"]
    verified(machine.paths)


@pytest.mark.parametrize("story", [busy, erasing, rotating])
@pytest.mark.parametrize("policy", POLICIES)
def test_power_that_fails_after_any_step_takes_nothing_that_was_told(
    memory: Path, policy: Policy, story: Story
) -> None:
    machine, _ = told(memory / "run", Fault(0), story)
    every = 1 if ALL else 37
    for upto in range(1 + POLICIES.index(policy) * every // len(POLICIES), len(machine.disk.steps) + 1, every):
        steps = machine.disk.steps[:upto]
        left = memory / f"left-{upto}"
        machine.remains(left, upto, policy, seed=upto)
        try:
            audit(machine, left, steps, machine.told_at(upto))
        except Exception as error:
            error.add_note(f"after step {upto}, {steps[-1].name} {steps[-1].path} {steps[-1].to}")
            raise
        shutil.rmtree(left)


def tried(operations: list[str], code: int, forever: bool) -> Iterator[Fault]:
    """All faults, or a sample in which every operation has its turn in some way."""
    for at, name in enumerate(operations, 1):
        known = ways(name)
        for way in known if ALL else known[at // 13 % len(known) :][:1]:
            if ALL or at % 13 == (code + forever) % 13:
                yield Fault(at, way, code, forever)


@pytest.mark.parametrize("story", [busy, erasing, rotating])
@pytest.mark.parametrize(("code", "forever"), [(errno.EIO, False), (errno.ENOSPC, True), (errno.ENOSPC, False)])
def test_operation_that_fails_in_any_way_ends_the_recorder_and_takes_nothing_that_was_told(
    memory: Path, code: int, forever: bool, story: Story
) -> None:
    whole, _ = told(memory / "whole", Fault(0), story)
    chance = random.Random(code)
    for fault in tried(whole.disk.names, code, forever):
        machine, error = told(memory / "run", fault, story)
        try:
            # Giving the reserve back is the one thing that may fail unnoticed: nothing rests on it.
            assert isinstance(error, LedgerFull), error
            assert "start again" in str(error)
            disk = machine.disk
            # The power fails too: at once, among the last words, or behind them.
            one = chance.randint(disk.failed_at, len(disk.steps))
            for upto in sorted({disk.failed_at, one, len(disk.steps)}) if ALL else [one]:
                for policy in POLICIES if ALL else (chance.choice(POLICIES),):
                    left = memory / "left"
                    machine.remains(left, upto, policy, seed=fault.at)
                    audit(machine, left, disk.steps[:upto], machine.told_at(upto))
                    shutil.rmtree(left)
            # And kill -9, or the end of the process, at the end of it all.
            audit(machine, machine.paths.state, disk.steps, machine.told)
        except Exception as problem:
            problem.add_note(f"{fault}, which is {whole.disk.names[fault.at - 1]}")
            raise
        shutil.rmtree(memory / "run")
