"""Bundles of a log whose signing key has changed: the auditor's older key leads to the new one, or to nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.cli.conftest import Run
from tests.evidence.place import Members, Place, at, forge, members

from gatebook.errors import LedgerError, Tampered
from gatebook.evidence.check import Checked, check
from gatebook.ledger.keys import load_signer, load_verifier
from gatebook.ledger.note import Signer, Verifier, sign_note

HOUR = ("--since", at(30), "--until", at(90))


@pytest.fixture
def place(tmp_path: Path) -> Place:
    made = Place(tmp_path / "acme")
    made.two_hours()
    return made


@pytest.fixture
def old(place: Place) -> Verifier:
    return load_verifier(place.paths.keys)


def export(run: Run, place: Place, out: Path) -> Path:
    ran = run("bundle", "-o", str(out), "-c", str(place.config), *HOUR)
    assert ran.code == 0, ran.err
    return out


def rotate(run: Run, place: Place) -> None:
    """And end the time in which both keys sign."""
    for command in ("rotate", "retire"):
        ran = run("keys", command, "-c", str(place.config))
        assert ran.code == 0, ran.err


def checked(path: Path, key: Verifier) -> Checked:
    return check(path, key, lambda _done, _total: None)


def test_key_of_an_auditor_leads_to_those_that_came_after_it(
    run: Run, place: Place, old: Verifier, tmp_path: Path
) -> None:
    rotate(run, place)
    rotate(run, place)
    path = export(run, place, tmp_path / "e.zip")
    result = checked(path, old)
    assert result.report.findings == []
    (said,) = [text for text in result.report.rests_on if "KEY entries lead" in text]
    assert said.count(" to ") == 3
    newest = load_verifier(place.paths.keys)
    assert newest != old
    assert not any("KEY" in text for text in checked(path, newest).report.rests_on)


def test_range_from_before_a_rotation_is_proven_by_the_new_key(
    run: Run, place: Place, old: Verifier, tmp_path: Path
) -> None:
    export(run, place, tmp_path / "1.zip")
    rotate(run, place)
    path = export(run, place, tmp_path / "2.zip")
    assert checked(path, load_verifier(place.paths.keys)).report.findings == []
    assert checked(path, old).report.findings == []
    assert export(run, place, tmp_path / "3.zip").read_bytes() == path.read_bytes()


def test_key_that_no_entry_introduces_is_refused_whatever_log_keys_says(
    run: Run, place: Place, old: Verifier, tmp_path: Path
) -> None:
    rotate(run, place)
    thief = Signer(old.name, b"t" * 32)

    def change(held: Members) -> None:
        text = held["log/checkpoint"].decode().partition("\n\n")[0] + "\n"
        held["log/checkpoint"] = sign_note(text, thief)
        held["log/keys"] += thief.vkey.encode() + b"\n"
        held["log.pub"] = thief.vkey.encode() + b"\n"

    with pytest.raises(Tampered, match="to which no KEY entry leads"):
        checked(forge(export(run, place, tmp_path / "e.zip"), change), old)


def test_bundle_without_its_keys_is_not_proven_to_an_older_key(
    run: Run, place: Place, old: Verifier, tmp_path: Path
) -> None:
    rotate(run, place)

    def change(held: Members) -> None:
        del held["log/keys"]

    path = export(run, place, tmp_path / "e.zip")
    assert "log/keys" in members(path)
    with pytest.raises(LedgerError):
        checked(forge(path, change), old)


@pytest.mark.parametrize("listed", [True, False])
def test_superseded_key_signs_for_nothing_that_came_after_it(
    run: Run, place: Place, old: Verifier, tmp_path: Path, listed: bool
) -> None:
    """Not even to an auditor who has that key, nor when the bundle hides which one came next."""
    thief = load_signer(place.paths.keys)
    rotate(run, place)

    def change(held: Members) -> None:
        text = held["log/checkpoint"].decode().partition("\n\n")[0] + "\n"
        held["log/checkpoint"] = sign_note(text, thief)
        held["log.pub"] = old.vkey.encode() + b"\n"
        if not listed:
            del held["log/keys"]

    path = forge(export(run, place, tmp_path / "e.zip"), change)
    with pytest.raises(Tampered, match="it is the turn of key"):
        checked(path, old)
