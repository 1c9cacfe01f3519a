"""Revocations: what is refused although its provider would still vouch for it.

In: the revocations of one reading of their file; an identity; the time. Out: whether it is revoked. A revocation
names one token, session, subject or client of a provider, or one credential, or everything (of a provider) that
was issued before a moment; a moment can also narrow the others. Names stand in it as keyed hashes (`keyed`).
What does not say when it was issued counts as issued before. Asked for each request: a handful of hashes the first
time, however many revocations there are. Pure, but for a bounded memo.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from gatebook.config.value import NAME
from gatebook.identity.api_key import ID, Seconds
from gatebook.identity.keyed import Keys
from gatebook.identity.types import Identity

What = Literal["token", "session", "subject", "client", "credential", "all"]
_MEMO = 4096

Line = Annotated[str, Meta(min_length=1, max_length=300)]


class Revocation(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Times are seconds since 1970. `shown`, `reason` and `actor` are for people."""

    id: Annotated[str, Meta(pattern=rf"\A{ID}\Z")]
    what: What
    provider: Annotated[str, Meta(pattern=NAME.removesuffix("$") + r"\Z")] | None  # None: any, or in `key`
    key: Annotated[str, Meta(pattern=r"\A([0-9a-f]{64}|[0-9a-f]{32})?\Z")]  # keyed name, fingerprint, or empty
    before: Seconds | None  # only what was issued before
    until: Seconds | None  # from then on it holds no more; None: for good
    shown: Line
    reason: Line
    actor: Line
    created: Seconds

    def holds(self, now: float) -> bool:
        return self.until is None or now < self.until

    def detail(self) -> dict[str, Any]:
        """For the record: everything but the keyed hash."""
        told = {
            "id": self.id,
            "what": self.what,
            "provider": self.provider,
            "of": self.shown,
            "before_us": None if self.before is None else self.before * 1_000_000,
            "until_us": None if self.until is None else self.until * 1_000_000,
            "reason": self.reason,
        }
        return {name: value for name, value in told.items() if value is not None}

    def problem(self) -> str | None:
        """What no type can say."""
        if len(self.key) != {"all": 0, "credential": 32}.get(self.what, 64):
            return "its key does not fit what it revokes"
        if self.what == "all" and self.before is None:
            return "it would revoke everything for good"
        if not all(text.isprintable() for text in (self.shown, self.reason, self.actor)):
            return "its words are not printable"
        return None


class Revoked:
    """The revocations of one reading of the file, ready to be asked."""

    def __init__(self, revocations: Iterable[Revocation], keys: Keys) -> None:
        self._keys = keys
        self._by_key: dict[str, list[Revocation]] = {}
        self._by_provider: dict[str | None, list[Revocation]] = {}
        self._named: set[str] = set()
        self._known: dict[bytes, tuple[Identity, tuple[Revocation, ...]]] = {}
        for entry in revocations:
            if entry.what == "all":
                self._by_provider.setdefault(entry.provider, []).append(entry)
            else:
                self._named.add(entry.what)
                self._by_key.setdefault(entry.key, []).append(entry)

    def find(self, identity: Identity, now: float) -> Revocation | None:
        """The revocation that refuses this identity, if there is one."""
        by_provider = self._by_provider
        if by_provider:
            for provider in (None, identity.provider):
                for entry in by_provider.get(provider, ()):
                    if _refuses(entry, identity, now):
                        return entry
        if self._named:
            for entry in self._naming(identity):
                if _refuses(entry, identity, now):
                    return entry
        return None

    def _naming(self, identity: Identity) -> tuple[Revocation, ...]:
        """Those that name this identity, whenever they hold. Remembered: each keyed hash costs a microsecond."""
        known = self._known.get(identity.credential_sha256)
        if known is not None and known[0] is identity:
            return known[1]
        session = identity.claims.get("sid")
        names = {
            "token": identity.token_id,
            "session": session if isinstance(session, str) else None,
            "subject": identity.subject,
            "client": identity.client,
        }
        keys = [
            self._keys.name(what, identity.provider, value)
            for what, value in names.items()
            if value is not None and what in self._named
        ]
        if "credential" in self._named:
            keys.append(self._keys.fingerprint(identity.credential_sha256))
        found = tuple(entry for key in keys for entry in self._by_key.get(key, ()))
        if len(self._known) >= _MEMO:
            self._known.clear()
        self._known[identity.credential_sha256] = identity, found
        return found


def _refuses(entry: Revocation, identity: Identity, now: float) -> bool:
    if not entry.holds(now):
        return False
    return entry.before is None or identity.issued_at is None or identity.issued_at < entry.before
