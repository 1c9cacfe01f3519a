"""`gatebook explain`: the verdict and its reasons on a terminal, and real credentials verified but never shown."""

from __future__ import annotations

import asyncio
import datetime
import io
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.identity.mint import claims, ec_key, mint
from tests.identity.provider import Provider
from tests.pki import Authority

from gatebook import starter
from gatebook.cli.explain import _header
from gatebook.config.model import Grantable
from gatebook.identity import grant_file
from gatebook.identity.grant_file import Person
from gatebook.identity.keyed import read_keys
from gatebook.paths import Paths

Run = Callable[..., Any]
READER = '{"roles": ["reader"]}'


@pytest.fixture
def config(tmp_path: Path) -> Path:
    starter.initialise(tmp_path, "acme", datetime.datetime.now(datetime.UTC))
    return tmp_path / "gatebook.yaml"


@pytest.fixture
def issuer() -> Iterator[str]:
    """A provider's, in a thread of its own: the command has its own loop."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    provider = Provider(ec_key("k").jwk(kid="k"))
    asyncio.run_coroutine_threadsafe(provider.up(), loop).result(10)
    yield provider.issuer
    asyncio.run_coroutine_threadsafe(provider.down(), loop).result(10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def test_text_says_route_caller_rules_and_verdict(run: Run, config: Path) -> None:
    ran = run("explain", "GET", "/orders/7", "--as", READER, "-c", str(config))
    assert ran.code == 0
    assert ran.out.splitlines() == [
        "GET /orders/7",
        "  route     read-order, /orders/{order_id}, order_id = 7",
        "  identity  partners: somebody, roles reader; as given, not verified",
        "  allow     readers: holds; decides",
        "              yes roles admin or reader; held reader",
        "  verdict   allow 200: rule readers",
        "  note      not evaluated, a guard may still refuse: limit per-caller: 100 in 60 s per identity",
    ]


def granted(config: Path) -> str:
    """ann of partners holds admin, and admin alone reads orders. The grant's id."""
    text = config.read_text().replace("roles: [reader, admin]", "roles: [admin]")
    config.write_text(text + "\ngrants:\n  - {role: admin, max: 1h, approve: [ops]}\n")
    paths, now = Paths(config.parent / "state"), time.time()
    terms = Grantable(role="admin", max=3600.0, approve=["ops"])
    key = read_keys(paths).name("subject", "partners", "ann")
    made = grant_file.request(
        paths.grants,
        terms,
        role="admin",
        provider="partners",
        key=key,
        shown="ann",
        seconds=600.0,
        reason="incident",
        by=Person("os:1", "eve"),
        now=now,
        random=os.urandom,
        announce=lambda _: None,
    )
    by = Person("os:2", "ops")
    decide = grant_file.decide
    decide(paths.grants, made.id, "approved", terms=lambda _: terms, by=by, now=now, announce=lambda _: None)
    return made.id


ANN = '{"provider": "partners", "subject": "ann"}'


def test_grant_in_force_counts_and_is_named(run: Run, config: Path) -> None:
    name = granted(config)
    ran = run("explain", "GET", "/orders/7", "--as", ANN, "-c", str(config))
    assert ran.out.splitlines()[2:] == [
        "  identity  partners: ann; as given, not verified",
        f"  granted   admin, by grant {name}",
        "  allow     readers: holds; decides",
        "              yes roles admin; held admin",
        "  verdict   allow 200: rule readers",
        f"  by grant  {name}: denied without",
        "  note      not evaluated, a guard may still refuse: limit per-caller: 100 in 60 s per identity",
    ]
    for more in (("--no-grants",), ("--at", "2001-01-01")):
        assert "deny 403" in run("explain", "GET", "/orders/7", "--as", ANN, *more, "-c", str(config)).out
    eve = run("explain", "GET", "/orders/7", "--as", ANN.replace("ann", "eve"), "--json", "-c", str(config)).json()
    assert (eve["verdict"]["verdict"], eve["identity"]["granted"]) == ("deny", [])


def test_cases_see_the_grants_too(run: Run, config: Path) -> None:
    name = granted(config)
    cases = config.parent / "cases.yaml"
    cases.write_text(f"cases: [{{name: ann, request: GET /orders/7, identity: {ANN}, expect: allow}}]")
    ran = run("policy", "test", str(cases), "-c", str(config))
    assert ran.code == 0
    assert ran.out.startswith(f"{cases}:1: ann: allowed only by grant {name}\n")
    assert run("policy", "test", str(cases), "--json", "-c", str(config)).json()["cases"][0]["grants"] == [name]
    assert run("policy", "test", str(cases), "--no-grants", "-c", str(config)).code == 1


