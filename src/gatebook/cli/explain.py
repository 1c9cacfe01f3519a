"""`gatebook explain`: what the guard would say to a request, and why. No logic: that is `trial`'s."""

from __future__ import annotations

import asyncio
import hashlib
import ssl
import sys
import time
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from pydantic import ValidationError

from gatebook import ownlog
from gatebook.cli.explained import say_explained
from gatebook.cli.option import DEFAULT_CONFIG, SET_UP, ConfigPath, Grants, Json
from gatebook.cli.report import say_json
from gatebook.config.model import Configuration
from gatebook.errors import EnvironmentFault
from gatebook.trial.explain import explain as explained
from gatebook.trial.given import GivenIdentity, GivenRequest, parse_moment
from gatebook.trial.identify import identify
from gatebook.trial.judge import Request, Who
from gatebook.trial.opened import open_judge

MAX_TOKEN_BYTES = 64 << 10


def explain(
    method: Annotated[str, typer.Argument(help="An HTTP method.")],
    target: Annotated[str, typer.Argument(metavar="PATH", help="The path, and the query if there is one.")],
    token: Annotated[
        Path | None,
        typer.Option(
            help="A file that holds a token or an API key, or - for stdin; it is verified as a guard does it.",
            allow_dash=True,
            show_default=False,
        ),
    ] = None,
    as_: Annotated[
        str | None,
        typer.Option(
            "--as", metavar="JSON", help="Who is taken to ask, unverified: provider, subject, roles, claims, …"
        ),
    ] = None,
    certificate: Annotated[
        Path | None,
        typer.Option(
            help="The client's certificate, PEM; TLS is taken to have proved its key.", show_default=False
        ),
    ] = None,
    header: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="A header that the client sends.")
    ] = None,
    host: Annotated[str, typer.Option(help="The Host header.")] = "localhost",
    address: Annotated[str, typer.Option(help="The client's address.")] = "127.0.0.1",
    at: Annotated[str | None, typer.Option(help="When: 2026-11-24T17:20:00Z. Default: now.")] = None,
    grants: Grants = True,
    config: ConfigPath = DEFAULT_CONFIG,
    as_json: Json = False,
) -> None:
    """Explain what the guard says to a request: route, caller, every rule with its conditions, verdict.

    Nothing is sent, counted or recorded, and nothing secret is shown. Grants in force count; limits and
    earlier uses of a token are named but not looked at. Exit code 0 whatever the verdict is: `gatebook
    policy test` is for scripts.

    Example: `gatebook explain GET /orders/7 --as '{"roles": ["reader"]}'`, or `gatebook explain GET /orders/7
    --token token.txt`
    """
    if token is not None and as_ is not None:
        raise typer.BadParameter("either --token or --as", param_hint="--as")
    judge, _, unread = open_judge(config, grants)
    configuration = judge.configuration
    request = _request(method, target, header or [], host, address, at)
    if certificate is not None:
        der = _certificate(certificate)
        request = msgspec.structs.replace(request, der=der, certificate=hashlib.sha256(der).hexdigest())
    route = judge.route(request)
    given = None if as_ is None else _given(as_, configuration)
    who: Who = None
    if route is not None:
        if given is not None:
            who = given.identity(configuration, route)
        else:
            ownlog.configure("explain", least="warning")
            request, who = asyncio.run(identify(configuration, request, route, _read(token)))
    told = {**explained(judge, request, who, verified=as_ is None), "grants_unread": unread or None}
    if as_json:
        say_json(told)
    else:
        say_explained(told)


def _request(method: str, target: str, header: list[str], host: str, address: str, at: str | None) -> Request:
    try:
        moment = time.time() if at is None else parse_moment(at).timestamp()
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--at") from None
    try:
        given = GivenRequest(method=method, target=target, host=host, address=address)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        if first["loc"] == ("method",):
            raise typer.BadParameter(f"{method!r} is no method", param_hint="METHOD") from None
        raise typer.BadParameter(first["msg"].removeprefix("Value error, "), param_hint="PATH") from None
    return msgspec.structs.replace(given.request(moment), headers=tuple(map(_header, header)))


def _header(text: str) -> tuple[str, str]:
    """`Name: value`, as curl takes it, or `NAME=VALUE`."""
    sign = ":" if ":" in text.partition("=")[0] else "="
    name, found, value = text.partition(sign)
    name, value = name.strip(), value.strip()
    if not found or not name.replace("-", "").replace("_", "").isalnum():
        raise typer.BadParameter("expected NAME=VALUE, or 'Name: value'", param_hint="--header")
    return name.lower(), value


def _given(text: str, configuration: Configuration) -> GivenIdentity:
    try:
        given = GivenIdentity.model_validate_json(text, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        known = ", ".join(GivenIdentity.model_fields)
        said = f"{place + ': ' if place else ''}{first['msg']}; expected a JSON object with any of {known}"
        raise typer.BadParameter(said, param_hint="--as") from None
    if given.provider is not None and given.provider not in configuration.identity:
        known = ", ".join(sorted(configuration.identity)) or "none at all"
        raise typer.BadParameter(f"no provider is called {given.provider}; there is {known}", param_hint="--as")
    return given


def _certificate(path: Path) -> bytes:
    try:
        return ssl.PEM_cert_to_DER_cert(path.read_text("ascii").strip())
    except OSError as error:
        raise EnvironmentFault(f"{path}: {(error.strerror or str(error)).lower()}") from None
    except ValueError:
        raise EnvironmentFault(f"{path}: not one certificate in PEM; give the client's alone") from None


def _read(path: Path | None) -> str | None:
    """The credential, alone in its file. No error shows anything of it."""
    if path is None:
        return None
    try:
        if str(path) == "-":
            data = sys.stdin.buffer.read(MAX_TOKEN_BYTES + 1)
        else:
            with path.open("rb") as stream:
                data = stream.read(MAX_TOKEN_BYTES + 1)
    except OSError as error:
        raise EnvironmentFault(f"{path}: {(error.strerror or str(error)).lower()}") from None
    text = data.decode("ascii", "replace").strip()
    if not text or len(data) > MAX_TOKEN_BYTES or not text.isprintable() or " " in text:
        raise EnvironmentFault(f"{path}: not a token alone; write nothing else into the file")
    return text


def register(app: typer.Typer) -> None:
    app.command(rich_help_panel=SET_UP)(explain)
