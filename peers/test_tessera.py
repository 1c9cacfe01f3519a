"""Tessera's own checker of logs, `fsck` (github.com/transparency-dev/tessera), reads ours over its public files.

`make test-peers` builds it from the Go module proxy. It ends with 0 whatever it finds, and with a single worker it
never ends on a bad log (v1.0.4), so what it says is what counts.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from tests.served import serving
from tests.strangers.log import VKEY, Log

FSCK = Path(__file__).parents[1] / ".peers" / "bin" / "fsck"
SIZES = (1, 256, 257, 513, 65_536, 70_000)


def fsck(url: str, key: Path) -> str:
    command = [
        str(FSCK),
        "-N=4",
        "-ui=false",
        "-logtostderr",
        f"-storage_url={url}/",
        f"-public_key={key}",
    ]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return ran.stderr


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Log:
    return Log(tmp_path_factory.mktemp("log"))


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = tmp_path / "log.pub"
    path.write_text(VKEY)
    return path


def test_fsck_accepts_our_log_as_it_grows(log: Log, key: Path) -> None:
    for size in SIZES:
        log.grow(size)
        assert f"Successfully fsck'd log with size {size} " in fsck(f"file://{log.folder}", key)


@pytest.mark.parametrize("name", ["tile/entries/100", "tile/0/100", "tile/1/000", "checkpoint"])
def test_fsck_refuses_one_changed_bit(log: Log, key: Path, tmp_path: Path, name: str) -> None:
    log.grow(max(SIZES))
    mirror = tmp_path / "mirror"
    shutil.copytree(log.folder, mirror)
    path = mirror / name
    data = bytearray(path.read_bytes())
    data[30] ^= 4
    path.write_bytes(data)
    said = fsck(f"file://{mirror}", key)
    assert "Successfully" not in said
    assert "fsck failed" in said


def test_fsck_reads_what_serve_log_serves(log: Log, key: Path) -> None:
    size = max(SIZES)
    log.grow(size)
    with serving(log.folder) as port:
        assert f"Successfully fsck'd log with size {size} " in fsck(f"http://127.0.0.1:{port}", key)