def test_grants_that_cannot_be_read_count_for_nothing_and_that_is_said(run: Run, config: Path) -> None:
    granted(config)
    (config.parent / "state" / "grants.json").chmod(0o644)
    ran = run("explain", "GET", "/orders/7", "--as", ANN, "-c", str(config))
    assert "deny 403" in ran.out
    assert "no grant counts, they cannot be read: " in ran.out
    cases = config.parent / "cases.yaml"
    cases.write_text(f"cases: [{{name: ann, request: GET /orders/7, identity: {ANN}, expect: deny}}]")
    ran = run("policy", "test", str(cases), "-c", str(config))
    assert ran.code == 0
    assert "no grant counts" in ran.err


def test_denial_is_an_answer_too_so_the_exit_code_is_0(run: Run, config: Path) -> None:
    ran = run("explain", "GET", "/orders/7", "--as", "{}", "-c", str(config))
    assert ran.code == 0
    assert "verdict   deny 403: no_rule" in ran.out


def test_json_is_the_whole_explanation(run: Run, config: Path) -> None:
    found = run("explain", "GET", "/orders/7", "--as", READER, "--json", "-c", str(config)).json()
    assert found["verdict"]["verdict"] == "allow"
    assert found["route"]["name"] == "read-order"


def test_miss_says_why(run: Run, config: Path) -> None:
    assert "none: it has an empty segment (//)" in run("explain", "GET", "//orders/7", "-c", str(config)).out
    out = run("explain", "GET", "/Orders/7", "-c", str(config)).out
    assert "near      read-order, GET /orders/{order_id}: differs in letter case" in out
    assert "the path exists, with GET, HEAD" in run("explain", "PUT", "/healthz", "-c", str(config)).out


def test_nobody_needs_no_keys(run: Run, config: Path) -> None:
    (config.parent / "state").rename(config.parent / "away")
    ran = run("explain", "GET", "/orders/7", "-c", str(config))
    assert "no credential; accepted: partners" in ran.out
    assert "deny 401: credential_missing" in ran.out


def key(run: Run, config: Path, *more: str) -> str:
    told = run(
        "key",
        "create",
        "--identity",
        "partners",
        "--roles",
        "reader",
        "--ttl",
        "1h",
        "--json",
        "-c",
        str(config),
        *more,
    )
    return str(told.json()["key"])


def test_api_key_from_a_file_is_verified_and_not_shown(run: Run, config: Path) -> None:
    text = key(run, config)
    path = config.parent / "key.txt"
    path.write_text(text + "\n")
    for form in ((), ("--json",)):
        ran = run("explain", "GET", "/orders/7", "--token", str(path), "-c", str(config), *form)
        assert text not in ran.out + ran.err
        assert text[13:30] not in ran.out + ran.err
    assert ran.json()["identity"]["verified"] is True
    assert ran.json()["verdict"]["rule"] == "readers"


def test_key_of_a_role_that_is_not_declared_is_warned_of(run: Run, config: Path) -> None:
    text = config.read_text()
    for roles, warned in (("reader: {}, admin: {}", False), ("admin: {includes: [raeder]}, raeder: {}", True)):
        rules = text.replace("roles: [reader, admin]", "roles: [admin]")
        config.write_text(rules.replace("# What is behind the gateway.", f"roles: {{{roles}}}", 1))
        made = run(
            "key", "create", "--identity", "partners", "--roles", "reader", "--ttl", "1h", "-c", str(config)
        )
        assert made.code == 0
        assert ("reader is none of the roles that the configuration declares" in made.err) is warned


