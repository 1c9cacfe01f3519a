"""Grants: who may ask and approve, what they give, and everything that must not make one."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.identity.deployment import KEYS

from gatebook import kept
from gatebook.config.model import Grantable
from gatebook.errors import EnvironmentFault, GatebookError
from gatebook.identity import grant_file
from gatebook.identity.grant import REQUEST_TTL_S, Grant, Held, Seen
from gatebook.identity.grant_file import Person
from gatebook.identity.types import Identity

NOW = 1_800_000_000.0
ANN, BOB, EVE = Person("os:1000", "ann"), Person("os:1001", "bob"), Person("os:1002", "eve")
TERMS = {"admin": Grantable(role="admin", max=3600.0, approve=["ann", "bob"])}
ALICE = Identity(
    provider="staff",
    method="oidc",
    subject="alice",
    roles=("reader",),
    credential_sha256=bytes(32),
    expires_at=NOW,
)
Said = list[Grant]


class File:
    """The grants of a state folder, with each announcement."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "grants.json"
        self.said: Said = []

    def request(self, by: Person = ANN, **changed: Any) -> Grant:
        provider = changed.get("provider", "staff")
        fields: dict[str, Any] = {
            "role": "admin",
            "provider": provider,
            "key": KEYS.name("subject", provider, "alice"),
            "shown": "alice",
            "seconds": 600.0,
            "reason": "incident",
            "now": NOW,
        }
        fields |= changed
        terms = TERMS.get(fields["role"])
        return grant_file.request(self.path, terms, by=by, random=os.urandom, announce=self.said.append, **fields)

    def approve(self, grant: Grant, by: Person = BOB, now: float = NOW + 5) -> Grant:
        return grant_file.decide(
            self.path, grant.id, "approved", terms=TERMS.get, by=by, now=now, announce=self.said.append
        )

    def deny(self, grant: Grant, by: Person = BOB) -> Grant:
        return grant_file.decide(
            self.path, grant.id, "denied", terms=TERMS.get, by=by, now=NOW + 5, announce=self.said.append
        )

    def held(self) -> Held:
        return Held(grant_file.read(self.path), KEYS)

    def roles(
        self, now: float = NOW + 6, who: Identity = ALICE, terms: dict[str, Grantable] = TERMS
    ) -> tuple[str, ...]:
        return self.held().gain(who, terms, Seen(), now, 0.0).roles


@pytest.fixture
def file(tmp_path: Path) -> File:
    return File(tmp_path)


def test_grant_gives_its_role_from_its_approval_until_its_end(file: File) -> None:
    made = file.request()
    assert file.roles() == ("reader",)
    file.approve(made)
    assert file.roles(NOW + 4) == ("reader",)
    assert file.roles(NOW + 5) == file.roles(NOW + 604) == ("reader", "admin")
    assert file.roles(NOW + 605) == ("reader",)
    gained = file.held().gain(ALICE, TERMS, Seen(), NOW + 6, 0.0)
    assert gained.grants == ((made.id, "admin"),)


def test_every_step_is_announced_before_it_is_in_effect(file: File) -> None:
    made = file.request()

    def refuse(_: Grant) -> None:
        raise EnvironmentFault("the recorder is gone")

    with pytest.raises(EnvironmentFault):
        grant_file.decide(file.path, made.id, "approved", terms=TERMS.get, by=BOB, now=NOW, announce=refuse)
    assert file.roles() == ("reader",)
    file.approve(made)
    assert [each.decision for each in file.said] == [None, "approved"]


def test_own_request_cannot_be_approved(file: File) -> None:
    with pytest.raises(GatebookError, match="somebody else"):
        file.approve(file.request(by=ANN), by=ANN)
    assert file.roles() == ("reader",)


def test_own_request_cannot_be_approved_under_another_name_of_the_same_user(file: File) -> None:
    with pytest.raises(GatebookError, match="somebody else"):
        file.approve(file.request(by=ANN), by=Person(ANN.actor, "bob"))


def test_approval_by_somebody_without_the_right_to_is_refused(file: File) -> None:
    with pytest.raises(GatebookError, match="eve may not"):
        file.approve(file.request(), by=EVE)
    with pytest.raises(GatebookError, match="eve may not"):
        file.deny(file.request(), by=EVE)


def test_request_cannot_be_approved_twice(file: File) -> None:
    made = file.request()
    file.approve(made)
    with pytest.raises(GatebookError, match="in force, not requested"):
        file.approve(made, now=NOW + 500)
    assert file.roles(NOW + 700) == ("reader",)


def test_grant_that_is_over_cannot_be_approved_again(file: File) -> None:
    made = file.request()
    file.approve(made)
    with pytest.raises(GatebookError, match="over, not requested"):
        file.approve(made, now=NOW + 6000)


def test_denied_request_cannot_be_approved(file: File) -> None:
    made = file.request()
    file.deny(made)
    with pytest.raises(GatebookError, match="denied, not requested"):
        file.approve(made)


def test_expired_request_cannot_be_approved(file: File) -> None:
    with pytest.raises(GatebookError, match="expired, not requested"):
        file.approve(file.request(), now=NOW + REQUEST_TTL_S)


def test_request_cannot_be_approved_before_it_was_made_by_a_clock_that_went_back(file: File) -> None:
    with pytest.raises(GatebookError, match="expired, not requested"):
        file.approve(file.request(), now=NOW - 60)


