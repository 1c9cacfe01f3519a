"""Who is calling: the whole of identification, with a real provider on loopback and a real key file."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import pytest
import uvloop
from tests.identity.deployment import configuration, place
from tests.identity.mint import NOW, claims, ec_key, mint
from tests.identity.mint import oidc as oidc_provider
from tests.identity.provider import JWKS, Provider, hang

from gatebook.config.model import ApiKeyProvider
from gatebook.errors import EnvironmentFault
from gatebook.identity import Identifier, jwks, jws, jwt, oidc
from gatebook.identity.api_key_file import Made, create, revoke
from gatebook.identity.keyed import signed_sha256
from gatebook.identity.oidc import OIDCMethod
from gatebook.identity.types import Bound, Credential, Identity, Presented, Refusal
from gatebook.kept import watch

STAFF, PARTNERS = ("staff",), ("partners",)
BOTH = ("staff", "partners")


def bearer(value: bytes) -> Credential:
    return Credential("bearer", value, scheme="bearer")


def shown(name: bytes, value: bytes) -> Presented:
    return Presented([(name, value)], "GET", "https://api.acme.example/orders/7")


def signed(issuer: str, name: str = "first", **changed: Any) -> Credential:
    """A token of the key of this name, which is also its kid."""
    header = {"alg": "ES256", "kid": name}
    return bearer(mint(claims(iss=issuer, **changed), header, ec_key(name).sign))


class Rig:
    def __init__(self, provider: Provider, folder: Path, **identity: Any) -> None:
        self.provider = provider
        self.paths = place(folder)
        self.path = self.paths.api_keys
        self.now = NOW
        self.settings = identity or {
            "staff": oidc_provider(issuer=provider.issuer),
            "partners": ApiKeyProvider(type="api_key"),
            "machines": ApiKeyProvider(type="api_key", header="X-Machine-Key"),
        }
        self.identifier = Identifier(configuration(**self.settings), self.paths, clock=lambda: self.now)

    def token(self, name: str = "first", **changed: Any) -> Credential:
        return signed(self.provider.issuer, name, **changed)

    def lookup(self, credential: Credential, accept: tuple[str, ...] = STAFF) -> Identity | Refusal | None:
        return self.identifier.lookup(credential, accept, self.now)

    async def verify(self, credential: Credential, accept: tuple[str, ...] = STAFF) -> Identity | Refusal:
        return await self.identifier.verify(credential, accept, self.now)

    async def known(self, credential: Credential, accept: tuple[str, ...] = STAFF) -> Identity:
        found = await self.verify(credential, accept)
        assert isinstance(found, Identity), found
        return found

    async def reconfigure(self, **identity: Any) -> None:
        self.identifier.reconfigure(configuration(**{**self.settings, **identity}))

    def key(self, provider: str = "partners", **changed: Any) -> Made:
        settings: dict[str, Any] = {"roles": ("reader",), "subject": "acme", "ttl_s": 60.0, "now": NOW}
        quiet: Any = {"random": secrets.token_bytes, "announce": lambda key: None}
        made = create(self.path, provider=provider, **{**settings, **changed}, **quiet)
        self.identifier._watch.poll()
        return made


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., None]:
    def call(test: Callable[[Rig], Awaitable[None]], **identity: Any) -> None:
        async def main() -> None:
            async with Provider(ec_key("first").jwk(kid="first")) as provider:
                rig = Rig(provider, tmp_path, **identity)
                await rig.identifier.start()
                try:
                    await test(rig)
                finally:
                    await rig.identifier.stop()

        uvloop.run(main())

    return call


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jwks, "REFETCH_S", 0.0)


Run = Callable[..., None]


# -- tokens -----------------------------------------------------------------------------------------------
def test_token_is_unknown_first_and_known_then(run: Run) -> None:
    async def test(rig: Rig) -> None:
        token = rig.token()
        presented = rig.identifier.present(shown(b"authorization", b"Bearer " + token.value), BOTH)
        assert presented == token
        assert rig.lookup(token) is None
        found = await rig.known(token)
        assert (found.provider, found.subject, found.roles) == ("staff", "alice", ("reader",))
        assert found.credential_sha256 == signed_sha256(token)
        assert rig.lookup(token) is found

    run(test)


def test_first_request_waits_for_the_first_keys_and_all_share_one_verification(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    verified: list[object] = []
    real = jwt.verify

    def counted(*arguments: Any) -> Any:
        result = real(*arguments)
        verified.append(result)
        return result

    monkeypatch.setattr(oidc, "verify", counted)

    async def test(rig: Rig) -> None:
        token = rig.token()
        found = await asyncio.gather(*(rig.verify(token) for _ in range(100)))
        assert len({id(each) for each in found}) == 1
        assert isinstance(found[0], Identity)
        assert len(verified) == 1
        assert rig.provider.asked[JWKS] == 1

    run(test)


@pytest.mark.usefixtures("eager")
def test_token_of_a_new_key_is_accepted_at_once_after_rotation(run: Run) -> None:
    async def test(rig: Rig) -> None:
        await rig.known(rig.token())
        rig.provider.keys = [ec_key("second").jwk(kid="second")]
        await rig.known(rig.token("second"))

    run(test)


@pytest.mark.usefixtures("eager")
def test_cached_token_dies_with_its_key(run: Run) -> None:
    async def test(rig: Rig) -> None:
        old = rig.token()
        await rig.known(old)
        assert rig.lookup(old) is not None
        rig.provider.keys = [ec_key("second").jwk(kid="second")]
        await rig.known(rig.token("second"))
        assert rig.lookup(old) is None
        assert await rig.verify(old) == Refusal("token_key_unknown", "staff")

    run(test)


@pytest.mark.usefixtures("eager")
def test_cached_token_dies_when_its_key_id_gets_another_key(run: Run) -> None:
    async def test(rig: Rig) -> None:
        old = rig.token()
        await rig.known(old)
        rig.provider.keys = [ec_key("second").jwk(kid="first")]
        await rig.verify(rig.token("third"))  # makes it look
        assert rig.lookup(old) is None
        assert await rig.verify(old) == Refusal("token_signature", "staff")

    run(test)


def test_cached_token_dies_at_its_end(run: Run) -> None:
    async def test(rig: Rig) -> None:
        token = rig.token(exp=NOW + 100)
        await rig.known(token)
        rig.now = NOW + 129
        assert rig.lookup(token) is not None
        rig.now = NOW + 130
        assert rig.lookup(token) is None
        assert await rig.verify(token) == Refusal("token_expired", "staff")

    run(test)


def test_flood_of_bad_tokens_evicts_nobody_and_asks_the_provider_once(run: Run) -> None:
    async def test(rig: Rig) -> None:
        good = rig.token()
        await rig.known(good)
        method = rig.identifier._in_force.methods["staff"]
        assert isinstance(method, OIDCMethod)
        forged = mint(claims(iss=rig.provider.issuer), {"alg": "ES256", "kid": "first"}, ec_key("attacker").sign)
        for number in range(300):
            unknown = bearer(rig.token(sub=str(number)).value[:-8] + b"AAAAAAAA")
            assert isinstance(await rig.verify(unknown), Refusal)
            assert await rig.verify(rig.token("attacker")) == Refusal("token_key_unknown", "staff")
            assert await rig.verify(bearer(forged)) == Refusal("token_signature", "staff")
        assert rig.lookup(good) is not None
        assert len(method._cache) == 1
        assert rig.provider.asked[JWKS] == 1

    run(test)


def test_token_of_another_provider_opens_nothing_here(run: Run) -> None:
    async def test(rig: Rig) -> None:
        other = oidc_provider(issuer=rig.provider.issuer + "/other")
        await rig.reconfigure(other=other)
        token = rig.token()
        await rig.known(token)
        assert rig.lookup(token, ("other",)) is None
        assert await rig.verify(token, ("other",)) == Refusal("token_issuer")
        assert await rig.verify(token, ("nobody",)) == Refusal("token_issuer")
        assert await rig.verify(token, ()) == Refusal("token_issuer")
        assert isinstance(await rig.verify(token, ("other", "staff")), Identity)

    run(test)


def test_no_address_in_a_token_is_ever_asked(run: Run) -> None:
    """Neither the issuer that it names, nor its `jku`, nor its `x5u`: all of them the attacker's."""

    async def test(rig: Rig) -> None:
        async with Provider(ec_key("attacker").jwk(kid="attacker")) as attacker:
            for issuer in (attacker.issuer, rig.provider.issuer):
                header = {"alg": "ES256", "kid": "attacker", "jku": attacker.issuer + JWKS, "x5u": attacker.issuer}
                said = claims(iss=issuer, jwks_uri=attacker.issuer + JWKS)
                forged = mint(said, header, ec_key("attacker").sign)
                assert isinstance(await rig.verify(bearer(forged), BOTH), Refusal)
            assert not attacker.asked

    run(test)


