"""Tokens that their provider is asked about: answers that lie, err, stall or flood, on real sockets."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import json
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import uvloop
from tests.identity.deployment import configuration, place
from tests.identity.mint import ABSENT, NOW, claims, ec_key, mint, oidc
from tests.identity.provider import INTROSPECT, Answer, document, endless, hang, hang_up, plain, trickle
from tests.identity.provider import Provider as Server

from gatebook.config.base import Secret
from gatebook.config.model import IntrospectionProvider, Provider, ProviderClient
from gatebook.identity import Identifier, flood, introspection
from gatebook.identity.api_key import make_id, make_text
from gatebook.identity.types import Bound, Credential, Identity, Refusal

OPAQUE, BOTH = ("opaque",), ("staff", "opaque")
DOWN = Refusal("provider_unavailable", "opaque")
INACTIVE = Refusal("token_inactive", "opaque")
TOKEN = "2YotnFZFEjr1zCsicMWpAA"


def bearer(value: str | bytes = TOKEN) -> Credential:
    return Credential("bearer", value if isinstance(value, bytes) else value.encode(), scheme="bearer")


def active(**changed: Any) -> dict[str, Any]:
    """A good answer at NOW; ABSENT takes a member away."""
    return claims(**{"active": True, "token_type": "Bearer", "iss": ABSENT, **changed})


class Rig:
    def __init__(self, folder: Path, provider: Server, **settings: Any) -> None:
        self.provider = provider
        self.now = NOW
        self.secret = folder / "client.secret"
        self.secret.write_text("a-secret\n")
        self.settings: dict[str, Provider] = {
            "opaque": self.opaque(**settings),
            "staff": oidc(issuer=provider.issuer),
        }
        made = configuration(**self.settings)
        self.identifier = Identifier(made, place(folder), clock=lambda: self.now)

    def opaque(self, **settings: Any) -> IntrospectionProvider:
        known = {
            "type": "introspection",
            "url": self.provider.issuer + INTROSPECT,
            "audience": ["orders-api"],
            "client": ProviderClient(id="gateway", secret=Secret(file=self.secret)),
        }
        return IntrospectionProvider(**{**known, **settings})

    def reconfigure(self, **providers: Any) -> None:
        self.identifier.reconfigure(configuration(**{**self.settings, **providers}))

    def lookup(self, credential: Credential, accept: tuple[str, ...] = OPAQUE) -> Identity | Refusal | None:
        return self.identifier.lookup(credential, accept, self.now)

    async def verify(self, credential: Credential, accept: tuple[str, ...] = OPAQUE) -> Identity | Refusal:
        return await self.identifier.verify(credential, accept, self.now)

    async def known(self, credential: Credential, accept: tuple[str, ...] = OPAQUE) -> Identity:
        found = await self.verify(credential, accept)
        assert isinstance(found, Identity), found
        return found

    @property
    def asked(self) -> int:
        return self.provider.asked[INTROSPECT]


Run = Callable[..., None]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    def call(test: Callable[[Rig], Awaitable[None]], **settings: Any) -> None:
        async def main() -> None:
            async with Server(ec_key("first").jwk(kid="first")) as provider:
                provider.tokens[TOKEN] = active()
                rig = Rig(tmp_path, provider, **settings)
                await rig.identifier.start()
                try:
                    await test(rig)
                finally:
                    await rig.identifier.stop()

        uvloop.run(main())

    return call


# -- what is asked, and what comes of it ------------------------------------------------------------------
def test_token_is_asked_about_once_and_known_then(run: Run) -> None:
    async def test(rig: Rig) -> None:
        assert rig.lookup(bearer()) is None
        found = await rig.known(bearer())
        assert (found.provider, found.method, found.subject) == ("opaque", "introspection", "alice")
        assert (found.client, found.roles, found.bound) == ("web", ("reader",), None)
        assert found.credential_sha256 == hashlib.sha256(TOKEN.encode()).digest()
        assert rig.lookup(bearer()) is found
        assert await rig.verify(bearer()) is found
        assert rig.asked == 1
        assert rig.provider.forms == [{"token": TOKEN, "token_type_hint": "access_token"}]
        (head,) = (head for head in rig.provider.heads if head.startswith(b"POST"))
        assert head.startswith(b"POST /introspect HTTP/1.1\r\n")
        assert b"authorization: basic z2f0zxdhetphlxnly3jlda==\r\n" in head.lower()

    run(test)


def test_hundred_at_once_ask_once(run: Run) -> None:
    async def test(rig: Rig) -> None:
        found = await asyncio.gather(*(rig.verify(bearer()) for _ in range(100)))
        assert len({id(each) for each in found}) == 1
        assert isinstance(found[0], Identity)
        refused = await asyncio.gather(*(rig.verify(bearer("forged")) for _ in range(100)))
        assert set(refused) == {INACTIVE}
        assert rig.asked == 2

    run(test)


def test_client_that_leaves_while_waiting_disturbs_no_other(run: Run) -> None:
    async def test(rig: Rig) -> None:
        leaves = asyncio.ensure_future(rig.verify(bearer()))
        stays = asyncio.ensure_future(rig.verify(bearer()))
        await asyncio.sleep(0)
        leaves.cancel()
        assert isinstance(await stays, Identity)
        assert rig.asked == 1

    run(test)


def test_answer_that_nobody_waits_for_any_more_is_remembered(run: Run) -> None:
    async def test(rig: Rig) -> None:
        leaves = asyncio.ensure_future(rig.verify(bearer()))
        await asyncio.sleep(0)
        leaves.cancel()
        async with asyncio.timeout(10):
            while rig.lookup(bearer()) is None:  # noqa: ASYNC110 - what is waited for has no event
                await asyncio.sleep(0.002)
        assert rig.asked == 1

    run(test)


def test_machine_s_token_without_a_subject_is_its_client_s(run: Run) -> None:
    async def test(rig: Rig) -> None:
        rig.provider.tokens[TOKEN] = active(sub=ABSENT, client_id="reports")
        found = await rig.known(bearer())
        assert (found.subject, found.client) == ("reports", "reports")
        rig.provider.tokens["nobody"] = active(sub=ABSENT, client_id=ABSENT)
        assert await rig.verify(bearer("nobody")) == Refusal("token_claims", "opaque")
        rig.provider.tokens["null"] = active(sub=None, client_id="reports")
        assert await rig.verify(bearer("null")) == Refusal("token_claims", "opaque")

    run(test)


# -- what an answer must say ------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        # not active, or not said to be
        ({"active": False}, "token_inactive"),
        ({"active": "true"}, "provider_unavailable"),
        ({"active": 1}, "provider_unavailable"),
        ({"active": None}, "provider_unavailable"),
        ({"active": [True]}, "provider_unavailable"),
        ({"active": ABSENT}, "provider_unavailable"),
        # for whom, and when
        ({"aud": "other-api"}, "token_audience"),
        ({"aud": ABSENT}, "token_audience"),
        ({"exp": ABSENT}, "token_claims"),
        ({"exp": None}, "token_claims"),
        ({"exp": str(NOW + 300)}, "token_claims"),
        ({"exp": NOW - 31}, "token_expired"),
        ({"nbf": NOW + 31}, "token_not_yet_valid"),
        ({"iat": NOW + 31}, "token_not_yet_valid"),
        ({"iat": NOW - 3631}, "token_too_old"),
        ({"iat": ABSENT, "exp": NOW + 4000}, "token_too_old"),
        # of another kind
        ({"token_type": ABSENT}, "token_type"),
        ({"token_type": "refresh_token"}, "token_type"),
        ({"token_type": "mac"}, "token_type"),
        ({"token_type": "N_A"}, "token_type"),
        ({"token_type": None}, "token_type"),
        ({"token_type": ["Bearer"]}, "token_type"),
        ({"typ": "Refresh"}, "token_type"),
        ({"typ": "ID"}, "token_type"),
        ({"token_use": "refresh_token"}, "token_type"),
        ({"token_use": "id"}, "token_type"),
        ({"at_hash": "x"}, "token_type"),
        ({"events": {}}, "token_type"),
        # bound, but to what?
        ({"token_type": "DPoP"}, "token_claims"),
        ({"token_type": "DPoP", "cnf": {"x5t#S256": "A" * 43}}, "token_claims"),
        ({"token_type": "DPoP", "cnf": 5}, "token_claims"),
        ({"token_type": "DPoP", "cnf": "jkt"}, "token_claims"),
        ({"token_type": "DPoP", "cnf": None}, "token_claims"),
        ({"cnf": {}}, "token_claims"),
        ({"cnf": {"jwk": {}}}, "token_claims"),
        # about whom
        ({"sub": ""}, "token_claims"),
        ({"sub": "alice\r\nGatebook-Roles: admin"}, "token_claims"),
        ({"sub": 5}, "token_claims"),
        ({"sub": "a" * 513}, "token_claims"),
        ({"roles": {"admin": True}}, "token_claims"),
        ({"jti": 5}, "token_claims"),
        ({"iss": "https://login.example"}, None),  # nobody here is there for that one
    ],
)
def test_answer_that_does_not_vouch_for_this_token_here_and_now(
    run: Run, changed: dict[str, Any], reason: str | None
) -> None:
    async def test(rig: Rig) -> None:
        rig.provider.tokens[TOKEN] = active(**changed)
        found = await rig.verify(bearer())
        assert reason == (found.reason if isinstance(found, Refusal) else None)

    run(test)


@pytest.mark.parametrize(
    "changed",
    [
        {"token_type": "bearer"},
        {"token_type": ABSENT, "typ": "Bearer"},
        {"token_type": ABSENT, "token_use": "access_token"},
        {"aud": ["other-api", "orders-api"]},
        {"exp": NOW - 29},
        {"iat": NOW + 29, "nbf": NOW + 29},
        {"iat": ABSENT},
        {"scope": ["read", "write"]},
        {"nonce": "n"},  # older Keycloak's access tokens have it, and this answer says what it is about
    ],
)
def test_answer_that_vouches(run: Run, changed: dict[str, Any]) -> None:
    async def test(rig: Rig) -> None:
        rig.provider.tokens[TOKEN] = active(**changed)
        await rig.known(bearer())

    run(test)


def test_untyped_answer_is_taken_where_that_is_asked_for_and_a_typed_one_judged_all_the_same(run: Run) -> None:
    async def test(rig: Rig) -> None:
        rig.provider.tokens = {TOKEN: active(token_type=ABSENT), "refresh": active(token_type="refresh_token")}
        await rig.known(bearer())
        assert await rig.verify(bearer("refresh")) == Refusal("token_type", "opaque")

    run(test, accept_untyped=True)


@pytest.mark.parametrize(("kind", "cnf"), [("DPoP", {"jkt": "A" * 43}), ("Bearer", {"x5t#S256": "A" * 43})])
def test_stolen_bound_token_is_told_by_its_cnf(run: Run, kind: str, cnf: dict[str, str]) -> None:
    async def test(rig: Rig) -> None:
        rig.provider.tokens[TOKEN] = active(token_type=kind, cnf=cnf)
        found = await rig.known(bearer())
        assert found.bound == Bound(jkt=cnf.get("jkt"), x5t_s256=cnf.get("x5t#S256"))

    run(test)


def test_issuer_of_the_answer_is_the_configured_one_letter_by_letter(run: Run) -> None:
    async def test(rig: Rig) -> None:
        others = ("https://evil.example", "https://opaque.example", "https://opaque.example/x", 5, None, ABSENT)
        for number, issuer in enumerate(others):
            rig.provider.tokens[str(number)] = active(iss=issuer)
            assert await rig.verify(bearer(str(number))) == Refusal("token_issuer", "opaque")
        rig.provider.tokens[TOKEN] = active(iss="https://opaque.example/")
        await rig.known(bearer())

    run(test, issuer="https://opaque.example/")


def test_nested_claims_are_found_by_path(run: Run) -> None:
    async def test(rig: Rig) -> None:
        rig.provider.tokens[TOKEN] = active(
            resource_access={"orders-api": {"roles": ["writer"]}}, **{"https://acme.example/groups": ["ops"]}
        )
        found = await rig.known(bearer())
        assert (found.roles, found.groups) == (("writer",), ("ops",))

    run(test, roles_claim="resource_access.orders-api.roles", groups_claim="https://acme.example/groups")


# -- how long an answer serves ----------------------------------------------------------------------------
def test_answer_serves_no_longer_than_configured_and_a_revoked_token_dies_then(run: Run) -> None:
    async def test(rig: Rig) -> None:
        await rig.known(bearer())
        rig.provider.tokens.clear()  # revoked
        rig.now = NOW + 59.9
        await rig.known(bearer())
        rig.now = NOW + 60
        assert rig.lookup(bearer()) is None
        assert await rig.verify(bearer()) == INACTIVE
        assert rig.asked == 2

    run(test)


def test_answer_never_serves_past_exp_though_a_fresh_one_may(run: Run) -> None:
    """The provider's clock may differ from ours within the skew; a remembered word may not be stretched by it."""

    async def test(rig: Rig) -> None:
        rig.provider.tokens[TOKEN] = active(exp=NOW + 10)
        await rig.known(bearer())
        rig.now = NOW + 10
        assert rig.lookup(bearer()) is None
        await rig.known(bearer())
        await rig.known(bearer())
        assert rig.asked == 3

    run(test)


