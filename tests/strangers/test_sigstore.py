"""Sigstore's verifier, npm's @sigstore/verify, accepts our checkpoints and proofs (tests/peers/judge.mjs)."""

from __future__ import annotations

import base64
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from tests.ledger.caller import SIGNER, VERIFIER
from tests.strangers.log import Log, entry, proof

PEERS = Path(__file__).parents[1] / "peers"
SIZES = (1, 2, 255, 256, 257, 513, 65537)


def judge(asked: list[dict[str, Any]]) -> list[str]:
    ran = subprocess.run(
        ["node", PEERS / "judge.mjs"],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    told: list[str] = json.loads(ran.stdout)
    assert len(told) == len(asked)
    return told


def text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def asked(log: Log, index: int) -> dict[str, Any]:
    inclusion = proof(log.root / "ledger", index, log.size)
    raw = base64.b64decode(SIGNER.vkey.split("+", 2)[2])
    return {
        "origin": SIGNER.name,
        "keyId": text(VERIFIER.key_id),
        "key": text(raw[1:]),
        "checkpoint": (log.folder / "checkpoint").read_text("utf-8"),
        "index": index,
        "entry": text(entry(log.folder, index, log.size)),
        "hashes": [text(one) for one in inclusion.path],
    }


@pytest.fixture(scope="module")
def proofs(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    log = Log(tmp_path_factory.mktemp("log"))
    made = []
    for size in SIZES:
        log.grow(size)
        made += [asked(log, index) for index in sorted({0, size // 2, size - 1})]
    log.close()
    return made


def test_proofs_at_every_edge_are_accepted(proofs: list[dict[str, Any]]) -> None:
    assert set(judge(proofs)) == {""}


def flipped(told: str, bit: int = 0) -> str:
    data = bytearray(base64.b64decode(told))
    data[bit // 8] ^= 1 << bit % 8
    return text(bytes(data))


def test_one_changed_bit_is_refused(proofs: list[dict[str, Any]]) -> None:
    bad = []
    for good in proofs:
        bad += [good | {"entry": flipped(good["entry"], bit)} for bit in (0, 100, 287)]
        for at, one in enumerate(good["hashes"]):
            bad.append(
                good | {"hashes": [*good["hashes"][:at], flipped(one, 31 * at % 256), *good["hashes"][at + 1 :]]}
            )
        head, _, line = good["checkpoint"].rstrip("\n").rpartition(" ")
        bad += [good | {"checkpoint": f"{head} {flipped(line, bit)}\n"} for bit in (32, 300, 543)]
        origin, size, root, *rest = good["checkpoint"].split("\n")
        bad.append(good | {"checkpoint": "\n".join((origin, size, flipped(root, 9), *rest))})
    assert len(bad) > 200
    assert "" not in judge(bad)


def test_neighbour_is_not_proven(proofs: list[dict[str, Any]]) -> None:
    moved = [good | {"index": good["index"] + 1} for good in proofs]
    assert "" not in judge(moved)
