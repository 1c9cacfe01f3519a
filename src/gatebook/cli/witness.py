"""`gatebook witness …`: a witness of our own for others' logs, in a folder that no deployment needs.

The logic is witness.state's and witness.process's. Its key never leaves its folder.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from gatebook.cli.key import moment
from gatebook.cli.option import RUN, Json
from gatebook.cli.report import harmless, note, say, say_json
from gatebook.errors import Damaged, EnvironmentFault
from gatebook.witness import process, state

Folder = Annotated[Path, typer.Argument(help="The witness's own folder.", show_default=False)]


def init(
    folder: Folder,
    name: Annotated[
        str, typer.Option(help="Its name in cosignatures, such as example.com/witness-1.", show_default=False)
    ],
    as_json: Json = False,
) -> None:
    """Make a witness: a folder with a key of its own.

    Prints its verification key, which goes into the policies of those who trust it.

    Example: `gatebook witness init /var/lib/witness --name example.com/witness-1`
    """
    try:
        made = state.create(folder, name)
    except Damaged as error:
        raise typer.BadParameter(str(error), param_hint="--name") from None
    if as_json:
        say_json({"name": made.name, "vkey": made.vkey})
        return
    say(made.vkey)
    note("In a policy: witness <name of your choice> <this key> <the URL at which it is served>")


def add(
    folder: Folder,
    key: Annotated[Path, typer.Argument(help="The log's public key (log.pub).", show_default=False)],
    new_key: Annotated[
        bool, typer.Option("--new-key", help="The log has changed its key: trust this one in its place.")
    ] = False,
) -> None:
    """Have the witness cosign the checkpoints of a log. It need not be restarted.

    Example: `gatebook witness add /var/lib/witness log.pub`
    """
    try:
        vkey = key.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise EnvironmentFault(f"{key}: cannot be read: {error}") from None
    try:
        added = state.add_log(folder, vkey, new_key=new_key)
    except Damaged as error:
        raise EnvironmentFault(f"{key}: {error}") from None
    say(f"{harmless(added.name)} is watched, with the key {added.key_id.hex()}")


def list_(folder: Folder, as_json: Json = False) -> None:
    """Show which logs the witness watches, and what it cosigned last of each.

    Example: `gatebook witness list /var/lib/witness`
    """
    found = state.watched(folder)
    if as_json:
        for each in found:
            last = each.checkpoint
            told = {"size": last.size, "root": last.root.hex()} if last else {"size": None, "root": None}
            named = {"origin": each.log.name, "hash": state.origin_hash(each.log.name), "vkey": each.log.vkey}
            say_json({**named, **told, "time_s": each.time_s})
        return
    if not found:
        note("it watches no log yet: `gatebook witness add` tells it of one")
        return
    table = Table(box=box.SIMPLE_HEAD if sys.stdout.isatty() else None, pad_edge=False)
    for heading in ("log", "key", "size", "cosigned"):
        table.add_column(heading, overflow="fold")
    for each in found:
        size, when = (str(each.checkpoint.size), moment(each.time_s)) if each.checkpoint else ("-", "never")
        table.add_row(*map(Text, (harmless(each.log.name), each.log.key_id.hex(), size, when)))
    Console(highlight=False).print(table)


def serve(
    folder: Folder,
    listen: Annotated[str, typer.Option(help="Address and port; TLS is for a proxy in front.")] = "127.0.0.1:8787",
) -> None:
    """Answer logs that ask for cosignatures, in the foreground (C2SP tlog-witness).

    Cosigns a checkpoint only if what it cosigned before is its beginning, and has it on disk before it answers.

    Example: `gatebook witness serve /var/lib/witness --listen 127.0.0.1:8787`
    """
    found = re.fullmatch(r"(?:\[([0-9a-fA-F:.]+)\]|([^:\[\]]+)):([0-9]{1,5})", listen)
    if found is None or int(found[3]) > 65535:
        raise typer.BadParameter("expected an address and a port, such as 127.0.0.1:8787", param_hint="--listen")
    process.serve(folder, found[1] or found[2], int(found[3]))


def register(app: typer.Typer) -> None:
    witness = typer.Typer(help="A witness of our own, for others' logs.", no_args_is_help=True)
    for name, command in (("init", init), ("add", add), ("list", list_), ("serve", serve)):
        witness.command(name)(command)
    app.add_typer(witness, name="witness", rich_help_panel=RUN)
