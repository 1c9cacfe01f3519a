"""Everything that `gatebook run` would need, checked before anything is started or changed.

In: the configuration's path. Out: the configuration (if it is one), all problems, and warnings, each with
its place in the file. `check` shows them; `run` and `reload` refuse to go on while there are problems.
Never writes outside a temporary folder, never opens a listening socket for connections, and asks nobody
over the network.
"""

from __future__ import annotations

import datetime
import errno
import os
import socket
import stat
import tempfile
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import NamedTuple

from gatebook import certificates, limits, policy, redact
from gatebook.config import secret
from gatebook.config.base import Secret
from gatebook.config.load import examine, locate, rest_of
from gatebook.config.model import Configuration, Listener, ProviderClient
from gatebook.config.source import Location
from gatebook.errors import ConfigError, EnvironmentFault, GatebookError, Problem
from gatebook.gateway import nginx, render
from gatebook.identity.chain import Authorities
from gatebook.identity.crl_watch import problem_of
from gatebook.ledger import keys
from gatebook.ledger.quorum import parse_trust
from gatebook.paths import Paths, check_private
from gatebook.policy.where import compile_where
from gatebook.witness.asking import url_problem


class Preflight(NamedTuple):
    """`run` may go on if, and only if, `problems` is empty; then there is a configuration."""

    configuration: Configuration | None
    problems: list[Problem]
    warnings: list[Problem]


class _Finding(NamedTuple):
    location: Location
    message: str
    expected: str = ""
    fatal: bool = True


Findings = Iterator[_Finding]


def preflight(path: Path) -> Preflight:
    """Never raises for what the configuration says or the machine lacks."""
    configuration, source, problems = examine(path)
    if source is None:
        return Preflight(None, problems, [])
    looked_at, wrong = (configuration, []) if configuration is not None else rest_of(path, source)
    if looked_at is None:
        return Preflight(None, problems, [])
    findings: list[_Finding] = []
    for check in _CHECKS:
        findings += check(looked_at)
    findings = [f for f in findings if not any(f.location[: len(place)] == place for place in wrong)]
    if wrong:  # what rules and routes are to each other cannot be told while one of them is another
        findings = [f for f in findings if f.fatal]
    if not problems and not any(f.fatal and f.location[-1] in _NGINX_READS for f in findings if f.location):
        findings += _nginx_test(looked_at)  # which would only repeat, in its own words, what is known
    known = {(problem.key, problem.line) for problem in problems}  # of another check, these would be echoes
    warnings: list[Problem] = []
    for location, message, expected, fatal in findings:
        (problem,) = locate([(location, message, expected)], source)
        if (problem.key, problem.line) not in known:
            (problems if fatal else warnings).append(problem)
    return Preflight(configuration, sorted(problems, key=_place), sorted(warnings, key=_place))


def _place(problem: Problem) -> tuple[int, int]:
    return (problem.line, problem.column)


def _policy(configuration: Configuration) -> Findings:
    for part in (policy, limits, redact):
        for location, message, expected in part.problems(configuration):
            yield _Finding(location, message, expected)
    for location, message, expected in policy.warnings(configuration):
        yield _Finding(location, message, expected, fatal=False)


def _privilege(configuration: Configuration) -> Findings:  # noqa: ARG001 - one shape for all checks
    if os.geteuid() == 0:
        said = "gatebook runs as root, which it never needs"
        yield _Finding((), said, "a user of its own; for ports below 1024, CAP_NET_BIND_SERVICE", fatal=False)


def _state(configuration: Configuration) -> Findings:
    """The state folder and the keys in it."""
    paths = Paths(configuration.state_dir)
    for folder in (paths.state, paths.keys):
        try:
            check_private(folder)
        except EnvironmentFault as fault:
            yield _Finding(("state_dir",), str(fault))
            return
        except OSError as error:
            yield _Finding(("state_dir",), f"{folder}: {_why(error)}", "a folder that this user can read")
            return
    for name, is_secret in _KEYS:
        yield from _file(paths.keys / name, ("state_dir",), secret=is_secret)
    try:
        keys.load_recipients(paths.keys)
    except GatebookError as fault:
        yield _Finding(("state_dir",), str(fault))


