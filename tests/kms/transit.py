"""A twin of Vault's Transit engine, built from its published API, strict in what it takes, and able to misbehave.

The real engine, by OpenBao, is asked the same things in `make test-peers` (peers/test_openbao.py), whose answers
this one repeats: status, JSON, and the words of errors.
"""

from __future__ import annotations

import base64
import json
import os
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from tests.ports import free_port

TOKEN = "hvs.CAESItest"


class Transit:
    """`asked`: paths, in order. `misbehave` names what is answered in place of the truth."""

    def __init__(self, *, namespace: str | None = None) -> None:
        self.port = free_port()
        self.namespace = namespace
        self.allowed = {"encrypt", "decrypt"}
        self.asked: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.misbehave = ""
        self._keys = {"gatebook": os.urandom(32)}
        self.scheme = "http"

    @property
    def address(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}"

    def environment(self, **more: str) -> dict[str, str]:
        return {"VAULT_ADDR": self.address, "VAULT_TOKEN": TOKEN} | more

    def answer(self, path: str, headers: dict[str, str], body: bytes) -> tuple[int, Any]:
        self.asked.append(path)
        self.headers.append(headers)
        if headers.get("x-vault-namespace") != self.namespace:
            return 404, {"errors": ["namespace not found"]}
        if headers.get("x-vault-token") != TOKEN:
            return 403, {"errors": ["permission denied"]}
        start, version, mount, verb, key = path.split("/")
        if (start, version, mount) != ("", "v1", "transit"):
            return 404, {"errors": ["no handler for route"]}
        if verb not in self.allowed:
            return 403, {"errors": ["1 error occurred:\n\t* permission denied\n\n"]}
        if key not in self._keys:
            return 400, {"errors": ["encryption key not found"]}
        asked = json.loads(body)
        about = base64.b64decode(asked.pop("associated_data"), validate=True)
        aead = AESGCM(self._keys[key])
        if verb == "encrypt":
            nonce = os.urandom(12)
            made = nonce + aead.encrypt(nonce, base64.b64decode(asked.pop("plaintext"), validate=True), about)
            assert not asked
            return 200, {"ciphertext": "vault:v1:" + base64.b64encode(made).decode(), "key_version": 1}
        data = base64.b64decode(asked.pop("ciphertext").removeprefix("vault:v1:"), validate=True)
        assert not asked
        try:
            plain = aead.decrypt(data[:12], data[12:], about)
        except InvalidTag:
            return 400, {"errors": ["cipher: message authentication failed"]}
        if self.misbehave == "another key":
            plain = bytes(32)
        return 200, {"plaintext": base64.b64encode(plain).decode()}

    @contextmanager
    def serve(self, tls: ssl.SSLContext | None = None) -> Iterator[Transit]:
        twin = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                named = {name.lower(): value for name, value in self.headers.items()}
                status, said = twin.answer(self.path, named, body)
                data = json.dumps({"data": said} if status == 200 else said).encode()
                more = {}
                match twin.misbehave:
                    case "redirect":
                        status, more = 307, {"Location": f"http://127.0.0.1:{twin.port}/v1/transit/elsewhere/x"}
                    case "huge":
                        data = b'{"data":{"ciphertext":"' + b"A" * (1 << 20)
                    case "rubbish":
                        data = b"<html>"
                    case "silence":
                        time.sleep(1.5)
                    case "no data":
                        data = b'{"data":{}}'
                    case "sealed":
                        status, data = 503, b'{"errors":["Vault is sealed"]}'
                    case "words to the terminal":
                        status, data = 400, json.dumps({"errors": ["\x1b]0;owned\x07\n" * 99]}).encode()
                self.send_response(status)
                for name, value in (more | {"Content-Length": str(len(data))}).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        server.handle_error = lambda *_: None  # type: ignore[method-assign]  # who hangs up early is no error here
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
            self.scheme = "https"
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield self
        finally:
            server.shutdown()
            thread.join()
            server.server_close()
