"""docs/timestamps.md: its commands judge what we store, and its words are the program's."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from tests.tsa import Stamper

from gatebook.ledger.timestamp import ask_for
from gatebook.ledger.verify import anchors
from gatebook.recorder import stamping

DOCUMENT = (Path(__file__).parents[2] / "docs" / "timestamps.md").read_text("utf-8")
(COMMANDS,) = re.findall(r"^```sh\n(.*?)^```$", DOCUMENT, re.M | re.S)


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stored")
    stamper = Stamper(folder / "authority")
    (folder / "48211.checkpoint").write_bytes(b"acme/node-1\n48211\n")
    (folder / "48211.tsr").write_bytes(stamper.reply(ask_for(b"acme/node-1\n48211\n").body))
    (folder / "tsa-roots.pem").write_bytes(stamper.roots.read_bytes())
    return folder


def run(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["/bin/sh", "-ec", COMMANDS], cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )


def test_commands_accept_what_is_stored(stored: Path) -> None:
    done = run(stored)
    assert done.returncode == 0, done.stderr
    assert "Verification: OK" in done.stdout + done.stderr
    assert "Time stamp:" in done.stdout


def test_commands_refuse_another_checkpoint(stored: Path) -> None:
    (stored / "48211.checkpoint").write_bytes(b"acme/node-1\n48212\n")
    assert run(stored).returncode != 0


def test_bounds_in_the_document_are_those_of_the_program() -> None:
    assert stamping.MAX_SKEW_US == 5 * 60 * 1_000_000
    assert anchors.MAX_DRIFT_US == 10 * 60 * 1_000_000
    assert (stamping.AT_CLOSE_S, stamping.FIRST_WAIT_S, stamping.LONGEST_WAIT_S) == (3.0, 10.0, 600.0)
