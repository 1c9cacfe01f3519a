"""Tokens that our own portal signs, as a guard sees them: forged ones, and keys that come and go in a file."""

from __future__ import annotations

import base64
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import uvloop
from joserfc.jwk import ECKey
from structlog.testing import capture_logs
from tests.identity.deployment import configuration, place
from tests.identity.mint import ABSENT, EC, NOW, Sign, b64, claims, ec_key, hs256, mint, rsa_key

from gatebook import kept
from gatebook.config.model import GatebookProvider, Portal
from gatebook.identity import Identifier
from gatebook.identity.own import KIND, PublicKey, Published, jwks
from gatebook.identity.types import Credential, Identity

URL = "https://api.acme.example"
OWN = ("own",)


def public(key: EC, kid: str | None = None) -> PublicKey:
    jwk = key.jwk()
    return PublicKey(kid=kid or key_id(key), kty="EC", crv="P-256", alg="ES256", use="sig", x=jwk["x"], y=jwk["y"])


def key_id(key: EC) -> str:
    return ECKey.import_key(key.jwk()).thumbprint()


class Rig:
    def __init__(self, folder: Path) -> None:
        self.paths = place(folder)
        self.now = NOW
        settings = configuration(own=GatebookProvider(type="gatebook"))
        settings = settings.model_copy(update={"portal": Portal(url=URL)})
        self.identifier = Identifier(settings, self.paths, clock=lambda: self.now)

    def publish(self, *keys: PublicKey) -> None:
        with kept.change(self.paths.portal_jwks, KIND) as change:
            change.become(Published(version=1, keys=keys), lambda: None)

    def token(
        self,
        key: EC | None = None,
        sign: Sign | None = None,
        header: dict[str, Any] | None = None,
        **changed: Any,
    ) -> Credential:
        key = key or ec_key("first")
        said = claims(**{"iss": f"{URL}/.gatebook", "aud": URL, "jti": "t1", **changed})
        head = {"alg": "ES256", "kid": key_id(key), **(header or {})}
        return Credential("bearer", mint(said, head, sign or key.sign), scheme="bearer")

    async def asked(self, credential: Credential) -> str:
        """`in`, or the reason."""
        found = await self.identifier.verify(credential, OWN, self.now)
        return "in" if isinstance(found, Identity) else found.reason


@pytest.fixture
def run(tmp_path: Path) -> Callable[[Callable[[Rig], Awaitable[None]]], None]:
    def call(test: Callable[[Rig], Awaitable[None]]) -> None:
        async def main() -> None:
            rig = Rig(tmp_path)
            rig.publish(public(ec_key("first")))
            await rig.identifier.start()
            try:
                await test(rig)
            finally:
                await rig.identifier.stop()

        uvloop.run(main())

    return call


Run = Callable[[Callable[[Rig], Awaitable[None]]], None]


def test_own_token_opens_and_says_by_what(run: Run) -> None:
    async def test(rig: Rig) -> None:
        token = rig.token(sid="f1")
        found = await rig.identifier.verify(token, OWN, NOW)
        assert isinstance(found, Identity)
        assert (found.provider, found.method, found.subject, found.token_id) == ("own", "gatebook", "alice", "t1")
        assert rig.identifier.lookup(token, OWN, NOW) == found

    run(test)


