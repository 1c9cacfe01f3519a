"""Credentials in odd places and odd numbers, through the real nginx: who is nobody stays nobody."""

from __future__ import annotations

import json
import re
from typing import Any

import httpx2
import pytest
from tests.e2e.deployment import Deployment, until
from tests.e2e.test_requests import raw

QUERY_NAMES = ("access_token", "api_key", "apikey", "x-api-key", "token", "authorization", "Authorization")


@pytest.fixture(scope="module")
def key(running: Deployment) -> str:
    made = running.cli(
        *("key", "create", "--identity", "partners", "--roles", "reader", "--ttl", "1h", "--json"),
        *("-c", str(running.config)),
    )
    secret: str = next(v for v in json.loads(made.stdout).values() if isinstance(v, str) and v.startswith("gbk_"))
    until(lambda: running.ask("/orders/1", headers={"X-API-Key": secret}).status_code == 200, "the key to work")
    return secret


def send(running: Deployment, *fields: str, target: str = "/orders/1") -> tuple[int, dict[str, Any]]:
    """The status, and what is on record."""
    head = "\r\n".join([f"GET {target} HTTP/1.1", "Host: x", "Connection: close", *fields])
    said = raw(running, head.encode("latin-1") + b"\r\n\r\n")
    found = re.search(rb"X-Request-ID: ([0-9a-f]{32})", said)
    assert found is not None, said
    return int(said.split(b" ", 2)[1]), running.access(found[1].decode())


def reason(record: dict[str, Any]) -> str | None:
    """Of the decision; None where nginx refused the request by itself."""
    found: str | None = record.get("decision", {}).get("reason")
    return found


@pytest.mark.parametrize("name", ["Authorization", "authorization", "AUTHORIZATION", "aUTHORIZATIOn"])
@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "bEARER"])
def test_letter_case_of_field_and_scheme_does_not_matter(running: Deployment, name: str, scheme: str) -> None:
    status, record = send(running, f"{name}: {scheme} {running.reader()}")
    assert (status, reason(record)) == (200, "rule")


def test_letter_case_of_the_key_s_field_does_not_matter_and_that_of_the_key_does(
    running: Deployment, key: str
) -> None:
    assert send(running, f"x-api-KEY: {key}")[0] == 200
    status, record = send(running, f"X-API-Key: {key.swapcase()}")
    assert (status, reason(record)) == (401, "key_malformed")


def test_authorization_sent_twice_opens_nothing(running: Deployment) -> None:
    good, other = f"Authorization: Bearer {running.reader()}", "authorization: Basic eDp5"
    empty = "Authorization:"
    for fields in ([good, good], [good, other], [other, good], [empty, good], [good, empty]):
        status, record = send(running, *fields)
        assert status in (400, 401), fields
        assert reason(record) in (None, "credential_ambiguous"), fields


def test_authorization_sent_twice_over_http_2_opens_nothing(running: Deployment) -> None:
    token = running.reader()
    twice = httpx2.Headers([("authorization", f"Bearer {token}"), ("authorization", "Bearer x")])
    with running.client(http2=True, http1=False) as client:
        answer = client.get("/orders/1", headers=twice)
    assert answer.http_version == "HTTP/2"
    assert answer.status_code in (400, 401)


def test_two_credentials_at_once_open_nothing_though_each_is_good(running: Deployment, key: str) -> None:
    bearer, keyed = f"Authorization: Bearer {running.reader()}", f"X-API-Key: {key}"
    for fields in (
        [bearer, keyed],
        [keyed, bearer],
        [keyed, keyed],
        [keyed, "x-api-key: gbk_x"],
        [keyed, "X-API-Key:"],
    ):
        status, record = send(running, *fields)
        assert (status, reason(record)) == (401, "credential_ambiguous"), fields


def test_two_tokens_in_one_field_open_nothing(running: Deployment) -> None:
    token = running.reader()
    for value in (f"Bearer {token}, Bearer {token}", f"Bearer {token} {token}", f"Bearer {token},{token}"):
        status, record = send(running, f"Authorization: {value}")
        assert (status, reason(record)) == (401, "token_malformed")


@pytest.mark.parametrize("name", QUERY_NAMES)
def test_credential_in_the_query_opens_nothing_and_is_not_recorded(
    running: Deployment, key: str, name: str
) -> None:
    for secret in (key, running.reader()):
        status, record = send(running, target=f"/orders/1?{name}={secret}")
        assert (status, reason(record)) == (401, "credential_missing")
        assert secret not in json.dumps(record)


def test_credential_in_a_cookie_or_a_body_opens_nothing(running: Deployment) -> None:
    token = running.issuer.token(roles=["admin"])
    places: list[dict[str, Any]] = [
        {"headers": {"Cookie": f"access_token={token}; Authorization=Bearer%20{token}"}},
        {"data": {"access_token": token}},
        {"headers": {"Proxy-Authorization": f"Bearer {token}"}},
        {"headers": {"X-Authorization": f"Bearer {token}"}},
    ]
    for more in places:
        answer = running.ask("/orders", method="POST", **more)
        assert answer.status_code == 401
        assert reason(running.access(answer.headers["X-Request-ID"])) == "credential_missing"


@pytest.mark.parametrize("name", ["X_API_Key", "X-API_Key", "X.API.Key", "X-API-Key ", "X-API-Keys", "X-API-Ke"])
def test_field_that_only_looks_like_the_key_s_is_not_it(running: Deployment, key: str, name: str) -> None:
    status, record = send(running, f"{name}: {key}")
    assert status in (400, 401)
    assert reason(record) in (None, "credential_missing")


def test_subject_of_odd_letters_reaches_the_upstream_encoded_and_whole(running: Deployment) -> None:
    for subject, encoded in (
        ("Müller", "M%C3%BCller"),
        ("\u0430lice", "%D0%B0lice"),
        ("a%0d%0ab", "a%250d%250ab"),
        ("a,admin", "a%2Cadmin"),
        ('"><script>', "%22%3E%3Cscript%3E"),
        ("é" * 512, "%C3%A9" * 512),
    ):
        answer = running.ask("/orders/1", running.reader(subject))
        assert answer.status_code == 200
        (seen,) = [
            s for s in running.upstream.seen if s.one("Gatebook-Request-Id") == answer.headers["X-Request-ID"]
        ]
        assert seen.one("Gatebook-Subject") == encoded
