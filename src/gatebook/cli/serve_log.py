"""`gatebook serve-log`: the public half of the ledger over HTTP, for monitors. No logic."""

from __future__ import annotations

import ipaddress
from typing import Annotated

import typer

from gatebook import serve_log
from gatebook.cli.option import DEFAULT_CONFIG, RUN, ConfigPath
from gatebook.cli.report import note
from gatebook.config.load import state_dir
from gatebook.errors import UsageError
from gatebook.paths import Paths

_LISTEN = "127.0.0.1:8650"


def serve(
    listen: Annotated[str, typer.Option(help="IP address and port to listen on; port 0: any free one.")] = _LISTEN,
    config: ConfigPath = DEFAULT_CONFIG,
) -> None:
    """Serve the log's public files over HTTP: checkpoint, tiles, entries, time stamps.

    For monitors, witnesses and auditors; any client of C2SP's tlog-tiles can read it. Gives nothing of any
    request: no segments, no keys. Reads the ledger's folder and needs no running gatebook. Ends on Ctrl-C.

    Example: `gatebook serve-log --listen 127.0.0.1:8650`, then `curl http://127.0.0.1:8650/checkpoint`
    """
    host, port = _address(listen)
    with serve_log.opened(Paths(state_dir(config)).ledger / "log") as folder:
        listener = serve_log.bind(host, port)
        shown = f"[{host}]" if ":" in host else host
        note(f"serving http://{shown}:{listener.getsockname()[1]}/ until Ctrl-C")
        serve_log.serve(folder, listener)


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    try:
        ipaddress.ip_address(host)
    except ValueError:
        raise UsageError(f"--listen {text}: expected an IP address and a port, such as {_LISTEN}") from None
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and int(port) <= 65535):
        raise UsageError(f"--listen {text}: expected a port of 0 to 65535 after the last ':'")
    return host, int(port)


def register(app: typer.Typer) -> None:
    app.command("serve-log", rich_help_panel=RUN)(serve)
