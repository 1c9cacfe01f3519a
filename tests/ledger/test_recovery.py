"""A stop at any moment, or a hand on any byte: nothing acknowledged is lost, nothing false is signed again."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.ledger.caller import MINUTE, T0, Caller, acked, check, shown
from tests.ledger.disk import Disk, Policy, after_crash

Story = Callable[[Caller], None]


def groups(caller: Caller) -> None:
    """Group commits, some of several frames, with checkpoints between; ends in the middle of one."""
    caller.add(1)
    caller.append(2)
    caller.heartbeat()
    caller.append(3)
    caller.sync()
    caller.checkpoint()
    caller.add(2)
    caller.checkpoint()
    caller.append(4)
    caller.append(1)


def rolling(caller: Caller) -> None:
    """A segment grows too old between two frames of a group."""
    caller.add(2)
    caller.checkpoint()
    caller.append(1)
    caller.now_us += 5 * MINUTE
    caller.append(2)
    caller.append(1)
    caller.sync()
    caller.checkpoint()
    caller.now_us += 5 * MINUTE
    caller.writer.roll_if_due()
    caller.add(1)


def closing(caller: Caller) -> None:
    caller.add(3)
    caller.checkpoint()
    caller.add(1)
    caller.close()


def again(caller: Caller) -> None:
    """A clean end, and the next start."""
    closing(caller)
    following = Caller(caller.root, caller.files, now_us=T0 + MINUTE)
    following.add(2)
    following.checkpoint()


def settling(caller: Caller) -> None:
    """Enough entries for full tiles, and the watermark moving past them."""
    caller.add(200)
    caller.checkpoint()
    caller.add(100)
    caller.now_us += 2 * MINUTE
    caller.checkpoint()
    caller.add(5)
    caller.checkpoint()
    caller.add(2)


STORIES: dict[str, Story] = {story.__name__: story for story in (groups, rolling, closing, again, settling)}


def tell(story: str, root: Path) -> Disk:
    disk = Disk(root)
    root.mkdir()
    STORIES[story](Caller(root, disk))
    return disk


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory, where there is one: thousands of ledgers are built and thrown away here."""
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared if os.access(shared, os.W_OK) else tmp_path) as folder:
        yield Path(folder)


def crashes(disk: Disk, folder: Path, policy: Policy, every: int, before: Path | None = None) -> None:
    """Crash after each `every`th step that did something, and check what is left."""
    ends = [at for at, step in enumerate(disk.steps, 1) if step.name != "acked"]
    for upto in ends[ends[0] % every :: every]:
        steps = disk.steps[:upto]
        left = folder / f"left-{upto}"
        after_crash(left, steps, policy, before=before, seed=upto)
        try:
            check(left, at_least=acked(steps), seen=shown(steps), thorough=upto % 4 == 0)
        except Exception as error:
            error.add_note(f"after step {upto}, {steps[-1].name} {steps[-1].path} {steps[-1].to}")
            raise
        shutil.rmtree(left)


@pytest.mark.parametrize(("policy", "every"), [("kept", 1), ("lost", 1), ("names", 3), ("zeros", 3), ("mixed", 2)])
@pytest.mark.parametrize("story", STORIES)
def test_crash_after_any_step_loses_nothing_acknowledged(
    memory: Path, story: str, policy: Policy, every: int
) -> None:
    crashes(tell(story, memory / "run"), memory, policy, every)
