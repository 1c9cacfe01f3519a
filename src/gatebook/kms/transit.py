"""HashiCorp Vault's Transit engine, or OpenBao's: POST /v1/<mount>/encrypt/<key> and decrypt/<key>.

Where it is and who asks come from the environment, as for Vault's own client: VAULT_ADDR, VAULT_TOKEN or
~/.vault-token, VAULT_NAMESPACE, VAULT_CACERT. Never from a file that lies about: whoever could write that would
have the token sent to himself. https, or http on loopback; no redirect is followed, no proxy asked. Answers are
bounded in size and time, and parsed strictly; errors never hold the token or a plain text.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final, NamedTuple
from urllib.parse import urlsplit

import httpx2
import msgspec

from gatebook.errors import EnvironmentFault

TIMEOUT_S: Final = 10.0
MAX_ANSWER_BYTES: Final = 64 << 10
MAX_TOKEN_BYTES: Final = 4096
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
_MOUNT: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}(?:/[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}){0,3}")
_CIPHERTEXT: Final = re.compile(r"vault:v[1-9][0-9]{0,8}:[A-Za-z0-9+/]{1,16384}={0,2}")


class _Data(msgspec.Struct):
    plaintext: str | None = None
    ciphertext: str | None = None


class _Answer(msgspec.Struct):
    data: _Data


class _Errors(msgspec.Struct):
    errors: Annotated[list[str], msgspec.Meta(max_length=20)]


class Access(NamedTuple):
    """How to reach it. `token` is secret."""

    address: str
    token: str
    namespace: str | None = None
    ca: Path | None = None


def access(environment: Mapping[str, str], home: Path) -> Access:
    """Raises EnvironmentFault, which says what is missing."""
    address = environment.get("VAULT_ADDR", "").rstrip("/")
    if not address:
        raise EnvironmentFault("VAULT_ADDR: not set; it should be the KMS's address, such as https://vault:8200")
    parts = urlsplit(address)
    if (
        parts.scheme not in ("https", "http")
        or not parts.hostname
        or parts.query
        or parts.fragment
        or parts.username
    ):
        raise EnvironmentFault(f"VAULT_ADDR: {address!r}; expected https://host:port")
    if parts.scheme == "http" and not _is_loopback(parts.hostname):
        raise EnvironmentFault(f"VAULT_ADDR: {address!r}: the token would be sent in the clear; expected https")
    ca = environment.get("VAULT_CACERT")
    return Access(
        address, _token(environment, home), environment.get("VAULT_NAMESPACE") or None, Path(ca) if ca else None
    )


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _token(environment: Mapping[str, str], home: Path) -> str:
    token = environment.get("VAULT_TOKEN", "")
    place = "VAULT_TOKEN"
    if not token:
        place = str(home / ".vault-token")
        try:
            with (home / ".vault-token").open("r", encoding="ascii") as stream:
                token = stream.read(MAX_TOKEN_BYTES + 1).strip()
        except (OSError, UnicodeDecodeError):
            raise EnvironmentFault(
                f"VAULT_TOKEN: not set, and {place} cannot be read; log in to the KMS first"
            ) from None
    if not token or len(token) > MAX_TOKEN_BYTES or not token.isascii() or not token.isprintable() or " " in token:
        raise EnvironmentFault(f"{place}: holds no token")
    return token


class Transit:
    """One key of one mount. Each call is one request."""

    def __init__(self, reach: Access, mount: str, key: str, timeout_s: float = TIMEOUT_S) -> None:
        if not _MOUNT.fullmatch(mount):
            raise EnvironmentFault(f"{mount!r}: not a mount of Transit; expected such as transit")
        if not _NAME.fullmatch(key):
            raise EnvironmentFault(f"{key!r}: not the name of a Transit key")
        self.mount, self.key = mount, key
        self._reach = reach
        self._timeout_s = timeout_s

    def encrypt(self, plain: bytes, about: bytes) -> str:
        sealed = self._ask("encrypt", {"plaintext": _base64(plain), "associated_data": _base64(about)}).ciphertext
        if sealed is None or not _CIPHERTEXT.fullmatch(sealed):
            raise EnvironmentFault(f"{self._place('encrypt')}: its answer holds no ciphertext")
        return sealed

    def decrypt(self, sealed: str, about: bytes) -> bytes:
        if not _CIPHERTEXT.fullmatch(sealed):
            raise EnvironmentFault("not a ciphertext of Transit: expected vault:v<number>:<base64>")
        plain = self._ask("decrypt", {"ciphertext": sealed, "associated_data": _base64(about)}).plaintext
        try:
            return base64.b64decode(plain or "", validate=True)
        except (binascii.Error, ValueError):
            raise EnvironmentFault(f"{self._place('decrypt')}: its answer holds no plain text") from None

    def _place(self, verb: str) -> str:
        return f"{self._reach.address}/v1/{self.mount}/{verb}/{self.key}"

    def _ask(self, verb: str, body: dict[str, str]) -> _Data:
        place = self._place(verb)
        headers = {"X-Vault-Token": self._reach.token, "X-Vault-Request": "true"}
        if self._reach.namespace is not None:
            headers["X-Vault-Namespace"] = self._reach.namespace
        try:
            with (
                httpx2.Client(
                    verify=self._trust(), trust_env=False, timeout=self._timeout_s, follow_redirects=False
                ) as client,
                client.stream("POST", place, json=body, headers=headers) as answer,
            ):
                data = b""
                for piece in answer.iter_bytes():
                    data += piece
                    if len(data) > MAX_ANSWER_BYTES:
                        raise EnvironmentFault(f"{place}: answers more than {MAX_ANSWER_BYTES} bytes")
                status = answer.status_code
        except httpx2.TimeoutException:
            raise EnvironmentFault(f"{place}: no answer within {self._timeout_s:g} s") from None
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise EnvironmentFault(f"{place}: {type(error).__name__}: {error}") from None
        if status != 200:
            raise EnvironmentFault(f"{place}: {status} {_words(data)}{_ADVICE.get(status, '')}")
        try:
            return msgspec.json.decode(data, type=_Answer).data
        except msgspec.MsgspecError:
            raise EnvironmentFault(f"{place}: its answer is not Transit's") from None

    def _trust(self) -> ssl.SSLContext:
        try:
            return ssl.create_default_context(cafile=self._reach.ca)
        except OSError as error:
            raise EnvironmentFault(
                f"VAULT_CACERT: {self._reach.ca}: {(error.strerror or str(error)).lower()}"
            ) from None


_ADVICE: Final = {
    403: "; the token's policy has to allow this path",
    404: "; is the engine mounted there, and the namespace right?",
    503: "; it is sealed, or a standby",
}


def _words(data: bytes) -> str:
    """What it says of an error, at most a line of it."""
    try:
        said = "; ".join(msgspec.json.decode(data, type=_Errors).errors)
    except msgspec.MsgspecError:
        return "(no reason given)"
    return " ".join(said.split())[:300] or "(no reason given)"


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
