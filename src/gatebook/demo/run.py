"""`gatebook demo`: an API, an OpenID provider, gatebook in front, real traffic, and what is on record of it.

In: a folder or none, whether to stay up. Out: a story on stdout that checks itself: an answer or a record
that is not as `traffic` says ends it with an error. Never leaves a process behind, whatever ends it; see
`children`. SIGINT, SIGTERM and SIGHUP stop it.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import shlex
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import NamedTuple

import httpx2
from rich.console import Console
from rich.table import Table

from gatebook.demo import advice, scene, traffic
from gatebook.demo.children import STOPS, Children
from gatebook.demo.provider import CLIENTS
from gatebook.errors import GatebookError

GATEBOOK = (sys.executable, "-m", "gatebook")
PIPED_WIDTH = 132
TIMEOUT_S = 20.0
_POLL_S = 0.1


class Stopped(BaseException):
    """Somebody wants it to end. Not an error, and nothing on the way may take it for one."""


class Stage(NamedTuple):
    """What is up, and where it tells its story."""

    config: Path
    url: str
    issuer: str
    key: str  # an API key of a partner who may read
    gateway: httpx2.Client
    console: Console


def run(folder: Path | None, once: bool) -> None:
    """Returns at the end with `once`, else when stopped. Raises GatebookError when something is amiss, and
    KeyboardInterrupt when stopped before all has been shown."""
    console = Console(
        highlight=False, markup=False, emoji=False, width=None if sys.stdout.isatty() else PIPED_WIDTH
    )
    shown = False
    try:
        with _stoppable(), scene.place(folder) as place, scene.nobody() as nowhere:
            logs = place / "logs"
            logs.mkdir(exist_ok=True)
            with Children(logs) as children, _stage(place, nowhere, children, console) as stage:
                sent = _play(stage)
                shown = True
                if once:
                    console.print("\nAll of it is as it should be. Without --once, the demo stays up to be tried.")
                    return
                _invite(stage, sent)
                _stay(children)
    except Stopped:
        if not shown:
            raise KeyboardInterrupt from None
        with contextlib.suppress(OSError):  # the terminal may be gone
            console.print(f"\nStopped.{'' if folder is None else f' The log is kept in {folder}.'}")


# -- start and end --------------------------------------------------------------------------------------
@contextlib.contextmanager
def _stoppable() -> Iterator[None]:
    """Signals raise Stopped, once: the end takes a bounded time, and is not to be cut short half-way."""
    before = {number: signal.getsignal(number) for number in STOPS}
    caught = [number for number, handler in before.items() if handler is not signal.SIG_IGN]  # as under nohup

    def stop(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - as `signal` calls it
        for each in caught:
            signal.signal(each, signal.SIG_IGN)
        raise Stopped

    for each in caught:
        signal.signal(each, stop)
    try:
        yield
    finally:
        for each in caught:
            signal.signal(each, before[each])


@contextlib.contextmanager
def _stage(place: Path, nowhere: str, children: Children, console: Console) -> Iterator[Stage]:
    console.print(f"Setting up in {place} …", soft_wrap=True)
    api = children.start("demo API", sys.executable, "-m", "gatebook.demo.api")
    provider = children.start("demo OpenID provider", sys.executable, "-m", "gatebook.demo.provider")
    where = scene.Addresses(scene.free_address(), provider.address(), api.address(), nowhere)
    config = scene.configure(place, where, datetime.datetime.now(datetime.UTC))
    key = _key(config)
    gatebook = children.start("gatebook", *GATEBOOK, "run", "-c", str(config))
    tls = ssl.create_default_context(cafile=str(place / "tls" / "ca.pem"))
    url = f"https://{where.listen}"
    with httpx2.Client(base_url=url, verify=tls, trust_env=False, timeout=TIMEOUT_S) as gateway:
        gatebook.until(lambda: _ready(gateway))
        console.print(f"\n  {url:<26} gatebook, over TLS, in front of\n  {where.api:<26} a demo API, and behind")
        console.print(f"  {where.issuer:<26} a demo OpenID provider, for demonstrations only\n")
        yield Stage(config, url, where.issuer, key, gateway, console)


def _ready(gateway: httpx2.Client) -> bool:
    try:
        return gateway.get("/.gatebook/ready").status_code == 200
    except httpx2.TransportError:
        return False


def _stay(children: Children) -> None:
    while (dead := children.dead()) is None:
        time.sleep(_POLL_S)
    raise dead.failure("ended unexpectedly")


# -- the play -------------------------------------------------------------------------------------------
def _play(stage: Stage) -> list[traffic.Sent]:
    sent = [traffic.send(stage.gateway, step, _credential(stage, step)) for step in traffic.STEPS]
    stage.console.print(_table(sent))
    _expect(traffic.differences(sent))
    _expect(_until_on_record(stage, sent))
    stage.console.print("\nWhat is on record of it. Each decision was sealed before its request went on.")
    _show(stage, "log", "--limit", str(len(sent)))
    stage.console.print("\nWhether anybody has changed it since:")
    _show(stage, "verify")
    return sent


def _key(config: Path) -> str:
    """Made before gatebook runs, so that its guards know it from the beginning."""
    options = ("--identity", "partners", "--roles", "reader", "--subject", "a-partner", "--ttl", "1h")
    return str(json.loads(_ask(config, "key", "create", *options))["key"])


def _credential(stage: Stage, step: traffic.Step) -> Mapping[str, str]:
    if not step.caller:
        return {}
    if step.caller == traffic.PARTNER:
        return {"X-API-Key": stage.key}
    answer = httpx2.post(
        f"{stage.issuer}/token",
        auth=(step.caller, CLIENTS[step.caller].secret),
        data={"grant_type": "client_credentials"} | ({"lifetime": "-60"} if step.expired else {}),
        trust_env=False,
        timeout=TIMEOUT_S,
    ).raise_for_status()
    return {"Authorization": f"Bearer {answer.json()['access_token']}"}


def _table(all_sent: list[traffic.Sent]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in ("what was sent", "request", "by", "answer", "entry", ""):
        table.add_column(name, no_wrap=name not in ("what was sent", ""))
    for sent in all_sent:
        step = sent.step
        request = f"{step.method} {step.path}"
        entry = sent.receipt.rpartition("/")[2]
        table.add_row(step.what, request, step.caller, str(sent.status), entry, sent.remark)
    return table


def _expect(differences: list[str]) -> None:
    if differences:
        raise GatebookError("the demo did not go as it should: " + "; ".join(differences))


def _until_on_record(stage: Stage, sent: list[traffic.Sent]) -> list[str]:
    """Outcomes come a moment after their answers; returns what is still amiss when TIMEOUT_S is over."""
    end = time.monotonic() + TIMEOUT_S
    while True:
        records = [json.loads(line) for line in _ask(stage.config, "log", "--limit", "1000").splitlines()]
        differences = traffic.on_record(sent, records)
        if not differences or time.monotonic() > end:
            return differences
        time.sleep(_POLL_S)


def _ask(config: Path, *command: str) -> str:
    """What a command of gatebook's says in JSON."""
    argv = [*GATEBOOK, *command, "--json", "-c", str(config)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)  # noqa: S603
    if done.returncode:
        raise GatebookError(f"`gatebook {command[0]}` ended with {done.returncode}: {done.stdout}{done.stderr}")
    return done.stdout


def _show(stage: Stage, *command: str) -> None:
    """Runs a command of gatebook's as a person would, on the same terminal."""
    argv = [*command, "-c", str(stage.config)]
    stage.console.print(f"$ {advice.program()} {shlex.join(argv)}", soft_wrap=True)
    sys.stdout.flush()
    environment = os.environ | ({} if sys.stdout.isatty() else {"COLUMNS": str(PIPED_WIDTH)})
    done = subprocess.run([*GATEBOOK, *argv], env=environment, check=False)  # noqa: S603 - ours
    if done.returncode:
        raise GatebookError(f"`gatebook {command[0]}` ended with {done.returncode}")


def _invite(stage: Stage, sent: list[traffic.Sent]) -> None:
    refused = next(each for each in sent if each.status == 403)
    found = advice.lines(
        advice.program(), stage.config, stage.url, stage.issuer, refused.request_id, dict(os.environ)
    )
    stage.console.print("\nTry it yourself, while it is up:\n")
    for about, line in found:
        stage.console.print(f"  # {about}\n  {line}\n", soft_wrap=True)
    stage.console.print("Ctrl-C stops everything.")
    sys.stdout.flush()
