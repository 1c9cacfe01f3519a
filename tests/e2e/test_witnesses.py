"""Two deployments that witness each other, as docs/witnesses.md sets them up."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.deployment import Deployment, until
from tests.witness.running import Running, gatebook

from gatebook.ledger.note import Verifier
from gatebook.ledger.quorum import parse_trust


class Pair:
    """A deployment, the witness that its people run for the other one, and the policy by which they ask theirs."""

    def __init__(self, folder: Path, name: str) -> None:
        folder.mkdir()
        self.deployment = Deployment(folder)
        self.deployment.configuration["name"] = name
        if name != "acme":  # for which `init` has made the keys
            shutil.rmtree(self.deployment.paths.state)
            self.deployment.cli("init", str(folder / "fresh"), "--name", name)
            (folder / "fresh" / "state").rename(self.deployment.paths.state)
        made = gatebook("init", folder / "witness", "--name", f"{name}.example/witness")
        assert made.returncode == 0, made.stderr
        self.witness = Running(folder / "witness")
        self.policy = folder / "witnesses.policy"

    def trust(self, other: Pair) -> None:
        """Each gives the other its two public lines."""
        added = gatebook("add", self.witness.folder, other.deployment.paths.keys / "log.pub")
        assert added.returncode == 0, added.stderr
        self.policy.write_text(f"witness them {other.witness.verifier.vkey} {other.witness.url}\nquorum them\n")
        self.deployment.configuration["witnesses"] = {"policy": str(self.policy), "every": "1s", "timeout": "2s"}
        self.deployment.write()

    @property
    def them(self) -> dict[str, Any]:
        """What this deployment says of its one witness; before the first round it says nothing."""
        seen: list[dict[str, Any]] = self.deployment.status()["outside"]["witnesses"]["witnesses"]
        return seen[0] if seen else {"size": 0, "silent": False}

    def cosigned(self) -> int:
        """Up to where the other one vouches for this log, by the files that an auditor is given."""
        log = self.deployment.paths.ledger / "log"
        own = Verifier.from_vkey((self.deployment.paths.keys / "log.pub").read_text())
        quorum = parse_trust(self.policy.read_bytes(), "policy").judge((log / "cosigned").read_bytes(), own)
        assert quorum.met
        return quorum.checkpoint.size


@pytest.fixture
def pairs(tmp_path: Path) -> Iterator[tuple[Pair, Pair]]:
    pairs = Pair(tmp_path / "a", "acme"), Pair(tmp_path / "b", "bolt")
    for own, other in (pairs, pairs[::-1]):
        own.trust(other)
        own.witness.start()
    yield pairs
    for pair in pairs:
        pair.deployment.close()
        if pair.witness.process is not None and pair.witness.process.poll() is None:
            pair.witness.stop()


def test_two_deployments_witness_each_other_and_one_that_dies_costs_the_other_nothing(
    pairs: tuple[Pair, Pair],
) -> None:
    one, two = pairs
    asking = one.deployment.configuration.pop("witnesses")
    one.deployment.write()
    for each in pairs:
        each.deployment.start()
    assert "witnesses" not in one.deployment.status()["outside"]
    one.deployment.configuration["witnesses"] = asking
    one.deployment.write()
    one.deployment.cli("reload", "-c", str(one.deployment.config))
    until(lambda: one.them["size"] > 0 and two.them["size"] > 0, "cosignatures")
    assert one.cosigned() > 0
    assert two.cosigned() > 0
    two.witness.stop(signal.SIGKILL)
    before = one.them["size"]
    until(lambda: one.deployment.ask("/healthz").status_code == 200 and one.them["silent"], "a silent witness")
    assert one.deployment.status()["ready"]
    shown = subprocess.run(
        [sys.executable, "-m", "gatebook", "status", "-c", str(one.deployment.config)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "are cosigned by enough of them" in shown
    assert "no connection" in shown
    two.witness.start()
    until(lambda: one.them["size"] > before and not one.them["error"], "the witness to be back")
    assert one.cosigned() > before