def confused(name: str) -> Callable[[Rig], Credential]:
    first = public(ec_key("first"))
    served = jwks(Published(version=1, keys=(first,)))
    point = b"\x04" + b"".join(base64.urlsafe_b64decode(part + "=") for part in (first.x, first.y))
    other = ec_key("attacker")

    def make(rig: Rig) -> Credential:
        match name:
            case "none":
                return rig.token(header={"alg": "none"}, sign=lambda data: b"")
            case "NoNe":
                return rig.token(header={"alg": "NoNe"}, sign=lambda data: b"x")
            case "HS256 with the public JWK as secret":
                one = json.dumps(json.loads(served)["keys"][0], separators=(",", ":")).encode()
                return rig.token(header={"alg": "HS256"}, sign=hs256(one))
            case "HS256 with the served JWKS as secret":
                return rig.token(header={"alg": "HS256"}, sign=hs256(served))
            case "HS256 with the public point as secret":
                return rig.token(header={"alg": "HS256"}, sign=hs256(point))
            case "ES384 by name":
                return rig.token(header={"alg": "ES384"})
            case "RS256 by another key":
                return rig.token(header={"alg": "RS256"}, sign=rsa_key("r1").pkcs1)
            case "another key under our kid":
                return rig.token(key=other, header={"kid": first.kid})
            case "another key with its own kid":
                return rig.token(key=other)
            case "another key, embedded":
                return rig.token(key=other, header={"kid": first.kid, "jwk": other.jwk()})
            case "another key, by url":
                return rig.token(key=other, header={"jku": "https://evil.example/jwks", "kid": "x"})
            case "signature in DER":
                return rig.token(sign=ec_key("first").der)
            case "signature of zeros":
                return rig.token(sign=lambda data: bytes(64))
            case "kid that is a path":
                return rig.token(key=other, header={"kid": "../../../../dev/null"})
        raise AssertionError(name)

    return make


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("none", "token_malformed"),
        ("NoNe", "token_algorithm"),
        ("HS256 with the public JWK as secret", "token_algorithm"),
        ("HS256 with the served JWKS as secret", "token_algorithm"),
        ("HS256 with the public point as secret", "token_algorithm"),
        ("ES384 by name", "token_algorithm"),
        ("RS256 by another key", "token_algorithm"),
        ("another key under our kid", "token_signature"),
        ("another key with its own kid", "token_key_unknown"),
        ("another key, embedded", "token_signature"),
        ("another key, by url", "token_key_unknown"),
        ("signature in DER", "token_signature"),
        ("signature of zeros", "token_signature"),
        ("kid that is a path", "token_key_unknown"),
    ],
)
def test_algorithm_and_key_confusion_with_our_own_keys(run: Run, name: str, reason: str) -> None:
    async def test(rig: Rig) -> None:
        assert await rig.asked(confused(name)(rig)) == reason

    run(test)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"iss": URL}, "token_issuer"),
        ({"iss": f"{URL}/.gatebook/"}, "token_issuer"),
        ({"aud": "https://other.example"}, "token_audience"),
        ({"aud": ABSENT}, "token_audience"),
        ({"exp": NOW - 6}, "token_expired"),
        ({"iat": NOW - 306, "exp": NOW + 3600}, "token_too_old"),
        ({"iat": NOW + 6}, "token_not_yet_valid"),
        ({"sub": ABSENT}, "token_claims"),
    ],
)
def test_what_another_could_have_signed_with_our_key_and_we_would_not(
    run: Run, changed: dict[str, Any], reason: str
) -> None:
    async def test(rig: Rig) -> None:
        assert await rig.asked(rig.token(**changed)) == reason

    run(test)


def test_session_of_a_browser_is_no_access_token(run: Run) -> None:
    async def test(rig: Rig) -> None:
        assert await rig.asked(rig.token(header={"typ": "gatebook-session+jwt"})) == "token_type"

    run(test)


def test_new_key_is_known_at_the_first_token_that_names_it(run: Run) -> None:
    """The file is watched, but no token has to wait for the next look at it."""

    async def test(rig: Rig) -> None:
        second = rig.token(ec_key("second"))
        assert await rig.asked(second) == "token_key_unknown"
        rig.publish(public(ec_key("first")), public(ec_key("second")))
        assert await rig.asked(second) == "in"
        assert await rig.asked(rig.token()) == "in"

    run(test)


def test_key_that_was_withdrawn_opens_nothing_verified_before_or_not(run: Run) -> None:
    async def test(rig: Rig) -> None:
        rig.publish(public(ec_key("first")), public(ec_key("second")))
        token = rig.token()
        assert await rig.asked(token) == "in"
        rig.publish(public(ec_key("second")))
        assert await rig.asked(rig.token(ec_key("third"))) == "token_key_unknown"  # has it look
        assert rig.identifier.lookup(token, OWN, NOW) is None
        assert await rig.asked(token) == "token_key_unknown"

    run(test)


def spoilt(path: Path) -> None:
    path.write_text("{}")


def loosened(path: Path) -> None:
    path.chmod(0o644)


def gone(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize("harm", [spoilt, loosened, gone])
def test_file_of_keys_that_cannot_be_used_is_our_failure_and_lets_nobody_in(
    run: Run, harm: Callable[[Path], None]
) -> None:
    async def test(rig: Rig) -> None:
        harm(rig.paths.portal_jwks)
        with capture_logs():
            assert await rig.asked(rig.token(ec_key("second"))) == "provider_unavailable"
            assert await rig.asked(rig.token()) == "provider_unavailable"

    run(test)


@pytest.mark.parametrize(
    "key",
    [
        PublicKey(kid=b64(bytes(32)), kty="EC", crv="P-256", alg="ES256", use="sig", x="A" * 43, y="B" * 43),
    ],
)
def test_point_that_is_not_on_the_curve_is_refused_with_its_file(run: Run, key: PublicKey) -> None:
    async def test(rig: Rig) -> None:
        document = Published(version=1, keys=(key,))
        with pytest.raises(ValueError, match="cannot be used"):
            KIND.check(document)

    run(test)


def test_before_the_portal_has_ever_run_there_are_no_keys(tmp_path: Path) -> None:
    async def main() -> None:
        rig = Rig(tmp_path)
        await rig.identifier.start()
        assert await rig.asked(rig.token()) == "token_key_unknown"
        await rig.identifier.stop()

    uvloop.run(main())
