"""A bit of any file of the ledger is turned: recovery refuses, or verification says so, or nothing rests on it.

What never happens: that something is signed which is not the log that was signed before, or that a record reads
otherwise than it was. `ledger/test_verify.py` turns bits before verification alone; here a writer starts first.
Also: files of one age beside files of another, and all of them from yesterday.
"""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.ledger.caller import MINUTE, READER, T0, VERIFIER, Caller, Contents, published, record

from gatebook.errors import Damaged, Tampered
from gatebook.ledger.note import Checkpoint
from gatebook.ledger.verify import Outside, Private, Report, verify
from gatebook.ledger.verify.outside import read_kept

ALL = os.environ.get("GATEBOOK_FAULTS") == "all"
SMALL = ("lock", "checkpoint")  # of these every byte, always
SIGNED_FOR = 3  # of the records below


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Path]:
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared if os.access(shared, os.W_OK) else tmp_path) as folder:
        yield Path(folder)


@pytest.fixture
def ledger(memory: Path) -> Path:
    """A closed segment, one that a kill left open, checkpoints, and a group that nobody has signed for."""
    root = memory / "ledger"
    root.mkdir()
    caller = Caller(root)
    caller.add(2)
    caller.close()
    caller = Caller(root, now_us=T0 + MINUTE)
    caller.add(1)
    caller.checkpoint()
    caller.add(2)
    caller.writer._let_go()
    return root


def audited(root: Path) -> Report:
    return verify(root / "ledger", VERIFIER, lock=root / "lock", private=Private(root / "deks", READER))