def test_answer_never_serves_past_what_max_ttl_allows(run: Run) -> None:
    async def test(rig: Rig) -> None:
        rig.provider.tokens[TOKEN] = active(iat=NOW - 10)
        await rig.known(bearer())
        rig.now = NOW + 45  # the token is 55 s old, and may be 20 + 30
        assert await rig.verify(bearer()) == Refusal("token_too_old", "opaque")

    run(test, max_ttl=20, cache=50)


def test_clock_set_back_makes_no_answer_older_than_it_is(run: Run) -> None:
    async def test(rig: Rig) -> None:
        await rig.known(bearer())
        rig.now = NOW - 0.1
        assert rig.lookup(bearer()) is None

    run(test)


def test_refusal_is_remembered_briefly(run: Run) -> None:
    async def test(rig: Rig) -> None:
        assert await rig.verify(bearer("new")) == INACTIVE
        rig.provider.tokens["new"] = (
            active()
        )  # it takes providers of many machines a moment to know their own tokens
        rig.now = NOW + 4.9
        assert rig.lookup(bearer("new")) == INACTIVE
        assert await rig.verify(bearer("new")) == INACTIVE
        assert rig.asked == 1
        rig.now = NOW + 5
        await rig.known(bearer("new"))

    run(test)


def test_short_cache_shortens_refusals_too(run: Run) -> None:
    async def test(rig: Rig) -> None:
        assert await rig.verify(bearer("x")) == INACTIVE
        rig.now = NOW + 0.001
        assert rig.lookup(bearer("x")) is None

    run(test, cache=0.001)


