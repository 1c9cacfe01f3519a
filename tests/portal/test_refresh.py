"""Refresh tokens: used once, tied to their client, ended as a family; attacks by their names."""

from __future__ import annotations

import hashlib
import sqlite3
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx2
import pytest
from tests.portal.place import OWN, URL, House, house
from tests.portal.service import REVOKE, Asking, claims, error, make_client, reason, session_key

from gatebook import record
from gatebook.identity import client_file, revocation_file
from gatebook.portal.family import Families


def alerts(house: House) -> list[record.Alert]:
    return [each for each in house.records if isinstance(each, record.Alert)]


def family_of(house: House, told: dict[str, Any]) -> str:
    sid: str = claims(house, told["access_token"])["sid"]
    return sid


def revoked_sessions(house: House) -> set[str]:
    return {entry.key for entry in revocation_file.read(house.paths.revocations) if entry.what == "session"}


def test_refreshing_gives_both_tokens_anew_in_the_same_family(shared: House, asking: Asking) -> None:
    first = asking.begin()
    answer = asking.refresh(first["refresh_token"])
    assert answer.status_code == 200
    assert answer.headers["Cache-Control"] == "no-store"
    second = answer.json()
    assert second["refresh_token"] != first["refresh_token"]
    assert second["scope"] == first["scope"]
    assert family_of(shared, second) == family_of(shared, first)
    assert claims(shared, second["access_token"])["jti"] != claims(shared, first["access_token"])["jti"]
    assert asking.refresh(second["refresh_token"]).status_code == 200


def test_refresh_reuse_ends_the_whole_family_and_raises_an_alert(alone: Asking) -> None:
    house = alone.house
    stolen = alone.begin()
    family = family_of(house, stolen)
    newest = alone.refresh(stolen["refresh_token"]).json()["refresh_token"]
    answer = alone.refresh(stolen["refresh_token"])
    assert error(answer) == "invalid_grant"
    assert reason(house, answer) == "refresh_reused"
    after = alone.refresh(newest)  # whoever has it: the thief or the owner
    assert error(after) == "invalid_grant"
    assert reason(house, after) == "refresh_revoked"
    (alert,) = alerts(house)
    assert alert.alert == "refresh_reused"
    assert alert.severity == "high"
    assert alert.detail == {"family": family, "client": alone.made.client.id}
    assert alert.identity is not None
    assert alert.client is not None
    assert revoked_sessions(house) == {session_key(house, family)}
    (act,) = [each for each in house.records if isinstance(each, record.Admin)]
    assert (act.action, act.actor) == ("revoke", "portal")
    # Another authentication begins another family, which works.
    assert alone.refresh(alone.begin()["refresh_token"]).status_code == 200


def test_oldest_of_many_generations_is_still_known(asking: Asking) -> None:
    first = token = asking.begin()["refresh_token"]
    for _ in range(6):
        token = asking.refresh(token).json()["refresh_token"]
    assert reason(asking.house, asking.refresh(first)) == "refresh_reused"
    assert reason(asking.house, asking.refresh(token)) == "refresh_revoked"


