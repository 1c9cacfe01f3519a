"""Where the demo plays: its folder, its addresses, its configuration.

In: a folder that holds nothing of gatebook yet, and the addresses of API and provider. Out: what `gatebook
init` makes, with the demo's own gatebook.yaml in the place of the starter's. Never writes over a
deployment that is there: its keys open its log.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import shutil
import socket
import string
import tempfile
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import NamedTuple

from gatebook import starter
from gatebook.errors import EnvironmentFault
from gatebook.paths import Paths

HOST = "127.0.0.1"
USUAL_PORT = 8443


class Addresses(NamedTuple):
    """`listen` is host:port, the others are URLs."""

    listen: str
    issuer: str
    api: str
    nowhere: str


@contextlib.contextmanager
def place(folder: Path | None) -> Iterator[Path]:
    """`folder`, made if need be and kept; or one for this once, which goes unless something went wrong."""
    if folder is not None:
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise EnvironmentFault(f"{folder}: {(error.strerror or str(error)).lower()}") from error
        yield folder.resolve()
        return
    made = Path(tempfile.mkdtemp(prefix="gatebook-demo-")).resolve()  # mode 0700
    try:
        yield made
    except Exception as error:
        with contextlib.suppress(OSError):
            shutil.copytree(Paths(made / "state").logs, made / "logs" / "gateway")
        error.add_note(f"everything about it lies in {made}")
        raise
    except BaseException:
        shutil.rmtree(made, ignore_errors=True)
        raise
    else:
        shutil.rmtree(made, ignore_errors=True)
    finally:
        shutil.rmtree(Paths(made / "state").runtime, ignore_errors=True)


def configure(folder: Path, addresses: Addresses, now: datetime.datetime) -> Path:
    """Keys, a certificate, the configuration; its path. Raises EnvironmentFault where there is one already."""
    starter.initialise(folder, "demo", now)
    template = resources.files("gatebook.demo").joinpath("demo.yaml").read_text("utf-8")
    config, written = folder / starter.CONFIG_FILE, folder / ".gatebook.yaml.new"
    written.write_text(string.Template(template).substitute(addresses._asdict()), "utf-8")
    os.replace(written, config)  # noqa: PTH105 - a crash before it leaves the starter's, which is whole too
    return config


def free_address() -> str:
    """The usual port if nobody has it, else any."""
    for port in (USUAL_PORT, 0):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((HOST, port))
            return f"{HOST}:{probe.getsockname()[1]}"
    raise EnvironmentFault(f"no port is free on {HOST}")


@contextlib.contextmanager
def nobody() -> Iterator[str]:
    """The URL of a port that is taken, but where nobody listens: connections to it are refused."""
    with socket.socket() as held:
        held.bind((HOST, 0))
        yield f"http://{HOST}:{held.getsockname()[1]}"
