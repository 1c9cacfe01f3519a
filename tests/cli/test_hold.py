"""`gatebook hold …`: what comes into force, what is on record first, and that no name is ever shown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.cli.conftest import Run
from tests.cli.test_revoke import Deployment

from gatebook import holds


class Holding(Deployment):
    def hold(self, *arguments: str) -> Any:
        return self._run("hold", *arguments, "-c", str(self.config))

    @property
    def held(self) -> tuple[holds.Hold, ...]:
        return holds.read(self.paths.holds)


@pytest.fixture
def acme(tmp_path: Path, run: Run) -> Holding:
    return Holding(tmp_path, run)


def test_hold_and_its_end_are_on_record(acme: Holding) -> None:
    ran = acme.hold("add", "--since", "2026-03-01", "--until", "2026-06-01", "--reason", "case 24-117")
    assert ran.code == 0, ran.err
    (made,) = acme.held
    assert ran.out.startswith(made.id)
    listed = acme.hold("list", "--json").json()["holds"]
    assert [(each["holds"], each["since"], each["reason"]) for each in listed] == [
        ("a time", "2026-03-01T00:00:00Z", "case 24-117")
    ]
    assert acme.hold("release", made.id, "--reason", "closed").code == 0
    assert acme.held == ()
    said = [(each["action"], each["detail"]) for each in acme.records()]
    ended = ("hold.release", made.detail() | {"released": "closed"})
    assert sorted(said, key=str) == [("hold.add", made.detail()), ended]
    assert all(each["actor"].startswith("os:") for each in acme.records())


def test_person_is_held_by_pseudonym_and_never_named(acme: Holding) -> None:
    pseudonym = acme.pseudonym("alice@example.com")
    ran = acme.hold("add", "--subject", "alice@example.com", "--identity", "staff", "--reason", "complaint")
    assert ran.code == 0, ran.err
    (made,) = acme.held
    assert made.person is not None
    assert made.person.names == {pseudonym, acme.keys.name("subject", "staff", "alice@example.com")}
    for shown in (acme.paths.holds.read_text(), json.dumps(acme.records()), acme.hold("list").out):
        assert "alice" not in shown
        assert pseudonym in shown
    assert acme.hold("add", "--subject", pseudonym, "--reason", "complaint").code == 0
    assert acme.held[1].person == holds.Person(provider=None, key=made.person.key, pseudonym=pseudonym)


def test_person_is_not_named_where_records_hold_clear_names_either(acme: Holding) -> None:
    acme.configuration["audit"] = {"subject": "keep"}
    acme.write()
    assert acme.hold("add", "--subject", "alice", "--identity", "staff", "--reason", "complaint").code == 0
    for shown in (acme.paths.holds.read_text(), json.dumps(acme.records()), acme.hold("list", "--json").out):
        assert "alice" not in shown


@pytest.mark.parametrize("arguments", [(), ("--everything", "--since", "3d"), ("--since", "yesterday")])
def test_hold_on_nothing_in_particular_is_refused(acme: Holding, arguments: tuple[str, ...]) -> None:
    ran = acme.hold("add", *arguments, "--reason", "case")
    assert ran.code == 2
    assert acme.held == ()


def test_everything_can_be_held(acme: Holding) -> None:
    assert acme.hold("add", "--everything", "--reason", "case").code == 0
    assert [each["holds"] for each in acme.hold("list", "--json").json()["holds"]] == ["everything"]
    assert acme.hold("list").out.count("everything") == 1
