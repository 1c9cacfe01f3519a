"""docs/verify.md: its output is what the command says, and its scripts check a log without gatebook."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.ledger.test_format_doc import T0, flip, start, written

from gatebook import errors

DOCUMENT = (Path(__file__).parents[2] / "docs" / "verify.md").read_text("utf-8")
NUMBER = re.compile(r"\b[0-9a-f]{8}\b|\d+")


def fenced(language: str, heading: str = "") -> list[str]:
    """The blocks of that language, below that heading."""
    part = DOCUMENT.partition(f"\n## {heading}\n")[2].partition("\n## ")[0] if heading else DOCUMENT
    return re.findall(rf"^```{language}\n(.*?)^```$", part, re.M | re.S)


def shape(output: str) -> list[str]:
    """Without numbers, and without the notes and losses of this one ledger."""
    return [NUMBER.sub("#", line) for line in output.splitlines() if not line.startswith(("note:", "  lost "))]


@pytest.fixture
def state(tmp_path: Path) -> Path:
    folder = tmp_path / "state"
    written(folder)
    folder.chmod(0o700)
    return folder


@pytest.fixture
def log(state: Path) -> Path:
    return state / "ledger" / "log"


def gatebook_verify(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "gatebook", "verify", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_output_in_the_document_is_that_of_the_command(state: Path) -> None:
    done = gatebook_verify(state, "--key", state / "keys" / "log.pub")
    assert shape(done.stdout) == shape(fenced("text")[0])


def test_output_for_a_changed_byte_is_that_of_the_command(state: Path, log: Path, tmp_path: Path) -> None:
    shutil.copytree(log.parent, tmp_path / "copy")
    path = max((tmp_path / "copy/log/tile/entries/001.p").iterdir(), key=lambda path: int(path.name))
    path.write_bytes(flip(path.read_bytes(), 100))
    done = gatebook_verify(tmp_path / "copy", "--key", state / "keys" / "log.pub")
    assert done.returncode == errors.Tampered.exit_code
    assert shape(done.stdout) == shape(fenced("text")[1])


def test_exit_codes_in_the_document_are_those_of_the_program() -> None:
    found = dict(re.findall(r"^\| (tampered|damaged|incomplete) \| (\d+) \|", DOCUMENT, re.M))
    kinds = {"tampered": errors.Tampered, "damaged": errors.Damaged, "incomplete": errors.Incomplete}
    assert {name: int(code) for name, code in found.items()} == {n: e.exit_code for n, e in kinds.items()}


def test_copy_on_another_machine_is_made_as_the_document_says(state: Path) -> None:
    """The lines of both blocks, up to the command itself."""
    folder = state.parent
    shutil.copy(state / "keys/log.pub", folder)
    shutil.copy(state / "keys/reader.key", folder)
    for block in fenced("sh", "On another machine"):
        *lines, command = block.splitlines()
        subprocess.run(["/bin/sh", "-ec", "\n".join(lines)], cwd=folder, check=True, timeout=60)
        _, _, path, *options = command.split()
        named = [folder / option if option[0] != "-" else option for option in options]
        done = gatebook_verify(folder / path, *named)
        assert done.returncode == 0, done.stdout + done.stderr
    assert "level 2  passed" in done.stdout


def signature(log_pub: Path, checkpoint: Path, folder: Path) -> bool:
    script = folder / "signature.sh"
    script.write_text(fenced("sh", "Without gatebook")[0])
    done = subprocess.run(
        ["/bin/sh", str(script), str(log_pub), str(checkpoint)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode == 0 and "Verified Successfully" in done.stdout


def root(ledger: Path, *checkpoints: Path) -> bool:
    (script,) = fenced("python", "Without gatebook")
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", script, str(ledger), *map(str, checkpoints)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout.count("the same") + done.stdout.count("NOT THIS LOG") == len(checkpoints), done.stderr
    return done.returncode == 0


def test_signature_is_checked_without_gatebook(state: Path, log: Path, tmp_path: Path) -> None:
    key = state / "keys" / "log.pub"
    assert signature(key, log / "checkpoint", tmp_path)
    forged = tmp_path / "forged"
    forged.write_text((log / "checkpoint").read_text("utf-8").replace("\n", "\n1", 1), "utf-8")
    assert not signature(key, forged, tmp_path)
    written(tmp_path / "another")
    assert not signature(tmp_path / "another/keys/log.pub", log / "checkpoint", tmp_path)


def test_root_is_made_without_gatebook_and_kept_checkpoints_are_held_against_it(
    state: Path, log: Path, tmp_path: Path
) -> None:
    kept = tmp_path / "kept"
    shutil.copy(log / "checkpoint", kept)
    start(state, T0 + 3_000_000).close()
    assert (log / "checkpoint").read_bytes() != kept.read_bytes()
    written(tmp_path / "grown", count=5)  # another log of the same name: as if history had been rewritten
    assert root(state / "ledger", log / "checkpoint", kept)
    assert not root(tmp_path / "grown/ledger", tmp_path / "grown/ledger/log/checkpoint", kept)
    path = log / "tile/entries/000"
    path.write_bytes(flip(path.read_bytes(), 1000))
    assert not root(state / "ledger", log / "checkpoint")
