"""docs/evidence.md: its scripts check what gatebook hands over, without gatebook."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.access.ledger import request_id
from tests.cli.logged import Logged

ROOT = Path(__file__).parents[2]
SCRIPT, *_ = re.findall(r"^```python\n(.*?)^```$", (ROOT / "docs/evidence.md").read_text("utf-8"), re.M | re.S)
Run = Callable[..., Any]


@pytest.fixture
def proof(run: Run, tmp_path: Path) -> Path:
    logged = Logged(tmp_path / "deployment")
    run("prove", request_id(2), "-o", str(tmp_path / "x.tlog-proof"), "-c", str(logged.config))
    return tmp_path / "x.tlog-proof"


def script(proof: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-I", "-c", SCRIPT, proof.name],
        cwd=proof.parent,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_script_of_the_document_proves_a_record(proof: Path) -> None:
    done = script(proof)
    assert done.returncode == 0, done.stderr
    assert f'"id":"{request_id(2)}"' in done.stdout
    assert done.stdout.rstrip().endswith("this record")
    assert (proof.parent / "checkpoint").read_text().startswith("acme/node-1\n")


def test_script_of_the_document_refuses_another_record(proof: Path) -> None:
    lines = proof.read_text().split("\n")
    lines[1] = lines[1][:60] + ("A" if lines[1][60] != "A" else "B") + lines[1][61:]
    proof.write_text("\n".join(lines))
    assert script(proof).returncode == 1
