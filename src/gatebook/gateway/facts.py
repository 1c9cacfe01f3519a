"""What an nginx binary can do, read from what it says of itself (`nginx -V`).

In: the text, and the dynamic modules that are at hand. Out: NginxFacts, all that `render` needs to know of
the machine; or an EnvironmentFault that names everything that is missing, with Debian's package for it.
An nginx that lacks something is never used without it. Pure.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gatebook.errors import EnvironmentFault

OLDEST = (1, 22, 0)
HEADERS_MORE = "ngx_http_headers_more_filter_module.so"
_WANTED = {
    "--with-http_ssl_module": "TLS",
    "--with-http_v2_module": "HTTP/2",
    "--with-http_auth_request_module": "auth_request",
    "--with-http_realip_module": "realip",
}


@dataclass(frozen=True, slots=True)
class NginxFacts:
    """One nginx on one machine."""

    binary: Path
    version: tuple[int, int, int]
    flags: frozenset[str]  # of its build, such as --with-http_v2_module
    modules: tuple[Path, ...] = ()  # dynamic ones to load
    root: bool = False  # whether it will run as root
    open_files: int = 1024  # how many files and sockets a process may hold open
    ca_bundle: Path | None = None  # the system's certificate authorities


class Build:
    """The parsed words of `nginx -V`: version, flags, and where dynamic modules lie."""

    def __init__(self, binary: Path, text: str) -> None:
        version = re.search(r"^nginx version: \S+/(\d+)\.(\d+)\.(\d+)", text, re.MULTILINE)
        arguments = re.search(r"^configure arguments:(.*)$", text, re.MULTILINE)
        if version is None or arguments is None:
            raise EnvironmentFault(f"{binary}: `{binary} -V` does not answer as nginx does; name another nginx")
        self.version = (int(version[1]), int(version[2]), int(version[3]))
        words = shlex.split(arguments[1])
        self.flags = frozenset(word for word in words if word.startswith(("--with-", "--without-")))
        self.has_headers_more = any(w.startswith("--add-module=") and "headers-more" in w for w in words)
        told = dict(word.split("=", 1) for word in words if "=" in word)
        self.modules_path = Path(told.get("--modules-path", told.get("--prefix", "/usr/local/nginx") + "/modules"))


def modules_to_load(binary: Path, build: Build, named: Sequence[Path]) -> tuple[Path, ...]:
    """The operator's modules, and headers-more where it is not built in. Raises EnvironmentFault."""
    if build.version < OLDEST:
        raise EnvironmentFault(
            f"{binary}: nginx {'.'.join(map(str, build.version))} is too old; 1.22.0 or newer is needed"
        )
    missing = [f"{what} ({flag})" for flag, what in _WANTED.items() if flag not in build.flags]
    if missing:
        raise EnvironmentFault(f"{binary}: built without {', '.join(missing)}; Debian's nginx-light has all of it")
    loaded = tuple(named)
    if not build.has_headers_more and not any(module.name == HEADERS_MORE for module in named):
        found = build.modules_path / HEADERS_MORE
        if not found.is_file():
            raise EnvironmentFault(
                f"{binary}: no headers-more module, neither built in nor at {found}; install Debian's "
                f"libnginx-mod-http-headers-more-filter, or name the module's file in gateway.modules"
            )
        loaded += (found,)
    for module in loaded:
        if not module.is_file():
            raise EnvironmentFault(f"{module}: no such module; correct gateway.modules")
    return loaded
