"""Tessera (github.com/transparency-dev/tessera) grows a log of its own and asks our witness, by a policy file.

Its program publishes a checkpoint only once the policy's quorum has cosigned it.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.witness.running import Running, gatebook

from gatebook.ledger.note import Cosigner, Signer
from gatebook.ledger.quorum import Quorum, parse_trust

ONESHOT = Path(__file__).parents[1] / ".peers" / "bin" / "posix-oneshot"
KEY = Signer("tessera.example/log", b"t" * 32)


class Growing:
    """A log of Tessera's, in `folder`, which asks `witness`."""

    def __init__(self, folder: Path, witness: Running) -> None:
        self.folder = folder
        self.witness = witness
        self.entries = folder / "entries"
        self.entries.mkdir()
        self.key = folder / "log.key"
        self.key.write_text(KEY.skey)
        self.policy = folder / "policy"
        dead = Cosigner("witness.example/dead", bytes(32))
        self.policy.write_text(
            f"log {KEY.vkey}\nwitness dead {dead.vkey} http://127.0.0.1:1/\n"
            f"witness ours {witness.verifier.vkey} {witness.url}\ngroup one any dead ours\nquorum one\n"
        )

    def add(self, *entries: str, log: str = "log") -> subprocess.CompletedProcess[str]:
        for path in self.entries.iterdir():
            path.unlink()
        for entry in entries:
            (self.entries / entry).write_text(entry)
        command = [
            str(ONESHOT),
            "-logtostderr",
            f"-storage_dir={self.folder / log}",
            f"-private_key={self.key}",
            f"-entries={self.entries}/*",
            f"-witness_policy_file={self.policy}",
            "-witness_timeout=5s",
        ]
        try:
            return subprocess.run(command, capture_output=True, text=True, timeout=15, check=False)
        except subprocess.TimeoutExpired as error:  # it asks again and again
            return subprocess.CompletedProcess(command, -1, "", str(error.stderr))

    def quorum(self, log: str = "log") -> Quorum:
        note = (self.folder / log / "checkpoint").read_bytes()
        return parse_trust(self.policy.read_bytes(), "policy").judge(note)


@pytest.fixture
def growing(tmp_path: Path) -> Iterator[Growing]:
    assert gatebook("init", tmp_path / "w", "--name", "witness.example/ours").returncode == 0
    (tmp_path / "log.pub").write_text(KEY.vkey + "\n")
    assert gatebook("add", tmp_path / "w", tmp_path / "log.pub").returncode == 0
    witness = Running(tmp_path / "w")
    witness.start()
    yield Growing(tmp_path, witness)
    witness.stop()


def test_our_witness_cosigns_a_log_of_tessera_s_as_it_grows(growing: Growing) -> None:
    for batch, size in ((["a"], 1), (["b", "c"], 3), ([f"d{n}" for n in range(300)], 303), (["e"], 304)):
        ran = growing.add(*batch)
        assert ran.returncode == 0, ran.stderr
        found = growing.quorum()
        assert found.met
        assert list(found.signed) == ["ours"]
        assert found.checkpoint.size == size


def test_our_witness_keeps_tessera_from_publishing_a_fork(growing: Growing) -> None:
    assert growing.add("a", "b").returncode == 0
    assert growing.add("x", "y", "z", log="fork").returncode != 0
    checkpoint = growing.folder / "fork" / "checkpoint"
    assert not checkpoint.exists() or b"\n3\n" not in checkpoint.read_bytes()
    assert growing.add("c").returncode == 0
    assert growing.quorum().checkpoint.size == 3