def test_two_providers_of_one_issuer_are_both_tried(run: Run) -> None:
    async def test(rig: Rig) -> None:
        second = oidc_provider(issuer=rig.provider.issuer, audience=["billing-api"])
        await rig.reconfigure(billing=second)
        token = rig.token(aud="billing-api")
        assert (await rig.known(token, ("staff", "billing"))).provider == "billing"
        assert rig.lookup(token, STAFF) is None
        assert await rig.verify(token, STAFF) == Refusal("token_audience", "staff")

    run(test)


@pytest.mark.parametrize("value", [b"opaque", b"gbk_abcdefgh_x", b"a.b", b"..", b"a.b.c", b"x" * 9000])
def test_token_that_is_no_jwt_is_malformed(run: Run, value: bytes) -> None:
    async def test(rig: Rig) -> None:
        assert await rig.verify(bearer(value)) == Refusal("token_malformed")
        assert not rig.provider.asked[JWKS]

    run(test)


@pytest.mark.parametrize("cnf", [{"jkt": "A" * 43}, {"x5t#S256": "A" * 43}])
def test_stolen_bound_token_opens_nothing_without_its_proof(run: Run, cnf: dict[str, str]) -> None:
    async def test(rig: Rig) -> None:
        token = rig.token(cnf=cnf)
        for _ in range(2):  # the second time it is known
            found = await rig.known(token)
            assert found.bound == Bound(jkt=cnf.get("jkt"), x5t_s256=cnf.get("x5t#S256"))
            request = shown(b"authorization", b"Bearer " + token.value)
            assert rig.identifier.confirm(found, token, request, NOW) == Refusal("token_binding", "staff")
            free = rig.token()
            assert rig.identifier.confirm(await rig.known(free), free, request, NOW) is None

    run(test)


