"""A revoked credential, whoever knows it already: cached tokens and API keys, and a file that fails."""

from __future__ import annotations

import os
import secrets
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import uvloop
from structlog.testing import capture_logs
from tests.identity.deployment import KEYS
from tests.identity.mint import ABSENT, NOW, ec_key, other_signature
from tests.identity.provider import JWKS, Provider
from tests.identity.test_identifier import PARTNERS, Rig, bearer, becomes, shown

from gatebook.identity import revocation_file
from gatebook.identity.keyed import signed_sha256
from gatebook.identity.types import Credential, Identity, Refusal
from gatebook.kept import watch

REVOKED, UNAVAILABLE = Refusal("credential_revoked", "staff"), Refusal("revocations_unavailable", "staff")


class Revoking(Rig):
    """Says `in`, or the refusal; nothing that it looks up is new to the identifier the second time."""

    async def says(self, credential: Credential, accept: tuple[str, ...] = ("staff",)) -> str | Refusal:
        known = self.lookup(credential, accept)
        who = known if known is not None else await self.verify(credential, accept)
        if isinstance(who, Refusal):
            return who
        return self.identifier.confirm(who, credential, shown(b"", b""), self.now) or "in"

    def revoke(self, what: Any, key: str, look: bool = True, **changed: Any) -> str:
        known: dict[str, Any] = {"shown": "it", "reason": "stolen", "actor": "os:1", "provider": "staff"}
        quiet: Any = {"random": secrets.token_bytes, "announce": lambda entry: None, "now": NOW}
        made, _ = revocation_file.add(self.paths.revocations, what, key, **{**known, **quiet, **changed})
        if look:
            self.look()
        return made.id

    def undo(self, number: str) -> None:
        revocation_file.undo(self.paths.revocations, number, announce=lambda entry: None)
        self.look()

    def look(self) -> None:
        self.identifier._revoked.poll()


Run = Callable[[Callable[[Revoking], Awaitable[None]]], None]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    def call(test: Callable[[Revoking], Awaitable[None]]) -> None:
        async def main() -> None:
            async with Provider(ec_key("first").jwk(kid="first")) as provider:
                rig = Revoking(provider, tmp_path)
                await rig.identifier.start()
                try:
                    await test(rig)
                finally:
                    await rig.identifier.stop()

        uvloop.run(main())

    return call


def test_revoked_token_still_cached_in_a_guard_is_refused(run: Run) -> None:
    async def test(rig: Revoking) -> None:
        token, other = rig.token(jti="t1"), rig.token(jti="t2")
        assert await rig.says(token) == "in"
        asked = rig.provider.asked[JWKS]
        number = rig.revoke("token", KEYS.name("token", "staff", "t1"))
        assert isinstance(rig.lookup(token), Identity)  # the cache still knows it
        assert await rig.says(token) == REVOKED
        assert await rig.says(other) == "in"
        rig.undo(number)
        assert await rig.says(token) == "in"
        assert rig.provider.asked[JWKS] == asked

    run(test)


