"""What the portal signs with: keys that follow one another by schedule, and the tokens made with them.

A key is published before it signs, and stays so until nothing that it signed can be good any more. `plan` says
which keys there are at a moment; `Signing` has each change recorded, then keeps it (in state/keys/portal), then
publishes the public halves (state/portal-jwks.json), then signs: so what is signed can be verified, wherever
a crash falls. Never signs with a key that is not published, and never publishes a private one.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NamedTuple

import msgspec
import structlog
from joserfc import jwt
from joserfc.jwk import ECKey
from msgspec import Meta

from gatebook import kept
from gatebook.errors import EnvironmentFault, GatebookError
from gatebook.identity import own
from gatebook.identity.own import ALGORITHM, PublicKey, Published
from gatebook.paths import make_private

LEAD_S: Final = 86400.0  # a key is published so long before it signs, or half its time
TICK_S: Final = 0.5

log = structlog.get_logger("portal")


class SigningKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`starts`: when it begins to sign, in seconds since 1970; it ends when the next one starts."""

    public: PublicKey
    d: Annotated[str, Meta(pattern=r"\A[A-Za-z0-9_-]{43}\Z")]
    starts: float

    def __repr__(self) -> str:
        return f"SigningKey({self.public.kid})"


class _Document(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    version: Literal[1]
    keys: Annotated[tuple[SigningKey, ...], Meta(max_length=own.MAX_KEYS)]


def _check(document: _Document) -> None:
    starts = [key.starts for key in document.keys]
    if starts != sorted(starts) or len({key.public.kid for key in document.keys}) != len(starts):
        raise ValueError("its keys are not in order")


KIND: Final = kept.Kind(
    title="signing keys of the portal",
    command="gatebook run",
    document=_Document,
    empty=_Document(version=1, keys=()),
    check=_check,
)


class Schedule(NamedTuple):
    """`period_s` from key to key; `keep_s`: the longest that anything signed may be good, clocks included."""

    period_s: float
    keep_s: float

    @property
    def lead_s(self) -> float:
        return min(LEAD_S, self.period_s / 2)


def new_key(starts: float) -> SigningKey:
    made = ECKey.generate_key("P-256", private=True)
    numbers = {name: str(value) for name, value in made.as_dict(private=True).items()}
    public = PublicKey(
        kid=made.thumbprint(), kty="EC", crv="P-256", alg="ES256", use="sig", x=numbers["x"], y=numbers["y"]
    )
    return SigningKey(public=public, d=numbers["d"], starts=starts)


def signer(keys: tuple[SigningKey, ...], now: float) -> SigningKey:
    """The newest that has started. A clock that was set back finds the oldest."""
    return next((key for key in reversed(keys) if key.starts <= now), keys[0])


def plan(
    keys: tuple[SigningKey, ...], now: float, schedule: Schedule, make: Callable[[float], SigningKey] = new_key
) -> tuple[SigningKey, ...]:
    """The keys that there should be, oldest first. Pure, but for `make`."""
    if not keys:
        return (make(now),)
    left = tuple(
        key
        for key, following in zip(keys, [*keys[1:], None], strict=True)
        if following is None or now < following.starts + schedule.keep_s
    )
    last = left[-1]
    if len(left) == own.MAX_KEYS:
        return left  # more would not be read; the next one waits for the oldest to go
    if last.starts <= now and now >= last.starts + schedule.period_s - schedule.lead_s:
        # After a long pause too: nobody has to verify by a key that was published a moment ago.
        return (*left, make(max(now + schedule.lead_s, last.starts + schedule.period_s)))
    return left


Announce = Callable[[dict[str, object]], Awaitable[object]]


class Signing:
    """`announce` puts a change on record and raises RecorderUnavailable if it cannot."""

    def __init__(self, private: Path, published: Path, schedule: Schedule, announce: Announce) -> None:
        self.schedule = schedule
        self._private = private
        self._published = published
        self._announce = announce
        self._keys: tuple[SigningKey, ...] = ()
        self._jose: dict[str, ECKey] = {}
        self._turning: asyncio.Task[None] | None = None

    # -- its life ---------------------------------------------------------------------------------------
    def start(self) -> None:
        self._turning = asyncio.get_running_loop().create_task(self._turn())

    async def stop(self) -> None:
        if self._turning is not None:
            self._turning.cancel()
            await asyncio.gather(self._turning, return_exceptions=True)

    @property
    def ready(self) -> bool:
        return bool(self._keys)

    async def _turn(self) -> None:
        complaint = ""
        while True:
            try:
                await self.turn(time.time())
                complaint = ""
            except (GatebookError, OSError) as error:
                # What signs goes on signing; the next turn tries again.
                if str(error) != complaint:
                    complaint = str(error)
                    log.error("keys not turned", why=complaint)
            except Exception:
                log.exception("keys not turned: a fault of ours")
            await asyncio.sleep(TICK_S if self._keys else TICK_S / 10)

    async def turn(self, now: float) -> None:
        """Brings the keys to what they should be now. Raises GatebookError: then the old ones sign on."""
        before = self._keys or await asyncio.to_thread(self._load)
        keys = plan(before, now, self.schedule)
        if keys == self._keys and self._published.exists():
            return
        if keys != before:
            old, new = ({key.public.kid for key in each} for each in (before, keys))
            await self._announce(
                {"added": sorted(new - old), "removed": sorted(old - new), "signs": signer(keys, now).public.kid}
            )
            # A crash here leaves on record what did not come into effect.
            await asyncio.to_thread(_keep, self._private, KIND, _Document(version=1, keys=keys))
        # A crash here leaves a key that is not published, and that nothing is signed with: the next start goes on.
        await asyncio.to_thread(self._publish, keys)
        self._jose = {key.public.kid: _jose(key) for key in keys}
        self._keys = keys

    def _load(self) -> tuple[SigningKey, ...]:
        make_private(self._private.parent)
        return kept.read(self._private, KIND).document.keys

    def _publish(self, keys: tuple[SigningKey, ...]) -> None:
        if not self._published.exists():
            # Of a kept file that is gone, its lock remains, and says that something was lost. Here nothing was.
            self._published.with_name(self._published.name + ".lock").unlink(missing_ok=True)
        _keep(self._published, own.KIND, Published(version=1, keys=tuple(key.public for key in keys)))

    # -- what others want -------------------------------------------------------------------------------
    def sign(self, claims: dict[str, Any], typ: str, now: float) -> str:
        """A compact JWS. Raises EnvironmentFault while there are no keys."""
        if not self._keys:
            raise EnvironmentFault("the portal has no keys yet")
        key = signer(self._keys, now)
        header = {"alg": ALGORITHM, "kid": key.public.kid, "typ": typ}
        return jwt.encode(header, claims, self._jose[key.public.kid], algorithms=[ALGORITHM])

    def jwks(self) -> bytes:
        """The public halves, as others are given them."""
        return own.jwks(Published(version=1, keys=tuple(key.public for key in self._keys)))


def _jose(key: SigningKey) -> ECKey:
    numbers: dict[str, str | list[str]] = {
        "kty": "EC",
        "crv": "P-256",
        "x": key.public.x,
        "y": key.public.y,
        "d": key.d,
    }
    return ECKey.import_key(numbers)


def _keep(path: Path, kind: kept.Kind[Any], document: msgspec.Struct) -> None:
    with kept.change(path, kind) as change:
        if change.document != document:
            change.become(document, contextlib.nullcontext)