def test_unavailability_is_not_remembered(run: Run) -> None:
    async def test(rig: Rig) -> None:
        rig.provider.answers[INTROSPECT] = plain(b"", "500 Oh")
        assert await rig.verify(bearer()) == DOWN
        del rig.provider.answers[INTROSPECT]
        await rig.known(bearer())

    run(test)


@pytest.mark.parametrize("token", ["a+b/c==", "a~b.c-d_e", "%41".replace("%", "+"), "x" * 8000])
def test_token_cannot_add_to_the_question(run: Run, token: str) -> None:
    async def test(rig: Rig) -> None:
        rig.provider.tokens[token] = active()
        await rig.known(bearer(token))
        assert rig.provider.forms == [{"token": token, "token_type_hint": "access_token"}]

    run(test)


# -- floods -----------------------------------------------------------------------------------------------
def test_flood_of_bad_tokens_evicts_no_good_one_and_is_bounded_in_memory(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flood, "MAX_REFUSED", 50)
    monkeypatch.setattr(flood, "MAX_REFUSED_PER_S", 1e9)

    async def test(rig: Rig) -> None:
        await rig.known(bearer())
        for number in range(100):
            assert await rig.verify(bearer(f"bad{number}")) == INACTIVE
        assert rig.lookup(bearer("bad99")) == INACTIVE
        assert rig.lookup(bearer("bad0")) is None
        assert isinstance(rig.lookup(bearer()), Identity)
        method = rig.identifier._in_force.methods["opaque"]
        assert isinstance(method, introspection.IntrospectionMethod)
        assert (len(method._refused._entries), len(method._cache)) == (50, 1)

    run(test)


