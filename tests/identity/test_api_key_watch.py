"""What a guard knows of the keys: revocations reach it, faults shut it."""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import uvloop
from structlog.testing import capture_logs

from gatebook.identity import api_key_watch
from gatebook.identity.api_key_file import Made, create, revoke
from gatebook.identity.api_key_watch import KeyWatch
from gatebook.identity.types import Identity, Refusal

NOW = 1_800_000_000.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "api-keys.json"


def make(path: Path) -> Made:
    return create(
        path,
        provider="partners",
        roles=(),
        subject=None,
        ttl_s=60,
        now=NOW,
        random=secrets.token_bytes,
        announce=lambda key: None,
    )


def asked(watch: KeyWatch, made: Made) -> str:
    """What the key gets to hear: `in`, a reason, or `shut` when no key is looked at."""
    if watch.ring is None:
        return "shut"
    found = watch.ring.find(made.text.encode(), NOW)
    return "in" if isinstance(found, Identity) else found.reason


def test_key_is_known_when_made_and_unknown_when_revoked(path: Path) -> None:
    watch = KeyWatch(path)
    watch.poll()
    made = make(path)
    assert asked(watch, made) == "key_unknown"
    watch.poll()
    assert asked(watch, made) == "in"
    revoke(path, made.key.id, now=NOW, announce=lambda key: None)
    watch.poll()
    assert asked(watch, made) == "key_revoked"


def test_nobody_is_let_in_before_the_file_was_read(path: Path) -> None:
    made = make(path)
    assert asked(KeyWatch(path), made) == "shut"


def test_missing_file_is_no_keys_and_not_the_last_ones(path: Path) -> None:
    made = make(path)
    watch = KeyWatch(path)
    watch.poll()
    path.unlink()
    watch.poll()
    assert asked(watch, made) == "key_unknown"


def spoil(path: Path) -> None:
    path.write_text("{")


def loosen(path: Path) -> None:
    path.chmod(0o644)


def link(path: Path) -> None:
    path.rename(path.with_name("real"))
    path.symlink_to(path.with_name("real"))


def block(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize("fault", [spoil, loosen, link, block])
def test_file_that_is_not_in_order_shuts_everybody_out_until_it_is(
    path: Path, fault: Callable[[Path], None]
) -> None:
    made = make(path)
    good = path.read_bytes()
    watch = KeyWatch(path)
    watch.poll()
    assert asked(watch, made) == "in"
    fault(path)
    with capture_logs() as logs:
        for _ in range(3):
            watch.poll()
            assert asked(watch, made) == "shut"
    assert [entry["event"] for entry in logs] == ["API keys are out of use"]  # once, not at each poll
    path.unlink()
    path.write_bytes(good)
    path.chmod(0o600)
    watch.poll()
    assert asked(watch, made) == "in"


def test_fault_of_ours_shuts_too(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make(path)
    watch = KeyWatch(path)
    watch.poll()

    def fail(where: Path) -> None:
        raise RuntimeError("oh")

    monkeypatch.setattr(api_key_watch, "read", fail)
    make(path)
    with capture_logs():
        watch.poll()
    assert asked(watch, made) == "shut"


def test_change_that_keeps_the_size_is_seen(path: Path) -> None:
    made = make(path)
    watch = KeyWatch(path)
    watch.poll()
    before = path.stat()
    changed = path.read_text().replace(made.key.sha256, made.key.sha256[::-1])
    other = path.with_name("other")
    other.write_text(changed)
    other.chmod(0o600)
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.replace(path)
    assert path.stat().st_size == before.st_size
    watch.poll()
    assert asked(watch, made) == "key_unknown"


def test_unchanged_file_is_not_read_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(path)
    watch = KeyWatch(path)
    watch.poll()
    monkeypatch.setattr(api_key_watch, "read", lambda where: pytest.fail("read again"))
    ring = watch.ring
    watch.poll()
    assert watch.ring is ring


def test_it_looks_by_itself_often_enough(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert api_key_watch.POLL_S <= 0.5
    monkeypatch.setattr(api_key_watch, "POLL_S", 0.005)

    async def main() -> None:
        watch = KeyWatch(path)
        watch.start()
        made = make(path)
        await reaches(watch, made, "in")
        revoke(path, made.key.id, now=NOW, announce=lambda key: None)
        await reaches(watch, made, "key_revoked")
        await watch.stop()
        await watch.stop()

    uvloop.run(main())


def reaches(watch: KeyWatch, made: Made, wanted: str) -> Awaitable[None]:
    async def wait() -> None:
        async with asyncio.timeout(10):
            while asked(watch, made) != wanted:  # noqa: ASYNC110 - what is waited for has no event
                await asyncio.sleep(0.002)

    return wait()


def test_refusal_names_no_provider_of_an_unknown_key(path: Path) -> None:
    watch = KeyWatch(path)
    watch.poll()
    assert watch.ring is not None
    assert watch.ring.find(make(path).text.encode(), NOW) == Refusal("key_unknown")
