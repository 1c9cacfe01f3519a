"""What a process knows of a kept file: changes reach it, faults shut it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import uvloop
from structlog.testing import capture_logs
from tests.kept.notes import KIND, Notes, add

from gatebook import kept
from gatebook.kept import watch as watch_module


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "notes.json"


def watching(path: Path) -> kept.Watch[Notes, frozenset[str]]:
    return kept.Watch(path, KIND, lambda notes: frozenset(notes.words))


def test_change_is_known_at_the_next_look(path: Path) -> None:
    watch = watching(path)
    watch.poll()
    assert watch.value == frozenset()
    add(path, "one")
    watch.poll()
    assert watch.value == frozenset({"one"})


def test_nothing_is_known_before_the_file_was_read(path: Path) -> None:
    add(path, "one")
    assert watching(path).value is None


def spoil(path: Path) -> None:
    path.write_text("{")


def empty(path: Path) -> None:
    path.write_text("")


def loosen(path: Path) -> None:
    path.chmod(0o644)


def link(path: Path) -> None:
    path.rename(path.with_name("real"))
    path.symlink_to(path.with_name("real"))


def block(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def remove(path: Path) -> None:
    path.unlink()


def outgrow(path: Path) -> None:
    with path.open("r+b") as stream:
        stream.truncate(KIND.max_bytes + 1)


@pytest.mark.parametrize("fault", [spoil, empty, loosen, link, block, remove, outgrow])
@pytest.mark.parametrize("known", [True, False], ids=["known before", "at the start"])
def test_file_that_is_not_in_order_is_nothing_until_it_is(
    path: Path, fault: Callable[[Path], None], known: bool
) -> None:
    add(path, "one")
    good = path.read_bytes()
    watch = watching(path)
    if known:
        watch.poll()
        assert watch.value == frozenset({"one"})
    fault(path)
    with capture_logs() as logs:
        for _ in range(3):
            watch.poll()
            assert watch.value is None
    assert [entry["event"] for entry in logs] == ["notes are out of use"]  # once, not at each look
    path.unlink(missing_ok=True)
    path.write_bytes(good)
    path.chmod(0o600)
    watch.poll()
    assert watch.value == frozenset({"one"})


def test_fault_of_ours_is_nothing_too(path: Path) -> None:
    def fail(notes: Notes) -> None:
        raise RuntimeError("oh")

    add(path, "one")
    watch = kept.Watch(path, KIND, fail)
    with capture_logs() as logs:
        watch.poll()
    assert watch.value is None
    assert logs[0]["exc_info"]


def test_change_that_keeps_size_and_time_is_seen(path: Path) -> None:
    add(path, "one")
    watch = watching(path)
    watch.poll()
    before = path.stat()
    other = path.with_name("other")
    other.write_text(path.read_text().replace("one", "two"))
    other.chmod(0o600)
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.replace(path)
    assert path.stat().st_size == before.st_size
    watch.poll()
    assert watch.value == frozenset({"two"})


def test_unchanged_file_is_not_read_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add(path, "one")
    watch = watching(path)
    watch.poll()
    monkeypatch.setattr(watch_module, "read", lambda *_: pytest.fail("read again"))
    before = watch.value
    watch.poll()
    assert watch.value is before


def test_it_looks_by_itself_often_enough(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert kept.POLL_S <= 0.5
    monkeypatch.setattr(watch_module, "POLL_S", 0.005)

    async def main() -> None:
        watch = watching(path)
        watch.start()
        add(path, "one")
        await becomes(lambda: watch.value == frozenset({"one"}))
        add(path, "two")
        await becomes(lambda: watch.value == frozenset({"one", "two"}))
        await watch.stop()
        await watch.stop()

    uvloop.run(main())


def becomes(wanted: Callable[[], bool]) -> Awaitable[None]:
    async def wait() -> None:
        async with asyncio.timeout(10):
            while not wanted():  # noqa: ASYNC110 - what is waited for has no event
                await asyncio.sleep(0.002)

    return wait()
