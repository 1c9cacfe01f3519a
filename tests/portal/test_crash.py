"""kill -9 at every write, sync and rename of a portal that refreshes, meets a thief, or turns its keys."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
from msgspec import structs
from tests.portal.place import House
from tests.portal.service import Asking, claims, session_key

from gatebook import kept, record
from gatebook.identity import own as own_keys
from gatebook.identity import revocation_file
from gatebook.portal.signing import KIND

CALLS = "pwrite64,fsync,fdatasync,rename,renameat,linkat,link"


def killed_at(number: int) -> tuple[str, ...]:
    """A tracer that kills the portal as it enters its n-th of these calls; it ends when the portal does."""
    strace = shutil.which("strace")
    assert strace, "strace is needed: apt-get install strace"
    inject = f"inject={CALLS}:signal=KILL:when={number}"
    return (strace, "-D", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={CALLS}", "-e", inject)


def until_it_lives(
    made: House, work: Callable[[], httpx2.Response], prepare: Callable[[], None] = lambda: None
) -> Iterator[httpx2.Response | None]:
    """A portal that dies at its n-th call does `work`, for each n, until one lives through it; what `work` got.

    The next portal, which nothing is wrong with, runs when an answer is given.
    """
    for number in range(1, 60):
        made.portal.close()
        prepare()
        lived = False
        answer: httpx2.Response | None = None
        with contextlib.suppress(httpx2.HTTPError, AssertionError):
            made.again(killed_at(number))
            answer = work()
            lived = made.portal.popen.poll() is None
        made.again()
        yield answer
        if lived:
            return
    raise AssertionError("it never lived")


def unused(made: House) -> int:
    with contextlib.closing(sqlite3.connect(made.paths.refresh)) as db:
        (count,) = db.execute(
            "SELECT count(*) FROM token JOIN family ON family = id WHERE used IS NULL AND revoked IS NULL"
        ).fetchone()
    return int(count)


def test_portal_killed_between_refresh_rotation_and_answer(alone: Asking) -> None:
    """The client never hears. Either nothing has happened, or its token is used up; two are never good at once."""
    made = alone.house
    held = [alone.begin()["refresh_token"]]
    outcomes: list[str] = []
    for answer in until_it_lives(made, lambda: alone.refresh(held[-1])):
        assert unused(made) == 1
        if answer is not None and answer.status_code == 200:
            held.append(answer.json()["refresh_token"])
            outcomes.append("answered")
            continue
        again = alone.refresh(held[-1])  # what a client does that has heard nothing
        if again.status_code == 200:
            outcomes.append("as if it had not been asked")
            held.append(again.json()["refresh_token"])
        else:
            outcomes.append("taken for theft")
            assert unused(made) == 0
            held.append(alone.begin()["refresh_token"])
    assert outcomes[-1] == "answered"
    assert {"as if it had not been asked"} < set(outcomes)
    issued = [d for d in made.decisions if d.issued is not None]
    assert len(issued) >= len(outcomes)  # whatever came into effect is on record


def test_portal_killed_while_it_ends_a_stolen_family(alone: Asking) -> None:
    """However far it came, the family is over, the alert is on record, its access tokens are revoked."""
    made = alone.house

    def steal() -> tuple[str, str, str]:
        first = alone.begin()
        second = alone.refresh(first["refresh_token"]).json()
        return claims(made, first["access_token"])["sid"], first["refresh_token"], second["refresh_token"]

    stolen = [steal()]
    for _ in until_it_lives(made, lambda: alone.refresh(stolen[-1][1])):
        family, used, newest = stolen[-1]
        alone.refresh(used)  # the thief tries again, or the owner does
        assert alone.refresh(newest).status_code == 400

        def told(family: str = family) -> bool:
            alerts = [each for each in made.records if isinstance(each, record.Alert)]
            return any(each.detail["family"] == family for each in alerts) and session_key(made, family) in {
                entry.key for entry in revocation_file.read(made.paths.revocations)
            }

        made.portal.until(told, "the alert and the revocation")
        stolen.append(steal())


def test_portal_killed_between_the_steps_of_a_key_rotation(alone: Asking) -> None:
    """What was signed before can be verified after, and what is signed after by what is published."""
    made = alone.house
    token = alone.begin()["access_token"]
    (first,) = kept.read(made.paths.portal_keys, KIND).document.keys

    def make_one_due() -> None:
        aged = structs.replace(first, starts=time.time() - 29.5 * 86400)
        write(made.paths.portal_keys, KIND, structs.replace(KIND.empty, keys=(aged,)))
        write(made.paths.portal_jwks, own_keys.KIND, own_keys.Published(version=1, keys=(first.public,)))

    count = 0
    for _ in until_it_lives(made, alone.credentials, make_one_due):
        count += 1
        assert published(made) == private(made)
        assert first.public.kid in published(made)
        assert len(published(made)) == 2
        assert claims(made, token)
        assert claims(made, alone.begin()["access_token"])
    assert count > 4  # of two files: written, renamed, synced


def write(path: Path, kind: kept.Kind[Any], document: Any) -> None:
    with kept.change(path, kind) as change:
        change.become(document, lambda: None)


def published(made: House) -> set[str]:
    return {key.kid for key in kept.read(made.paths.portal_jwks, own_keys.KIND).document.keys}


def private(made: House) -> set[str]:
    return {key.public.kid for key in kept.read(made.paths.portal_keys, KIND).document.keys}
