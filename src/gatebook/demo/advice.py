"""What to try while the demo is up: lines for a shell that work exactly as printed.

In: where things are, how gatebook is called. Out: pairs of what a line is for and the line. Each line
names all it needs by absolute paths, so it works in any folder; only the token is the shell's to keep.
Pure, but for `program`, which looks for the command.
"""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from gatebook.demo.provider import CLIENTS

_PROXIES = ("http_proxy", "https_proxy", "all_proxy")


def program() -> str:
    """How a person calls this very gatebook from a shell."""
    script = Path(sys.executable).parent / "gatebook"
    if shutil.which("gatebook") == str(script):
        return "gatebook"
    return shlex.quote(str(script)) if script.exists() else shlex.join([sys.executable, "-m", "gatebook"])


def lines(
    gatebook: str, config: Path, url: str, issuer: str, request_id: str, environment: Mapping[str, str]
) -> list[tuple[str, str]]:
    """`request_id` is of some request that has been sent. The last line runs until it is stopped."""
    proxied = any(name.lower() in _PROXIES for name in environment)
    curl = "curl -s --noproxy '*'" if proxied else "curl -s"
    api = f"{curl} -i --cacert {shlex.quote(str(config.parent / 'tls' / 'ca.pem'))}"
    bearer = '-H "Authorization: Bearer $TOKEN"'
    alice = f"-u alice:{CLIENTS['alice'].secret} -d grant_type=client_credentials -d plain=yes"
    here = f"-c {shlex.quote(str(config))}"
    return [
        ("a token from the demo's provider", f"TOKEN=$({curl} {alice} {issuer}/token)"),
        ("alice is a reader: she may read", f"{api} {bearer} {url}/orders/1001"),
        ("and may not write", f'{api} {bearer} -d \'{{"item": "tea"}}\' {url}/orders'),
        ("nor may anybody without a token read", f"{api} {url}/orders/1001"),
        ("what has been logged", f"{gatebook} log {here}"),
        ("one request of it, in full", f"{gatebook} show {request_id} {here}"),
        ("whether all is as it was written", f"{gatebook} verify {here}"),
        ("how gatebook stands", f"{gatebook} status {here}"),
        ("to watch what comes, in a second terminal", f"{gatebook} log --follow {here}"),
    ]
