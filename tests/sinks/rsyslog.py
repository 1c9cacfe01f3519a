"""A real rsyslogd on loopback, over TLS by OpenSSL or plain; it writes what it takes to a file, a line each."""

from __future__ import annotations

import json
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

from tests.ports import free_port

_CONFIGURATION = """
global(workDirectory="{folder}" maxMessageSize="256k"
  defaultNetstreamDriverCAFile="{ca}"
  defaultNetstreamDriverCertFile="{certificate}"
  defaultNetstreamDriverKeyFile="{key}")
module(load="imtcp" {mode})
template(name="whole" type="list") {{
  property(name="pri") constant(value=" ") property(name="timereported" dateFormat="rfc3339") constant(value=" ")
  property(name="hostname") constant(value=" ") property(name="msgid") constant(value=" ")
  property(name="structured-data") constant(value=" ") property(name="msg") constant(value="\\n")
}}
ruleset(name="keep") {{ action(type="omfile" file="{out}" template="whole") }}
input(type="imtcp" port="{port}" address="127.0.0.1" ruleset="keep")
"""
_TLS = 'StreamDriver.Name="ossl" StreamDriver.Mode="1" StreamDriver.AuthMode="anon"'


class Rsyslog:
    """`pair`: certificate and key, in PEM files, and the authority's; None: without TLS."""

    def __init__(self, folder: Path, pair: tuple[Path, Path, Path] | None = None) -> None:
        self.port = free_port()
        self.out = folder / "messages"
        self._configuration = folder / "rsyslog.conf"
        self._pid = folder / "rsyslog.pid"
        ca, certificate, key = pair or ("/dev/null",) * 3
        self._configuration.write_text(
            _CONFIGURATION.format(
                folder=folder,
                ca=ca,
                certificate=certificate,
                key=key,
                mode=_TLS if pair else "",
                out=self.out,
                port=self.port,
            )
        )
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(
            ["/usr/sbin/rsyslogd", "-n", "-f", self._configuration, "-i", self._pid],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        until = time.monotonic() + 20
        while True:
            assert self.process.poll() is None, self.process.communicate()[0].decode()
            try:
                with socket.create_connection(("127.0.0.1", self.port), 1):
                    return
            except OSError:
                assert time.monotonic() < until, "rsyslogd does not listen"
                time.sleep(0.05)

    def messages(self, count: int) -> list[tuple[list[str], dict[str, Any]]]:
        """Head and JSON of each, once there are so many."""
        until = time.monotonic() + 20
        while True:
            lines = self.out.read_text("utf-8").splitlines() if self.out.exists() else []
            if len(lines) >= count:
                return [
                    (line.partition(" {")[0].split(" ", 4), json.loads("{" + line.partition(" {")[2]))
                    for line in lines
                ]
            assert time.monotonic() < until, f"{len(lines)} of {count} messages came"
            time.sleep(0.05)

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
        self.process.communicate()
