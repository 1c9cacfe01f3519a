"""`gatebook keys …`: the ledger's own keys: which log key signs, who can read, and where private keys lie.

API keys are `gatebook key`. The logic is that of readers, ledger.logkeys and the recorder's orders. A passphrase
or a private key is never an argument, never printed, and never in a record.
"""

from __future__ import annotations

import datetime
import os
from pathlib import Path
from typing import Annotated, Any

import typer
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from gatebook import readers
from gatebook.cli.actor import whoever
from gatebook.cli.opened import ReaderKey
from gatebook.cli.option import DEFAULT_CONFIG, SET_UP, ConfigPath, Json
from gatebook.cli.reader_key import load_reader, passphrase, transit
from gatebook.cli.report import harmless, note, say, say_json, warn
from gatebook.cli.revoke import deployment
from gatebook.errors import EnvironmentFault
from gatebook.kms import sealed
from gatebook.ledger import keys, logkeys
from gatebook.ledger.protect import SALT_BYTES, protect
from gatebook.readers import Deployment, Standing
from gatebook.recorder.submit import order

Reason = Annotated[str, typer.Option(help="Why: a line, for the log.")]
Out = Annotated[
    Path | None, typer.Option("--out", "-o", help="The file to make; never over another one.", show_default=False)
]
PassphraseFile = Annotated[
    Path | None,
    typer.Option(help="A private file that holds the passphrase. Default: it is asked for.", show_default=False),
]
TransitKey = Annotated[
    str | None,
    typer.Option("--transit", help="The key of Vault's Transit engine that encrypts it.", show_default=False),
]
Mount = Annotated[str, typer.Option("--mount", help="Where that engine is mounted.")]
_HERE = {
    readers.NOWHERE: "no",
    readers.OPEN: "reader.key, open",
    readers.LOCKED: "reader.key, with a passphrase",
    readers.IN_KMS: f"{sealed.FILE}, in a KMS",
}


def show(config: ConfigPath = DEFAULT_CONFIG, as_json: Json = False) -> None:
    """Show which key signs the log, which did before, who can read it, and which private keys lie on this host.

    Example: `gatebook keys show`
    """
    _, paths = deployment(config)
    held = logkeys.load_log_keys(paths.keys)
    still = {
        path.name[4:12]: path.stat().st_mtime + logkeys.OVERLAP_S for path in logkeys.private_halves(paths.keys)
    }
    former = [
        {"id": one.key_id.hex(), "vkey": one.vkey, "signs_until": _moment(still.get(one.key_id.hex()))}
        for one in held.former
    ]
    told = readers.standing(paths.keys)
    log = {
        "id": held.signer.key_id.hex(),
        "vkey": held.signer.vkey,
        "since": _moment((paths.keys / keys.LOG_KEY).stat().st_mtime),
    }
    if as_json:
        say_json({"log": log, "former": former, "readers": [each._asdict() for each in told]})
    else:
        _say(log, former, told)
    if any(each.private == readers.OPEN for each in told):
        warn(
            f"{paths.keys / keys.READER_KEY} lies open on this host: whoever may act as gatebook's user reads "
            f"everything; `gatebook keys take-away` moves it"
        )


def _say(log: dict[str, Any], former: list[dict[str, Any]], told: list[Standing]) -> None:
    say(f"log key {log['id']}, on this host since {log['since']}")
    say(f"  {harmless(log['vkey'])}")
    for each in former:
        until = f", signs too until {each['signs_until']}" if each["signs_until"] else ""
        say(f"before it {each['id']}{until}")
        say(f"  {harmless(each['vkey'])}")
    say("readers")
    for one in told:
        say(f"  {one.name:16} {one.id}  private key here: {_HERE[one.private]}")


