"""`gatebook forget`: destroy what leads from the log to a person, and hand out the receipt. No logic.

What is done, and in which order, is recorder.forget's. Neither the record nor the receipt holds the person's name.
"""

from __future__ import annotations

import secrets
import time
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from gatebook import record
from gatebook.cli.actor import whoever
from gatebook.cli.erased import await_receipt, say_receipt
from gatebook.cli.option import DEFAULT_CONFIG, SET_UP, ConfigPath, Json
from gatebook.cli.report import note, say, say_json, warn
from gatebook.cli.revoke import deployment, named
from gatebook.config.model import Configuration
from gatebook.errors import EnvironmentFault, UsageError
from gatebook.identity.keyed import read_keys
from gatebook.identity.stored import Stored, Unlinked, stored, unlink
from gatebook.recorder.forget import MAX_LISTED, NOBODY
from gatebook.recorder.submit import order, submit
from gatebook.scrub import Scrubber

_scrub = Scrubber().scrub


def forget(
    subject: Annotated[
        str, typer.Argument(help="Whom: a caller's name, or a pseudonym from the log; with --address, an address.")
    ],
    reason: Annotated[str, typer.Option(help="Why: a line, for the log. It stays for good: no name in it.")],
    identity: Annotated[
        str | None, typer.Option(help="The caller's provider. Needed where the configuration has several.")
    ] = None,
    address: Annotated[
        bool, typer.Option("--address", help="SUBJECT is the address of clients that nobody was identified for.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="A new file for the receipt.", show_default=False),
    ] = None,
    config: ConfigPath = DEFAULT_CONFIG,
    as_json: Json = False,
) -> None:
    """Forget a person: nobody can tell any more whose their records are, nor open what is sealed in them.

    Cannot be undone; `gatebook subject report` shows before what it is about. It does not lock them out:
    `gatebook revoke --subject` does.

    Example: `gatebook forget alice --reason "request 17 of 24 November" -o receipt.json`
    """
    configuration, paths = deployment(config)
    reason = _scrub(reason)
    if subject.casefold() in reason.casefold():
        raise UsageError("nothing was erased: the reason names the person, and would stay for good; word it anew")
    if out is not None and out.exists():
        raise EnvironmentFault(f"nothing was erased: {out} is there already; name a new file")
    by = {"reason": reason, "actor": whoever().actor}
    told: dict[str, Any] | None
    if address:
        told = order(configuration, "forget", {"address": subject, **by})
        elsewhere: list[Stored] = []
        unlinked = Unlinked()
    else:
        target = named(configuration, paths, read_keys(paths), "subject", subject, identity)
        told = _order(configuration, {"lookup": target.key, "provider": target.provider, **by})
        # A crash from here on: the log has forgotten them; the same command again does the rest.
        now = time.time()
        unlinked = unlink(
            paths,
            target.provider,
            subject,
            target.key,
            now,
            secrets.token_bytes,
            partial(_announce, configuration, by),
        )
        elsewhere = stored(paths, target.provider, subject, target.key, now)
        if target.provider is None:
            warn("known by a pseudonym alone: keys and clients in the person's name were not looked for")
    if told is None and any(unlinked):
        if as_json:
            say_json({**unlinked._asdict(), "elsewhere": [each._asdict() for each in elsewhere]})
            return
        say("forgotten: the vault had no row of theirs any more; what else led to records is gone")
        _say_elsewhere(elsewhere, unlinked)
        return
    if told is None:
        _say_elsewhere(elsewhere, unlinked)
        raise EnvironmentFault(
            NOBODY + ", or they were forgotten before: see `gatebook subject receipt PSEUDONYM`"
        )
    if "begun" in told:
        _say_elsewhere(elsewhere, unlinked)
        raise EnvironmentFault(told["begun"])
    lines = await_receipt(paths, told["erased"])
    if as_json:
        say_json(
            told | {"receipt": str(out) if out else None, "elsewhere": [each._asdict() for each in elsewhere]}
        )
    else:
        say(f"forgotten: {len(told['erased'])} rows of the vault are destroyed, by record {told['record']}")
    say_receipt(configuration.origin, lines, told["erased"], out, quiet=as_json)
    if not as_json:
        _say_elsewhere(elsewhere, unlinked)
        if configuration.audit.subject == "keep":
            warn("audit.subject is keep: records name callers in clear, and no erasure of a row changes that")
        note("Copies of the vault in backups still know them: destroy those too, or a restore brings them back.")


def _order(configuration: Configuration, asked: dict[str, Any]) -> dict[str, Any] | None:
    """What was done; None where there is nobody to forget in the vault."""
    try:
        return order(configuration, "forget", asked)
    except EnvironmentFault as error:
        if NOBODY not in str(error):
            raise
        return None


def _announce(configuration: Configuration, by: dict[str, str], what: str, ids: list[str]) -> None:
    """Their ids, never whose they were: on record before the file is changed."""
    detail = {what: ids[:MAX_LISTED], "count": len(ids), "reason": by["reason"]}
    now_us = time.time_ns() // 1000
    submit(configuration, [record.Admin(time_us=now_us, action="erase.names", actor=by["actor"], detail=detail)])


def _say_elsewhere(elsewhere: list[Stored], unlinked: Unlinked) -> None:
    if unlinked.revocations:
        note(f"{unlinked.revocations} revocations stay in force, under new ids and without what led to records.")
    if unlinked.grants:
        note(f"{unlinked.grants} grants that were over are gone from the list.")
    if unlinked.credentials:
        note(f"{unlinked.credentials} keys and clients that had ended do not name them any more.")
    for each in elsewhere:
        note(f"{each.store}: {each.what}; {each.remedy}")


def register(app: typer.Typer) -> None:
    app.command(rich_help_panel=SET_UP)(forget)
