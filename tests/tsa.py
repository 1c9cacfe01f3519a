"""A real time stamp authority: `openssl ts` answers, behind a small HTTP server that can also misbehave."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.pki import Authority, Pair, openssl

STAMPING = "keyUsage = critical, digitalSignature\nextendedKeyUsage = critical, timeStamping\n"
_CONFIGURATION = """[tsa]
default_tsa = this
[this]
serial = {folder}/serial
crypto_device = builtin
signer_digest = sha256
default_policy = 1.2.3.4.1
other_policies = 1.2.3.4.5
digests = {digests}
accuracy = secs:1
ordering = no
tsa_name = yes
ess_cert_id_chain = no
ess_cert_id_alg = sha256
"""


class Stamper:
    """What stands behind the server: one certificate, and its chain up to `root`."""

    def __init__(self, folder: Path, *, digests: str = "sha256, sha384, sha512") -> None:
        folder.mkdir()
        self.folder = folder
        self.root = Authority("root", folder)
        self.middle = Authority("middle", folder, self.root)
        self.pair = self.middle.issue("/O=Clocks Ltd/CN=stamps", STAMPING, key="rsa")
        self.lock = threading.Lock()
        (folder / "serial").write_text("01\n")
        (folder / "tsa.cnf").write_text(_CONFIGURATION.format(folder=folder, digests=digests))

    @property
    def roots(self) -> Path:
        """PEM: what a verifier trusts."""
        return self.root.pair.certificate

    def reply(self, query: bytes, *, pair: Pair | None = None, chain: bool = True) -> bytes:
        signer = pair or self.pair
        asked = self.folder / f"{threading.get_ident()}.tsq"
        asked.write_bytes(query)
        more = ["-chain", self.middle.pair.certificate] if chain else []
        made = ["-signer", signer.certificate, "-inkey", signer.key, *more]
        with self.lock:
            return openssl(
                "ts", "-reply", "-config", self.folder / "tsa.cnf", "-section", "this", "-queryfile", asked, *made
            )


def query(data: bytes, *arguments: str) -> bytes:
    return openssl("ts", "-query", "-sha256", "-cert", *arguments, "-data", "/dev/stdin", given=data)


def verified_by_openssl(data: Path, reply: Path, roots: Path) -> bool:
    done = subprocess.run(
        ["openssl", "ts", "-verify", "-data", str(data), "-in", str(reply), "-CAfile", str(roots)],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode == 0 and "Verification: OK" in done.stdout + done.stderr


Behave = Callable[[bytes], tuple[int, dict[str, str], bytes]]  # query -> status, headers, body
REPLY = {"Content-Type": "application/timestamp-reply"}


class Server:
    """`behave` may be replaced at any time; `asked` are the queries that came."""

    def __init__(self, stamper: Stamper) -> None:
        self.stamper = stamper
        self.asked: list[bytes] = []
        self.behave: Behave = self.good
        self.hang = threading.Event()
        self.hang.set()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                length = int(self.headers["Content-Length"])
                body = self.rfile.read(length)
                outer.asked.append(body)
                assert self.headers["Content-Type"] == "application/timestamp-query"
                outer.hang.wait(60)
                status, headers, answer = outer.behave(body)
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_arguments: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.handle_error = lambda *_: None  # type: ignore[method-assign]  # clients may leave
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/tsr"

    def good(self, asked: bytes) -> tuple[int, dict[str, str], bytes]:
        return 200, REPLY, self.stamper.reply(asked)

    def close(self) -> None:
        self.hang.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@contextmanager
def serving(stamper: Stamper) -> Iterator[Server]:
    server = Server(stamper)
    try:
        yield server
    finally:
        server.close()
