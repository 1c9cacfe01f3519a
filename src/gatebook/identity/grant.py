"""Grants: a role that somebody holds for a while, asked for by one person and approved by another.

In: the grants of one reading of their file, what the configuration allows, an identity, the time. Out: the
identity with the roles that it holds by grants. A grant that the configuration would not allow now (its role, its
length, its approver) gives nothing, whatever the file says. One that has ended never begins again in this process,
even if the clock goes back. Names stand in it as keyed hashes (`keyed`). Pure, but for `Seen`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from gatebook.config.model import Grantable
from gatebook.config.value import NAME
from gatebook.identity.api_key import ID, Role, Seconds
from gatebook.identity.keyed import Keys
from gatebook.identity.types import Identity

REQUEST_TTL_S = 86_400  # a request that nobody has decided on by then is over

Line = Annotated[str, Meta(min_length=1, max_length=300)]
Actor = Annotated[str, Meta(pattern=r"\Aos:[0-9]{1,10}\Z")]
State = Literal["requested", "expired", "denied", "in force", "revoked", "over"]


class Grant(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Times are seconds since 1970. `shown` and `reason` are for people; `approver` is an OS user's name."""

    id: Annotated[str, Meta(pattern=rf"\A{ID}\Z")]
    role: Role
    provider: Annotated[str, Meta(pattern=NAME.removesuffix("$") + r"\Z")]
    key: Annotated[str, Meta(pattern=r"\A[0-9a-f]{64}\Z")]  # the subject's keyed name, its provider in it
    shown: Line
    seconds: Annotated[int, Meta(ge=1, le=7 * 86_400)]
    reason: Line
    requested: Seconds
    requested_by: Actor
    decision: Literal["approved", "denied"] | None
    decided: Seconds | None
    decided_by: Actor | None
    approver: Line | None
    revoked: Seconds | None
    revoked_by: Actor | None
    completed: bool

    @property
    def ends(self) -> int:
        """When it ends by itself, or when its request does."""
        if self.decided is None:
            return self.requested + REQUEST_TTL_S
        return self.decided + self.seconds

    def state(self, now: float) -> State:
        if self.decision == "denied":
            return "denied"
        if self.decision is None:
            return "requested" if self.requested <= now < self.ends else "expired"
        if self.revoked is not None:
            return "revoked"
        return "over" if self.completed or now >= self.ends else "in force"

    def problem(self) -> str | None:
        """What no type can say."""
        decided = {self.decided is None, self.decided_by is None, self.decision is None}
        if len(decided) != 1 or (self.decision == "approved") != (self.approver is not None):
            return "it is half decided on"
        if self.decided is not None and not self.requested <= self.decided < self.requested + REQUEST_TTL_S:
            return "it was decided on before or long after it was asked for"
        if self.decision == "approved" and self.decided_by == self.requested_by:
            return "it was approved by whoever asked for it"
        if (self.revoked is None) != (self.revoked_by is None):
            return "it is half revoked"
        if (self.revoked is not None or self.completed) and self.decision != "approved":
            return "it has ended without having begun"
        if not all(text.isprintable() for text in (self.shown, self.reason, self.approver or "")):
            return "its words are not printable"
        return None

    def detail(self) -> dict[str, Any]:
        """For the record: everything but the keyed hash."""
        told = {
            "id": self.id,
            "role": self.role,
            "provider": self.provider,
            "of": self.shown,
            "seconds": self.seconds,
            "reason": self.reason,
            "requested_by": self.requested_by,
            "decided_by": self.decided_by,
            "until_us": self.ends * 1_000_000 if self.decision == "approved" else None,
        }
        return {name: value for name, value in told.items() if value is not None}


class Seen:
    """When each grant ends by a clock that never goes back, counted from when it was first seen in force."""

    def __init__(self) -> None:
        self._ends_s: dict[str, float] = {}

    def holds(self, grant: Grant, now: float, monotonic_s: float) -> bool:
        """`now` within its time has been asked before."""
        ends_s = self._ends_s.setdefault(grant.id, monotonic_s + grant.ends - now)
        return monotonic_s < ends_s

    def end(self, grant: Grant) -> None:
        self._ends_s[grant.id] = float("-inf")


class Held:
    """The grants of one reading of the file, ready to be asked. False where there is none."""

    def __init__(self, grants: Iterable[Grant], keys: Keys) -> None:
        self._keys = keys
        self._by_key: dict[str, list[Grant]] = {}
        for grant in grants:
            if grant.decision == "approved" and grant.revoked is None and not grant.completed:
                self._by_key.setdefault(grant.key, []).append(grant)

    def __bool__(self) -> bool:
        return bool(self._by_key)

    def gain(
        self, identity: Identity, grantable: Mapping[str, Grantable], seen: Seen, now: float, monotonic_s: float
    ) -> Identity:
        """The same identity, with the roles that it holds by grants in force."""
        key = self._keys.name("subject", identity.provider, identity.subject)
        found: dict[str, str] = {}
        for grant in self._by_key.get(key, ()):
            if grant.provider != identity.provider or not allowed(grant, grantable):
                continue
            if _holds(grant, seen, now, monotonic_s) and grant.role not in identity.roles:
                found.setdefault(grant.role, grant.id)
        if not found:
            return identity
        grants = tuple((name, role) for role, name in found.items())
        return msgspec.structs.replace(identity, roles=(*identity.roles, *found), grants=grants)


def _holds(grant: Grant, seen: Seen, now: float, monotonic_s: float) -> bool:
    if grant.decided is None or now < grant.decided:
        return False
    if now >= grant.ends:
        seen.end(grant)  # so that it is not taken up again by a clock that goes back
        return False
    return seen.holds(grant, now, monotonic_s)


def allowed(grant: Grant, grantable: Mapping[str, Grantable]) -> bool:
    """Whether the configuration would let it be granted so today."""
    terms = grantable.get(grant.role)
    return terms is not None and grant.seconds <= terms.max and grant.approver in terms.approve
