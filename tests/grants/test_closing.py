"""A grant that has ended: counted from the ledger, told once, whatever dies in between."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.access.ledger import decision
from tests.cli.logged import Logged
from tests.identity.test_grant import ANN, BOB, TERMS

from gatebook import record
from gatebook.config.load import load
from gatebook.errors import EnvironmentFault
from gatebook.grants import closing
from gatebook.identity import grant_file
from gatebook.ledger import keys
from gatebook.ledger.protect import protect
from gatebook.ledger.read import Reader

T0 = 1_700_000_000  # when the requests of the ledger were made


class Place(Logged):
    """A deployment with a grant of ten minutes from T0 + 5 on."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.configuration = load(self.config)
        made = grant_file.request(
            self.paths.grants,
            TERMS["admin"],
            role="admin",
            provider="partners",
            key="ab" * 32,
            shown="alice",
            seconds=600.0,
            reason="incident",
            by=ANN,
            now=T0,
            random=os.urandom,
            announce=lambda _: None,
        )
        self.grant = grant_file.decide(
            self.paths.grants, made.id, "approved", terms=TERMS.get, by=BOB, now=T0 + 5, announce=lambda _: None
        )

    def access(self, number: int, *grants: str) -> None:
        made = decision(number)
        self.add(msgspec.structs.replace(made, decision=msgspec.structs.replace(made.decision, grants=grants)))

    def close(self, now: float = T0 + 700) -> list[str]:
        return closing.close_ended(self.configuration, self.paths, now)

    def told(self) -> list[dict[str, Any]]:
        opened = Reader(self.paths.ledger, "acme/node-1", self.paths.deks, keys.load_reader(self.paths.keys))
        found = [record.decode(data) for _, data in opened.forwards(0)]
        return [
            each.detail for each in found if isinstance(each, record.Admin) and each.action == "grant.complete"
        ]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_ended_grant_is_completed_with_the_number_of_accesses_under_it(place: Place) -> None:
    for number in (10, 11, 12):
        place.access(number, place.grant.id)
    place.access(13, "zzzzzzzz")
    place.access(14)
    assert place.close() == [place.grant.id]
    (told,) = place.told()
    assert (told["id"], told["accesses"], told["role"]) == (place.grant.id, 3, "admin")
    assert grant_file.read(place.paths.grants)[0].completed


def test_grant_in_force_or_just_ended_is_not_completed_yet(place: Place) -> None:
    assert place.close(T0 + 300) == place.close(T0 + 606) == []
    assert place.told() == []


def test_revoked_grant_is_completed_too(place: Place) -> None:
    grant_file.revoke(place.paths.grants, place.grant.id, by=BOB, now=T0 + 10, announce=lambda _: None)
    assert place.close(T0 + 60) == [place.grant.id]
    assert len(place.told()) == 1


def test_grant_is_completed_once_over_restarts_and_a_clock_that_goes_back(place: Place) -> None:
    assert place.close() == [place.grant.id]
    assert place.close() == place.close(T0 + 300) == place.close(T0 + 9000) == []
    assert len(place.told()) == 1


def test_death_between_the_entry_and_the_file_makes_no_second_entry(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.access(10, place.grant.id)

    replace = Path.replace

    def full(path: Path, target: Path) -> Path:
        if target == place.paths.grants:
            raise OSError(28, "No space left on device")
        return replace(path, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", full)
        with pytest.raises(EnvironmentFault):
            place.close()
    assert not grant_file.read(place.paths.grants)[0].completed
    assert len(place.told()) == 1
    assert place.close() == [place.grant.id]
    assert len(place.told()) == 1


def test_without_the_readers_key_the_entry_says_that_nothing_was_counted(place: Place) -> None:
    key = place.paths.keys / keys.READER_KEY
    key.rename(place.config.parent / "away")
    assert place.close() == [place.grant.id]
    (place.config.parent / "away").rename(key)
    (told,) = place.told()
    assert "accesses" not in told
    assert "reader's key" in told["not_counted"]


def test_readers_key_under_a_passphrase_is_asked_of_nobody_and_counts_nothing(place: Place) -> None:
    """It runs by itself, so there is nobody to type."""
    path = place.paths.keys / keys.READER_KEY
    plain = path.read_bytes()
    path.write_bytes(protect(keys.load_reader(path).key, b"correct horse battery", bytes(16), bytes(16)))
    assert place.close() == [place.grant.id]
    path.write_bytes(plain)
    (told,) = place.told()
    assert "accesses" not in told
    assert "lies open" in told["not_counted"]


def test_record_of_another_version_does_not_stop_the_count(place: Place) -> None:
    place.access(10, place.grant.id)
    opened = Reader(place.paths.ledger, "acme/node-1", place.paths.deks, keys.load_reader(place.paths.keys))
    strange = [(99, f'{{"v":2,"of":"{place.grant.id}"}}'.encode())]

    class Newer:
        gaps = opened.gaps

        def backwards(self) -> Any:
            yield from strange
            yield from opened.backwards()

    assert closing.count(Newer(), place.grant) == closing.Count(1, told=False)
