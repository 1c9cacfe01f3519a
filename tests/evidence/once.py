"""The command line for fixtures that are made once, which have no `run`."""

from __future__ import annotations

import subprocess
import sys


def once(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "gatebook", *arguments], check=True, capture_output=True, timeout=120)
