"""The file of revocations: what is added, dropped and undone, and when. The file as such: tests/kept."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.identity.deployment import KEYS

from gatebook.errors import EnvironmentFault, GatebookError, RecorderUnavailable
from gatebook.identity import revocation_file
from gatebook.identity.revocation import Revocation
from gatebook.identity.revocation_file import AUTOMATIC_GRACE_S, GRACE_S, add, read, undo

NOW = 1_800_000_000.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "revocations.json"


def quiet(entry: Revocation) -> None:
    """Announces to nobody."""


def revoke(path: Path, subject: str = "alice", **changed: Any) -> tuple[Revocation, bool]:
    known: dict[str, Any] = {
        "what": "subject",
        "key": KEYS.name("subject", "staff", subject),
        "provider": "staff",
        "shown": subject,
        "reason": "left the company",
        "actor": "os:1000",
        "now": NOW,
        "random": secrets.token_bytes,
        "announce": quiet,
    }
    known |= changed
    return add(path, known.pop("what"), known.pop("key"), **known)


def test_what_is_added_stays(path: Path) -> None:
    one, new = revoke(path)
    assert new
    two, _ = revoke(path, "bob", before=NOW, until=NOW + 60)
    assert read(path) == (one, two)
    assert (two.before, two.until, two.created) == (int(NOW), int(NOW) + 60, int(NOW))


def test_name_stands_in_no_clear_text(path: Path) -> None:
    revoke(path, "alice@example.com", shown="0123abcd")
    assert "alice" not in path.read_text()


def test_undone_revocation_is_gone(path: Path) -> None:
    one, _ = revoke(path)
    two, _ = revoke(path, "bob")
    assert undo(path, one.id, announce=quiet) == one
    assert read(path) == (two,)
    with pytest.raises(GatebookError, match=f"no revocation {one.id}"):
        undo(path, one.id, announce=quiet)


def test_mistyped_id_is_not_shown_again(path: Path) -> None:
    with pytest.raises(GatebookError, match=r"^that is no revocation's id"):
        undo(path, "eyJhbGciOi", announce=quiet)


def test_same_again_changes_and_announces_nothing(path: Path) -> None:
    first, _ = revoke(path)
    told: list[Revocation] = []
    assert revoke(path, reason="again", announce=told.append) == (first, False)
    assert revoke(path, before=NOW, until=NOW + 5, announce=told.append) == (first, False)
    assert not told


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({"until": NOW + 60}, {}),
        ({"until": NOW + 60}, {"until": NOW + 61}),
        ({"before": NOW}, {}),
        ({"before": NOW}, {"before": NOW + 1}),
        ({"before": NOW}, {"before": NOW + 1, "until": NOW + 60}),
    ],
)
def test_what_refuses_more_is_added(path: Path, old: dict[str, Any], new: dict[str, Any]) -> None:
    revoke(path, **old)
    assert revoke(path, **new)[1]


def test_what_is_over_is_dropped_but_late(path: Path) -> None:
    ending, _ = revoke(path, "ending", until=NOW + 60)
    lasting, _ = revoke(path, "lasting")
    revoke(path, "bob", now=NOW + 59 + GRACE_S)
    assert ending in read(path)
    revoke(path, "carol", now=NOW + 60 + GRACE_S)
    assert ending not in read(path)
    assert lasting in read(path)


def test_what_no_person_made_is_dropped_sooner(path: Path) -> None:
    entry, _ = revoke(path, until=NOW + 60, actor="portal")
    revoke(path, "bob", now=NOW + 59 + AUTOMATIC_GRACE_S)
    assert entry in read(path)
    revoke(path, "carol", now=NOW + 60 + AUTOMATIC_GRACE_S)
    assert entry not in read(path)


def test_clock_that_runs_ahead_for_an_hour_forgets_nothing(path: Path) -> None:
    entry, _ = revoke(path, until=NOW + 60)
    revoke(path, "bob", now=NOW + 3600)
    assert entry in read(path)


@pytest.mark.parametrize(
    "changed",
    [
        {"reason": ""},
        {"reason": "two\nlines"},
        {"reason": "r" * 301},
        {"what": "all", "key": ""},
        {"key": ""},
        {"provider": "No Name"},
        {"before": -1.0},
    ],
)
def test_revocation_that_could_not_be_read_back_is_not_added(path: Path, changed: dict[str, Any]) -> None:
    told: list[Revocation] = []
    with pytest.raises(GatebookError, match="nothing was revoked"):
        revoke(path, announce=told.append, **changed)
    assert not told
    assert read(path) == ()


def test_what_could_not_be_announced_does_not_take_effect(path: Path) -> None:
    def fail(entry: Revocation) -> None:
        raise RecorderUnavailable("no acknowledgement")

    one, _ = revoke(path)
    before = path.read_bytes()
    with pytest.raises(RecorderUnavailable):
        revoke(path, "bob", announce=fail)
    with pytest.raises(RecorderUnavailable):
        undo(path, one.id, announce=fail)
    assert path.read_bytes() == before


def test_flood_of_automatic_revocations_leaves_room_for_persons(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        revoke(path, f"session-{number}", actor="portal")
    monkeypatch.setattr(revocation_file, "MAX_AUTOMATIC_BYTES", path.stat().st_size)
    with pytest.raises(EnvironmentFault, match="room is left is for persons"):
        revoke(path, "session-3", actor="portal")
    assert revoke(path, "alice")[1]
    assert revocation_file.KIND.max_bytes // 3 >= revocation_file.MAX_AUTOMATIC_BYTES  # spaces included


@pytest.mark.parametrize("fault", ["twice", "problem"])
def test_foreign_content_is_refused(path: Path, fault: str) -> None:
    entry, _ = revoke(path)
    bad = (entry, entry) if fault == "twice" else (msgspec.structs.replace(entry, key=""),)
    document = revocation_file.Document(version=1, revocations=bad)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(document), indent=1) + b"\n")
    with pytest.raises(EnvironmentFault, match="not as gatebook writes it"):
        read(path)
