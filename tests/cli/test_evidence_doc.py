"""docs/evidence.md: its scripts check what gatebook hands over, without gatebook."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.access.ledger import decision, request_id
from tests.cli.logged import Logged
from tests.evidence.place import Place, at

from gatebook import record

ROOT = Path(__file__).parents[2]
SCRIPT, BUNDLE_SCRIPT = re.findall(
    r"^```python\n(.*?)^```$", (ROOT / "docs/evidence.md").read_text("utf-8"), re.M | re.S
)
Run = Callable[..., Any]


@pytest.fixture
def proof(run: Run, tmp_path: Path) -> Path:
    logged = Logged(tmp_path / "deployment")
    run("prove", request_id(2), "-o", str(tmp_path / "x.tlog-proof"), "-c", str(logged.config))
    return tmp_path / "x.tlog-proof"


@pytest.fixture
def unpacked(run: Run, tmp_path: Path) -> Path:
    place = Place(tmp_path / "acme")
    place.two_hours()
    place.write(lambda writer: writer.append([record.encode(decision(n)) for n in range(6100, 6400)]))
    options = ("-c", str(place.config), "--since", at(0), "--until", at(100), "--verdict", "allow")
    assert run("bundle", "-o", str(tmp_path / "e.zip"), *options).code == 0
    with zipfile.ZipFile(tmp_path / "e.zip") as archive:
        archive.extractall(tmp_path / "e")
    return tmp_path / "e"


def bundle_script(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-I", "-c", BUNDLE_SCRIPT, str(folder)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_script_of_the_document_proves_a_bundle(unpacked: Path) -> None:
    done = bundle_script(unpacked)
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"160 records are in the tree of \d+ entries of acme/node-1", done.stdout.strip())


@pytest.mark.parametrize("name", ["records.jsonl", "log/checkpoint", "log/tile/0/000"])
def test_script_of_the_document_refuses_a_changed_bundle(unpacked: Path, name: str) -> None:
    path = unpacked / name
    data = path.read_bytes()
    path.write_bytes(
        data.replace(b"GET", b"PUT", 1)
        if name == "records.jsonl"
        else data[:90] + bytes([data[90] ^ 1]) + data[91:]
    )
    if name == "log/checkpoint":
        path.write_bytes(data.replace(data.split(b"\n")[2], b"A" * 43 + b"="))
    assert bundle_script(unpacked).returncode == 1


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
