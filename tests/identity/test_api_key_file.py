"""The file of API keys: what stands in it, and what making and revoking a key does."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gatebook import kept
from gatebook.errors import EnvironmentFault, GatebookError, RecorderUnavailable
from gatebook.identity.api_key import ApiKey, KeyRing
from gatebook.identity.api_key_file import KIND, Made, create, read, revoke, rotate
from gatebook.identity.types import Identity

NOW = 1_800_000_000.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "api-keys.json"


def quiet(key: ApiKey) -> None:
    """Announces to nobody."""


def make(path: Path, announce: Callable[[ApiKey], object] = quiet, **changed: Any) -> Made:
    settings: dict[str, Any] = {
        "provider": "partners",
        "roles": ("reader",),
        "subject": "acme",
        "ttl_s": 60.0,
        "now": NOW,
        "random": secrets.token_bytes,
        "announce": announce,
    }
    return create(path, **{**settings, **changed})


# -- what is kept -----------------------------------------------------------------------------------------
def test_missing_file_is_no_keys(path: Path) -> None:
    assert read(path) == ()


def test_made_key_is_kept_without_its_secret(path: Path) -> None:
    made = make(path)
    assert read(path) == (made.key,)
    assert made.key.sha256 == hashlib.sha256(made.text.encode()).hexdigest()
    assert (made.key.created, made.key.expires, made.key.revoked) == (int(NOW), int(NOW) + 60, None)
    assert made.text.split("_")[2] not in path.read_text()
    assert made.text.split("_")[2] not in repr(made.key)


def test_subject_is_the_id_unless_said(path: Path) -> None:
    key = make(path, subject=None).key
    assert key.subject == key.id


def test_id_that_is_taken_is_not_given_twice(path: Path) -> None:
    first = make(path, random=lambda n: bytes(n))
    draws = iter([bytes(5), bytes(5), bytes([1] * 5), bytes([7] * 32)])
    second = make(path, random=lambda n: next(draws))
    assert len({first.key.id, second.key.id}) == 2
    assert read(path) == (first.key, second.key)


def test_revoked_key_stays_and_says_when(path: Path) -> None:
    one, two = make(path), make(path)
    gone, done = revoke(path, one.key.id, now=NOW + 5, announce=quiet)
    assert done
    assert gone.revoked == int(NOW) + 5
    assert read(path) == (gone, two.key)


def test_revoking_twice_changes_and_announces_nothing(path: Path) -> None:
    made = make(path)
    first, _ = revoke(path, made.key.id, now=NOW, announce=quiet)
    told: list[ApiKey] = []
    again, done = revoke(path, made.key.id, now=NOW + 99, announce=told.append)
    assert (again, done, told) == (first, False, [])


def test_unknown_id_is_said_and_a_mistyped_secret_is_not(path: Path) -> None:
    make(path)
    with pytest.raises(GatebookError, match=r"no key zzzzzzzz; `gatebook key list` shows"):
        revoke(path, "zzzzzzzz", now=NOW, announce=quiet)
    with pytest.raises(GatebookError, match=r"^that is no key's id"):
        revoke(path, "Gbk_zzzzzzzz_s3cret", now=NOW, announce=quiet)


@pytest.mark.parametrize(
    "changed",
    [
        {"roles": ("a b",)},
        {"roles": ("a,b",)},
        {"roles": ("",)},
        {"roles": ("r",) * 65},
        {"subject": ""},
        {"subject": "a\r\nGatebook-Roles: admin"},
        {"subject": "a" * 256},
        {"ttl_s": 1e13},
        {"provider": "No Name"},
    ],
)
def test_key_that_could_not_be_read_back_is_not_made(path: Path, changed: dict[str, Any]) -> None:
    told: list[ApiKey] = []
    with pytest.raises(GatebookError, match="not made"):
        make(path, told.append, **changed)
    assert not told
    assert read(path) == ()


# -- the record comes first -------------------------------------------------------------------------------
def test_nothing_is_in_effect_before_it_is_announced(path: Path) -> None:
    seen: list[tuple[ApiKey, ...]] = []
    made = make(path, lambda key: seen.append(read(path)))
    revoke(path, made.key.id, now=NOW, announce=lambda key: seen.append(read(path)))
    assert seen == [(), (made.key,)]


def test_what_could_not_be_announced_does_not_take_effect(path: Path) -> None:
    def fail(key: ApiKey) -> None:
        raise RecorderUnavailable("no acknowledgement")

    made = make(path)
    before = path.read_bytes()
    with pytest.raises(RecorderUnavailable):
        make(path, fail)
    with pytest.raises(RecorderUnavailable):
        revoke(path, made.key.id, now=NOW, announce=fail)
    assert path.read_bytes() == before


def test_what_is_announced_names_no_secret(path: Path) -> None:
    told: list[ApiKey] = []
    made = make(path, told.append)
    assert told == [made.key]


# -- foreign content --------------------------------------------------------------------------------------
GOOD: dict[str, Any] = {
    "id": "abcdefgh",
    "provider": "partners",
    "subject": "acme",
    "roles": ["reader"],
    "created": 1,
    "expires": 2,
    "revoked": None,
    "sha256": "0" * 64,
}


def write(path: Path, *keys: Any) -> None:
    path.write_bytes(msgspec.json.format(msgspec.json.encode({"version": 1, "keys": keys}), indent=1) + b"\n")
    path.chmod(0o600)


def test_content_as_we_write_it_is_taken(path: Path) -> None:
    write(path, GOOD)
    assert [key.id for key in read(path)] == ["abcdefgh"]


@pytest.mark.parametrize(
    "keys",
    [
        [{}],
        [{**GOOD, "admin": True}],
        [{k: v for k, v in GOOD.items() if k != "revoked"}],
        [{**GOOD, "expires": "never"}],
        [{**GOOD, "expires": 1 << 62}],
        [{**GOOD, "sha256": ""}],
        [GOOD, GOOD],
        [GOOD, {**GOOD, "id": "hgfedcba"}],
        [GOOD, {**GOOD, "sha256": "1" * 64}],
    ],
)
def test_foreign_key_is_refused(path: Path, keys: list[Any]) -> None:
    write(path, *keys)
    with pytest.raises(EnvironmentFault, match="not as gatebook writes it"):
        read(path)


# -- what a guard knows of it -----------------------------------------------------------------------------
def test_key_is_known_when_made_and_unknown_when_revoked(path: Path) -> None:
    watch = kept.Watch(path, KIND, lambda document: KeyRing(document.keys))

    def asked() -> str:
        watch.poll()
        assert watch.value is not None
        found = watch.value.find(made.text.encode(), NOW)
        return "in" if isinstance(found, Identity) else found.reason

    made = make(path)
    assert asked() == "in"
    revoke(path, made.key.id, now=NOW, announce=quiet)
    assert asked() == "key_revoked"


# -- rotation ---------------------------------------------------------------------------------------------
def turn(path: Path, key_id: str, **changed: Any) -> tuple[Made, ApiKey]:
    known: dict[str, Any] = {"overlap_s": 10.0, "ttl_s": None, "now": NOW + 1, "random": secrets.token_bytes}
    return rotate(path, key_id, **{**known, "announce": lambda new, old: None, **changed})


def test_new_key_is_of_the_same_caller_and_both_work_for_the_overlap(path: Path) -> None:
    old = make(path)
    new, ending = turn(path, old.key.id)
    assert (new.key.provider, new.key.subject, new.key.roles) == ("partners", "acme", ("reader",))
    assert (new.key.created, new.key.expires) == (int(NOW) + 1, int(NOW) + 61)
    assert ending == msgspec.structs.replace(old.key, expires=int(NOW) + 11)
    assert read(path) == (ending, new.key)
    ring = KeyRing(read(path))
    for now, works in [(NOW + 10, [True, True]), (NOW + 11, [False, True]), (NOW + 61, [False, False])]:
        found = [ring.find(each.text.encode(), now) for each in (old, new)]
        assert [isinstance(each, Identity) for each in found] == works


def test_subject_that_was_the_old_key_s_id_stays(path: Path) -> None:
    old = make(path, subject=None)
    assert turn(path, old.key.id)[0].key.subject == old.key.id


def test_overlap_never_lengthens_the_old_key_s_life(path: Path) -> None:
    old = make(path)
    assert turn(path, old.key.id, overlap_s=1e6)[1].expires == old.key.expires


def test_new_key_lives_as_long_as_asked(path: Path) -> None:
    old = make(path)
    assert turn(path, old.key.id, ttl_s=100.0)[0].key.expires == int(NOW) + 101


@pytest.mark.parametrize("state", ["revoked", "expired"])
def test_key_that_is_over_is_not_brought_back_by_rotation(path: Path, state: str) -> None:
    old = make(path)
    if state == "revoked":
        revoke(path, old.key.id, now=NOW, announce=quiet)
    before = path.read_bytes()
    with pytest.raises(GatebookError, match=f"{old.key.id} is {state}"):
        turn(path, old.key.id, now=NOW + 1 if state == "revoked" else NOW + 60)
    with pytest.raises(GatebookError, match="that is no key's id"):
        turn(path, old.text)
    assert path.read_bytes() == before


def test_rotation_is_announced_before_either_key_changes(path: Path) -> None:
    old = make(path)
    told: list[Any] = []
    new, ending = turn(path, old.key.id, announce=lambda *both: told.append((both, read(path))))
    assert told == [((new.key, ending), (old.key,))]

    def fail(new: ApiKey, old: ApiKey) -> None:
        raise RecorderUnavailable("no acknowledgement")

    with pytest.raises(RecorderUnavailable):
        turn(path, new.key.id, announce=fail)
    assert read(path) == (ending, new.key)