# -- a provider that is down ------------------------------------------------------------------------------
def test_provider_that_is_down_stops_nobody_whose_key_is_known(run: Run) -> None:
    async def test(rig: Rig) -> None:
        await rig.known(rig.token())
        await rig.provider.down()
        await rig.known(rig.token(sub="bob"))
        assert rig.identifier.ready()

    run(test)


@pytest.mark.usefixtures("eager")
def test_unknown_key_of_a_provider_that_is_down_is_not_the_token_s_fault(run: Run) -> None:
    async def test(rig: Rig) -> None:
        await rig.known(rig.token())
        await rig.provider.down()
        assert await rig.verify(rig.token("second")) == Refusal("provider_unavailable", "staff")
        forged = mint(claims(iss=rig.provider.issuer), {"alg": "ES256", "kid": "first"}, ec_key("attacker").sign)
        assert await rig.verify(bearer(forged)) == Refusal("token_signature", "staff")

    run(test)


def test_provider_that_never_answered_makes_its_tokens_unavailable_and_nothing_else(run: Run) -> None:
    async def test(rig: Rig) -> None:
        await rig.provider.down()
        assert await rig.verify(rig.token()) == Refusal("provider_unavailable", "staff")
        assert rig.identifier.ready()
        made = rig.key()
        assert isinstance(rig.lookup(Credential("api_key", made.text.encode(), "partners"), PARTNERS), Identity)

    run(test)


def test_provider_that_hangs_costs_no_more_than_the_patience(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oidc, "PATIENCE_S", 0.02)

    async def test(rig: Rig) -> None:
        rig.provider.answers[JWKS] = hang
        assert await rig.verify(rig.token()) == Refusal("provider_unavailable", "staff")

    run(test)


@pytest.mark.usefixtures("eager")
def test_keys_that_are_too_old_serve_nobody_cached_or_not(run: Run) -> None:
    async def test(rig: Rig) -> None:
        await rig.reconfigure(staff=oidc_provider(issuer=rig.provider.issuer, jwks_max_age=50))
        token = rig.token()
        await rig.known(token)
        await rig.provider.down()
        rig.now = NOW + 50
        assert rig.lookup(token) is None
        assert await rig.verify(token) == Refusal("provider_unavailable", "staff")

    run(test)


def test_client_that_leaves_while_waiting_disturbs_no_other(run: Run) -> None:
    async def test(rig: Rig) -> None:
        leaves = asyncio.ensure_future(rig.verify(rig.token(sub="leaves")))
        stays = asyncio.ensure_future(rig.verify(rig.token(sub="stays")))
        await asyncio.sleep(0)
        leaves.cancel()
        found = await stays
        assert isinstance(found, Identity)
        assert found.subject == "stays"

    run(test)


