"""Where people log in too: what their long sessions must not change for the token service."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.portal.place import OWN, house
from tests.portal.service import REVOKE, Asking, make_client

from gatebook.identity import revocation_file


def test_flood_of_revoked_access_tokens_takes_no_room_for_as_long_as_sessions_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOGIN_SECRET", "a-secret-of-tests")
    login = {"client": {"id": "gatebook", "secret": {"env": "LOGIN_SECRET"}}, "session_ttl": "30d"}
    people = {"type": "oidc", "issuer": "http://127.0.0.1:9", "audience": ["orders-api"], "login": login}
    with house(tmp_path, identity={**OWN, "people": people}) as made:
        asking = Asking(made, make_client(made, refresh=False), "198.51.100.9")
        token = asking.begin()["access_token"]
        assert asking.post({"token": token}, path=REVOKE).status_code == 200
        (entry,) = revocation_file.read(made.paths.revocations)
    assert entry.until is not None
    assert entry.until - entry.created < 3600
