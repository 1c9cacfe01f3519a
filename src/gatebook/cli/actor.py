"""Who acts: the OS user behind a command, as records name them and as the configuration may."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

from gatebook.identity.grant_file import Person

_LOGIN = Path("/proc/self/loginuid")
_NO_LOGIN = 0xFFFF_FFFF


def whoever() -> Person:
    """The OS user who logged in: sudo and su do not change who that is. Without a login, who runs this."""
    try:
        login = int(_LOGIN.read_text("ascii"))
    except (OSError, ValueError):
        login = _NO_LOGIN
    uid = os.getuid() if login == _NO_LOGIN else login
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        name = ""  # nobody that the configuration could name
    return Person(f"os:{uid}", name)
