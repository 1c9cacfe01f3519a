"""A thousand starts: no id, no key and no nonce comes twice, and the last start reads no more than the first ones.

What a start costs is counted in files opened and bytes of segments read, not in time.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.ledger.caller import MINUTE, T0, VERIFIER, Caller, Contents, record
from tests.ledger.disk import Quick

from gatebook.ledger.segment import NO_DEK, Sealed, parse_frames, parse_header
from gatebook.ledger.verify import verify

RESTARTS = 1000


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    """In memory, where there is one: a thousand starts make some ten thousand files."""
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared if os.access(shared, os.W_OK) else tmp_path) as folder:
        yield Path(folder)


class Opened:
    """How many files below a folder this process has opened."""

    def __init__(self) -> None:
        self.count = 0
        self.below = ""
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[object, ...]) -> None:
        if self.below and event == "open" and str(arguments[0]).startswith(self.below):
            self.count += 1


def test_thousand_starts_repeat_nothing_and_stay_as_cheap_as_the_first(root: Path) -> None:
    opened, costs = Opened(), []
    for number in range(RESTARTS):
        opened.below = str(root / "ledger" / "segments")
        before = opened.count
        caller = Caller(root, Quick(), now_us=T0 + number * MINUTE)
        costs.append(opened.count - before)
        opened.below = ""
        assert caller.count == number, "a start forgot what the one before knew"
        caller.add(1)
        if number % 3:
            caller.close()
        else:
            caller.writer._let_go()  # as a kill does
    caller = Caller(root, now_us=T0 + RESTARTS * MINUTE)
    caller.close()
    segments, deks, nonces = set(), set(), set()
    for path in (root / "ledger" / "segments").iterdir():
        data = path.read_bytes()
        header = parse_header(data)
        assert header.segment_id not in segments
        segments.add(header.segment_id)
        if header.dek_id != NO_DEK:
            assert header.dek_id not in deks
            deks.add(header.dek_id)
        for frame in parse_frames(data, header.start):
            if isinstance(frame, Sealed):
                assert (header.dek_id, frame.place.number) not in nonces
                nonces.add((header.dek_id, frame.place.number))
    assert len(nonces) == RESTARTS
    assert len(deks) == RESTARTS + 1
    contents = Contents(root)
    assert list(contents.records.values()) == [record(number) for number in range(RESTARTS)]
    assert len({boot.boot_id for boot in contents.boots}) == RESTARTS + 1
    assert verify(root / "ledger", VERIFIER, lock=root / "lock").exit_code == 0
    # Below the watermark, which moves by 256 entries, nothing is read again, however long the log is.
    assert max(costs[-300:]) <= max(costs[:300]) + 8