def test_api_key_that_is_nobodys_is_refused_as_by_a_guard(
    run: Run, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = config.parent / "key.txt"
    path.write_text("gbk_wrong")
    ran = run("explain", "GET", "/orders/7", "--token", str(path), "-c", str(config))
    assert "identity  refused: key_malformed" in ran.out
    assert "deny 401: key_malformed" in ran.out


def with_provider(config: Path, issuer: str) -> None:
    text = config.read_text()
    text = text.replace(
        "identity:\n", f'identity:\n  staff: {{type: oidc, issuer: "{issuer}", audience: [orders-api]}}\n', 1
    )
    config.write_text(text.replace("identity: [partners]", "identity: [partners, staff]", 1))


def token(issuer: str, **changed: Any) -> str:
    now = time.time()
    said = claims(**{"iss": issuer, "iat": now - 10, "exp": now + 300, **changed})
    return mint(said, {"alg": "ES256", "kid": "k"}, ec_key("k").sign).decode()


def test_token_is_verified_by_the_providers_keys_and_not_shown(run: Run, config: Path, issuer: str) -> None:
    with_provider(config, issuer)
    path = config.parent / "token.txt"
    for said, verdict in ((token(issuer), "rule"), (token(issuer, exp=time.time() - 99), "token_expired")):
        path.write_text(said)
        ran = run("explain", "GET", "/orders/7", "--token", str(path), "--json", "-c", str(config))
        assert ran.json()["verdict"]["reason"] == verdict
        assert said not in ran.out + ran.err
    path.write_text(token(issuer)[:-6] + "AAAAAA")
    ran = run("explain", "GET", "/orders/7", "--token", str(path), "--json", "-c", str(config))
    assert ran.json()["verdict"]["reason"] == "token_signature"


def test_token_may_come_from_stdin(run: Run, config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = key(run, config)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    assert run("explain", "GET", "/orders/7", "--token", "-", "--json", "-c", str(config)).json()["identity"][
        "verified"
    ]


def test_client_certificate_is_verified_against_its_authority(run: Run, config: Path, tmp_path: Path) -> None:
    ours, foreign = Authority("ours", tmp_path), Authority("foreign", tmp_path)
    provider = (
        f"machines: {{type: mtls, ca: {ours.pair.certificate}, subject: common_name, roles: {{client: [reader]}}}}"
    )
    text = config.read_text().replace("identity:\n", f"identity:\n  {provider}\n", 1)
    config.write_text(text.replace("identity: [partners]", "identity: [machines]", 1))
    for authority, verdict in ((ours, "rule"), (foreign, "certificate_untrusted")):
        path = authority.issue().certificate
        ran = run("explain", "GET", "/orders/7", "--certificate", str(path), "--json", "-c", str(config))
        assert ran.json()["verdict"]["reason"] == verdict
    wrong = run("explain", "GET", "/orders/7", "--certificate", str(config), "-c", str(config))
    assert (wrong.code, "not one certificate in PEM" in wrong.err) == (3, True)


@pytest.mark.parametrize("content", ["", "two words", "Bearer eyJhbGciOi", "a\x00b", "x" * 70000])
def test_file_that_holds_no_token_alone_is_refused_without_showing_it(
    run: Run, config: Path, content: str
) -> None:
    path = config.parent / "token.txt"
    path.write_text(content)
    ran = run("explain", "GET", "/orders/7", "--token", str(path), "-c", str(config))
    assert ran.code == 3
    assert "not a token alone" in ran.err
    assert not content or content not in ran.out + ran.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--as", "{}", "--token", "x"), "either --token or --as"),
        (("--as", '{"role": 1}'), "role: Extra inputs"),
        (("--as", "nope"), "expected a JSON object"),
        (("--as", '{"roles": "reader"}'), "roles: Input should be a valid"),
        (("--as", '{"provider": "nobody"}'), "no provider is called nobody"),
        (("--header", "x-tenant"), "expected NAME=VALUE"),
        (("--at", "yesterday"), "expected a time such as"),
    ],
)
def test_wrong_use_is_told(run: Run, config: Path, arguments: tuple[str, ...], said: str) -> None:
    ran = run("explain", "GET", "/orders/7", "-c", str(config), *arguments)
    assert ran.code == 2
    assert said in " ".join(ran.err.replace("│", " ").split())


@pytest.mark.parametrize(
    ("method", "path", "said"), [("G T", "/a", "'G T' is no method"), ("GET", "/.gatebook/x", "own")]
)
def test_request_that_no_policy_decides_on_is_told(
    run: Run, config: Path, method: str, path: str, said: str
) -> None:
    ran = run("explain", method, path, "-c", str(config))
    assert (ran.code, said in ran.err) == (2, True)


def test_configuration_that_is_wrong_is_told_with_its_line(run: Run, config: Path) -> None:
    config.write_text(config.read_text().replace("roles: [reader, admin]", "when: 'nope'"))
    ran = run("explain", "GET", "/orders/7", "--as", "{}", "--json", "-c", str(config))
    (problem,) = json.loads(ran.out)["error"]["problems"]
    assert (ran.code, problem["line"] > 0, problem["key"]) == (2, True, "routes[1].allow[0].when")


def test_header_may_be_spelt_as_curl_takes_it() -> None:
    for spelling in ("X-Tenant=a:b", "X-Tenant: a:b", "X-Tenant:a:b"):
        assert _header(spelling) == ("x-tenant", "a:b")


def test_headers_address_and_time_reach_the_conditions(run: Run, config: Path) -> None:
    rule = 'request.headers["x-tenant"] == "a=b" && client.address == "10.0.0.1" && now.getFullYear() == 2030'
    config.write_text(config.read_text().replace("roles: [reader, admin]", f"when: '{rule}'"))
    asked = ("explain", "GET", "/orders/7", "--as", "{}", "-c", str(config))
    given = ("--header", "X-Tenant=a=b", "--address", "10.0.0.1", "--at", "2030-05-01T00:00:00Z")
    assert "allow 200" in run(*asked, *given).out
    assert "deny 403" in run(*asked, *given[2:]).out