def test_flood_of_bad_tokens_is_no_flood_at_the_provider(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flood, "MAX_REFUSED_PER_S", 0.001)
    monkeypatch.setattr(flood, "BURST_S", 9000.0)

    async def test(rig: Rig) -> None:
        await rig.known(bearer())
        found = [await rig.verify(bearer(f"bad{number}")) for number in range(30)]
        assert found == [INACTIVE] * 10 + [DOWN] * 20
        assert rig.asked == 11

    run(test)


def test_flood_of_bad_tokens_keeps_nobody_out_who_was_let_in_before(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flood, "MAX_REFUSED_PER_S", 0.001)
    monkeypatch.setattr(flood, "BURST_S", 1.0)

    async def test(rig: Rig) -> None:
        await rig.known(bearer())
        await rig.verify(bearer("bad"))
        assert await rig.verify(bearer("stranger")) == DOWN
        for _ in range(3):  # also when the answer serves no longer
            rig.now += 60
            await rig.known(bearer())
        rig.provider.tokens.clear()
        rig.now += 60
        assert await rig.verify(bearer()) == INACTIVE
        rig.now += 60
        assert await rig.verify(bearer()) == DOWN  # what was let in before is no stranger only while it is

    run(test)


def test_memory_of_who_was_let_in_is_bounded(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flood, "MAX_VOUCHED", 3)

    async def test(rig: Rig) -> None:
        for number in range(5):
            rig.provider.tokens[f"good{number}"] = active()
            await rig.known(bearer(f"good{number}"))
        method = rig.identifier._in_force.methods["opaque"]
        assert isinstance(method, introspection.IntrospectionMethod)
        assert [bearer(f"good{number}").sha256() in method._vouched for number in range(5)] == [False] * 2 + [
            True
        ] * 3

    run(test)


