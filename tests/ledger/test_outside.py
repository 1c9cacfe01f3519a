"""Level 3, by attack: what passes every local check is held against what somebody outside has kept."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest
from tests.ledger.forge import ORIGIN, Forge
from tests.ledger.test_verify import check, found, large, small

from gatebook.errors import EnvironmentFault
from gatebook.ledger.note import Checkpoint, Signer, sign_note
from gatebook.ledger.tree import Builder, leaf_hashes
from gatebook.ledger.verify import Outside, Report, verify
from gatebook.ledger.verify.outside import read_kept


@pytest.fixture
def forge(tmp_path: Path) -> Forge:
    return small(tmp_path / "state")


def keep(forge: Forge, to: Path, size: int | None = None) -> Path:
    """The checkpoint over the first `size` entries, as an auditor took it away then."""
    builder = Builder()
    builder.extend(leaf_hashes(forge.entries[:size]))
    to.write_bytes(sign_note(Checkpoint(ORIGIN, builder.size, builder.root()).text(), forge.signer))
    return to


def held(forge: Forge, *kept: Path, lock: bool = True) -> Report:
    outside = Outside(kept=[read_kept(path, ORIGIN) for path in kept])
    return verify(forge.ledger, forge.verifier, lock=forge.lock if lock else None, outside=outside)


# -- checkpoints that were kept -----------------------------------------------------------------------------
def test_log_that_grew_since_is_the_same_log(forge: Forge, tmp_path: Path) -> None:
    report = held(forge, keep(forge, tmp_path / "monday", 6), keep(forge, tmp_path / "friday", 9))
    assert report.findings == []
    assert report.levels[3] == "passed"
    assert any("entries 0 to 5 are those of" in text and "monday" in text for text in report.rests_on)
    assert any(text.startswith("entry 9 rest") and "alone" in text for text in report.rests_on)
    assert any("if it holds 9 entries" in text for text in report.rests_on)


def test_nothing_rests_on_the_key_alone_when_the_newest_checkpoint_was_kept(forge: Forge, tmp_path: Path) -> None:
    report = held(forge, keep(forge, tmp_path / "now"))
    assert report.findings == []
    assert not any("alone" in text for text in report.rests_on)


def test_every_size_is_compared_and_one_of_an_empty_log_vouches_for_nothing(tmp_path: Path) -> None:
    forge = small(tmp_path / "state")
    for size in range(len(forge.entries) + 1):
        report = held(forge, keep(forge, tmp_path / "kept", size))
        assert report.findings == []
        assert report.levels[3] == "passed"
    assert any("rest on the signature" in text for text in held(forge, keep(forge, tmp_path / "none", 0)).rests_on)


def test_sizes_within_tiles_of_a_large_log_are_compared(tmp_path: Path) -> None:
    forge = large(tmp_path / "state")
    sizes = (1, 255, 256, 257, 40_000, 65_535, 65_536, 65_537, len(forge.entries))
    assert held(forge, *(keep(forge, tmp_path / str(size), size) for size in sizes)).findings == []
    wrong = Checkpoint(ORIGIN, 40_000, bytes(32))
    (tmp_path / "wrong").write_bytes(sign_note(wrong.text(), forge.signer))
    assert found(held(forge, tmp_path / "wrong")) == [(3, "tampered", str(tmp_path / "wrong"))]


def test_ledger_put_back_from_yesterday_is_tampering(tmp_path: Path) -> None:
    """Lock, keys, tiles, segments: all of it, as it was. No local check can tell."""
    forge = Forge(tmp_path / "state")
    forge.boot()
    forge.records(b'{"a":1}')
    forge.publish()
    shutil.copytree(tmp_path / "state", tmp_path / "yesterday")
    forge.records(b'{"b":2}')
    forge.publish()
    kept = keep(forge, tmp_path / "kept")
    shutil.rmtree(tmp_path / "state")
    shutil.move(tmp_path / "yesterday", tmp_path / "state")
    assert check(forge).findings == []
    report = held(forge, kept)
    assert found(report) == [(3, "tampered", str(kept))]
    assert report.exit_code == 12
    assert "promises 3 entries, but this ledger is signed for 2" in report.findings[0].what


def test_log_that_was_written_anew_with_the_same_key_is_tampering(tmp_path: Path) -> None:
    def history(folder: Path, body: bytes) -> Forge:
        made = Forge(folder)
        made.boot()
        made.records(body)
        made.publish()
        return made

    kept = keep(history(tmp_path / "first", b'{"verdict":"deny"}'), tmp_path / "kept")
    rewritten = history(tmp_path / "second", b'{"verdict":"allow"}')
    assert check(rewritten).findings == []
    report = held(rewritten, kept)
    assert found(report) == [(3, "tampered", str(kept))]
    assert "two histories" in report.findings[0].consequence
    assert not any("verified up to" in text for text in report.rests_on)


def test_checkpoint_that_cannot_be_compared_for_want_of_a_tile_is_damage_not_consent(tmp_path: Path) -> None:
    forge = large(tmp_path / "state")
    (forge.ledger / "log" / "tile" / "0" / "001").unlink()
    kept = keep(forge, tmp_path / "kept", 300)
    assert (3, "damaged", str(kept)) in found(held(forge, kept))


def unsigned(forge: Forge) -> bytes:
    return Checkpoint(ORIGIN, 3, bytes(32)).text().encode()


def foreign(forge: Forge) -> bytes:
    stranger = Signer.generate(ORIGIN, b"f" * 32)
    return sign_note(Checkpoint(ORIGIN, 3, bytes(32)).text(), stranger)


def of_another_log(forge: Forge) -> bytes:
    return sign_note(Checkpoint("acme/node-2", 3, bytes(32)).text(), Signer.generate("acme/node-2", b"f" * 32))


def with_another_root(forge: Forge) -> bytes:
    note = sign_note(Checkpoint(ORIGIN, 3, hashlib.sha256().digest()).text(), forge.signer)
    return note.replace(b"\n3\n", b"\n4\n")


@pytest.mark.parametrize(
    ("forged", "words"),
    [
        (lambda _: b"", "not a checkpoint"),
        (lambda _: b"\xff" * 100, "not a checkpoint"),
        (lambda _: b"a" * (1 << 20), "longer than"),
        (unsigned, "not a checkpoint"),
        (foreign, "not signed by this log's key"),
        (of_another_log, "another log, acme/node-2"),
        (with_another_root, "signature is not for this text"),
    ],
)
def test_file_that_is_no_checkpoint_of_this_log_says_nothing_of_the_ledger(
    forge: Forge, tmp_path: Path, forged: object, words: str
) -> None:
    assert callable(forged)
    kept = tmp_path / "kept"
    kept.write_bytes(forged(forge))
    with pytest.raises(EnvironmentFault, match=words) as raised:
        held(forge, kept)
    assert str(kept) in str(raised.value)


def test_missing_file_is_said_to_be_missing(forge: Forge, tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFault, match=r"nowhere: .*is missing"):
        held(forge, tmp_path / "nowhere")
