"""`gatebook unseal`: show what is sealed of one request's person, to whom the configuration allows it. No logic.

On record before it is shown, who did it and why; a refused attempt, too. What is sealed, and how, is sealed's.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Annotated, Any

import typer

from gatebook import record
from gatebook.access.found import Access
from gatebook.cli.actor import whoever
from gatebook.cli.erased import erasures
from gatebook.cli.opened import ReaderKey, find_access, open_log, tell_gaps
from gatebook.cli.option import DEFAULT_CONFIG, LOOK, ConfigPath, Json
from gatebook.cli.report import harmless, say, say_json
from gatebook.cli.revoke import deployment
from gatebook.config.model import Configuration
from gatebook.errors import EnvironmentFault, GatebookError, Incomplete, UsageError
from gatebook.identity.keyed import Keys, read_keys
from gatebook.paths import Paths
from gatebook.recorder import vault
from gatebook.recorder.submit import submit
from gatebook.scrub import Scrubber
from gatebook.sealed import unseal as open_box

_MAX_REASON = 300
_scrub = Scrubber().scrub


def unseal(
    request: Annotated[
        str,
        typer.Argument(
            metavar="REQUEST_ID",
            help="The X-Request-ID of an answer, or 8 digits or more of it; a Gatebook-Receipt; or an index.",
        ),
    ],
    reason: Annotated[str, typer.Option(help="Why: a line, for the log.")],
    config: ConfigPath = DEFAULT_CONFIG,
    reader: ReaderKey = None,
    as_json: Json = False,
) -> None:
    """Show the caller's name and address that are sealed in a record (`seal` in the configuration's `audit`).

    Only for the OS users that the configuration names in `audit.unseal`; each use, and each refusal, is on record.

    Example: `gatebook unseal 3f2a9c1e --reason "incident 4711"`
    """
    configuration, paths = deployment(config)
    reason = line_of(reason)
    opened, _ = open_log(config, reader)
    found = find_access(opened, request)
    tell_gaps(opened)
    if found.sealed is None or found.id is None:
        raise GatebookError(f"request {found.id or request}: nothing is sealed in its record")
    detail = {"request": found.id, "index": found.index, "pseudonym": found.sealed.under, "reason": reason}
    values: dict[str, str] = {}
    if may_unseal(configuration):
        try:
            rows = vault.find(paths.vault, found.sealed.under)
            values = opened_values(rows, read_keys(paths), found, erased_since(paths, found.index))
        except GatebookError:
            _record(configuration, "person.unseal.failed", detail)
            raise
    permit(configuration, "person.unseal", detail)
    if as_json:
        say_json({"id": found.id, "index": found.index, "under": found.sealed.under, "unsealed": values})
        return
    for name, value in values.items():
        say(f"{name:<16}{harmless(value)}")


def line_of(reason: str) -> str:
    """A reason as the log takes it. Raises UsageError."""
    text = _scrub(reason)
    if not text.strip() or len(text) > _MAX_REASON or not text.isprintable():
        raise UsageError(f"--reason: expected one line of up to {_MAX_REASON} letters")
    return text


def may_unseal(configuration: Configuration) -> bool:
    return whoever().name in configuration.audit.unseal


def permit(configuration: Configuration, action: str, detail: dict[str, Any]) -> None:
    """Put it on record; on return it may be shown. Raises EnvironmentFault for whom `audit.unseal` omits."""
    who = whoever()
    allowed = may_unseal(configuration)
    _record(configuration, action if allowed else f"{action}.refused", detail)
    # A crash here leaves on record what nobody has seen; what is seen is always on record.
    if not allowed:
        raise EnvironmentFault(
            f"{who.name or who.actor} may unseal nothing: `audit.unseal` does not name them; this is on record"
        )


def _record(configuration: Configuration, action: str, detail: dict[str, Any]) -> None:
    now_us = time.time_ns() // 1000
    submit(configuration, [record.Admin(time_us=now_us, action=action, actor=whoever().actor, detail=detail)])


def erased_since(paths: Paths, start: int) -> frozenset[str]:
    """Pseudonyms whose rows the log says are destroyed, whatever a vault may hold."""
    return frozenset(entry.object_id.hex() for _, _, entry in erasures(paths, start))


def opened_values(rows: Iterable[vault.Row], keys: Keys, found: Access, erased: frozenset[str]) -> dict[str, str]:
    """Raises GatebookError when the key was destroyed or is lost, Tampered when it is not the one.

    Incomplete when it is back although it was destroyed: `erased` is of `erased_since` the record.
    """
    sealed = found.sealed
    assert sealed is not None  # noqa: S101 - the caller has looked
    assert found.id is not None  # noqa: S101 - likewise
    row = next((row for row in rows if row.pseudonym.hex() == sealed.under), None)
    if row is not None and sealed.under in erased:
        raise Incomplete(
            f"request {found.id}: the log says that the row of {sealed.under} was destroyed; a vault that "
            f"still has it was restored from before; `gatebook forget {sealed.under}` destroys it again"
        )
    if row is None:
        raise GatebookError(
            f"request {found.id}: the vault has no row {sealed.under}: its person was forgotten, and nobody "
            f"can open this; if nobody was, restore the vault from a backup"
        )
    return open_box(sealed, vault.key_of(row, keys.names), found.id)


def register(app: typer.Typer) -> None:
    app.command(rich_help_panel=LOOK)(unseal)
