"""Clients of the token service, as they are kept. How such files are kept in general is tested with `kept`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from gatebook.errors import EnvironmentFault, GatebookError, RecorderUnavailable
from gatebook.identity.client import Client, is_secret_of, may_be_a_secret
from gatebook.identity.client_file import Made, create, read, revoke

NOW = 1_800_000_000.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "clients.json"


def make(path: Path, **changed: Any) -> Made:
    settings: dict[str, Any] = {
        "provider": "own",
        "roles": ("reader",),
        "scopes": ("orders.read",),
        "subject": None,
        "refresh": False,
        "ttl_s": 60.0,
        "now": NOW,
        "random": os.urandom,
        "announce": lambda client: None,
    }
    return create(path, **{**settings, **changed})


def test_client_is_kept_with_a_slow_hash_and_without_its_secret(path: Path) -> None:
    made = make(path)
    assert read(path) == (made.client,)
    assert made.client.hash is not None
    assert made.client.hash.startswith("$argon2id$v=19$")
    assert made.secret.startswith(f"gbs_{made.client.id}_")
    assert made.secret.split("_")[2] not in path.read_text()
    assert made.client.hash not in repr(made.client)
    assert made.client.subject == made.client.id
    assert is_secret_of(made.client, made.secret.encode())


def test_only_its_own_secret_is_its(path: Path) -> None:
    one, two = make(path), make(path)
    assert may_be_a_secret(two.secret.encode())
    assert not is_secret_of(one.client, two.secret.encode())
    assert not is_secret_of(one.client, b"")
    assert not is_secret_of(None, one.secret.encode())


def test_api_key_is_no_secret_and_a_slip_is_found_without_work(path: Path) -> None:
    secret = make(path).secret.encode()
    assert may_be_a_secret(secret)
    assert not may_be_a_secret(b"gbk" + secret[3:])
    assert not may_be_a_secret(secret[:20] + b"x" + secret[21:])
    assert not may_be_a_secret(secret + b"\n")


def test_two_clients_with_one_secret_have_other_hashes(path: Path) -> None:
    random = bytes(range(37))
    draws = iter([random[:5], random[5:37], bytes(5), random[5:37]])
    one, two = (make(path, random=lambda n: next(draws)) for _ in range(2))
    assert one.secret[13:56] == two.secret[13:56]
    assert one.client.hash != two.client.hash


@pytest.mark.parametrize(
    "changed",
    [
        {"roles": ("a,b",)},
        {"roles": ("r",) * 65},
        {"scopes": ("a b",)},
        {"scopes": ('a"b',)},
        {"scopes": ("",)},
        {"scopes": ("s",) * 65},
        {"subject": "a\nb"},
        {"roles": ("r" * 128,) * 20, "scopes": ("s" * 128,) * 20},  # its tokens would open nothing
        {"ttl_s": 1e13},
    ],
)
def test_client_that_could_not_be_read_back_is_not_made(path: Path, changed: dict[str, Any]) -> None:
    with pytest.raises(GatebookError, match="not made"):
        make(path, **changed)
    assert read(path) == ()


def test_revoked_client_stays_revoked_and_is_announced_first(path: Path) -> None:
    made = make(path)

    def fail(client: Client) -> None:
        raise RecorderUnavailable("down")

    with pytest.raises(RecorderUnavailable):
        revoke(path, made.client.id, now=NOW + 1, announce=fail)
    assert read(path)[0].state(NOW + 1) == "active"
    gone, done = revoke(path, made.client.id, now=NOW + 1, announce=lambda client: None)
    assert (done, gone.state(NOW + 2)) == (True, "revoked")
    assert revoke(path, made.client.id, now=NOW + 9, announce=fail) == (gone, False)


def test_mistyped_secret_is_not_shown_again(path: Path) -> None:
    with pytest.raises(GatebookError, match=r"^that is no client's id"):
        revoke(path, "Gbs_aaaaaaaa_s3cret", now=NOW, announce=lambda client: None)
    with pytest.raises(GatebookError, match="no client aaaaaaaa"):
        revoke(path, "aaaaaaaa", now=NOW, announce=lambda client: None)


def test_hash_of_another_kind_is_refused_with_its_file(path: Path) -> None:
    made = make(path)
    path.write_text(path.read_text().replace(str(made.client.hash), "plain:secret"))
    with pytest.raises(EnvironmentFault, match="not as gatebook writes it"):
        read(path)