# -- reconfiguration --------------------------------------------------------------------------------------
def test_reconfiguration_forgets_tokens_and_keeps_keys(run: Run) -> None:
    async def test(rig: Rig) -> None:
        token = rig.token()
        await rig.known(token)
        await rig.reconfigure()
        assert rig.lookup(token) is None
        await rig.known(token)
        assert rig.provider.asked[JWKS] == 1

    run(test)


def test_reconfiguration_is_in_force_for_tokens_that_were_verified_before(run: Run) -> None:
    async def test(rig: Rig) -> None:
        token = rig.token()
        await rig.known(token)
        await rig.reconfigure(staff=oidc_provider(issuer=rig.provider.issuer, audience=["another"]))
        assert await rig.verify(token) == Refusal("token_audience", "staff")
        await rig.reconfigure(staff=ApiKeyProvider(type="api_key", header="X-Staff"))
        assert await rig.verify(token) == Refusal("token_issuer")

    run(test)


def test_one_who_waits_through_a_reconfiguration_is_judged_by_the_new_one(run: Run) -> None:
    async def test(rig: Rig) -> None:
        rig.provider.answers[JWKS] = hang
        waiting = asyncio.ensure_future(rig.verify(rig.token()))
        await asyncio.sleep(0.01)
        await rig.reconfigure(staff=oidc_provider(issuer=rig.provider.issuer, audience=["another"]))
        found = await waiting
        assert isinstance(found, Refusal)
        assert rig.lookup(rig.token()) is None

    run(test)


def test_reconfiguration_that_cannot_be_used_changes_nothing(run: Run) -> None:
    async def test(rig: Rig) -> None:
        token = rig.token()
        await rig.known(token)
        with pytest.raises(EnvironmentFault, match="CA"):
            await rig.reconfigure(more=oidc_provider(ca=Path("/nowhere/ca.pem")))
        assert rig.lookup(token) is not None
        assert await rig.verify(rig.token("second")) == Refusal("token_key_unknown", "staff")

    run(test)


def test_provider_that_is_gone_is_asked_no_more(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jwks, "SHORTEST_S", 0.005)

    async def test(rig: Rig) -> None:
        await rig.reconfigure(staff=oidc_provider(issuer=rig.provider.issuer, jwks_refresh=0.001))
        await rig.known(rig.token())
        await rig.reconfigure(staff=ApiKeyProvider(type="api_key"))
        await asyncio.sleep(0)
        asked = rig.provider.asked[JWKS]
        await asyncio.sleep(0.05)
        assert rig.provider.asked[JWKS] <= asked + 1  # one may have been on its way

    run(test)


# -- API keys ---------------------------------------------------------------------------------------------
def presented(rig: Rig, text: str, header: bytes = b"x-api-key", accept: tuple[str, ...] = PARTNERS) -> Any:
    found = rig.identifier.present(shown(header, text.encode()), accept)
    if not isinstance(found, Credential):
        return found
    return rig.lookup(found, accept)


def test_key_works_within_a_second_and_is_revoked_within_a_second(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "POLL_S", 0.005)

    async def test(rig: Rig) -> None:
        made = create(rig.path, provider="partners", roles=("reader",), subject="acme", ttl_s=60, now=NOW,
                      random=secrets.token_bytes, announce=lambda key: None)  # fmt: skip
        await becomes(lambda: isinstance(presented(rig, made.text), Identity))
        revoke(rig.path, made.key.id, now=NOW, announce=lambda key: None)
        await becomes(lambda: presented(rig, made.text) == Refusal("key_revoked", "partners"))

    run(test)


async def becomes(wanted: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not wanted():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.002)


def test_key_expires(run: Run) -> None:
    async def test(rig: Rig) -> None:
        made = rig.key()
        rig.now = NOW + 59
        assert isinstance(presented(rig, made.text), Identity)
        rig.now = NOW + 60
        assert presented(rig, made.text) == Refusal("key_expired", "partners")

    run(test)


def test_key_opens_by_its_own_provider_and_header_alone(run: Run) -> None:
    async def test(rig: Rig) -> None:
        made, machine = rig.key(), rig.key("machines")
        every = ("staff", "partners", "machines")
        assert isinstance(presented(rig, made.text, accept=every), Identity)
        assert isinstance(presented(rig, machine.text, b"x-machine-key", every), Identity)
        assert presented(rig, made.text, b"x-machine-key", every) == Refusal("key_unknown", "partners")
        assert presented(rig, machine.text, b"x-api-key", every) == Refusal("key_unknown", "machines")
        assert presented(rig, machine.text, b"x-machine-key", PARTNERS) is None
        assert presented(rig, machine.text, b"x-api-key", PARTNERS) == Refusal("key_unknown", "machines")

    run(test)


