"""Opaque tokens of a certified provider: asked about in each way that a client can say who it is."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvloop
from cryptography.hazmat.primitives import serialization
from tests.identity.deployment import configuration, place
from tests.identity.mint import b64, ec_key, rsa_key
from tests.oidc.provider import Client, Provider, serve

from gatebook.config.base import Secret
from gatebook.config.model import IntrospectionProvider, OIDCProvider, ProviderClient
from gatebook.identity import Identifier
from gatebook.identity.types import Bound, Credential, Identity, Refusal

OPAQUE = ("opaque",)
KEYS: dict[str, Any] = {"es": ec_key("gateway").private, "rs": rsa_key("gateway").private}
SECRET = "a secret: of/tests+%&="


@pytest.fixture(scope="module")
def opaque() -> Iterator[Provider]:
    claims = {"realm_access": {"roles": ["reader"]}, "tenant": "acme"}
    by_key: dict[str, Any] = {"auth": "private_key_jwt"}
    clients = {
        "machine": Client(format="opaque", claims=claims),
        "brief": Client(format="opaque", lifetime_s=2),
        "signed": Client(claims=claims),
        "basic": Client(secret=SECRET),
        "post": Client(secret=SECRET, auth="client_secret_post"),
        "es": Client(keys=(ec_key("gateway").jwk(kid="g1", alg="ES256", use="sig"),), **by_key),
        "rs": Client(keys=(rsa_key("gateway").jwk(kid="g1", alg="RS256", use="sig"),), **by_key),
    }
    with serve(clients) as running:
        yield running


def client(name: str, folder: Path) -> ProviderClient:
    path = folder / "secret"
    if name in KEYS:
        path.write_bytes(
            KEYS[name].private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return ProviderClient(id=name, method="private_key_jwt", key=Secret(file=path), key_id="g1")
    path.write_text(SECRET)
    return ProviderClient(id=name, method="post" if name == "post" else "basic", secret=Secret(file=path))


def bearer(token: str) -> Credential:
    return Credential("bearer", token.encode(), scheme="bearer")


Test = Callable[[Identifier], Awaitable[None]]


@pytest.fixture
def run(opaque: Provider, tmp_path: Path) -> Callable[..., None]:
    def call(test: Test, name: str = "basic", **settings: Any) -> None:
        known: dict[str, Any] = {
            "type": "introspection",
            "url": f"{opaque.issuer}/token/introspection",
            "audience": ["orders-api"],
            "client": client(name, tmp_path),
            "roles_claim": "realm_access.roles",
        }
        provider = IntrospectionProvider(**{**known, **settings})
        staff = OIDCProvider(type="oidc", issuer=opaque.issuer, audience=["orders-api"])

        async def main() -> None:
            identifier = Identifier(configuration(opaque=provider, staff=staff), place(tmp_path / "state"))
            await identifier.start()
            try:
                await test(identifier)
            finally:
                await identifier.stop()

        uvloop.run(main())

    return call


async def found(who: Identifier, token: str, accept: tuple[str, ...] = OPAQUE) -> Identity | Refusal:
    return await who.verify(bearer(token), accept, time.time())


@pytest.mark.parametrize("name", ["basic", "post", "es", "rs"])
def test_its_tokens_open_in_each_way_to_authenticate(
    run: Callable[..., None], opaque: Provider, name: str
) -> None:
    async def test(who: Identifier) -> None:
        for _ in range(3):  # an assertion that came twice would be refused
            identity = await found(who, opaque.get_token("machine"))
            assert isinstance(identity, Identity), identity
            assert (identity.subject, identity.client, identity.roles) == ("machine", "machine", ("reader",))
            assert identity.scopes == ("orders:read",)
            assert identity.claims["tenant"] == "acme"
        assert await found(who, "never-issued") == Refusal("token_inactive", "opaque")

    run(test, name, issuer=opaque.issuer)


def test_assertion_for_the_endpoint_is_taken_too(run: Callable[..., None], opaque: Provider) -> None:
    async def test(who: Identifier) -> None:
        assert isinstance(await found(who, opaque.get_token("machine")), Identity)

    run(test, "es")


def test_wrong_secret_makes_its_tokens_unavailable(
    run: Callable[..., None], opaque: Provider, tmp_path: Path
) -> None:
    async def test(who: Identifier) -> None:
        assert await found(who, opaque.get_token("machine")) == Refusal("provider_unavailable", "opaque")

    wrong = tmp_path / "wrong"
    wrong.write_text("guessed")
    run(test, client=ProviderClient(id="basic", secret=Secret(file=wrong)))


def test_token_for_another_api_opens_nothing(run: Callable[..., None], opaque: Provider) -> None:
    async def test(who: Identifier) -> None:
        token = opaque.get_token("machine", audience="billing-api")
        assert await found(who, token) == Refusal("token_audience", "opaque")

    run(test)


def test_token_that_is_revoked_opens_nothing_when_the_answer_has_served(
    run: Callable[..., None], opaque: Provider
) -> None:
    async def test(who: Identifier) -> None:
        token = opaque.get_token("machine")
        assert isinstance(await found(who, token), Identity)
        opaque.revoke("machine", token)
        async with asyncio.timeout(10):
            while (answer := await found(who, token)) != Refusal("token_inactive", "opaque"):
                assert isinstance(answer, Identity)
                await asyncio.sleep(0.05)

    run(test, cache=0.3)


def test_token_that_expired_is_inactive_there_and_not_remembered_here(
    run: Callable[..., None], opaque: Provider
) -> None:
    async def test(who: Identifier) -> None:
        token = opaque.get_token("brief")
        identity = await found(who, token)
        assert isinstance(identity, Identity)
        exp = identity.claims["exp"]
        assert who.lookup(bearer(token), OPAQUE, exp - 0.01) is identity
        assert who.lookup(bearer(token), OPAQUE, exp) is None
        async with asyncio.timeout(10):
            while await found(who, token) != Refusal("token_inactive", "opaque"):  # noqa: ASYNC110
                await asyncio.sleep(0.1)

    run(test)


def test_token_bound_to_a_key_says_so(run: Callable[..., None], opaque: Provider) -> None:
    async def test(who: Identifier) -> None:
        token = opaque.get_token("machine", proof=proof(f"{opaque.issuer}/token"))
        identity = await found(who, token)
        assert isinstance(identity, Identity)
        assert identity.claims["token_type"] == "DPoP"
        assert identity.bound is not None
        assert identity.bound == Bound(jkt=opaque.introspect("machine", token)["cnf"]["jkt"])

    run(test)


def proof(url: str) -> str:
    key = ec_key("caller")
    header = {"typ": "dpop+jwt", "alg": "ES256", "jwk": key.jwk()}
    claims = {"htm": "POST", "htu": url, "iat": int(time.time()), "jti": b64(time.time_ns().to_bytes(8))}
    signed = f"{b64(json.dumps(header).encode())}.{b64(json.dumps(claims).encode())}"
    return f"{signed}.{b64(key.sign(signed.encode()))}"


def test_its_jwts_are_judged_here_and_its_opaque_tokens_there(run: Callable[..., None], opaque: Provider) -> None:
    """This provider keeps no JWTs, and knows nothing of them when it is asked."""

    async def test(who: Identifier) -> None:
        both = ("opaque", "staff")
        signed, kept = opaque.get_token("signed"), opaque.get_token("machine")
        assert opaque.introspect("machine", signed) == {"active": False}
        answers = [await found(who, token, both) for token in (signed, kept)]
        assert [each.method for each in answers if isinstance(each, Identity)] == ["oidc", "introspection"]
        assert await found(who, signed) == Refusal("token_issuer")

    run(test)
