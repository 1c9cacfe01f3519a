"""A deployment that never ran, with a real ledger: its records were put there by the command line's own way."""

from __future__ import annotations

import datetime
from pathlib import Path

from tests.access.ledger import decision, outcome, refused

from gatebook import record, starter
from gatebook.config.load import load
from gatebook.paths import Paths
from gatebook.recorder.submit import submit


class Logged:
    """Request 1 allowed (its decision has index `first`), 2 denied, 3 open, 4 without a decision; one act."""

    def __init__(self, folder: Path) -> None:
        self.config = folder / "gatebook.yaml"
        starter.initialise(folder, "acme", datetime.datetime.now(datetime.UTC))
        self.paths = Paths(folder / "state")
        self.first = self.add(decision(1))
        self.add(outcome(1, self.first))
        denied = self.add(decision(2, verdict="deny"))
        self.add(outcome(2, denied, 403))
        self.add(decision(3), refused(4))
        self.add(
            record.Admin(time_us=1_700_000_000_000_000, action="key.create", actor="os:0", detail={"id": "k"})
        )

    def add(self, *records: record.Record) -> int:
        return submit(load(self.config), records)