def test_good_tokens_never_count_as_a_flood(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flood, "MAX_REFUSED_PER_S", 0.001)
    monkeypatch.setattr(flood, "BURST_S", 0.0)

    async def test(rig: Rig) -> None:
        for number in range(50):
            rig.provider.tokens[f"good{number}"] = active()
            await rig.known(bearer(f"good{number}"))

    run(test)


def test_waiting_is_bounded_while_the_provider_hangs(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(introspection, "MAX_ASKING", 10)

    async def test(rig: Rig) -> None:
        await rig.known(bearer())
        rig.now += 60
        rig.provider.answers[INTROSPECT] = hang
        waiting = [asyncio.ensure_future(rig.verify(bearer(f"t{number}"))) for number in range(5)]
        await asyncio.sleep(0.01)
        assert await rig.verify(bearer("one-more")) == DOWN
        del rig.provider.answers[INTROSPECT]
        await rig.known(bearer())  # there is room left for those who are known
        for each in waiting:
            each.cancel()

    run(test)


# -- a provider that errs ---------------------------------------------------------------------------------
HUGE = json.dumps(active(pad="x" * introspection.MAX_BODY_BYTES)).encode()
GOOD = json.dumps(active()).encode()
BAD: dict[str, tuple[Answer, str]] = {
    "bad-request": (plain(GOOD, "400 Bad Request"), "status 400"),
    "our-secret-is-wrong": (plain(GOOD, "401 Unauthorized"), "status 401"),
    "forbidden": (plain(GOOD, "403 Forbidden"), "status 403"),
    "not-found": (plain(GOOD, "404 Not Found"), "status 404"),
    "too-many": (plain(GOOD, "429 Too Many Requests"), "status 429"),
    "fails": (plain(GOOD, "500 Oh"), "status 500"),
    "away": (plain(GOOD, "503 Away"), "status 503"),
    "created": (plain(GOOD, "201 Created"), "status 201"),
    "empty": (plain(b"", "204 No Content"), "status 204"),
    "nothing": (plain(b""), "cannot be used"),
    "page": (plain(b"<html>"), "cannot be used"),
    "list": (document([active()]), "not a JSON object"),
    "text": (document("active"), "not a JSON object"),
    "jwt": (plain(mint()), "cannot be used"),
    "active-twice": (plain(b'{"active":false,' + GOOD[1:]), "given twice"),
    "active-twice-escaped": (plain(b'{"\\u0061ctive":false,' + GOOD[1:]), "given twice"),
    "nested-deeply": (plain(b'{"active":true,"x":' + b"[" * 500 + b"]" * 500 + b"}"), "nested too deeply"),
    "huge": (plain(HUGE), "more than"),
    "endless": (endless, "more than"),
    "compressed-bomb": (plain(gzip.compress(GOOD), "200 OK", "Content-Encoding: gzip"), "compressed"),
    "hangs-up": (hang_up, "no answer in HTTP"),
    "shorter-than-said": (
        lambda w: _raw(w, b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{}"),
        "no answer in HTTP",
    ),
    "speaks-no-http": (lambda w: _raw(w, b"SSH-2.0-x\r\n\r\n"), "no answer in HTTP"),
}


async def _raw(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(data)


@pytest.mark.parametrize("name", BAD)
def test_provider_that_errs_lets_nobody_in(run: Run, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    answer, why = BAD[name]

    async def test(rig: Rig) -> None:
        rig.provider.answers[INTROSPECT] = answer
        assert await rig.verify(bearer()) == DOWN
        assert await rig.verify(bearer()) == DOWN
        assert rig.identifier.ready()

    run(test)
    said = "".join(capsys.readouterr())
    assert said.count("tokens cannot be introspected") == 1  # not once for each request
    assert why in said
    assert TOKEN not in said
    assert "a-secret" not in said


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "303 See", "307 Temporary", "308 Permanent"])
def test_redirect_is_not_followed_with_the_token(run: Run, status: str) -> None:
    async def test(rig: Rig) -> None:
        rig.provider.answers[INTROSPECT] = plain(b"", status, f"Location: {rig.provider.issuer}/elsewhere")
        assert await rig.verify(bearer()) == DOWN
        assert "/elsewhere" not in rig.provider.asked

    run(test)


@pytest.mark.parametrize("stall", [hang, trickle])
def test_provider_that_stalls_is_given_up(run: Run, stall: Answer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(introspection, "STEP_S", 0.05)
    monkeypatch.setattr(introspection, "TOTAL_S", 0.1)

    async def test(rig: Rig) -> None:
        rig.provider.answers[INTROSPECT] = stall
        assert await rig.verify(bearer()) == DOWN

    run(test)


def test_provider_that_is_down_makes_its_own_unknown_tokens_unavailable_and_nothing_else(run: Run) -> None:
    async def test(rig: Rig) -> None:
        await rig.known(bearer())
        jwt = bearer(mint(claims(iss=rig.provider.issuer), {"alg": "ES256", "kid": "first"}, ec_key("first").sign))
        await rig.known(jwt, BOTH)
        await rig.provider.down()
        assert await rig.verify(bearer("unknown")) == DOWN
        assert await rig.verify(bearer("unknown"), BOTH) == DOWN
        await rig.known(bearer())
        await rig.known(jwt, BOTH)
        rig.now = NOW + 60  # its word serves no longer
        assert await rig.verify(bearer()) == DOWN
        await rig.provider.up()
        await rig.known(bearer())

    run(test)


def test_connection_that_was_closed_meanwhile_is_no_reason_to_refuse(run: Run) -> None:
    async def test(rig: Rig) -> None:
        answers = [hang_up]

        async def once(writer: asyncio.StreamWriter) -> None:
            await (answers.pop() if answers else document(active()))(writer)

        rig.provider.answers[INTROSPECT] = once
        await rig.known(bearer())
        assert rig.asked == 2

    run(test)


def test_client_that_makes_the_provider_err_at_will_does_not_fill_the_log(
    run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flood, "MAX_REFUSED_PER_S", 1e9)

    async def test(rig: Rig) -> None:
        for number in range(20):
            rig.provider.answers[INTROSPECT] = plain(b"", f"{400 + number} No")
            assert await rig.verify(bearer()) == DOWN
            del rig.provider.answers[INTROSPECT]
            assert await rig.verify(bearer(f"bad{number}")) == INACTIVE
        monkeypatch.setattr(introspection, "LOG_S", 0.0)
        assert await rig.verify(bearer("bad")) == INACTIVE

    run(test)
    said = "".join(capsys.readouterr())
    assert said.count("tokens cannot be introspected") == 1
    assert said.count("introspection works again") == 1


# -- whose token it is ------------------------------------------------------------------------------------
def test_jwt_goes_where_its_issuer_says(run: Run) -> None:
    """A provider that is asked about another's token could use it."""

    async def test(rig: Rig) -> None:
        header = {"alg": "ES256", "kid": "first"}
        good = mint(claims(iss=rig.provider.issuer), header, ec_key("first").sign)
        forged = mint(claims(iss=rig.provider.issuer), header, ec_key("attacker").sign)
        rig.provider.tokens = {token.decode(): active() for token in (good, forged)}
        assert (await rig.known(bearer(good), BOTH)).provider == "staff"
        assert (await rig.known(bearer(good), ("opaque", "staff"))).provider == "staff"
        assert await rig.verify(bearer(forged), BOTH) == Refusal("token_signature", "staff")
        assert await rig.verify(bearer(forged), ("opaque", "staff")) == Refusal("token_signature", "staff")
        assert await rig.verify(bearer(good)) == Refusal("token_issuer")
        assert rig.asked == 0

    run(test)


def test_jwt_of_an_issuer_that_nobody_else_is_there_for_is_asked_about(run: Run) -> None:
    async def test(rig: Rig) -> None:
        token = mint(claims(iss="https://opaque.example"))
        rig.provider.tokens[token.decode()] = active()
        assert (await rig.known(bearer(token), BOTH)).provider == "opaque"

    run(test)


def test_jwt_of_another_issuer_is_never_sent_to_a_provider_with_one(run: Run) -> None:
    async def test(rig: Rig) -> None:
        mine = mint(claims(iss="https://opaque.example"))
        rig.provider.tokens = {
            mine.decode(): active(iss="https://opaque.example"),
            TOKEN: active(iss="https://opaque.example"),
        }
        for issuer in ("https://opaque.example/", "https://evil.example", rig.provider.issuer):
            assert await rig.verify(bearer(mint(claims(iss=issuer)))) == Refusal("token_issuer")
        assert rig.asked == 0
        await rig.known(bearer(mine), BOTH)
        await rig.known(bearer(), BOTH)

    run(test, issuer="https://opaque.example")


@pytest.mark.parametrize("prefix", ["gbk", "gbs", "gbr"])
def test_key_or_secret_of_our_own_sent_as_a_token_is_never_sent_on(run: Run, prefix: str) -> None:
    async def test(rig: Rig) -> None:
        ours = make_text(make_id(os.urandom), os.urandom, prefix)
        rig.provider.tokens = {ours: active(), ours[:-1]: active()}
        assert await rig.verify(bearer(ours)) == Refusal("token_issuer")
        assert rig.asked == 0
        await rig.known(bearer(ours[:-1]))  # which only resembles one

    run(test)


def test_provider_that_is_asked_about_jwts_too_shares_its_issuer(run: Run) -> None:
    """Either way of the same provider will do, in the route's order."""

    async def test(rig: Rig) -> None:
        rig.reconfigure(opaque=rig.opaque(issuer=rig.provider.issuer))
        token = mint(claims(iss=rig.provider.issuer), {"alg": "ES256", "kid": "first"}, ec_key("first").sign)
        rig.provider.tokens = {token.decode(): active(iss=rig.provider.issuer)}
        assert (await rig.known(bearer(token), BOTH)).method == "oidc"
        assert (await rig.known(bearer(token), OPAQUE)).method == "introspection"

    run(test)


def test_opaque_token_on_a_route_with_jwts_is_told_by_its_own_provider(run: Run) -> None:
    async def test(rig: Rig) -> None:
        assert (await rig.known(bearer(), BOTH)).provider == "opaque"
        assert await rig.verify(bearer("forged"), BOTH) == INACTIVE
        assert await rig.verify(bearer(), ("staff",)) == Refusal("token_malformed")

    run(test)


def test_two_providers_keep_their_tokens_apart(run: Run) -> None:
    async def test(rig: Rig) -> None:
        async with Server() as second:
            second.tokens["theirs"] = active(sub="bob")
            rig.reconfigure(other=rig.opaque(url=second.issuer + INTROSPECT))
            both = ("opaque", "other")
            assert (await rig.known(bearer(), both)).provider == "opaque"
            assert second.asked[INTROSPECT] == 0
            assert (await rig.known(bearer("theirs"), both)).provider == "other"
            assert rig.lookup(bearer("theirs"), OPAQUE) == INACTIVE
            assert await rig.verify(bearer("forged"), both) == INACTIVE
            assert await rig.verify(bearer(), ("other",)) == Refusal("token_inactive", "other")

    run(test)


# -- reconfiguration --------------------------------------------------------------------------------------
def test_reconfiguration_forgets_answers_and_reads_the_secret_anew(run: Run) -> None:
    async def test(rig: Rig) -> None:
        await rig.known(bearer())
        rig.secret.write_text("rotated")
        rig.reconfigure()
        assert rig.lookup(bearer()) is None
        await rig.known(bearer())
        assert b"authorization: basic z2f0zxdhetpyb3rhdgvk\r\n" in rig.provider.heads[-1].lower()

    run(test)


def test_one_who_waits_through_a_reconfiguration_is_judged_by_the_new_one(run: Run) -> None:
    async def test(rig: Rig) -> None:
        rig.provider.answers[INTROSPECT] = hang
        waiting = asyncio.ensure_future(rig.verify(bearer()))
        await asyncio.sleep(0.02)
        del rig.provider.answers[INTROSPECT]
        rig.reconfigure(opaque=rig.opaque(audience=["another"]))
        assert await waiting == Refusal("token_audience", "opaque")

    run(test)
