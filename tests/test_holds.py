"""Holds: what each kind forbids, and that nothing is erased while they cannot be told. The file: tests/kept."""

from __future__ import annotations

import secrets
import threading
from pathlib import Path
from typing import Any

import pytest

from gatebook import holds, kept
from gatebook.errors import EnvironmentFault, GatebookError, RecorderUnavailable
from gatebook.holds import NOBODY, Hold, Person, add, blocking, read, refuse, release, standing
from gatebook.kept import file

ALICE = Person(provider="staff", key="a1" * 32, pseudonym="0a" * 16)
BOB = Person(provider="staff", key="b0" * 32, pseudonym=None)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "holds.json"


def quiet(entry: Hold) -> None:
    """Announces to nobody."""


def hold(path: Path, **changed: Any) -> Hold:
    known: dict[str, Any] = {
        "person": None,
        "since_us": None,
        "until_us": None,
        "reason": "case 24-117",
        "by": "os:1000",
        "now": 1_800_000_000.0,
        "random": secrets.token_bytes,
        "announce": quiet,
    }
    return add(path, **known | changed)


def test_what_is_held_stays_until_it_is_released(path: Path) -> None:
    one, two = hold(path), hold(path, person=ALICE, since_us=5)
    assert read(path) == (one, two)
    assert release(path, one.id, announce=quiet) == one
    assert read(path) == (two,)
    with pytest.raises(GatebookError, match=f"no hold {one.id}"):
        release(path, one.id, announce=quiet)


def test_hold_on_everything_forbids_every_erasure(path: Path) -> None:
    made = [hold(path)]
    assert blocking(made) == made
    assert blocking(made, times_us=(3, 4)) == made
    assert blocking(made, names=ALICE.names) == made
    assert blocking(made, times_us=(3, 4), names=NOBODY) == made
    with pytest.raises(GatebookError, match=rf"^nothing was erased: held by {made[0].id} \(case 24-117\)"):
        refuse(made)


@pytest.mark.parametrize(
    ("times", "held"), [((0, 9), False), ((0, 10), True), ((12, 14), True), ((19, 30), True), ((20, 30), False)]
)
def test_hold_on_a_time_begins_with_its_first_moment_and_ends_before_its_last(
    path: Path, times: tuple[int, int], held: bool
) -> None:
    made = [hold(path, since_us=10, until_us=20)]
    assert bool(blocking(made, times_us=times)) == held


def test_nobody_is_forgotten_while_a_time_is_held(path: Path) -> None:
    made = [hold(path, since_us=10, until_us=20)]
    assert blocking(made, names=BOB.names) == made


@pytest.mark.parametrize("names", [ALICE.names, {ALICE.key}, {ALICE.pseudonym, "ff" * 16}])
def test_person_is_held_under_every_name(path: Path, names: set[str]) -> None:
    made = [hold(path, person=ALICE)]
    assert blocking(made, names=frozenset(names)) == made
    assert not blocking(made, names=BOB.names)
    assert not blocking(made, times_us=(3, 4), names=NOBODY)


def test_records_of_unknown_persons_are_held_with_anybody(path: Path) -> None:
    made = [hold(path, person=ALICE, since_us=10)]
    assert blocking(made, times_us=(8, 12)) == made
    assert not blocking(made, times_us=(8, 9))


def test_hold_that_no_record_could_be_made_of_is_not_in_force(path: Path) -> None:
    def refused(entry: Hold) -> None:
        raise RecorderUnavailable("no answer")

    with pytest.raises(RecorderUnavailable):
        hold(path, announce=refused)
    assert read(path) == ()
    made = hold(path)
    with pytest.raises(RecorderUnavailable):
        release(path, made.id, announce=refused)
    assert read(path) == (made,)


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"since_us": 20, "until_us": 20}, "ends before it begins"),
        ({"reason": ""}, "length"),
        ({"reason": "case\n24"}, "not printable"),
        ({"by": "alice"}, "regex"),
    ],
)
def test_hold_that_makes_no_sense_is_refused(path: Path, changed: dict[str, Any], why: str) -> None:
    with pytest.raises(GatebookError, match=f"nothing is held: .*{why}"):
        hold(path, **changed)
    assert read(path) == ()


def test_mistyped_id_is_refused(path: Path) -> None:
    with pytest.raises(GatebookError, match=r"^that is no hold's id"):
        release(path, "../../x", announce=quiet)


@pytest.mark.parametrize("damage", [b"", b"{}", b'{"version": 1, "holds": []}', b'{"version":2,"holds":[]}'])
def test_nothing_is_erased_by_a_file_that_is_broken(path: Path, damage: bytes) -> None:
    hold(path)
    path.write_bytes(damage)
    with pytest.raises(EnvironmentFault, match="not as gatebook writes it"), standing(path):
        pytest.fail("it was taken for good")


def test_removed_file_is_no_release(path: Path) -> None:
    hold(path)
    path.unlink()
    with pytest.raises(EnvironmentFault, match="is gone, with holds that were in effect"), standing(path):
        pytest.fail("it was taken for good")


def test_hold_that_stands_in_the_file_twice_is_refused(path: Path) -> None:
    made = hold(path)
    with kept.change(path, holds.KIND) as change:
        change.become(holds.Document(version=1, holds=(made, made)), lambda: None)
    with pytest.raises(EnvironmentFault, match="twice"):
        read(path)


def test_nothing_is_erased_while_a_hold_is_being_added(path: Path) -> None:
    """Whoever adds waits for the recorder, so the recorder may not wait for whoever adds."""
    told, go_on = threading.Event(), threading.Event()

    def slow(entry: Hold) -> None:
        told.set()
        assert go_on.wait(10)

    adding = threading.Thread(target=lambda: hold(path, announce=slow))
    adding.start()
    assert told.wait(10)
    with pytest.raises(EnvironmentFault, match="another `gatebook hold` holds it"), standing(path):
        pytest.fail("an erasure overtook a hold that is on record")
    go_on.set()
    adding.join()
    with standing(path) as found:
        assert len(found) == 1


def test_no_hold_comes_while_something_is_being_erased(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file, "LOCK_PATIENCE_S", 0.0)
    with standing(path) as found, pytest.raises(EnvironmentFault, match="another `gatebook hold` holds it"):
        hold(path)
    assert found == ()