def _file(path: Path, location: Location, secret: bool) -> Findings:
    """A file that must be readable; a secret one must be nobody else's to read."""
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):  # asked before it is opened: a pipe would wait for a writer
            yield _Finding(location, f"{path}: not a regular file", "a file")
            return
        path.open("rb").close()
    except OSError as error:
        yield _Finding(location, f"{path}: {_why(error)}", "a file that this user can read")
        return
    mode = stat.S_IMODE(found.st_mode)
    if secret and found.st_uid not in (os.geteuid(), 0):
        yield _Finding(location, f"{path}: owned by uid {found.st_uid}", f"uid {os.geteuid()}, or root")
    elif secret and mode & 0o037:
        yield _Finding(location, f"{path}: mode {mode:04o} lets others at a secret", "mode 0600; use chmod")
    elif secret and mode & 0o040:
        said = f"{path}: mode {mode:04o} lets its group read a secret"
        yield _Finding(location, said, "mode 0600, unless the group is meant to", fatal=False)


def _why(error: OSError) -> str:
    return (error.strerror or str(error)).lower()


def _tls(configuration: Configuration) -> Findings:
    """Certificates and keys: readable, in force, made for each other."""
    now = datetime.datetime.now(datetime.UTC)
    for number, listener in enumerate(configuration.listen):
        if listener.tls is None:
            continue
        where: Location = ("listen", number, "tls")
        chain = yield from _pem(listener.tls.certificate, (*where, "certificate"), secret=False)
        if chain is not None:
            found = certificates.check_chain(chain, now)
            yield from _about(listener.tls.certificate, (*where, "certificate"), found)
        key = yield from _pem(listener.tls.key, (*where, "key"), secret=True)
        if key is not None:
            yield from _about(listener.tls.key, (*where, "key"), certificates.check_key(key, chain))


def _authorities(configuration: Configuration) -> Findings:
    """CA files of upstreams, providers and the time stamp authority."""
    named: list[tuple[Location, Path | None]] = [
        (("upstreams", name, "ca"), upstream.ca) for name, upstream in configuration.upstreams.items()
    ]
    for name, provider in configuration.identity.items():
        if provider.type in ("oidc", "introspection"):
            named.append((("identity", name, "ca"), provider.ca))
    if configuration.witnesses is not None:
        named.append((("witnesses", "ca"), configuration.witnesses.ca))
    if configuration.timestamps is not None:
        named.append((("timestamps", "certificates"), configuration.timestamps.certificates))
    for location, path in named:
        if path is not None:
            pem = yield from _pem(path, location, secret=False)
            if pem is not None:
                yield from _about(path, location, certificates.check_ca(pem))


def _retention(configuration: Configuration) -> Findings:
    """Common standards want audit logs for a year (PCI DSS 4.0, 10.5.1)."""
    terms = configuration.retention
    if terms is not None and terms.records < _YEAR_S:
        said = f"records are destroyed after {terms.records / 86400:g} days; many standards ask for a year"
        yield _Finding(("retention", "records"), said, "365d or more, unless you know better", fatal=False)


def _sealed(configuration: Configuration) -> Findings:
    """What is sealed is there to be opened, by somebody who is named; and what is not sealed needs nobody."""
    audit = configuration.audit
    seals = "seal" in (audit.subject, audit.address)
    if seals and not audit.unseal:
        said = "names and addresses are sealed, and `gatebook unseal` opens them for nobody"
        yield _Finding(("audit",), said, "audit.unseal: names of OS users", fatal=False)
    elif audit.unseal and not seals:
        yield _Finding(
            ("audit", "unseal"), "nothing is sealed from here on", "subject or address: seal", fatal=False
        )


