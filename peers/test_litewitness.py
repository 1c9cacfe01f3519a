"""A real litewitness cosigns what our recorder signs, and tells when it was shown another history."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from peers.litewitness import NAME, Litewitness, serve
from tests.recorder.deployed import State, until

from gatebook import record, wire
from gatebook.ledger.keys import load_verifier
from gatebook.ledger.note import COSIGNATURE, Verifier
from gatebook.ledger.quorum import Quorum, parse_trust

RECORD = record.encode(record.System(time_us=1, event="test"))


@pytest.fixture
def witness() -> Iterator[Litewitness]:
    with tempfile.TemporaryDirectory(prefix="gb-") as folder, serve(Path(folder)) as made:
        yield made


class Asking:
    """A recorder that asks this witness each second."""

    def __init__(self, folder: Path, url: str, key: Verifier) -> None:
        self.policy = folder / "policy"
        self.policy.write_text(f"witness lite {key.vkey} {url}\nquorum lite\n")
        self.state = State(folder, witnesses={"policy": str(self.policy), "every": "1s"})
        self.log = self.state.paths.ledger / "log"
        self.own = load_verifier(self.state.paths.keys)

    def row(self) -> dict[str, Any]:
        stands = self.state.started[-1].stands()
        rows = stands.outside["witnesses"]["witnesses"] if stands is not None else []
        return dict(rows[0]) if rows else {"size": 0, "error": "", "disagrees": False}

    def grow(self, records: int) -> int:
        return self.state.started[-1].append(*[wire.Item(RECORD)] * records) + records

    def until_cosigned(self, size: int) -> None:
        """By what is published: the row is there a moment sooner."""
        until(
            lambda: self.row()["size"] >= size and self.quorum().checkpoint.size >= size, f"{size} to be cosigned"
        )
        assert self.quorum().met

    def quorum(self) -> Quorum:
        return parse_trust(self.policy.read_bytes(), "policy").judge(
            (self.log / "cosigned").read_bytes(), self.own
        )


@pytest.fixture
def asking(tmp_path: Path, witness: Litewitness) -> Iterator[Asking]:
    key = witness.start()
    assert (key.name, key.algorithm, key.public) == (NAME, COSIGNATURE, witness.public)
    made = Asking(tmp_path, witness.url, key)
    made.state.start()
    yield made
    made.state.close()


def test_litewitness_cosigns_our_log_as_it_grows_and_over_its_own_death(
    asking: Asking, witness: Litewitness
) -> None:
    until(lambda: "does not know this log" in asking.row()["error"], "a refusal")
    witness.add_log(asking.own)
    for records in (1, 255, 600, 2000):
        size = asking.grow(records)
        asking.until_cosigned(size)
    witness.kill()
    size = asking.grow(3)
    until(lambda: "no connection" in asking.row()["error"], "silence")
    witness.start()
    asking.until_cosigned(size)
    asking.state.started[-1].kill()
    asking.state.paths.witnesses.unlink()
    asking.state.start()
    until(lambda: asking.row()["size"] > size, "a cosignature after the recorder forgot")
    assert asking.state.started[-1].end() == 0
    asking.state.verified()


def test_litewitness_sees_that_the_log_was_put_back(asking: Asking, witness: Litewitness, tmp_path: Path) -> None:
    witness.add_log(asking.own)
    asking.state.started[-1].end()
    shutil.copytree(asking.state.paths.state, tmp_path / "yesterday")
    asking.state.start()
    size = asking.grow(50)
    asking.until_cosigned(size)
    asking.state.started[-1].end()
    shutil.rmtree(asking.state.paths.state)
    shutil.copytree(tmp_path / "yesterday", asking.state.paths.state)
    asking.state.start()
    until(lambda: asking.row()["disagrees"], "the witness to disagree")
    assert "now; the log was put back" in asking.row()["error"]
    asking.grow(100)
    asking.state.started[-1].end()
    asking.state.start()
    until(lambda: "not the first of this log" in asking.row()["error"], "the fork to show")
    asking.state.started[-1].end()
    alerts = [made for _, made in asking.state.records() if isinstance(made, record.Alert)]
    assert [(made.alert, made.severity) for made in alerts] == [("witness_disagrees", "high")]
