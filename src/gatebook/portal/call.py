"""One request to the portal: what was asked, its body, and the record without which nothing is answered.

In: what the gateway passes on (wire, 3), its values hostile. A page calls `record` once, before what it did has
any effect; it returns only once the record is durable. Names become pseudonyms first, credentials fingerprints.
Never puts a body or a credential into a record.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from gatebook import record, wire
from gatebook.config.model import Configuration
from gatebook.errors import RecorderUnavailable
from gatebook.guard.asked import Asked, certificate_sha256, text, trace_id
from gatebook.guard.client import RecorderClient
from gatebook.identity.keyed import Keys
from gatebook.identity.types import Identity
from gatebook.redact import Known, Names, Redactor

# Who it was; or, where nothing was established, what was claimed, as far as a record may hold it.
Who = Identity | record.IdentityPart | None


class Scribe:
    """Makes records as one configuration wants them, and has them made durable."""

    def __init__(self, configuration: Configuration, keys: Keys, recorder: RecorderClient) -> None:
        self.origin = configuration.origin
        self.service = configuration.token_service[0] if configuration.token_service else None
        self.digest = configuration.digest().hex()
        self._redactor = Redactor(configuration)
        self.keys = keys
        self._recorder = recorder

    async def decision(
        self, asked: Asked, page: str, reason: str, who: Who, issued: record.IssuedPart | None
    ) -> int:
        """The index of the durable record. Raises RecorderUnavailable."""
        names = self._redactor.names(who if isinstance(who, Identity) else None, asked.address)
        known = await self._resolved(names)
        made = self._decision(asked, page, reason, who, issued, known, bare=False)
        try:
            return await self.append(made, asked.worker, asked.id)
        except ValueError:  # it does not fit; without what a client chooses the size of, it does
            made = self._decision(asked, page, reason, who, issued, known, bare=True)
            return await self.append(made, asked.worker, asked.id)

    def _decision(
        self,
        asked: Asked,
        page: str,
        reason: str,
        who: Who,
        issued: record.IssuedPart | None,
        known: Names[Known],
        *,
        bare: bool,
    ) -> record.Decision:
        redactor = self._redactor
        headers = {text(name): text(value) for name, value in asked.headers}
        status = record.REASONS[reason].status
        return record.Decision(
            id=asked.id,
            time_us=time.time_ns() // 1000,
            trace_id=trace_id(headers),
            identity=self._who(who, known.subject),
            request=redactor.request_part(
                method=asked.method,
                path=asked.uri.partition("?")[0],
                route=page,
                host=asked.host or None,
                protocol=asked.protocol,
                headers=None if bare else headers,
                claimed_id=None if bare else headers.get("x-request-id"),
            ),
            client=redactor.client_part(asked.address, asked.port or None, _hex(known.address)),
            tls=redactor.tls_part(
                asked.tls or None,
                asked.cipher or None,
                asked.group or None,
                asked.sni or None,
                certificate_sha256(asked),
            ),
            decision=record.DecisionPart(
                verdict="allow" if status == 200 else "deny",
                status=status,
                reason=reason,
                configuration=self.digest,
                durability="before-access",
            ),
            issued=issued,
            connection=asked.connection,
            connection_request=asked.connection_request,
            sealed=redactor.sealed(asked.id, who if isinstance(who, Identity) else None, asked.address, known),
        )

    async def alert(self, alert: str, who: Who, address: str | None, detail: dict[str, object]) -> None:
        """Raises RecorderUnavailable."""
        known = await self._resolved(
            self._redactor.names(who if isinstance(who, Identity) else None, address or "")
        )
        await self.append(
            record.Alert(
                time_us=time.time_ns() // 1000,
                alert=alert,
                severity=record.ALERTS[alert].severity,
                identity=self._who(who, known.subject),
                client=self._redactor.client_part(address, None, _hex(known.address)) if address else None,
                detail=detail,
            )
        )

    async def first_use(self, key: bytes, until_us: int) -> bool:
        """Whether nobody has used it before; durable. Raises RecorderUnavailable."""
        return await self._recorder.first_use(key, until_us)

    async def append(self, made: record.Record, worker: int = 0, request_id: str = "") -> int:
        """Raises RecorderUnavailable."""
        future: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()

        def told(index: int | None) -> None:
            if not future.done():
                future.set_result(index)

        if not self._recorder.append(wire.Item(record.encode(made), worker, request_id), told):
            raise RecorderUnavailable("the recorder takes nothing")
        index = await future
        if index is None:
            raise RecorderUnavailable("the recorder has not acknowledged the record")
        return index

    def _who(self, who: Who, subject: Known | None) -> record.IdentityPart | None:
        if who is None or isinstance(who, record.IdentityPart):
            return who
        return self._redactor.identity_part(who, _hex(subject), self.keys.fingerprint(who.credential_sha256))

    async def _resolved(self, names: Names[str]) -> Names[Known]:
        return Names(await self._known(names.subject), await self._known(names.address))

    async def _known(self, name: str | None) -> Known | None:
        if name is None:
            return None
        found = await self._recorder.pseudonym(name, self._redactor.seals)
        return Known(found.pseudonym, found.key)


def _hex(known: Known | None) -> str | None:
    return None if known is None else known.pseudonym


@dataclass
class Call:
    """`index` is that of the record; None until there is one."""

    asked: Asked
    body: bytes
    page: str
    scribe: Scribe
    index: int | None = None
    reason: str = ""

    async def record(self, reason: str, who: Who = None, issued: record.IssuedPart | None = None) -> None:
        """`reason` is a key of record.REASONS: it says whether this is granted. Raises RecorderUnavailable."""
        assert self.index is None, "one request, one record"  # noqa: S101 - a fault of ours, answered by 503
        self.index = await self.scribe.decision(self.asked, self.page, reason, who, issued)
        self.reason = reason

    def header(self, name: bytes) -> list[bytes]:
        """All values of a header field, name in lower case."""
        return [value for known, value in self.asked.headers if known == name]