def _witnesses(configuration: Configuration) -> Findings:
    """The policy of witnesses: whole, and with somebody in it who can be asked."""
    if configuration.witnesses is None:
        return
    path, where = configuration.witnesses.policy, ("witnesses", "policy")
    yield from (found := list(_file(path, where, secret=False)))
    if found:
        return
    try:
        trust = parse_trust(path.read_bytes(), str(path))
    except ConfigError as error:
        for problem in error.problems:
            yield _Finding(where, str(problem))
        return
    asked = [witness for witness in trust.witnesses if witness.url is not None]
    if not asked:
        yield _Finding(where, f"{path}: no witness has a URL, so nobody is asked", "witness <name> <vkey> <url>")
    for witness in asked:
        if wrong := url_problem(witness.url or ""):
            yield _Finding(where, f"{path}: the URL of {witness.name} {wrong}", "https://...")
    if trust.logs and not any(log.verifier.name == configuration.origin for log in trust.logs):
        said = f"{path}: lists logs, but not {configuration.origin}: by this policy our own log counts for nothing"
        yield _Finding(where, said, "a line log <vkey of state/keys/log.pub>", fatal=False)


def _secrets(configuration: Configuration) -> Findings:
    """What the configuration names instead of holding it."""
    for name, provider in configuration.identity.items():
        if provider.type == "introspection":
            yield from _client(provider.client, ("identity", name, "client"))
        elif provider.type == "oidc" and provider.login is not None:
            yield from _client(provider.login.client, ("identity", name, "login", "client"))


def _client(client: ProviderClient, where: Location) -> Findings:
    for key, named in (("secret", client.secret), ("key", client.key)):
        if named is not None:
            yield from _secret(named, (*where, key), key == "key")


def _secret(named: Secret, location: Location, is_key: bool) -> Findings:
    """Readable, nobody else's to read, and a private key where there should be one."""
    if named.file is not None:
        findings = list(_file(named.file, location, secret=True))
        yield from findings
        if any(finding.fatal for finding in findings):
            return
    try:
        found = secret.read(named)
    except EnvironmentFault as fault:
        yield _Finding(location, str(fault), "a secret")
        return
    if is_key:
        for message, expected, fatal in certificates.check_key(found, None):
            yield _Finding(location, f"{named.file or named.env}: {message}", expected, fatal)


def _sinks(configuration: Configuration) -> Findings:
    """What sinks need to begin. One that does not work loses nothing, but somebody waits for its records."""
    for name, settings in configuration.sinks.items():
        where: Location = ("sinks", name)
        if settings.where is not None:
            try:
                compile_where(settings.where)
            except ValueError as error:
                yield _Finding((*where, "where"), str(error), "a CEL expression of type bool")
        for key in type(settings).model_fields:
            value = getattr(settings, key)
            if isinstance(value, Secret):
                yield from _secret(value, (*where, key), is_key=False)
            elif isinstance(value, dict):  # header fields
                for header, each in value.items():
                    yield from _secret(each, (*where, key, header), is_key=False)
            elif key in ("certificates", "client_certificate") and value is not None:
                yield from _file(value, (*where, key), secret=key == "client_certificate")
    kept = Paths(configuration.state_dir).keys
    if configuration.sinks and kept.is_dir() and not (kept / keys.READER_KEY).exists():
        said = "sinks read records, and there is no reader's key on this host"
        yield _Finding(("sinks",), said, str(kept / keys.READER_KEY), fatal=False)


def _clients(configuration: Configuration) -> Findings:
    """The authorities of client certificates, and their revocation lists.

    Lists age by themselves and are the business of others: what is wrong with them shuts their own provider's
    holders out, but nobody else.
    """
    now = time.time()
    for name, provider in configuration.identity.items():
        if provider.type != "mtls":
            continue
        location: Location = ("identity", name, "ca")
        pem = yield from _pem(provider.ca, location, secret=False)
        if pem is None:
            continue
        try:
            authorities = Authorities(pem)
        except ValueError as error:
            yield _Finding(location, f"{provider.ca}: {error}", "the authorities' certificates in PEM")
            continue
        for authority in authorities.all:
            if authority.not_valid_after_utc.timestamp() <= now:
                said = f"{provider.ca}: {authority.subject.rfc4514_string()!r} has expired"
                yield _Finding(location, said, "its successor; its certificates open nothing", fatal=False)
        if provider.crl is not None:
            why = problem_of(provider.crl, authorities, now)
            if why:
                said = f"{provider.crl}: {why}; until it is in order no certificate of {name} opens anything"
                yield _Finding(("identity", name, "crl"), said, "a current list of each authority", fatal=False)