@pytest.mark.parametrize("changed", [{"role": "root"}, {"seconds": 3601.0}, {"seconds": 0.5}, {"reason": ""}])
def test_grant_of_an_unknown_role_or_beyond_its_maximum_cannot_be_asked_for(
    file: File, changed: dict[str, Any]
) -> None:
    with pytest.raises(GatebookError, match="nothing was asked for"):
        file.request(**changed)
    assert file.said == []


def test_same_named_subject_of_another_provider_gains_nothing(file: File) -> None:
    file.approve(file.request())
    assert file.roles(who=msgspec.structs.replace(ALICE, provider="partners")) == ("reader",)
    assert file.roles(who=msgspec.structs.replace(ALICE, subject="alice2")) == ("reader",)


def test_clock_that_goes_back_does_not_bring_an_ended_grant_back(file: File) -> None:
    file.approve(file.request())
    held, seen = file.held(), Seen()
    assert held.gain(ALICE, TERMS, seen, NOW + 6, 0.0).grants
    assert not held.gain(ALICE, TERMS, seen, NOW + 700, 1.0).grants
    assert not held.gain(ALICE, TERMS, seen, NOW + 6, 2.0).grants


def test_clock_that_goes_back_does_not_make_a_grant_last_longer(file: File) -> None:
    file.approve(file.request())
    held, seen = file.held(), Seen()
    assert held.gain(ALICE, TERMS, seen, NOW + 6, 0.0).grants
    assert held.gain(ALICE, TERMS, seen, NOW + 7, 598.0).grants
    assert not held.gain(ALICE, TERMS, seen, NOW + 8, 599.0).grants


def test_completed_grant_gives_nothing_whatever_the_clock_says(file: File) -> None:
    made = file.request()
    file.approve(made)
    grant_file.complete(file.path, made.id, file.said.append)
    assert file.roles() == ("reader",)
    with pytest.raises(GatebookError, match="completed"):
        grant_file.complete(file.path, made.id, file.said.append)


def test_revoked_grant_gives_nothing(file: File) -> None:
    made = file.request()
    file.approve(made)
    grant_file.revoke(file.path, made.id, by=EVE, now=NOW + 6, announce=file.said.append)
    assert file.roles() == ("reader",)
    with pytest.raises(GatebookError, match="revoked, not in force"):
        grant_file.revoke(file.path, made.id, by=EVE, now=NOW + 7, announce=file.said.append)


@pytest.mark.parametrize(
    "terms",
    [
        {},
        {"admin": Grantable(role="admin", max=599.0, approve=["bob"])},
        {"admin": Grantable(role="admin", max=3600.0, approve=["ann"])},
        {"other": Grantable(role="other", max=3600.0, approve=["bob"])},
    ],
)
def test_grant_that_the_configuration_no_longer_allows_gives_nothing(
    file: File, terms: dict[str, Grantable]
) -> None:
    file.approve(file.request())
    assert file.roles(terms=terms) == ("reader",)


def loosened(path: Path) -> None:
    path.chmod(0o640)


def linked(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to(path.with_name("elsewhere"))


def spaced(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b": ", b":  ", 1))


def rewritten(path: Path, **changed: Any) -> None:
    """As gatebook writes it, by somebody who can."""
    document = kept.read(path, grant_file.KIND).document
    grants = tuple(msgspec.structs.replace(each, **changed) for each in document.grants)
    data = msgspec.json.format(msgspec.json.encode(msgspec.structs.replace(document, grants=grants)), indent=1)
    path.write_bytes(data + b"\n")


def self_approved(path: Path) -> None:
    rewritten(path, decided_by="os:1000")


def half_decided(path: Path) -> None:
    rewritten(path, decided_by=None)


def decided_long_after(path: Path) -> None:
    rewritten(path, decided=int(NOW) + 2 * REQUEST_TTL_S)


def endless(path: Path) -> None:
    rewritten(path, seconds=1 << 40)


def removed(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize(
    "tamper",
    [loosened, linked, spaced, self_approved, half_decided, decided_long_after, endless, removed],
    ids=lambda each: each.__name__,
)
def test_grants_file_that_was_tampered_with_or_loosened_grants_nothing(
    file: File, tamper: Callable[[Path], None]
) -> None:
    file.approve(file.request())
    watch = kept.Watch(file.path, grant_file.KIND, lambda document: Held(document.grants, KEYS))
    watch.poll()
    assert watch.value
    tamper(file.path)
    watch.poll()
    assert watch.value is None
    with pytest.raises(EnvironmentFault):
        grant_file.read(file.path)


def test_grants_file_rewritten_beyond_what_the_configuration_allows_grants_nothing(file: File) -> None:
    file.approve(file.request())
    rewritten(file.path, seconds=7 * 86_400)
    assert file.roles() == ("reader",)
    rewritten(file.path, seconds=600, approver="eve")
    assert file.roles() == ("reader",)


def test_what_is_long_over_is_forgotten_and_what_is_not_completed_is_not(file: File) -> None:
    kept_one = file.request()
    file.approve(kept_one)
    file.request()
    file.request(now=NOW + 40 * 86_400)
    first, _ = grant_file.read(file.path)
    assert first.id == kept_one.id
