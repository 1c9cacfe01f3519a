"""Sessions of people: begun with a login, found again by their cookie, ended for good.

In: who has logged in at which provider; a request with a cookie. Out: a token that the portal signs, what is on
record of it, and whose a cookie is. How guards judge it is identity.session's. Never keeps anything but what is
revoked, and never puts a provider's token into a session.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable
from typing import Any, NamedTuple

from msgspec import structs

from gatebook import record
from gatebook.config.model import Configuration
from gatebook.identity import jwt, session
from gatebook.identity.id_token import Person
from gatebook.identity.jwk import parse_jwks
from gatebook.identity.jws import Unfit
from gatebook.identity.keyed import Keys, signed_sha256
from gatebook.identity.types import Credential, Identity, Refusal
from gatebook.paths import Paths
from gatebook.portal.call import Call
from gatebook.portal.party import Party
from gatebook.portal.signing import Signing
from gatebook.portal.withdraw import withdraw


class Begun(NamedTuple):
    """A session: the cookie's value, whose it is, and what is on record of it."""

    token: str
    who: Identity
    issued: record.IssuedPart

    @property
    def fits(self) -> bool:
        """Whether a browser would keep it."""
        return len(self.token) <= session.MAX_BYTES


class Sessions:
    """One configuration's."""

    def __init__(self, configuration: Configuration, paths: Paths, signing: Signing, keys: Keys) -> None:
        self._configuration = configuration
        self._revocations = paths.revocations
        self._signing = signing
        self._fingerprint = keys.fingerprint

    def begin(self, party: Party, person: Person) -> Begun:
        now, identity = time.time(), person.identity
        token_id, expires = secrets.token_urlsafe(16), int(now + party.login.session_ttl)
        claims: dict[str, Any] = {
            name: identity.claims[name] for name in party.login.claims if name in identity.claims
        }
        claims |= {
            "iss": session.issuer(self._configuration, party.name),
            "aud": session.audience(self._configuration),
            "sub": identity.subject,
            # By the provider's clock where that is behind ours: what it says later, at a logout, is by that clock.
            "iat": int(min(now, identity.issued_at or now)),
            "exp": expires,
            "jti": token_id,
            "sid": person.sid or token_id,
            session.CLAIM_OF_ISSUER: party.provider.issuer,
        }
        told = {"roles": list(identity.roles), "groups": list(identity.groups), "scope": " ".join(identity.scopes)}
        claims |= {name: value for name, value in told.items() if value}
        if person.auth_time is not None:
            claims["auth_time"] = person.auth_time
        token = self._signing.sign(claims, session.TYPE, now)
        digest = signed_sha256(Credential(session.METHOD, token.encode()))
        who = structs.replace(identity, method=session.METHOD, credential_sha256=digest, token_id=token_id)
        issued = record.IssuedPart(
            token_id=token_id,
            credential=self._fingerprint(digest),
            expires_us=expires * 1_000_000,
            family=claims["sid"],
        )
        return Begun(token, who, issued)

    def current(self, call: Call, parties: Iterable[Party]) -> Identity | None:
        """Whose session came with this request, if it is good."""
        cookie = session.find(call.asked.headers)
        if cookie is None or isinstance(cookie, Refusal):
            return None
        try:
            token = jwt.read(cookie)
            keys = parse_jwks(self._signing.jwks())
            for party in parties:
                wanted = session.as_oidc(self._configuration, party.name, party.provider)
                if token.issuer == wanted.issuer:
                    digest = signed_sha256(Credential(session.METHOD, cookie))
                    kind = session.Kind(party.provider)
                    verified = jwt.verify(token, party.name, wanted, keys, digest, time.time(), kind)
                    return structs.replace(verified.identity, method=session.METHOD)
        except Unfit:
            pass
        return None

    async def end(self, call: Call, who: Identity, why: str) -> None:
        """Raises GatebookError."""
        assert who.token_id is not None  # noqa: S101 - session.Kind has looked
        await withdraw(
            self._revocations,
            call.scribe,
            who.provider,
            "token",
            who.token_id,
            until=who.expires_at + session.SKEW_S,
            shown=who.token_id,
            why=why,
        )
