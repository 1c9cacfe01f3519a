"""What `gatebook verify` may be given from outside: kept checkpoints, a policy, certificates. No logic.

Files that somebody names count, and it is a finding when nobody in them vouches for the ledger. Without any, those
of the configuration in force are used where this deployment is verified: a hint, and never a demand.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from gatebook.cli.report import warn
from gatebook.config import effective
from gatebook.errors import EnvironmentFault, GatebookError
from gatebook.ledger.quorum import MAX_BYTES, Trust, parse_trust
from gatebook.ledger.timestamp import load_authorities
from gatebook.ledger.verify import Outside
from gatebook.ledger.verify.outside import read_kept
from gatebook.paths import Paths
from gatebook.recorder import vouched

SinceCheckpoint = Annotated[
    list[Path] | None,
    typer.Option(
        help="A checkpoint of this log that you kept: this has to be the same log. May be repeated.",
        show_default=False,
    ),
]
Policy = Annotated[
    Path | None,
    typer.Option(
        help="The witnesses you trust, a C2SP tlog-policy: so many of them must have cosigned.",
        show_default=False,
    ),
]
TsaCertificates = Annotated[
    Path | None,
    typer.Option(
        help="The time stamp authorities you trust, PEM: one of them has to have stamped.", show_default=False
    ),
]


def named(origin: str, kept: Sequence[Path] | None, policy: Path | None, certificates: Path | None) -> Outside:
    """Raises EnvironmentFault or ConfigError, naming the file."""
    return Outside(
        kept=[read_kept(each, origin) for each in kept or []],
        policy=_policy(policy) if policy is not None else None,
        authorities=load_authorities(certificates) if certificates is not None else None,
    )


def configured(paths: Paths, kept: Outside) -> Outside:
    """`kept`, and whom the configuration in force names. Warns of what of it cannot be used."""
    try:
        configuration = effective.read(paths.effective)
    except GatebookError:
        return kept  # gatebook has never run here
    policy, authorities = None, None
    try:
        if configuration.witnesses is not None:
            policy = _policy(configuration.witnesses.policy)
        if configuration.timestamps is not None:
            authorities = load_authorities(configuration.timestamps.certificates)
    except GatebookError as error:
        warn(f"level 3 does without: {error}")
    return Outside(kept.kept, policy, authorities, demanded=False)


def disputed(paths: Paths, held: Outside) -> Outside:
    """`held`, and the witnesses that disagreed with this deployment's log when they were asked last."""
    known = vouched.read(paths.witnesses).witnesses
    return replace(held, disputes=[(seen.name, seen.error) for seen in known if seen.disagrees])


def _policy(path: Path) -> Trust:
    try:
        with path.open("rb") as stream:
            return parse_trust(stream.read(MAX_BYTES + 1), str(path))
    except OSError as error:
        raise EnvironmentFault(f"{path}: {(error.strerror or str(error)).lower()}") from None
