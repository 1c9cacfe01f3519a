"""The grants of a deployment, as its guards have them: what `Judge` lends roles by.

In: a configuration whose state folder may be there or not. Out: `Held`, or why nothing is known. Where the file
cannot be used a guard grants nothing, and so do we; but it may be us alone who may not read it, so the why is
to be shown. A deployment without grants needs neither keys nor a state folder. Never changes anything.
"""

from __future__ import annotations

from typing import NamedTuple

from gatebook.config.model import Configuration
from gatebook.errors import EnvironmentFault
from gatebook.identity import grant_file
from gatebook.identity.grant import Held
from gatebook.identity.keyed import read_keys
from gatebook.paths import Paths


class Lent(NamedTuple):
    """`why`: the grants could not be read, so `held` is None."""

    held: Held | None
    why: str = ""


def read_lent(configuration: Configuration) -> Lent:
    if not configuration.grants:
        return Lent(None)  # no guard looks for any
    paths = Paths(configuration.state_dir)
    try:
        grants = grant_file.read(paths.grants)
        return Lent(Held(grants, read_keys(paths)) if grants else None)
    except EnvironmentFault as fault:
        return Lent(None, str(fault))
