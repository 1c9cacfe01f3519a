"""A certificate authority made by the `openssl` program: certificates and revocation lists as others make them.

Times are offsets from now in seconds. `Authority("root", folder)` is a root; with `issuer`, an intermediate.
"""

from __future__ import annotations

import datetime
import os
import subprocess
from pathlib import Path
from typing import NamedTuple

HOUR, DAY = 3600, 86400
KEYS = {
    "ec": ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"],
    "ed25519": ["-newkey", "ed25519"],
    "rsa1024": ["-newkey", "rsa:1024"],
    "rsa": ["-newkey", "rsa:2048"],
}
CA = """basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
"""
CLIENT = "extendedKeyUsage = clientAuth\n"
_CONFIGURATION = """[ca]
default_ca = this
[this]
dir = {folder}
database = {folder}/index
new_certs_dir = {folder}
serial = {folder}/serial
crlnumber = {folder}/crlnumber
certificate = {folder}/ca.pem
private_key = {folder}/ca.key
default_md = sha256
default_days = 1
policy = any
unique_subject = no
email_in_dn = yes
[any]
organizationName = optional
organizationalUnitName = optional
commonName = optional
emailAddress = optional
userId = optional
[req]
distinguished_name = nothing
[nothing]
[extensions]
"""


class Pair(NamedTuple):
    """A certificate and its private key, PEM files both."""

    certificate: Path
    key: Path

    def der(self) -> bytes:
        """Of the certificate itself, which comes first if others are with it."""
        return openssl("x509", "-in", self.certificate, "-outform", "DER")


def openssl(*arguments: object, given: bytes = b"") -> bytes:
    command = ["openssl", *(str(argument) for argument in arguments)]
    environment = {**os.environ, "LC_ALL": "C.UTF-8"}
    done = subprocess.run(command, input=given, capture_output=True, env=environment, check=False)
    assert done.returncode == 0, f"{command}: {done.stderr.decode()}"
    return done.stdout


def self_signed(folder: Path, name: str = "self", extensions: str = "", key: str = "ec") -> Pair:
    """What nobody vouches for (RFC 8705, 2.2)."""
    pair = Pair(folder / f"{name}.pem", folder / f"{name}.key")
    added = [word for line in extensions.splitlines() for word in ("-addext", line.replace(" = ", "="))]
    made = ["-keyout", pair.key, "-out", pair.certificate, "-days", 1, "-subj", f"/CN={name}", *added]
    openssl("req", "-x509", *KEYS[key], "-nodes", *made)
    return pair


class Authority:
    def __init__(
        self,
        name: str,
        folder: Path,
        issuer: Authority | None = None,
        extensions: str = CA,
        key: str = "ec",
        start: float = -HOUR,
        end: float = 30 * DAY,
    ) -> None:
        self.folder = folder / name
        self.folder.mkdir()
        (self.folder / "index").touch()
        (self.folder / "serial").write_text("1000\n")
        (self.folder / "crlnumber").write_text("01\n")
        self.pair = Pair(self.folder / "ca.pem", self.folder / "ca.key")
        self._numbers = 0
        request = self._request(f"/CN={name}", self.pair.key, key)
        signer = self if issuer is None else issuer
        own = ["-selfsign"] if issuer is None else []
        signer._sign(request, self.pair.certificate, extensions, start, end, *own)

    @property
    def pem(self) -> bytes:
        return self.pair.certificate.read_bytes()

    def issue(
        self,
        subject: str = "/CN=client",
        extensions: str = CLIENT,
        key: str = "ec",
        start: float = -HOUR,
        end: float = DAY,
    ) -> Pair:
        self._numbers += 1
        pair = Pair(self.folder / f"{self._numbers}.pem", self.folder / f"{self._numbers}.key")
        self._sign(self._request(subject, pair.key, key), pair.certificate, extensions, start, end)
        return pair

    def revoke(self, pair: Pair) -> None:
        openssl("ca", "-config", self._configuration(""), "-revoke", pair.certificate)

    def crl(self, start: float = -HOUR, end: float = DAY, extensions: str = "") -> bytes:
        """PEM; what has been revoked until now."""
        times = ["-crl_lastupdate", _time(start), "-crl_nextupdate", _time(end)]
        named = ["-crlexts", "extensions"] if extensions else []
        openssl("ca", "-config", self._configuration(extensions), "-gencrl", *times, *named, "-out", self._crl)
        return self._crl.read_bytes()

    @property
    def _crl(self) -> Path:
        return self.folder / "crl.pem"

    def _request(self, subject: str, key: Path, kind: str) -> Path:
        request = key.with_suffix(".csr")
        made = ["-nodes", "-keyout", key, "-out", request, "-subj", subject, "-utf8"]
        openssl("req", "-new", "-config", self._configuration(""), *KEYS[kind], *made)
        return request

    def _sign(self, request: Path, out: Path, extensions: str, start: float, end: float, *more: object) -> None:
        times = ["-startdate", _time(start), "-enddate", _time(end)]
        known = ["-config", self._configuration(extensions), "-batch", "-notext", "-utf8", "-preserveDN"]
        named = ["-extensions", "extensions"] if extensions else []
        openssl("ca", *known, *named, *times, "-in", request, "-out", out, *more)

    def _configuration(self, extensions: str) -> Path:
        path = self.folder / "openssl.cnf"
        path.write_text(_CONFIGURATION.format(folder=self.folder) + extensions)
        return path


def _time(offset_s: float) -> str:
    moment = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=offset_s)
    return moment.strftime("%Y%m%d%H%M%SZ")
