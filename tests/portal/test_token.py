"""The token endpoint: what is granted, what is refused, what of it is on record."""

from __future__ import annotations

import base64
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from tests.portal.place import URL, House, gateway_fields, house
from tests.portal.service import REVOKE, TOKEN, Asking, claims, error, make_client, reason

from gatebook import record, wire
from gatebook.identity import client_file
from gatebook.identity.keyed import Keys, signed_sha256
from gatebook.identity.types import Credential
from gatebook.sealed import unseal


def test_credentials_give_a_token_as_rfc_9068_has_it(shared: House, asking: Asking) -> None:
    before = int(time.time())
    answer = asking.credentials()
    assert answer.status_code == 200
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["Pragma"] == "no-cache"
    told = answer.json()
    assert told["token_type"] == "Bearer"
    assert told["expires_in"] == 300
    assert told["scope"] == "orders.read orders.write"
    found = claims(shared, told["access_token"])
    assert before <= found["iat"] <= time.time()
    assert found == {
        "iss": f"{URL}/.gatebook",
        "sub": "shipping",
        "aud": URL,
        "client_id": asking.made.client.id,
        "iat": found["iat"],
        "exp": found["iat"] + 300,
        "jti": found["jti"],
        "roles": ["reader"],
        "scope": "orders.read orders.write",
        "sid": found["sid"],
    }


def test_client_and_its_address_are_sealed_where_policy_says_so(tmp_path: Path) -> None:
    with house(tmp_path, audit={"subject": "seal", "address": "seal"}) as made:
        Asking(made, make_client(made), "198.51.100.1").begin()
        found = made.decisions[-1]
        row = made.recorder.do(lambda: made.recorder.twin.names["subject:own:shipping"])
        assert found.sealed is not None
        assert unseal(found.sealed, row * 2, found.id) == {"subject": "shipping", "address": "198.51.100.1"}
        assert found.client is not None
        assert found.client.address == "198.51.100.0/24"


def test_what_is_issued_is_on_record_without_any_secret(shared: House, asking: Asking) -> None:
    told = asking.begin()
    found = shared.decisions[-1]
    assert found.decision.verdict == "allow"
    assert found.decision.reason == "token_issued"
    assert found.request.route == "gatebook:token"
    assert found.identity is not None
    assert (found.identity.provider, found.identity.method) == ("own", "client_secret")
    assert found.identity.client == asking.made.client.id
    assert found.identity.subject != "shipping"  # a pseudonym
    assert found.issued is not None
    token = claims(shared, told["access_token"])
    assert found.issued.token_id == token["jti"]
    assert found.issued.family == token["sid"]
    assert found.issued.scopes == ("orders.read", "orders.write")
    assert found.issued.expires_us == token["exp"] * 1_000_000
    keys = Keys(b"", (shared.paths.keys / "fingerprint.key").read_bytes())
    credential = Credential("bearer", told["access_token"].encode())
    assert found.issued.credential == keys.fingerprint(signed_sha256(credential))
    everything = b"".join(item.record for item in shared.recorder.do(lambda: list(shared.recorder.twin.items)))
    for secret in (asking.made.secret, told["access_token"], told["refresh_token"]):
        assert secret.encode() not in everything
        assert secret[12:50].encode() not in everything


@pytest.mark.parametrize("said", [wire.Refused("full"), None])
def test_no_record_no_token(alone: Asking, said: wire.Reply | None) -> None:
    alone.begin()
    twin = alone.house.recorder.twin

    def refuse(message: wire.Message) -> wire.Reply | None:
        return said if isinstance(message, wire.Append) else twin.honestly(message)

    alone.house.recorder.do(lambda: setattr(twin, "judge", refuse))
    answer = alone.credentials()
    assert answer.status_code == 503
    assert "access_token" not in answer.text


def test_client_without_refresh_gets_none(shared: House) -> None:
    plain = Asking(shared, make_client(shared, refresh=False, scopes=()), "203.0.113.1")
    told = plain.begin()
    assert set(told) == {"access_token", "token_type", "expires_in"}
    assert "sid" not in claims(shared, told["access_token"])
    assert error(plain.refresh("gbr_x")) == "unauthorized_client"


def test_scope_may_be_narrowed(shared: House, asking: Asking) -> None:
    told = asking.credentials(scope="orders.read").json()
    assert told["scope"] == "orders.read"
    assert claims(shared, told["access_token"])["scope"] == "orders.read"


@pytest.mark.parametrize("scope", ["admin", "orders.read admin", "orders.read  orders.write", "orders.READ", " "])
def test_scope_that_the_client_does_not_have_is_refused(shared: House, asking: Asking, scope: str) -> None:
    answer = asking.credentials(scope=scope)
    assert error(answer) == "invalid_scope"
    assert reason(shared, answer) == "scope_refused"


