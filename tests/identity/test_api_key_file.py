"""The file of API keys: foreign content, foreign hands, faults in the middle of a change."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import secrets
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gatebook.errors import EnvironmentFault, GatebookError, RecorderUnavailable
from gatebook.identity import api_key_file
from gatebook.identity.api_key import ApiKey
from gatebook.identity.api_key_file import Made, create, read, revoke

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


def left(folder: Path) -> set[str]:
    return {entry.name for entry in folder.iterdir()}


def write(path: Path, content: Any) -> None:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    path.chmod(0o600)


# -- what is kept -----------------------------------------------------------------------------------------
def test_missing_file_is_no_keys(path: Path) -> None:
    assert read(path) == ((), None)


def test_made_key_is_kept_without_its_secret(path: Path) -> None:
    made = make(path)
    assert read(path).keys == (made.key,)
    assert made.key.sha256 == hashlib.sha256(made.text.encode()).hexdigest()
    assert (made.key.created, made.key.expires, made.key.revoked) == (int(NOW), int(NOW) + 60, None)
    assert made.text.split("_")[2] not in path.read_text()
    assert made.text.split("_")[2] not in repr(made.key)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert left(path.parent) == {"api-keys.json", "api-keys.json.lock"}


def test_mode_is_private_whatever_the_umask(path: Path) -> None:
    before = os.umask(0)
    try:
        make(path)
    finally:
        os.umask(before)
    assert {stat.S_IMODE(entry.stat().st_mode) for entry in path.parent.iterdir()} == {0o600}


def test_subject_is_the_id_unless_said(path: Path) -> None:
    key = make(path, subject=None).key
    assert key.subject == key.id


def test_id_that_is_taken_is_not_given_twice(path: Path) -> None:
    first = make(path, random=lambda n: bytes(n))
    draws = iter([bytes(5), bytes(5), bytes([1] * 5), bytes([7] * 32)])
    second = make(path, random=lambda n: next(draws))
    assert len({first.key.id, second.key.id}) == 2
    assert read(path).keys == (first.key, second.key)


def test_revoked_key_stays_and_says_when(path: Path) -> None:
    one, two = make(path), make(path)
    gone, done = revoke(path, one.key.id, now=NOW + 5, announce=quiet)
    assert done
    assert gone.revoked == int(NOW) + 5
    assert read(path).keys == (gone, two.key)


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
    assert not path.exists()


# -- the record comes first -------------------------------------------------------------------------------
def test_nothing_is_in_effect_before_it_is_announced(path: Path) -> None:
    seen: list[tuple[ApiKey, ...]] = []
    made = make(path, lambda key: seen.append(read(path).keys))
    revoke(path, made.key.id, now=NOW, announce=lambda key: seen.append(read(path).keys))
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
    assert left(path.parent) == {"api-keys.json", "api-keys.json.lock"}


def test_what_is_announced_names_no_secret(path: Path) -> None:
    told: list[ApiKey] = []
    made = make(path, told.append)
    assert told == [made.key]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_disk_that_fails_leaves_the_old_file(path: Path, call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    make(path)
    before = path.read_bytes()

    def fail(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    told: list[ApiKey] = []
    monkeypatch.setattr(os if call == "fsync" else Path, call, fail)
    with pytest.raises(EnvironmentFault, match="not changed: no space left"):
        make(path, told.append)
    assert path.read_bytes() == before
    assert left(path.parent) == {"api-keys.json", "api-keys.json.lock"}
    assert len(told) == (call == "replace")


def test_folder_that_does_not_sync_is_said(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.fsync

    def fail(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(EnvironmentFault, match="the disk did not confirm it"):
        make(path)


def test_file_and_folder_are_synced_in_that_order(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def synced(descriptor: int) -> None:
        done.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        fsync(descriptor)

    def replaced(self: Path, target: Path) -> Path:
        done.append("replace")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", replaced)
    make(path, lambda key: done.append("announce"))
    assert done == ["file", "announce", "replace", "folder"]


def test_two_at_once_do_not_lose_each_other_s_key(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def second(key: ApiKey) -> None:
        monkeypatch.setattr(api_key_file, "LOCK_PATIENCE_S", 0.0)
        with pytest.raises(EnvironmentFault, match="another `gatebook key` holds it"):
            make(path)

    first = make(path, second)
    assert read(path).keys == (first.key,)


def test_lock_of_one_that_was_killed_holds_nobody(path: Path) -> None:
    lock = path.with_name("api-keys.json.lock")
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
    make(path)


def test_lock_that_is_a_link_is_not_followed(path: Path, tmp_path: Path) -> None:
    path.with_name("api-keys.json.lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(EnvironmentFault, match="lock"):
        make(path)
    assert not (tmp_path / "elsewhere").exists()


# -- foreign hands ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("mode", [0o604, 0o640, 0o660, 0o602, 0o666, 0o610])
def test_file_that_lets_others_in_is_refused(path: Path, mode: int) -> None:
    make(path)
    path.chmod(mode)
    with pytest.raises(EnvironmentFault, match="lets others in"):
        read(path)


def test_file_of_a_foreign_owner_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(path)
    monkeypatch.setattr(os, "geteuid", lambda: path.stat().st_uid + 1)
    with pytest.raises(EnvironmentFault, match="owned by uid"):
        read(path)


def test_link_is_refused_even_to_a_good_file(path: Path, tmp_path: Path) -> None:
    make(tmp_path / "real.json")
    path.symlink_to(tmp_path / "real.json")
    with pytest.raises(EnvironmentFault, match="is a link"):
        read(path)


def test_what_is_no_file_is_refused_without_waiting(path: Path) -> None:
    os.mkfifo(path, 0o600)
    with pytest.raises(EnvironmentFault, match="not a file"):
        read(path)
    path.unlink()
    path.mkdir(0o700)
    with pytest.raises(EnvironmentFault, match="not a file"):
        read(path)


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


def test_content_as_we_write_it_is_taken(path: Path) -> None:
    write(path, {"version": 1, "keys": [GOOD]})
    assert [key.id for key in read(path).keys] == ["abcdefgh"]


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "null",
        "[]",
        "{}",
        '{"version":1}',
        '{"keys":[]}',
        '{"version":2,"keys":[]}',
        '{"version":"1","keys":[]}',
        '{"version":1,"keys":{}}',
        '{"version":1,"keys":[],"more":1}',
        '{"version":1,"keys":[],"keys":[]}',
        '{"version":1,"keys":[]} trailing',
        '{"version":1,"keys":[{}]}',
        "\ufeff" + '{"version":1,"keys":[]}',
        {"version": 1, "keys": [{**GOOD, "admin": True}]},
        {"version": 1, "keys": [{k: v for k, v in GOOD.items() if k != "revoked"}]},
        {"version": 1, "keys": [{**GOOD, "expires": "never"}]},
        {"version": 1, "keys": [{**GOOD, "expires": 1 << 62}]},
        {"version": 1, "keys": [{**GOOD, "sha256": ""}]},
        {"version": 1, "keys": [GOOD, GOOD]},
        {"version": 1, "keys": [GOOD, {**GOOD, "id": "hgfedcba"}]},
        {"version": 1, "keys": [GOOD, {**GOOD, "sha256": "1" * 64}]},
    ],
)
def test_foreign_content_is_refused_and_not_changed(path: Path, content: Any) -> None:
    write(path, content)
    before = path.read_bytes()
    with pytest.raises(EnvironmentFault, match="not as gatebook writes it"):
        read(path)
    with pytest.raises(EnvironmentFault, match="not as gatebook writes it"):
        make(path)
    assert path.read_bytes() == before


def test_file_beyond_all_measure_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(path, {"version": 1, "keys": [GOOD]})
    monkeypatch.setattr(api_key_file, "MAX_BYTES", path.stat().st_size)
    assert read(path).keys
    with pytest.raises(EnvironmentFault, match="would grow beyond"):
        make(path)
    monkeypatch.setattr(api_key_file, "MAX_BYTES", path.stat().st_size - 1)
    with pytest.raises(EnvironmentFault, match="more than"):
        read(path)