def test_refresh_reuse_in_a_race_has_one_winner_and_ends_the_family(alone: Asking) -> None:
    """Real concurrency: eight at once with one token."""
    house = alone.house
    token = alone.begin()["refresh_token"]
    barrier = threading.Barrier(8)
    answers: list[httpx2.Response] = []

    def use(number: int) -> None:
        one = Asking(house, alone.made, f"203.0.113.{number}")
        barrier.wait()
        answers.append(one.refresh(token))

    threads = [threading.Thread(target=use, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Counter(answer.status_code for answer in answers) == {200: 1, 400: 7}
    (won,) = [answer for answer in answers if answer.status_code == 200]
    assert {error(answer) for answer in answers if answer is not won} == {"invalid_grant"}
    assert reason(house, alone.refresh(won.json()["refresh_token"])) == "refresh_revoked"
    assert len(alerts(house)) == 1
    issued = [d.decision.reason for d in house.decisions if d.issued is not None]
    assert issued == ["token_issued", "token_refreshed"]  # the first authentication, and the winner


def test_two_processes_cannot_both_rotate_one_token(tmp_path: Path) -> None:
    """What the file itself says, whoever else may have it open."""
    made = [Families(tmp_path / "refresh.sqlite") for _ in range(2)]
    token = made[0].new_token()
    made[0].begin("f", "c", (), token, 1.0, 1e9)
    results: list[bool] = []
    barrier = threading.Barrier(2)

    def rotate(families: Families) -> None:
        barrier.wait()
        results.append(families.rotate(token, families.new_token(), 2.0))

    threads = [threading.Thread(target=rotate, args=(each,)) for each in made]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == [False, True]
    for each in made:
        each.close()


@pytest.mark.parametrize("scope", ["orders.read orders.write", "admin"])
def test_scope_escalation_on_refresh_is_refused_and_costs_no_token(
    shared: House, asking: Asking, scope: str
) -> None:
    told = asking.credentials(scope="orders.read").json()
    answer = asking.refresh(told["refresh_token"], scope=scope)
    assert error(answer) == "invalid_scope"
    assert reason(shared, answer) == "scope_refused"
    again = asking.refresh(told["refresh_token"])
    assert again.json()["scope"] == "orders.read"


def test_scope_narrowed_on_refresh_comes_back_with_the_next(shared: House, asking: Asking) -> None:
    told = asking.begin()
    narrow = asking.refresh(told["refresh_token"], scope="orders.read").json()
    assert claims(shared, narrow["access_token"])["scope"] == "orders.read"
    assert asking.refresh(narrow["refresh_token"]).json()["scope"] == "orders.read orders.write"


def test_refresh_token_of_another_client_ends_its_family(alone: Asking) -> None:
    house = alone.house
    thief = Asking(house, make_client(house), "203.0.113.66")
    token = alone.begin()["refresh_token"]
    answer = thief.refresh(token)
    assert error(answer) == "invalid_grant"
    assert reason(house, answer) == "refresh_foreign"
    assert [alert.alert for alert in alerts(house)] == ["refresh_foreign"]
    assert reason(house, alone.refresh(token)) == "refresh_revoked"


@pytest.mark.parametrize(
    "token",
    [
        "",
        "x",
        "gbr_aaaaaaaa_" + "A" * 43 + "_000000",
        "gbs_aaaaaaaa_" + "A" * 43 + "_000000",
        "x" * 5000,
        "' OR 1=1 --",
        "\N{SNOWMAN}",
    ],
)
def test_refresh_token_that_nobody_gave(shared: House, asking: Asking, token: str) -> None:
    answer = asking.refresh(token)
    assert error(answer) == ("invalid_grant" if token else "invalid_request")


def test_access_token_is_no_refresh_token(asking: Asking) -> None:
    assert error(asking.refresh(asking.begin()["access_token"])) == "invalid_grant"


def test_refresh_without_the_secret_is_refused_and_costs_no_token(asking: Asking) -> None:
    token = asking.begin()["refresh_token"]
    fields = {"grant_type": "refresh_token", "refresh_token": token, "client_id": asking.made.client.id}
    assert error(asking.post(fields, basic=False), 401) == "invalid_client"
    assert asking.refresh(token).status_code == 200


def test_token_of_a_revoked_client_gives_nothing_any_more(shared: House, asking: Asking) -> None:
    token = asking.begin()["refresh_token"]
    client_file.revoke(shared.paths.clients, asking.made.client.id, now=time.time(), announce=lambda client: None)
    assert error(asking.refresh(token), 401) == "invalid_client"
    assert error(asking.credentials(), 401) == "invalid_client"


def test_family_ends_when_its_time_is_over_however_often_it_was_refreshed(tmp_path: Path) -> None:
    own = {"own": {**OWN["own"], "refresh_ttl": "2s"}}
    with house(tmp_path, identity=own, portal={"url": URL}) as made:
        asking = Asking(made, make_client(made), "203.0.113.1")
        told = asking.begin()
        started = time.time()
        token = told["refresh_token"]
        while time.time() < started + 1.2:
            told = asking.refresh(token).json()
            token = told["refresh_token"]
        found = claims(made, told["access_token"])
        assert found["exp"] <= started + 2  # nothing outlives its family
        time.sleep(max(0.0, started + 2.1 - time.time()))
        answer = asking.refresh(token)
        assert reason(made, answer) == "refresh_expired"
        assert not alerts(made)


def test_tokens_are_kept_as_hashes_only(shared: House, asking: Asking) -> None:
    token = asking.begin()["refresh_token"]
    data = b"".join(path.read_bytes() for path in shared.paths.state.glob("refresh.sqlite*"))
    assert token.encode() not in data
    assert token[13:56].encode() not in data
    assert hashlib.sha256(token.encode()).digest() in data
    assert {oct(path.stat().st_mode)[-3:] for path in shared.paths.state.glob("refresh.sqlite*")} == {"600"}


def test_families_of_one_client_are_bounded(tmp_path: Path) -> None:
    families = Families(tmp_path / "refresh.sqlite")
    tokens = []
    for number in range(70):
        token = families.new_token()
        families.begin(f"f{number}", "c", ("a",), token, float(number), 1e9)
        tokens.append(token)
    alive = [found for token in tokens if (found := families.find(token)) and found.family.revoked is None]
    assert [found.family.id for found in alive] == [f"f{number}" for number in range(6, 70)]
    assert families.untold() == []
    families.close()


def test_ended_families_are_forgotten_with_their_tokens(tmp_path: Path) -> None:
    families = Families(tmp_path / "refresh.sqlite")
    families.begin("old", "c", (), families.new_token(), 0.0, 10.0)
    families.begin("new", "c", (), families.new_token(), 10.0 + 86401, 1e9)
    families.close()
    db = sqlite3.connect(tmp_path / "refresh.sqlite")
    assert [row[0] for row in db.execute("SELECT id FROM family")] == ["new"]
    assert [row[0] for row in db.execute("SELECT family FROM token")] == ["new"]
    db.close()


# -- RFC 7009 -----------------------------------------------------------------------------------------------
def test_client_may_revoke_its_refresh_token_and_with_it_the_session(alone: Asking) -> None:
    house = alone.house
    told = alone.begin()
    answer = alone.post({"token": told["refresh_token"]}, path=REVOKE)
    assert (answer.status_code, answer.content) == (200, b"")
    assert reason(house, answer) == "token_withdrawn"
    assert reason(house, alone.refresh(told["refresh_token"])) == "refresh_revoked"
    assert revoked_sessions(house) == {session_key(house, family_of(house, told))}
    assert not alerts(house)


def test_client_may_revoke_its_access_token(alone: Asking) -> None:
    told = alone.begin()
    assert alone.post({"token": told["access_token"], "token_type_hint": "x"}, path=REVOKE).status_code == 200
    (entry,) = revocation_file.read(alone.house.paths.revocations)
    assert entry.what == "token"
    assert entry.until is not None


def test_what_is_no_token_is_no_error_to_revoke(alone: Asking) -> None:
    other = Asking(alone.house, make_client(alone.house), "203.0.113.9")
    foreign = other.begin()["access_token"]
    for token in ("x", "gbr_x", "eyJhbGciOiJub25lIn0.e30.", foreign):
        answer = alone.post({"token": token}, path=REVOKE)
        assert (answer.status_code, reason(alone.house, answer)) == (200, "token_unknown")
    assert not alone.house.paths.revocations.exists()
    assert error(alone.post({}, path=REVOKE)) == "invalid_request"


def test_nobody_revokes_the_refresh_token_of_another_client_unseen(alone: Asking) -> None:
    thief = Asking(alone.house, make_client(alone.house), "203.0.113.9")
    answer = thief.post({"token": alone.begin()["refresh_token"]}, path=REVOKE)
    assert error(answer) == "invalid_grant"
    assert [alert.alert for alert in alerts(alone.house)] == ["refresh_foreign"]


def test_revoking_without_credentials_is_refused(asking: Asking) -> None:
    assert error(asking.post({"token": asking.begin()["refresh_token"]}, path=REVOKE, basic=False), 401)


def test_client_that_begins_families_without_end_gets_access_tokens_alone(alone: Asking) -> None:
    """Each theft costs an alert and a revocation, so their number has to be bounded too."""
    kinds = Counter("refresh_token" in alone.begin() for _ in range(70))
    assert kinds == {True: 64, False: 6}


def test_client_that_revokes_access_tokens_without_end_leaves_room_for_others(alone: Asking) -> None:
    plain = Asking(alone.house, make_client(alone.house, refresh=False), "203.0.113.9")
    statuses = Counter(
        plain.post({"token": plain.begin()["access_token"]}, path=REVOKE).status_code for _ in range(68)
    )
    assert statuses == {200: 64, 429: 4}
    assert alone.post({"token": alone.begin()["access_token"]}, path=REVOKE).status_code == 200
