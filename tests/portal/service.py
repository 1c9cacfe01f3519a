"""A client of the token service, as RFC 6749 has one, and what it is told."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import Any

import httpx2
from joserfc import jwt
from joserfc.jwk import KeySet
from tests.portal.place import House

from gatebook import record
from gatebook.identity import client_file
from gatebook.identity.client_file import Made
from gatebook.identity.keyed import Keys

TOKEN = "/.gatebook/token"
REVOKE = "/.gatebook/revoke"


def make_client(house: House, **changed: Any) -> Made:
    settings: dict[str, Any] = {
        "provider": "own",
        "roles": ("reader",),
        "scopes": ("orders.read", "orders.write"),
        "subject": "shipping",
        "refresh": True,
        "ttl_s": 3600.0,
        "now": time.time(),
        "random": os.urandom,
        "announce": lambda client: None,
    }
    return client_file.create(house.paths.clients, **{**settings, **changed})


@dataclass
class Asking:
    """Someone with an address of its own, so that nobody's failures are another's."""

    house: House
    made: Made
    address: str

    @property
    def basic(self) -> tuple[str, str]:
        return self.made.client.id, self.made.secret

    def post(self, fields: Any = None, *, path: str = TOKEN, basic: bool = True, **more: Any) -> httpx2.Response:
        if basic:
            more["auth"] = self.basic
        if fields is not None:
            more["data"] = fields
        return self.house.ask(path, gateway={"Gatebook-Address": self.address}, **more)

    def credentials(self, **fields: str) -> httpx2.Response:
        return self.post({"grant_type": "client_credentials", **fields})

    def refresh(self, token: str, **fields: str) -> httpx2.Response:
        return self.post({"grant_type": "refresh_token", "refresh_token": token, **fields})

    def begin(self) -> dict[str, Any]:
        """The answer of a first authentication."""
        answer = self.credentials()
        assert answer.status_code == 200, answer.text
        told: dict[str, Any] = answer.json()
        return told


def claims(house: House, token: str) -> dict[str, Any]:
    """Verified as anybody else would, by the keys that are served."""
    keys = KeySet.import_key_set(house.ask("/.gatebook/jwks.json", "GET").json())
    told = jwt.decode(token, keys, algorithms=["ES256"])
    assert told.header["typ"] == "at+jwt"
    return told.claims


def error(answer: httpx2.Response, status: int = 400) -> str:
    """RFC 6749, 5.2."""
    assert answer.status_code == status, answer.text
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["Content-Type"] == "application/json"
    assert set(answer.json()) <= {"error", "error_description"}
    said: str = answer.json()["error"]
    return said


def reason(house: House, answer: httpx2.Response) -> str:
    """What is on record of it."""
    item = house.recorder.do(lambda: house.recorder.twin.items[int(answer.headers["Gatebook-Decision"])])
    found = record.decode(item.record)
    assert isinstance(found, record.Decision)
    assert found.decision.status == answer.status_code
    return found.decision.reason


def session_key(house: House, family: str) -> str:
    keys = Keys((house.paths.keys / "pseudonym.key").read_bytes(), b"")
    return keys.name("session", "own", family)