def _pem(path: Path, location: Location, secret: bool) -> Generator[_Finding, None, bytes | None]:
    findings = list(_file(path, location, secret))
    yield from findings
    if any(finding.fatal for finding in findings):
        return None
    with path.open("rb") as stream:
        return stream.read(_MAX_PEM_BYTES)


def _about(path: Path, location: Location, found: list[certificates.Finding]) -> Findings:
    for message, expected, fatal in found:
        yield _Finding(location, f"{path}: {message}", expected, fatal)


def _addresses(configuration: Configuration) -> Findings:
    """Whether each address can be listened on. One that our own running instance holds can."""
    held = _held(configuration)
    for number, listener in enumerate(configuration.listen):
        if (listener.host, listener.port) in held:
            continue
        try:
            _bind(listener)
        except OSError as error:
            hint = _BIND_HINTS.get(error.errno or 0, "an address that this user can listen on")
            yield _Finding(("listen", number, "address"), f"{listener.address}: {_why(error)}", hint)


_BIND_HINTS = {
    errno.EADDRINUSE: "a port that no other process listens on",
    errno.EACCES: "a port above 1023, or the capability CAP_NET_BIND_SERVICE",
    errno.EADDRNOTAVAIL: "an address of this machine",
}


def _bind(listener: Listener) -> None:
    """Bound, never listened on: no connection can come in. Raises OSError."""
    family = socket.AF_INET6 if ":" in listener.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        probe.bind((listener.host, listener.port))


def _held(configuration: Configuration) -> set[tuple[str, int]]:
    """What our own instance on this state folder listens on, if one is running."""
    paths = Paths(configuration.state_dir)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(1.0)
            probe.connect(str(paths.control_socket))
        running = Configuration.model_validate_json(paths.effective.read_bytes())
    except (OSError, ValueError):
        return set()
    return {(listener.host, listener.port) for listener in running.listen}


def _nginx(configuration: Configuration) -> Findings:
    """Whether nginx is there and can what we need of it."""
    known = [_Finding(location, said) for location, said in nginx.unverifiable(configuration)]
    yield from known
    try:
        nginx.find(configuration)
    except (GatebookError, OSError) as error:
        if not any(str(error).endswith(finding.message) for finding in known):
            yield _Finding(_NGINX_KEY, str(error))


def _nginx_test(configuration: Configuration) -> Findings:
    """nginx's own opinion of the configuration that is made for it."""
    try:
        facts = nginx.find(configuration)
    except (GatebookError, OSError):
        return  # `_nginx` has said so
    with tempfile.TemporaryDirectory(prefix="gatebook-check-") as folder:
        paths = Paths(Path(folder) / "state")
        try:
            nginx.write(render.render(configuration, paths, facts), Path(folder))
            nginx.test(facts, Path(folder))
        except (GatebookError, OSError) as error:
            yield _Finding(("gateway",), str(error))


_NGINX_KEY: Location = ("gateway", "nginx")
_NGINX_READS = ("certificate", "key", "ca", "nginx")
_MAX_PEM_BYTES = 1 << 20
_KEYS = (
    ("log.key", True),
    ("log.pub", False),
    ("pseudonym.key", True),
    ("fingerprint.key", True),
)
_YEAR_S = 365 * 86400
_CHECKS: tuple[Callable[[Configuration], Findings], ...] = (
    _policy,
    _privilege,
    _state,
    _tls,
    _authorities,
    _retention,
    _sealed,
    _witnesses,
    _secrets,
    _sinks,
    _clients,
    _addresses,
    _nginx,
)
