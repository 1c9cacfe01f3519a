"""docs/first-deployment.md and docs/read-the-log.md: every line for a shell is run, in order, in a fresh folder.

The outputs that the pages show are compared with what comes, but for numbers, times and ids.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.e2e.deployment import until
from tests.ports import free_port

DOCS = Path(__file__).parents[2] / "docs"
BLOCK = re.compile(r"^```(sh|text)\n(.*?)^```$", re.M | re.S)
IDENTIFIER = re.compile(r"(?<=key )[a-z2-7]{8}|(?<=revoke )[a-z2-7]{8}|[0-9a-f]{8,}|\d+| +")


def blocks(page: str) -> list[tuple[str, str]]:
    return BLOCK.findall((DOCS / page).read_text("utf-8"))


def shape(output: str) -> list[str]:
    """Lines without what differs from run to run."""
    kept = [line for line in output.splitlines() if not re.match(r"date:|last-modified:|warning: ", line)]
    return [IDENTIFIER.sub("#", line.strip()) for line in kept if line.strip()]


class Shell:
    """Runs lines as a reader would type them, in one folder after the other."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.variables: dict[str, str] = {}
        self.running: list[subprocess.Popen[bytes]] = []
        self.ports = {"8443": str(free_port()), "9001": str(free_port())}
        self._path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"

    @property
    def _environment(self) -> dict[str, str]:
        return os.environ | self.variables | {"PATH": self._path, "NO_COLOR": "1"}

    def _here(self, text: str) -> str:
        for said, used in self.ports.items():
            text = text.replace(said, used)
        return text

    def use_other_ports(self, file: Path) -> None:
        """Than those of the pages: somebody may be using them."""
        file.write_text(self._here(file.read_text("utf-8")), "utf-8")

    def run(self, lines: str) -> str:
        """What they print. Folder and variables that they leave are those of the next lines."""
        script = self._here(lines) + "\necho; echo ::$PWD; echo ::$KEY"
        done = subprocess.run(
            ["/bin/sh", "-ec", script],
            cwd=self.folder,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, f"{lines}\n{done.stdout}"
        output, folder, key = done.stdout.rsplit("::", 2)
        self.folder = Path(folder.strip())
        self.variables = {"KEY": key.strip()}
        for said, used in self.ports.items():
            output = output.replace(used, said)
        return output

    def start(self, line: str) -> None:
        with (self.folder / "output").open("wb") as output:
            command = ["/bin/sh", "-c", f"exec {self._here(line)}"]
            self.running.append(
                subprocess.Popen(
                    command, cwd=self.folder, env=self._environment, stdout=output, stderr=subprocess.STDOUT
                )
            )

    def end(self) -> None:
        for process in reversed(self.running):
            process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(30)
            if process.poll() is None:
                process.kill()
                process.wait()


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    made = Shell(tmp_path_factory.mktemp("first"))
    try:
        yield made
    finally:
        made.end()


def ready(shell: Shell) -> bool:
    with contextlib.suppress(AssertionError):
        return "ready" in shell.run("gatebook status")
    return False


def test_every_line_of_the_first_deployment_works_and_says_what_the_page_shows(shell: Shell) -> None:
    said = ""
    for kind, text in blocks("first-deployment.md"):
        if kind == "text":
            if "role=supervisor" not in text:  # of `gatebook run` itself, on a terminal
                missing = [line for line in shape(text) if line not in shape(said)]
                assert not missing, f"{missing} not in\n{said}"
            continue
        *lines, last = text.splitlines()
        if last.startswith(("gatebook run", "python3 -m http.server")):
            said = shell.run("\n".join(lines))
            shell.start(last)
            if last.startswith("gatebook"):
                until(lambda: ready(shell), "gatebook to be ready")
            continue
        if "gatebook log" in text:
            until(lambda: len(shell.run("gatebook log").splitlines()) > 4, "the outcomes")
        said = shell.run(text)
        if "gatebook init" in text:
            shell.use_other_ports(shell.folder / "gatebook.yaml")
        if "KEY=" in text:
            until(lambda: "order" in shell.run(_ASK), "the key to work")


_ASK = 'curl -sS --cacert tls/ca.pem -H "X-API-Key: $KEY" https://127.0.0.1:8443/orders/7'


def test_every_line_about_the_log_works(shell: Shell) -> None:
    """Goes on where the first deployment ended."""
    answer = shell.run("curl -sSi --cacert tls/ca.pem -X DELETE https://127.0.0.1:8443/orders/7")
    receipt = re.search(r"^gatebook-receipt: (\S+)", answer, re.M)
    assert receipt is not None, answer
    until(lambda: "open" not in shell.run(f"gatebook show {receipt[1]}"), "the outcome")
    said = ""
    for kind, text in blocks("read-the-log.md"):
        if kind == "sh":
            text = text.replace("gatebook log --follow\n", "").replace("acme/node-1/12", receipt[1])
            said = shell.run(text)
        elif text.startswith("id "):
            fields = [line.split()[0] for line in said.splitlines() if line.strip()]
            assert fields == [line.split()[0] for line in text.splitlines()]
        else:
            assert shape(text)[0] in shape(said)  # the heading


def test_every_filter_that_the_page_names_is_one(shell: Shell) -> None:
    page = (DOCS / "read-the-log.md").read_text("utf-8")
    options = set(re.findall(r"`(--[a-z-]+)", page))
    offered = shell.run("gatebook log --help; gatebook show --help")
    assert options
    assert [option for option in options if option not in offered] == []
