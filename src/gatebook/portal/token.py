"""`POST /.gatebook/token` (RFC 6749) and `/.gatebook/revoke` (RFC 7009): who gets which tokens, for how long.

Grants: client_credentials, and refresh_token for clients that may. Access tokens are JWTs as RFC 9068 has them.
What is issued is on record before it is given out, and what is refused before it is said; of the reason the
client hears RFC 6749's code alone. A refresh token works once: a second use ends its family. There is no grace:
whose answer was lost authenticates anew. Never gives a scope that the client, or the family, does not have.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final, NamedTuple

import structlog
from starlette.responses import Response

from gatebook import record
from gatebook.config.model import Configuration, GatebookProvider
from gatebook.errors import EnvironmentFault, GatebookError
from gatebook.identity import jwt, own
from gatebook.identity.client import Client
from gatebook.identity.jwk import parse_jwks
from gatebook.identity.jws import Unfit
from gatebook.identity.keyed import signed_sha256
from gatebook.identity.types import Credential, Identity
from gatebook.portal.assertion import check
from gatebook.portal.call import Call, Scribe, Who
from gatebook.portal.desk import THEFTS, Desk
from gatebook.portal.family import UNTOLD, Family
from gatebook.portal.form import Malformed, claimed, read_form
from gatebook.portal.signing import Signing

_CODES: Final = {
    "request_malformed": "invalid_request",
    "client_refused": "invalid_client",
    "client_not_entitled": "unauthorized_client",
    "grant_unknown": "unsupported_grant_type",
    "scope_refused": "invalid_scope",
    "refresh_unknown": "invalid_grant",
    "refresh_expired": "invalid_grant",
    "refresh_revoked": "invalid_grant",
    "refresh_foreign": "invalid_grant",
    "refresh_reused": "invalid_grant",
}
_NOT_KEPT: Final = {"Cache-Control": "no-store", "Pragma": "no-cache", "X-Content-Type-Options": "nosniff"}

log = structlog.get_logger("portal")


class _No(Exception):
    def __init__(self, reason: str, who: Who = None, said: str = "", retry_after_s: int = 0) -> None:
        super().__init__(reason)
        self.reason, self.who, self.said, self.retry_after_s = reason, who, said, retry_after_s


class _Granted(NamedTuple):
    """An access token and what stands in it."""

    text: str
    part: record.IssuedPart
    lifetime_s: int


class TokenService:
    """One configuration's. `desk` outlives it."""

    def __init__(
        self,
        name: str,
        provider: GatebookProvider,
        configuration: Configuration,
        signing: Signing,
        scribe: Scribe,
        desk: Desk,
    ) -> None:
        self._name = name
        self._provider = provider
        self._as_oidc = own.as_oidc(configuration, provider)
        self._realm = configuration.name
        issuer = configuration.own_issuer
        self._endpoints = [issuer, f"{issuer}/token", f"{issuer}/revoke"]  # what assertions may be for
        self._signing = signing
        self._scribe = scribe
        self._desk = desk

    async def token(self, call: Call) -> Response:
        return await self._answer(call, self._token)

    async def revoke(self, call: Call) -> Response:
        return await self._answer(call, self._revoke)

    async def _answer(
        self, call: Call, work: Callable[[Call, dict[str, str], Client, Identity], Awaitable[Response]]
    ) -> Response:
        try:
            fields = read_form(call)
            client, who = await self._authenticate(call, fields)
            return await work(call, fields, client, who)
        except Malformed as error:
            no = _No("request_malformed", said=str(error))
        except _No as error:
            no = error
        if call.index is None:
            await call.record(no.reason, no.who)
        status = record.REASONS[no.reason].status
        headers = {"WWW-Authenticate": f'Basic realm="{self._realm}"'} if status == 401 else {}
        if status in (429, 503):
            headers["Retry-After"] = str(max(1, no.retry_after_s))
        told = {"error": _CODES.get(no.reason, "temporarily_unavailable")}
        if no.said:
            told["error_description"] = no.said
        return _json(told, status, headers)

    # -- who asks ---------------------------------------------------------------------------------------
    async def _authenticate(self, call: Call, fields: dict[str, str]) -> tuple[Client, Identity]:
        found = claimed(call, fields)
        if found is None:
            raise _No("client_refused")
        credential = signed_sha256(Credential("bearer", found.secret))
        method = "private_key_jwt" if found.signed else "client_secret"
        client = await self._desk.authenticator.authenticate(self._name, found, call.asked.address, self._prove)
        if isinstance(client, Client):
            return client, self._identity(client, method, credential)
        who = record.IdentityPart(
            provider=self._name,
            method=method,
            client=client.known.id if client.known else None,
            credential=self._scribe.keys.fingerprint(credential),
        )
        if client.guessing:
            detail: dict[str, object] = {"request": call.asked.id}
            await self._scribe.alert("secret_guessing", who, call.asked.address, detail)
        raise _No(client.reason, who, retry_after_s=client.retry_after_s)

    async def _prove(self, assertion: bytes, client: Client | None) -> bool:
        """An assertion's one use is durable before it counts. Raises RecorderUnavailable."""
        use = check(assertion, client, self._endpoints, time.time())
        return use is not None and await self._scribe.first_use(use.key, use.until_us)

    def _identity(self, client: Client, method: str, credential_sha256: bytes) -> Identity:
        return Identity(
            provider=self._name,
            method=method,
            subject=client.subject,
            client=client.id,
            roles=client.roles,
            credential_sha256=credential_sha256,
            expires_at=float(client.expires),
        )

    # -- grants -----------------------------------------------------------------------------------------
    async def _token(self, call: Call, fields: dict[str, str], client: Client, who: Identity) -> Response:
        grant = fields.get("grant_type")
        if grant == "client_credentials":
            return await self._credentials(call, fields, client, who)
        if grant == "refresh_token":
            return await self._refresh(call, fields, client, who)
        if grant is None:
            raise _No("request_malformed", who, "no grant_type")
        raise _No("grant_unknown", who)

    async def _credentials(self, call: Call, fields: dict[str, str], client: Client, who: Identity) -> Response:
        scopes = _scopes(fields, client.scopes, client, who)
        desk, now = self._desk, time.time()
        # One that begins too many families gets access tokens alone, which lack nothing.
        if not client.refresh or desk.begins.wait_s(client.id, time.monotonic()):
            granted = self._grant(client, scopes, None, now, now + self._provider.access_ttl)
            await call.record("token_issued", who, granted.part)
            return _tokens(granted, scopes, None)
        desk.begins.count(client.id, time.monotonic())
        family, refresh = desk.families.new_id(), desk.families.new_token()
        ends = now + self._provider.refresh_ttl
        granted = self._grant(client, scopes, family, now, ends)
        await call.record("token_issued", who, granted.part)
        # A crash here leaves on record what nobody was given.
        await desk.on_disk(desk.families.begin, family, client.id, scopes, refresh, now, ends)
        return _tokens(granted, scopes, refresh)

    async def _refresh(self, call: Call, fields: dict[str, str], client: Client, who: Identity) -> Response:
        desk = self._desk
        if not client.refresh:
            raise _No("client_not_entitled", who)
        token = fields.get("refresh_token")
        if token is None:
            raise _No("request_malformed", who, "no refresh_token")
        found = await desk.on_disk(desk.families.find, token)
        if found is None:
            raise _No("refresh_unknown", who)
        async with desk.turn(found.family.id):
            family = await self._usable(call, token, client, who)
            scopes = _scopes(fields, family.scopes, client, who)
            now = time.time()
            following = desk.families.new_token()
            granted = self._grant(client, scopes, family.id, now, family.ends)
            await call.record("token_refreshed", who, granted.part)
            # A crash here leaves on record what nobody was given: the old token still works.
            if not await desk.on_disk(desk.families.rotate, token, following, now):
                raise EnvironmentFault("a family of refresh tokens was changed by somebody else")
            # A crash here loses the answer: the old token is used, and using it again is taken for theft.
            return _tokens(granted, scopes, following)

    async def _usable(self, call: Call, token: str, client: Client, who: Identity) -> Family:
        """The family, of which `token` is the newest. Raises _No."""
        desk, now = self._desk, time.time()
        found = await desk.on_disk(desk.families.find, token)
        if found is None:
            raise _No("refresh_unknown", who)
        family = found.family
        if family.revoked is not None:
            raise _No("refresh_revoked", who)
        if family.client != client.id:
            await self._theft(call, family, "foreign", who)
        if now >= family.ends:
            raise _No("refresh_expired", who)
        if found.used is not None:
            await self._theft(call, family, "reused", who)
        return family

    async def _theft(self, call: Call, family: Family, why: str, who: Identity) -> None:
        """Ends the family before anything else: that must not depend on what else works. Raises _No."""
        desk = self._desk
        await desk.on_disk(desk.families.end, family.id, why, time.time(), UNTOLD)
        # A crash here is made good by the desk.
        await call.record(THEFTS[why], who)
        try:
            await desk.tell(family.id, who, call.asked.address)
        except GatebookError as error:
            log.error("a theft of refresh tokens is told later", why=str(error))
        raise _No(THEFTS[why], who)

    # -- revocation -------------------------------------------------------------------------------------
    async def _revoke(self, call: Call, fields: dict[str, str], client: Client, who: Identity) -> Response:
        desk = self._desk
        token = fields.get("token")
        if token is None:
            raise _No("request_malformed", who, "no token")
        found = await desk.on_disk(desk.families.find, token)
        if found is not None:
            async with desk.turn(found.family.id):
                if found.family.client != client.id:
                    await self._theft(call, found.family, "foreign", who)
                await call.record("token_withdrawn", who)
                # A crash here leaves on record what did not take effect: its client has no answer, and asks again.
                await desk.on_disk(desk.families.end, found.family.id, "withdrawn", time.time())
                family = found.family.id
                await desk.revoke(self._scribe, "session", family, family, "at its client's wish")
            return Response(b"", 200, _NOT_KEPT)
        token_id = self._token_id(token, client)
        if token_id is None:
            await call.record("token_unknown", who)
            return Response(b"", 200, _NOT_KEPT)
        wait_s = desk.wishes.wait_s(client.id, time.monotonic())
        if wait_s:
            raise _No("attempts_exceeded", who, retry_after_s=wait_s)
        desk.wishes.count(client.id, time.monotonic())
        await call.record("token_withdrawn", who)
        await desk.revoke(self._scribe, "token", token_id, token_id, "at its client's wish")
        return Response(b"", 200, _NOT_KEPT)

    def _token_id(self, text: str, client: Client) -> str | None:
        """Of an access token that is good, and this client's."""
        now = time.time()
        try:
            token = jwt.read(text.encode("utf-8", "replace"))
            keys = parse_jwks(self._signing.jwks())
            identity = jwt.verify(token, self._name, self._as_oidc, keys, b"", now).identity
        except Unfit:
            return None
        return identity.token_id if identity.client == client.id else None

    # -- what is issued ---------------------------------------------------------------------------------
    def _grant(
        self, client: Client, scopes: tuple[str, ...], family: str | None, now: float, ends: float
    ) -> _Granted:
        """RFC 9068. `sid` names the family, so that it can be revoked as one."""
        audience = self._as_oidc.audience
        issued, expires = int(now), int(min(now + self._provider.access_ttl, ends))
        claims: dict[str, Any] = {
            "iss": self._as_oidc.issuer,
            "sub": client.subject,
            "aud": audience[0] if len(audience) == 1 else audience,
            "client_id": client.id,
            "iat": issued,
            "exp": expires,
            "jti": secrets.token_urlsafe(16),
        }
        if client.roles:
            claims["roles"] = list(client.roles)
        if scopes:
            claims["scope"] = " ".join(scopes)
        if family is not None:
            claims["sid"] = family
        text = self._signing.sign(claims, "at+jwt", now)
        part = record.IssuedPart(
            token_id=claims["jti"],
            credential=self._scribe.keys.fingerprint(signed_sha256(Credential("bearer", text.encode()))),
            expires_us=expires * 1_000_000,
            family=family,
            scopes=scopes,
        )
        return _Granted(text, part, expires - issued)


def _scopes(fields: dict[str, str], had: tuple[str, ...], client: Client, who: Identity) -> tuple[str, ...]:
    """What is asked for, or everything; of what was had before, and of what the client may have now."""
    may = tuple(scope for scope in had if scope in client.scopes)
    asked = fields.get("scope")
    if asked is None:
        return may
    wanted = tuple(dict.fromkeys(asked.split(" ")))
    if not set(wanted) <= set(may):
        raise _No("scope_refused", who)
    return wanted


def _tokens(granted: _Granted, scopes: tuple[str, ...], refresh: str | None) -> Response:
    told: dict[str, object] = {
        "access_token": granted.text,
        "token_type": "Bearer",
        "expires_in": granted.lifetime_s,
    }
    if scopes:
        told["scope"] = " ".join(scopes)
    if refresh is not None:
        told["refresh_token"] = refresh
    return _json(told, 200, {})


def _json(told: dict[str, Any], status: int, headers: dict[str, str]) -> Response:
    return Response(json.dumps(told), status, {**_NOT_KEPT, **headers}, "application/json")