def test_revocation_reaches_a_guard_within_a_second_by_itself(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    assert watch.POLL_S <= 0.5
    monkeypatch.setattr(watch, "POLL_S", 0.005)

    async def test(rig: Revoking) -> None:
        token = rig.token()
        assert await rig.says(token) == "in"
        identity = rig.lookup(token)
        assert isinstance(identity, Identity)
        rig.revoke("subject", KEYS.name("subject", "staff", "alice"), look=False)
        await becomes(lambda: rig.identifier.confirm(identity, token, shown(b"", b""), NOW) == REVOKED)

    run(test)


def test_revocation_is_known_to_a_guard_that_starts_later(run: Run) -> None:
    async def test(rig: Revoking) -> None:
        token = rig.token()
        rig.revoke("credential", KEYS.fingerprint(signed_sha256(token)), provider=None, look=False)
        await rig.identifier.stop()
        rig.identifier = Revoking(rig.provider, rig.paths.state).identifier
        await rig.identifier.start()
        assert await rig.says(token) == REVOKED

    run(test)


def test_revoked_token_with_its_signature_turned_around_stays_revoked(run: Run) -> None:
    async def test(rig: Revoking) -> None:
        token = rig.token()
        twin = bearer(other_signature(token.value))
        assert await rig.says(token) == await rig.says(twin) == "in"  # both signatures hold
        rig.revoke("credential", KEYS.fingerprint(signed_sha256(token)), provider=None)
        assert await rig.says(token) == await rig.says(twin) == REVOKED

    run(test)


def test_everything_issued_before_is_refused_and_what_comes_later_is_not(run: Run) -> None:
    async def test(rig: Revoking) -> None:
        old, new = rig.token(iat=int(NOW) - 5), rig.token(iat=int(NOW))
        ageless = rig.token(iat=ABSENT)
        assert [await rig.says(each) for each in (old, new, ageless)] == ["in"] * 3
        rig.revoke("all", "", before=NOW)
        assert [await rig.says(each) for each in (old, new, ageless)] == [REVOKED, "in", REVOKED]

    run(test)


def test_api_key_is_refused_by_client_subject_credential_and_issue_time(run: Run) -> None:
    async def test(rig: Revoking) -> None:
        made = rig.key()
        key = Credential("api_key", made.text.encode(), "partners")
        refused = Refusal("credential_revoked", "partners")
        for what, name, before in [
            ("client", KEYS.name("client", "partners", made.key.id), None),
            ("subject", KEYS.name("subject", "partners", "acme"), None),
            ("credential", KEYS.fingerprint(signed_sha256(key)), None),
            ("all", "", NOW + 1),
        ]:
            assert await rig.says(key, PARTNERS) == "in"
            number = rig.revoke(what, name, provider=None if what == "credential" else "partners", before=before)
            assert await rig.says(key, PARTNERS) == refused
            rig.undo(number)

    run(test)


# -- the file ---------------------------------------------------------------------------------------------
def tamper(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b'"staff"', b'"other"'))
    path.write_bytes(path.read_bytes().replace(b" ", b""))


def loosen(path: Path) -> None:
    path.chmod(0o622)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def remove(path: Path) -> None:
    path.unlink()


def swell(path: Path) -> None:
    os.truncate(path, revocation_file.KIND.max_bytes + 1)


@pytest.mark.parametrize("attack", [tamper, loosen, empty, remove, swell])
def test_file_of_revocations_that_is_tampered_with_lets_nobody_in(
    run: Run, attack: Callable[[Path], None]
) -> None:
    async def test(rig: Revoking) -> None:
        revoked, other = rig.token(jti="t1"), rig.token(jti="t2")
        rig.revoke("token", KEYS.name("token", "staff", "t1"))
        assert [await rig.says(revoked), await rig.says(other)] == [REVOKED, "in"]
        good = rig.paths.revocations.read_bytes()
        attack(rig.paths.revocations)
        with capture_logs():
            rig.look()
            assert [await rig.says(revoked), await rig.says(other)] == [UNAVAILABLE, UNAVAILABLE]
            restarted = Revoking(rig.provider, rig.paths.state)
            await restarted.identifier.start()
            assert [await restarted.says(revoked), await restarted.says(other)] == [UNAVAILABLE, UNAVAILABLE]
            await restarted.identifier.stop()
        rig.paths.revocations.write_bytes(good)
        rig.paths.revocations.chmod(0o600)
        rig.look()
        assert [await rig.says(revoked), await rig.says(other)] == [REVOKED, "in"]

    run(test)


def test_nobody_is_let_in_before_the_revocations_were_read(tmp_path: Path) -> None:
    async def main() -> None:
        async with Provider(ec_key("first").jwk(kid="first")) as provider:
            rig = Revoking(provider, tmp_path)  # not started
            token = rig.token()
            who = Identity(
                provider="staff", method="oidc", subject="alice", credential_sha256=bytes(32), expires_at=NOW + 1
            )
            assert rig.identifier.confirm(who, token, shown(b"", b""), NOW) == UNAVAILABLE

    uvloop.run(main())