def _moment(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def rotate(reason: Reason = "", config: ConfigPath = DEFAULT_CONFIG, as_json: Json = False) -> None:
    """Make a new key for the log to sign with. The old one signs a KEY entry that says so, and on for 30 days.

    Tell whoever has the old verification key of the new one within that time. If the old one may have been stolen,
    end it at once: `gatebook keys retire`.

    Example: `gatebook keys rotate --reason "once a year"`
    """
    acting = _acting(config)
    told = order(acting.configuration, "keys.rotate", {"actor": acting.actor, "reason": reason})
    if as_json:
        say_json(told)
        return
    say(told["new"])
    note(
        f"\nThis key signs now; entry {told['index']} says so, signed by the one before. That one signs too for "
        f"{told['overlap_s'] // 86400} days.\nGive the line above to auditors, witnesses and monitors; "
        f"back up {acting.paths.keys} again."
    )


def retire(reason: Reason = "", config: ConfigPath = DEFAULT_CONFIG, as_json: Json = False) -> None:
    """End the time in which former log keys sign too, and delete their private halves.

    Example: `gatebook keys retire --reason "the old host was sold"`
    """
    acting = _acting(config)
    told = order(acting.configuration, "keys.retire", {"actor": acting.actor, "reason": reason})
    if as_json:
        say_json(told)
    else:
        say(f"retired {', '.join(told['retired'])}: only the key in force signs")


def add(
    name: Annotated[str, typer.Argument(help="What to call the reader.")],
    public: Annotated[Path, typer.Argument(help="Its public key: X25519, PEM.", metavar="PUBLIC.pem")],
    rewrap_too: Annotated[
        bool, typer.Option("--rewrap", help="Also what is sealed already; needs a reader's private key.")
    ] = False,
    reader: ReaderKey = None,
    config: ConfigPath = DEFAULT_CONFIG,
    as_json: Json = False,
) -> None:
    """Let somebody else read the log too: what comes from the next segment on, within five minutes.

    Example: `gatebook keys add auditor auditor.pem --rewrap`
    """
    acting = _acting(config)
    recipient = keys.load_recipient(public)
    by = load_reader(reader, acting.paths.keys) if rewrap_too else None  # before anything is done
    readers.add(acting, name, recipient)
    told: dict[str, Any] = {"added": name, "id": recipient.id.hex()[:16]}
    if by is not None:
        told |= readers.rewrap(acting, by)._asdict()
    if as_json:
        say_json(told)
        return
    say(f"{name} reads new segments within five minutes")
    if by is None:
        note("What is sealed already stays shut to it; `gatebook keys rewrap` opens that too.")
    else:
        _say_rewrapped(told["changed"], told["shut"])


def remove(
    name: Annotated[str, typer.Argument(help="The reader's name, as `gatebook keys show` has it.")],
    rewrap_too: Annotated[
        bool, typer.Option("--rewrap", help="Also take its part of what is sealed already.")
    ] = False,
    config: ConfigPath = DEFAULT_CONFIG,
    as_json: Json = False,
) -> None:
    """Let a reader read no more: nothing that comes from the next segment on, within five minutes.

    What it could read it may have read and kept, and copies of deks/ that were made before still open for it.

    Example: `gatebook keys remove auditor --rewrap`
    """
    acting = _acting(config)
    gone = readers.remove(acting, name)
    told: dict[str, Any] = {"removed": name, "id": gone.id.hex()[:16]}
    taken = readers.take_from_old(acting, gone.id) if rewrap_too else None
    told |= taken._asdict() if taken else {}
    if as_json:
        say_json(told)
        return
    say(f"{name} does not read new segments any more, within five minutes")
    if taken is None:
        note("What was sealed for it before still opens for it; --rewrap takes that too.")
        return
    say(f"its part was taken from {taken.changed} segments")
    if taken.only:
        warn(f"{taken.only} segments have no other reader and keep it: `gatebook keys rewrap` first, then again")
    if taken.unreadable:
        warn(f"{taken.unreadable} files in deks/ are not whole and were left alone; `gatebook verify` tells")


def rewrap(reader: ReaderKey = None, config: ConfigPath = DEFAULT_CONFIG, as_json: Json = False) -> None:
    """Open what is sealed already to every reader of now. Needs the private key of one who can read it.

    Example: `gatebook keys rewrap --reader /media/key/reader.pem`
    """
    acting = _acting(config)
    done = readers.rewrap(acting, load_reader(reader, acting.paths.keys))
    if as_json:
        say_json(done._asdict())
    else:
        _say_rewrapped(done.changed, done.shut)


def _say_rewrapped(changed: int, shut: int) -> None:
    say(f"{changed} segments' keys were opened to readers who had no part of them")
    if shut:
        warn(f"{shut} segments do not open with this reader's key; try another reader's")


def new_reader(
    name: Annotated[str, typer.Argument(help="What to call the reader.")],
    out: Out = None,
    passphrase_file: PassphraseFile = None,
    config: ConfigPath = DEFAULT_CONFIG,
    as_json: Json = False,
) -> None:
    """Make a reader's key pair: the private key goes to a file under a passphrase, the public one to keys/.

    Example: `gatebook keys new-reader auditor -o /media/key/auditor.pem`
    """
    acting = _acting(config)
    made = keys.reader_of(X25519PrivateKey.generate())
    recipient = keys.Recipient(made.id, made.key.public_key())
    readers.check_new(acting, name, recipient)
    path = _exported(made, out, passphrase_file)
    readers.add(acting, name, recipient)
    if as_json:
        say_json({"added": name, "id": made.id.hex()[:16], "file": str(path)})
        return
    say(f"{name} reads new segments within five minutes, with {path}")
    note("Move that file away from here. `gatebook keys rewrap` opens what is sealed already.")


def export(
    out: Out = None,
    transit_key: TransitKey = None,
    mount: Mount = "transit",
    reader: ReaderKey = None,
    passphrase_file: PassphraseFile = None,
    config: ConfigPath = DEFAULT_CONFIG,
    as_json: Json = False,
) -> None:
    """Copy the reader's private key to a file: under a passphrase, or encrypted by a KMS.

    Example: `gatebook keys export -o /media/key/reader.pem`
    """
    acting = _acting(config)
    found = load_reader(reader, acting.paths.keys)
    if out is None:
        raise typer.BadParameter("name the file to make", param_hint="--out")
    readers.check_free(out)
    if transit_key is not None:
        data = sealed.seal(found, transit(mount, transit_key), mount, transit_key)
    else:
        data = _protected(found, passphrase_file)
    # What can be refused has been: the record is of an export, not of a wish.
    acting.record("keys.export", key=found.id.hex(), to="passphrase" if transit_key is None else "kms")
    readers.write_new(out, data)
    if load_reader(out, acting.paths.keys, passphrase_file).id != found.id:
        raise EnvironmentFault(f"{out}: does not hold what was written to it; is that disk sound?")
    if as_json:
        say_json({"file": str(out), "id": found.id.hex()[:16]})
    else:
        say(f"{out} holds the key of reader {found.id.hex()[:16]}, and opens")


def take_away(
    out: Out = None,
    transit_key: TransitKey = None,
    mount: Mount = "transit",
    passphrase_file: PassphraseFile = None,
    config: ConfigPath = DEFAULT_CONFIG,
    as_json: Json = False,
) -> None:
    """Move the reader's key off this host: to a file under a passphrase, or into a KMS; then delete reader.key.

    The recorder goes on: it needs public keys alone. What reads asks for the passphrase, or the KMS; what reads by
    itself, sinks and the count of a grant's accesses at its end, cannot any more.

    Example: `gatebook keys take-away -o /media/key/reader.pem`, or `gatebook keys take-away --transit gatebook`
    """
    acting = _acting(config)
    found = keys.load_reader(acting.paths.keys)
    if transit_key is not None:
        path = acting.paths.keys / sealed.FILE
        readers.write_new(path, sealed.seal(found, transit(mount, transit_key), mount, transit_key))
    else:
        path = _exported(found, out, passphrase_file)
    readers.take_away(acting, path, lambda copy: load_reader(copy, acting.paths.keys, passphrase_file))
    if acting.configuration.sinks:
        warn(f"sinks read with that key, and pause now: {', '.join(sorted(acting.configuration.sinks))}")
    if as_json:
        say_json({"file": str(path), "id": found.id.hex()[:16]})
        return
    say(f"reader.key is deleted; {path} opened and holds it")
    if transit_key is None:
        note(
            f"Move {path} away from here, and keep a second copy: without it nobody reads the log.\n"
            f"Backups of keys/ that were made before still hold reader.key."
        )


def _exported(found: keys.Reader, out: Path | None, passphrase_file: Path | None) -> Path:
    if out is None:
        raise typer.BadParameter("name the file to make", param_hint="--out")
    readers.write_new(out, _protected(found, passphrase_file))
    return out


def _protected(found: keys.Reader, passphrase_file: Path | None) -> bytes:
    secret = passphrase("Passphrase for the new file: ", passphrase_file, twice=True)
    return protect(found.key, secret, os.urandom(SALT_BYTES), os.urandom(16))


def _acting(config: Path) -> Deployment:
    configuration, paths = deployment(config)
    return Deployment(configuration, paths, whoever().actor)


def register(app: typer.Typer) -> None:
    about = "The ledger's keys: what signs it, who can read it. API keys are `gatebook key`."
    group = typer.Typer(no_args_is_help=True, help=about)
    for command in (show, rotate, retire, add, remove, rewrap, export):
        group.command()(command)
    group.command("new-reader")(new_reader)
    group.command("take-away")(take_away)
    app.add_typer(group, name="keys", rich_help_panel=SET_UP)