def files(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*") if path.is_file() and path.name not in ("lock.held", "reserve"))


def state(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in files(root)}


def signs_on(root: Path, seen: Checkpoint, told: int) -> str:
    """Start a writer on what is there; what came of it, in a word. Raises AssertionError for the unforgivable."""
    before = state(root)
    try:
        caller = Caller(root, now_us=T0 + 2 * MINUTE)
    except (Damaged, Tampered) as error:
        assert state(root) == before, "a refusal has changed something"
        return type(error).__name__
    caller.add(1)
    caller.close()
    report = audited(root)
    if report.exit_code:
        assert report.worst in ("damaged", "tampered")
        return f"verify: {report.worst}"
    contents = Contents(root)
    assert contents.root(seen.size) == seen.root, "signed on top of another history"
    kept = told
    if contents.losses:
        # The last group, that no checkpoint and no later group vouches for: nothing tells a hand from a crash.
        assert caller.writer.recovered.cut is not None
        kept = SIGNED_FOR
    assert list(contents.records.values())[:kept] == [record(number) for number in range(kept)]
    return "LOSS" if contents.losses else "harmless"


def bits(path: Path) -> Iterator[tuple[int, int]]:
    length = path.stat().st_size
    for at in range(length):
        if ALL:
            yield from ((at, 1 << bit) for bit in range(8))
        elif path.name in SMALL or at % 7 == length % 7:
            yield at, 1 << at % 8


def expected(name: str) -> set[str]:
    """What may come of a hand on that file."""
    if name.startswith("ledger/log/tile"):
        return {"harmless"}  # above the watermark they are made anew at each start
    if name.startswith("deks"):
        return {"verify: damaged"}
    if name.startswith("ledger/segments/0000000000000004"):
        return {"Damaged", "Tampered", "LOSS"}
    return {"Damaged", "Tampered"}


@pytest.fixture
def left(memory: Path) -> Path:
    return memory / "left"


def test_turned_bit_is_refused_or_found_or_harmless_and_never_signed_on_top_of(ledger: Path, left: Path) -> None:
    seen = published(ledger)
    for path in files(ledger):
        name = str(path.relative_to(ledger))
        for at, mask in bits(path):
            shutil.copytree(ledger, left)
            data = bytearray(path.read_bytes())
            data[at] ^= mask
            (left / name).write_bytes(data)
            came = signs_on(left, seen, told=5)
            assert came in expected(name), f"{name}, byte {at}, mask {mask:02x}: {came}"
            shutil.rmtree(left)


def test_file_that_is_gone_cut_doubled_or_anothers_is_refused_or_found_or_harmless(
    ledger: Path, left: Path
) -> None:
    seen, held = published(ledger), state(ledger)
    for name, data in held.items():
        wrong: dict[str, bytes | None] = {
            "gone": None,
            "empty": b"",
            "cut": data[: len(data) // 2],
            "cut by a byte": data[:-1],
            "doubled": data + data,
            "zeros": bytes(len(data)),
            **{f"as {other}": content for other, content in held.items() if content != data},
        }
        for what, content in wrong.items():
            shutil.copytree(ledger, left)
            (left / name).unlink()
            if content is not None:
                (left / name).write_bytes(content)
            came = signs_on(left, seen, told=5)
            # A published checkpoint that is gone is published again: the lock has it.
            fine = {"harmless"} if (name, what) == ("ledger/log/checkpoint", "gone") else expected(name)
            assert came in fine, f"{name} {what}: {came}"
            shutil.rmtree(left)


def test_two_files_changed_for_each_other_are_refused_or_found_or_harmless(ledger: Path, left: Path) -> None:
    seen, held = published(ledger), state(ledger)
    for one, other in itertools.combinations(held, 2):
        shutil.copytree(ledger, left)
        (left / one).write_bytes(held[other])
        (left / other).write_bytes(held[one])
        came = signs_on(left, seen, told=5)
        assert came in expected(one) | expected(other), f"{one} for {other}: {came}"
        if not (one.startswith("ledger/log/tile") and other.startswith("ledger/log/tile")):
            assert came != "harmless", f"{one} for {other}"
        shutil.rmtree(left)


PARTS = ("lock", "deks", "ledger/log/checkpoint", "ledger/log/tile", "ledger/segments")
WHOLE = {"lock", "ledger/log/checkpoint", "ledger/segments"}  # what says how long the log is


def test_part_of_yesterday_beside_today_never_makes_a_second_history(
    ledger: Path, left: Path, memory: Path
) -> None:
    """Only where all that knows of today is gone nothing here can tell, and that is said, not hidden."""
    yesterday = memory / "yesterday"
    shutil.copytree(ledger, yesterday)
    caller = Caller(ledger, now_us=T0 + 2 * MINUTE)
    caller.add(1)
    caller.close()
    seen = published(ledger)
    shutil.copy(ledger / "ledger" / "log" / "checkpoint", memory / "kept")
    for count in range(1, len(PARTS) + 1):
        for parts in itertools.combinations(PARTS, count):
            shutil.copytree(ledger, left)
            for part in parts:
                old, new = yesterday / part, left / part
                if old.is_dir():
                    shutil.rmtree(new)
                    shutil.copytree(old, new)
                else:
                    shutil.copy(old, new)
            if set(parts) >= WHOLE:
                rollback(left, seen, memory / "kept")
            else:
                came = signs_on(left, seen, told=6)
                assert came != "LOSS", parts
            shutil.rmtree(left)


def rollback(root: Path, seen: Checkpoint, kept: Path) -> None:
    """It passes every check of its own, and says on what that rests; who kept a checkpoint is told."""
    caller = Caller(root, now_us=T0 + 3 * MINUTE)
    while caller.writer.size <= seen.size:
        caller.add(1)
    caller.close()
    assert published(root).size > seen.size, "or its size alone would give it away"
    report = audited(root)
    assert report.worst != "tampered", report
    assert "an older copy of the whole ledger would pass too" in report.rests_on[-1]
    outside = Outside(kept=[read_kept(kept, VERIFIER.name)])
    report = verify(root / "ledger", VERIFIER, lock=root / "lock", outside=outside)
    assert [(found.level, found.kind) for found in report.findings] == [(3, "tampered")]