def test_two_providers_in_one_header_keep_their_keys_apart(run: Run) -> None:
    async def test(rig: Rig) -> None:
        await rig.reconfigure(agents=ApiKeyProvider(type="api_key"))
        made = rig.key("agents")
        assert presented(rig, made.text, accept=("partners", "agents")).provider == "agents"
        assert presented(rig, made.text, accept=PARTNERS) == Refusal("key_unknown", "agents")

    run(test)


def test_key_of_a_provider_that_is_no_more_opens_nothing(run: Run) -> None:
    async def test(rig: Rig) -> None:
        made = rig.key("partners")
        await rig.reconfigure(partners=oidc_provider(issuer=rig.provider.issuer))
        assert presented(rig, made.text, b"x-machine-key", ("partners", "machines")) == Refusal(
            "key_unknown", "partners"
        )

    run(test)


def test_key_file_that_is_broken_is_no_key_s_fault(run: Run) -> None:
    async def test(rig: Rig) -> None:
        made = rig.key()
        rig.path.write_text("{")
        rig.identifier._watch.poll()
        assert presented(rig, made.text) == Refusal("provider_unavailable", "partners")
        await rig.known(rig.token())

    run(test)


def test_key_as_a_bearer_token_and_token_as_a_key_are_malformed(run: Run) -> None:
    async def test(rig: Rig) -> None:
        assert await rig.verify(bearer(rig.key().text.encode()), BOTH) == Refusal("token_malformed")
        assert presented(rig, rig.token().value.decode()) == Refusal("key_malformed")

    run(test)


def test_verify_answers_for_keys_too(run: Run) -> None:
    async def test(rig: Rig) -> None:
        credential = Credential("api_key", rig.key().text.encode(), "partners")
        assert isinstance(await rig.verify(credential, PARTNERS), Identity)

    run(test)


# -- its life ---------------------------------------------------------------------------------------------
def test_ready_says_started_and_no_more(tmp_path: Path) -> None:
    async def main() -> None:
        who = Identifier(configuration(staff=oidc_provider(issuer="http://127.0.0.1:1")), place(tmp_path))
        assert not who.ready()
        await who.start()
        assert who.ready()
        await who.stop()
        assert not who.ready()
        await who.stop()

    uvloop.run(main())


def test_own_client_is_used_and_left_open(tmp_path: Path) -> None:
    def answer(request: httpx2.Request) -> httpx2.Response:
        document: dict[str, Any] = {"issuer": "https://login.example", "jwks_uri": "https://login.example/jwks"}
        if request.url.path == JWKS:
            document = {"keys": [ec_key("first").jwk(kid="first")]}
        return httpx2.Response(200, stream=httpx2.ByteStream(json.dumps(document).encode()))

    async def main() -> None:
        async with httpx2.AsyncClient(transport=httpx2.MockTransport(answer)) as client:
            settings = configuration(staff=oidc_provider())
            who = Identifier(settings, place(tmp_path), clock=lambda: NOW, client=client)
            await who.start()
            found = await who.verify(signed("https://login.example"), STAFF, NOW)
            assert isinstance(found, Identity)
            await who.stop()
            assert not client.is_closed

    uvloop.run(main())


def test_nothing_of_a_credential_is_logged(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    tokens: list[bytes] = []

    async def test(rig: Rig) -> None:
        for name in ("first", "second"):
            token = rig.token(name)
            tokens.extend([token.value, *token.value.split(b".")[1:]])
            await rig.verify(token)
        key = rig.key()
        tokens.append(key.text.encode())
        presented(rig, key.text)
        presented(rig, key.text[:-1] + "!")

    run(test)
    said = "".join(capsys.readouterr())
    assert "keys refreshed" in said
    assert not any(token.decode() in said for token in tokens)


def test_longest_tokens_are_bounded_before_any_work(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jws, "parse_object", partial(pytest.fail, "worked on it"))

    async def test(rig: Rig) -> None:
        long = rig.token(pad="x" * 8000).value
        assert rig.identifier.present(shown(b"authorization", b"Bearer " + long), STAFF) == Refusal(
            "token_malformed"
        )
        assert await rig.verify(bearer(long)) == Refusal("token_malformed")

    run(test)