@pytest.mark.parametrize(
    ("grant", "said"),
    [
        ("password", "unsupported_grant_type"),
        ("authorization_code", "unsupported_grant_type"),
        ("CLIENT_CREDENTIALS", "unsupported_grant_type"),
        ("client_credentials ", "unsupported_grant_type"),
        ("", "invalid_request"),
    ],
)
def test_other_grants_are_refused(asking: Asking, grant: str, said: str) -> None:
    assert error(asking.post({"grant_type": grant})) == said


# -- the credentials of a client ----------------------------------------------------------------------------
def test_secret_in_the_body_will_do(asking: Asking) -> None:
    client_id, secret = asking.basic
    fields = {"grant_type": "client_credentials", "client_id": client_id, "client_secret": secret}
    assert asking.post(fields, basic=False).status_code == 200


def test_same_client_id_in_header_and_body_will_do(asking: Asking) -> None:
    assert asking.credentials(client_id=asking.made.client.id).status_code == 200


def test_client_id_in_header_and_another_in_the_body_are_refused(shared: House, asking: Asking) -> None:
    other = make_client(shared)
    answer = asking.credentials(client_id=other.client.id)
    assert error(answer) == "invalid_request"
    assert reason(shared, answer) == "request_malformed"


def test_secret_in_header_and_body_is_refused_even_if_the_same(asking: Asking) -> None:
    client_id, secret = asking.basic
    assert error(asking.credentials(client_id=client_id, client_secret=secret)) == "invalid_request"


def test_credentials_in_the_query_string_are_refused(shared: House, asking: Asking) -> None:
    client_id, secret = asking.basic
    path = f"{TOKEN}?client_id={client_id}&client_secret={secret}"
    answer = asking.post({"grant_type": "client_credentials"}, path=path, basic=False)
    assert error(answer) == "invalid_request"
    assert asking.post({"grant_type": "client_credentials"}, path=f"{TOKEN}?").status_code == 400
    assert not any(secret.encode() in item.record for item in shared.recorder.twin.items)


def header(value: str) -> list[tuple[str, str]]:
    return [("Authorization", value)]


@pytest.mark.parametrize(
    ("headers", "said", "status"),
    [
        ([], "invalid_client", 401),
        (header("Bearer x"), "invalid_client", 401),
        (header("Basic"), "invalid_client", 401),
        (header("Basic a b"), "invalid_client", 401),
        (header("Basic ===="), "invalid_client", 401),
        (header("Basic YTpi"), "invalid_client", 401),
        (header("Basic YTpj") + header("Basic YTpi"), "invalid_request", 400),
        (header("Basic YWI="), "invalid_request", 400),  # no colon
        (header("Basic YTpi=="), "invalid_request", 400),  # not canonical
        (header("Basic YTpiZ"), "invalid_request", 400),
        (header("Basic YTr/"), "invalid_request", 400),  # no UTF-8
        (header("Basic YTolMA=="), "invalid_request", 400),  # a:%0
        (header("Basic YTolMDA="), "invalid_request", 400),  # a:%00
    ],
)
def test_header_that_is_not_in_form(
    asking: Asking, headers: list[tuple[str, str]], said: str, status: int
) -> None:
    with asking.house.client() as client:
        fields = gateway_fields("POST", TOKEN, **{"Gatebook-Address": asking.address})
        answer = client.post(
            TOKEN,
            headers=[*headers, *fields.items(), ("Content-Type", "application/x-www-form-urlencoded")],
            content="grant_type=client_credentials",
        )
    assert error(answer, status) == said
    assert ("WWW-Authenticate" in answer.headers) == (status == 401)
    if status == 401:
        assert answer.headers["WWW-Authenticate"] == 'Basic realm="acme"'


def test_wrong_secret_unknown_client_and_revoked_client_are_told_the_same(shared: House) -> None:
    right = make_client(shared)
    revoked = make_client(shared)
    client_file.revoke(shared.paths.clients, revoked.client.id, now=1, announce=lambda client: None)
    expired = make_client(shared, now=time.time() - 100, ttl_s=50.0)
    foreign = make_client(shared, provider="other")
    answers: list[Any] = []
    for client_id, secret in (
        (right.client.id, revoked.secret),
        ("aaaaaaaa", right.secret),
        ("", right.secret),
        ("x" * 2000, right.secret),
        (right.client.id, "x"),
        (right.client.id, right.secret[:-1]),
        (revoked.client.id, revoked.secret),
        (expired.client.id, expired.secret),
        (foreign.client.id, foreign.secret),
    ):
        answer = shared.ask(
            TOKEN,
            data={"grant_type": "client_credentials"},
            auth=(client_id, secret),
            gateway={"Gatebook-Address": f"203.0.113.{100 + len(answers)}"},
        )
        assert reason(shared, answer) == "client_refused"
        names = {"gatebook-decision", "gatebook-receipt", "x-request-id"}
        answers.append(
            (answer.status_code, answer.content, [(k, v) for k, v in answer.headers.items() if k not in names])
        )
    assert all(answer == answers[0] for answer in answers)
    assert answers[0][0] == 401


