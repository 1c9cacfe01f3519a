"""What a person says of a request that is to be judged, of its caller, and of the time.

In: JSON of a command line, or the data of a cases file. Out: frozen models; unknown keys are errors. Nobody
checks what is said here of a caller: it stands for what a provider would have said. Pure.
"""

from __future__ import annotations

import datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from gatebook.config.model import Configuration, Route
from gatebook.config.value import Name
from gatebook.identity.types import Bound, Identity
from gatebook.trial.judge import Request

METHOD = r"^[A-Za-z]{1,20}$"


def parse_moment(value: object) -> datetime.datetime:
    """`2026-11-24` or `2026-11-24T17:20:00Z`; without a zone it is UTC."""
    try:
        if isinstance(value, str):
            moment = datetime.datetime.fromisoformat(value)
            moment = moment.replace(tzinfo=datetime.UTC) if moment.tzinfo is None else moment
            if 0 <= moment.timestamp() < 1 << 34:
                return moment
    except (ValueError, OverflowError):
        pass
    raise ValueError("expected a time such as 2026-11-24 or 2026-11-24T17:20:00Z")


Moment = Annotated[datetime.datetime, BeforeValidator(parse_moment)]


class Given(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class GivenIdentity(Given):
    """A caller. Without `provider`: of the first that the route accepts."""

    provider: Name | None = Field(default=None, description="an identity provider of the configuration")
    subject: str = Field(default="somebody", min_length=1, description="the caller's name")
    client: str | None = Field(default=None, description="the client application")
    roles: list[str] = Field(default=[], description="roles")
    groups: list[str] = Field(default=[], description="groups")
    scopes: list[str] = Field(default=[], description="scopes")
    claims: dict[str, Any] = Field(default={}, description="a token's claims")
    token_id: str | None = Field(default=None, description="a token's id")
    issued_at: Moment | None = Field(default=None, description="when a token was issued")
    bound: bool = Field(default=False, description="whether the credential is bound to a key")

    def identity(self, configuration: Configuration, route: Route) -> Identity:
        """`provider` must be one of the configuration's; whoever reads it has looked."""
        accepted = [] if route.identity == "none" else route.identity
        provider = self.provider or next(iter(accepted), "")
        known = configuration.identity.get(provider)
        return Identity(
            provider=provider,
            method=known.type if known is not None else "",
            subject=self.subject,
            client=self.client,
            roles=tuple(self.roles),
            groups=tuple(self.groups),
            scopes=tuple(self.scopes),
            claims=self.claims,
            token_id=self.token_id,
            issued_at=None if self.issued_at is None else self.issued_at.timestamp(),
            bound=Bound() if self.bound else None,
            credential_sha256=b"\0" * 32,
            expires_at=float("inf"),
        )


def _guarded(target: str) -> str:
    if target.startswith("/.gatebook/"):
        raise ValueError("expected a path that routes decide on; below /.gatebook/ all is gatebook's own")
    return target


class GivenRequest(Given):
    """What is asked. As text: `GET /orders/7?page=2`."""

    method: str = Field(pattern=METHOD, description="an HTTP method")
    target: Annotated[str, AfterValidator(_guarded)] = Field(description="path and query, as they are sent")
    host: str = Field(default="localhost", description="the Host header")
    headers: dict[str, str] = Field(default={}, description="other headers, each once")
    address: str = Field(default="127.0.0.1", description="the client's address")
    port: int = Field(default=40000, ge=0, le=65535, description="the client's port")
    protocol: Literal["1.0", "1.1", "2"] = Field(default="1.1", description="the HTTP version")
    tls: Literal["none", "1.2", "1.3"] = Field(default="1.3", description="the TLS version")
    certificate: str | None = Field(default=None, description="SHA-256 of the client's certificate, hex")

    @model_validator(mode="before")
    @classmethod
    def _parse(cls, value: Any) -> Any:
        if isinstance(value, str):
            method, space, target = value.partition(" ")
            if not space or not target or " " in target:
                raise ValueError("expected a method and a path, such as GET /orders/7")
            return {"method": method, "target": target}
        return value

    def request(self, at: float) -> Request:
        return Request(
            method=self.method,
            target=self.target,
            host=self.host,
            headers=tuple((name.lower(), value) for name, value in self.headers.items()),
            address=self.address,
            port=self.port,
            protocol=self.protocol,
            tls_version=None if self.tls == "none" else self.tls,
            certificate=self.certificate,
            at=at,
        )
