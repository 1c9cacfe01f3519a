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
from gatebook.identity.api_key_file import KIND, Made, create, read, revoke
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