# -- the form -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "body",
    [
        "grant_type=client_credentials&grant_type=client_credentials",
        "grant_type=client_credentials&scope=orders.read&scope=orders.write",
        "grant_type=client_credentials&x=&x=1",
        "grant%5Ftype=client_credentials&grant_type=client_credentials",
        "grant_type=client_credentials&x=%zz",
        "grant_type=client_credentials&x=%ff",
        "grant_type=client_credentials%00",
        "grant_type=client_credentials&" + "&".join(f"p{n}=1" for n in range(40)),
        "",
    ],
)
def test_form_with_duplicate_parameters_or_broken_ones_is_refused(asking: Asking, body: str) -> None:
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    answer = asking.post(headers=form, content=body)
    assert error(answer) == "invalid_request"


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Content-Type": "application/json"},
        {"Content-Type": "multipart/form-data; boundary=x"},
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded", "Content-Encoding": "gzip"},
    ],
)
def test_wrong_content_type_is_refused(asking: Asking, headers: dict[str, str]) -> None:
    answer = asking.post(headers=headers, content="grant_type=client_credentials")
    assert error(answer) == "invalid_request"


def test_content_type_may_have_a_charset_and_unknown_parameters_are_ignored(asking: Asking) -> None:
    form = {"Content-Type": "application/X-www-form-urlencoded; charset=UTF-8"}
    body = "grant_type=client_credentials&resource=https%3A%2F%2Fapi.acme.example&scope="
    assert asking.post(headers=form, content=body).status_code == 200


def test_huge_body_is_refused_past_the_gateway_too(asking: Asking) -> None:
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    answer = asking.post(headers=form, content="x=" + "a" * (16 << 10))
    assert answer.status_code == 400


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "HEAD", "OPTIONS"])
def test_other_methods_are_405(shared: House, method: str) -> None:
    answer = shared.ask(TOKEN, method)
    assert answer.status_code == 405
    assert answer.headers["Allow"] == "POST"
    assert reason(shared, answer) == "method_not_allowed"


def test_body_in_parts_is_put_together(asking: Asking) -> None:
    def parts() -> Any:
        yield b"grant_type=client_"
        yield b"credentials"

    form = {"Content-Type": "application/x-www-form-urlencoded"}
    assert asking.post(headers=form, content=parts()).status_code == 200


def test_metadata_names_the_pages_and_only_what_is_offered(shared: House) -> None:
    documents = [
        shared.ask(path, "GET").json()
        for path in (
            "/.gatebook/.well-known/openid-configuration",
            "/.well-known/oauth-authorization-server/.gatebook",
        )
    ]
    assert documents[0] == documents[1]
    assert documents[0]["issuer"] == f"{URL}/.gatebook"
    assert documents[0]["token_endpoint"] == URL + TOKEN
    assert documents[0]["revocation_endpoint"] == URL + REVOKE
    assert documents[0]["jwks_uri"] == f"{URL}/.gatebook/jwks.json"
    assert documents[0]["grant_types_supported"] == ["client_credentials", "refresh_token"]


def test_basic_credentials_are_form_urlencoded(shared: House, asking: Asking) -> None:
    client_id, secret = asking.basic
    encoded = "".join(f"%{ord(letter):02X}" for letter in secret)
    value = base64.b64encode(f"{client_id}:{encoded}".encode()).decode()
    answer = asking.post(
        {"grant_type": "client_credentials"}, basic=False, headers={"Authorization": f"bAsIc {value}"}
    )
    assert answer.status_code == 200
    assert isinstance(shared.records[-1], record.Decision)


def test_record_that_would_be_too_large_is_made_without_what_the_client_chose(
    own: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_file, "MAX_WORDS", 1 << 20)
    own.place.put_in_force(**own.sections, audit={"headers": {"keep": [f"x-{n}" for n in range(40)]}})
    before = own.portal.status()["configuration"]
    own.portal.signal(signal.SIGHUP)
    own.portal.until(lambda: own.portal.status()["configuration"] != before, "the new configuration")
    many = tuple(f"{n:03d}" + "x" * 120 for n in range(60))
    asking = Asking(own, make_client(own, roles=many, scopes=many), "203.0.113.1")
    headers = {f"x-{n}": '"' * 300 for n in range(40)}  # each takes two bytes in a record
    answer = asking.post({"grant_type": "client_credentials"}, headers=headers)
    assert answer.status_code == 200
    assert own.decisions[-1].issued is not None
    assert own.decisions[-1].request.headers == {}
    few = asking.post({"grant_type": "client_credentials"}, headers={"x-1": '"'})
    assert few.status_code == 200
    assert own.decisions[-1].request.headers == {"x-1": '"'}
