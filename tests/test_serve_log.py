"""The public log over HTTP, by attack: what is not the log's never leaves, whatever a path looks like."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import httpx2
import pytest
from tests import served as server
from tests.ledger.forge import Forge
from tests.ledger.test_verify import large, small

from gatebook import serve_log
from gatebook.errors import EnvironmentFault
from gatebook.ledger.note import parse_checkpoint, parse_note
from gatebook.ledger.tiles import bundle_path, parse_bundle, tile_path
from gatebook.ledger.verify import verify

SECRET = b"not of the public log"
VERIFY_MD = (Path(__file__).parents[1] / "docs" / "verify.md").read_text("utf-8")


class Served(NamedTuple):
    forge: Forge
    port: int

    @property
    def log(self) -> Path:
        return self.forge.ledger / "log"

    def get(self, path: str, method: str = "GET", **headers: str) -> httpx2.Response:
        with httpx2.Client(trust_env=False) as client:
            return client.request(method, f"http://127.0.0.1:{self.port}/{path}", headers=headers)

    def raw(self, target: bytes, version: bytes = b"HTTP/1.1", more: bytes = b"") -> bytes:
        """A request line that no client library would send; the whole answer."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as connection:
            connection.sendall(b"GET " + target + b" " + version + b"\r\nHost: x\r\nConnection: close\r\n" + more)
            connection.sendall(b"\r\n")
            answer = b""
            while piece := connection.recv(65536):
                answer += piece
            return answer


def serving(forge: Forge) -> Iterator[Served]:
    with server.serving(forge.ledger / "log") as port:
        yield Served(forge, port)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    forge = small(tmp_path / "state")
    (tmp_path / "state" / "secret").write_bytes(SECRET)
    (forge.ledger / "secret").write_bytes(SECRET)
    yield from serving(forge)


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """For those that only ask."""
    folder = tmp_path_factory.mktemp("asked")
    forge = small(folder / "state")
    (folder / "state" / "secret").write_bytes(SECRET)
    (forge.ledger / "secret").write_bytes(SECRET)
    yield from serving(forge)


@pytest.fixture(scope="module")
def big(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    yield from serving(large(tmp_path_factory.mktemp("large")))


# -- what monitors ask for ----------------------------------------------------------------------------------
def test_list_of_the_logs_keys_is_there_once_there_is_one(served: Served) -> None:
    assert served.get("keys").status_code == 404
    (served.log / "keys").write_text(f"{served.forge.signer.vkey}\n")
    found = served.get("keys")
    assert (found.status_code, found.text) == (200, f"{served.forge.signer.vkey}\n")
    assert found.headers["Cache-Control"] == "no-cache"
    (served.log / "keys").unlink()
    (served.log / "keys").symlink_to(served.log.parent / "secret")
    assert served.get("keys").status_code == 404


def test_checkpoint_is_asked_about_anew_each_time(served: Served) -> None:
    first = served.get("checkpoint")
    assert first.status_code == 200
    assert first.content == (served.log / "checkpoint").read_bytes()
    assert first.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert first.headers["Cache-Control"] == "no-cache"
    assert first.headers["Last-Modified"].endswith(" GMT")
    again = served.get("checkpoint", **{"If-None-Match": f'"other", W/{first.headers["ETag"]}'})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["ETag"] == first.headers["ETag"]
    served.forge.records(b'{"f":6}')
    served.forge.publish()
    newer = served.get("checkpoint", **{"If-None-Match": first.headers["ETag"]})
    assert newer.status_code == 200
    assert newer.headers["ETag"] != first.headers["ETag"]


def test_checkpoint_of_the_same_second_is_not_taken_for_the_one_before(served: Served) -> None:
    first = served.get("checkpoint")
    path = served.log / "checkpoint"
    times = path.stat()
    served.forge.records(b'{"f":6}')
    served.forge.publish()
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    newer = served.get("checkpoint", **{"If-Modified-Since": first.headers["Last-Modified"]})
    assert newer.status_code == 200
    assert newer.content != first.content


def test_full_tiles_may_be_kept_for_ever_and_partial_ones_for_a_day(big: Served) -> None:
    size = len(big.forge.entries)
    full, partial = tile_path(0, 0), tile_path(0, size // 256, size % 256)
    for path, seconds in ((full, 31536000), (bundle_path(0), 31536000), (partial, 86400)):
        answer = big.get(path)
        assert answer.status_code == 200
        assert answer.headers["Content-Type"] == "application/octet-stream"
        assert answer.headers["Cache-Control"] == f"public, max-age={seconds}, immutable"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.content == (big.log / path).read_bytes()


def test_partial_file_that_has_gone_is_cut_from_the_full_one(big: Served) -> None:
    for path in (tile_path(0, 0), bundle_path(0)):
        shutil.rmtree(big.log / f"{path}.p", ignore_errors=True)
    assert big.get(tile_path(0, 0, 7)).content == (big.log / tile_path(0, 0)).read_bytes()[: 7 * 32]
    assert parse_bundle(big.get(bundle_path(0, 7)).content) == big.forge.entries[:7]


def test_tile_that_no_checkpoint_covers_is_not_there_and_that_is_not_kept(tmp_path: Path) -> None:
    """A crash may still change it, and caches would keep it for ever."""
    forge = small(tmp_path / "state")
    for served in serving(forge):
        forge.records(b'{"unsigned":1}')
        for name, data in forge.tiler.files(forge.written):
            (forge.ledger / "log" / name).parent.mkdir(parents=True, exist_ok=True)
            (forge.ledger / "log" / name).write_bytes(data)
        path = tile_path(0, 0, len(forge.entries))
        assert (served.log / path).exists()
        answer = served.get(path)
        assert answer.status_code == 404
        assert answer.headers["Cache-Control"] == "no-store"
        forge.publish()
        assert served.get(path).status_code == 200


def test_time_stamps_are_given_with_their_types(served: Served) -> None:
    (served.log / "anchors").mkdir()
    (served.log / "anchors" / "6.checkpoint").write_bytes(b"text\n")
    (served.log / "anchors" / "6.tsr").write_bytes(b"\x30\x00")
    assert served.get("anchors/6.tsr").headers["Content-Type"] == "application/timestamp-reply"
    assert served.get("anchors/6.checkpoint").content == b"text\n"
    assert served.get("anchors/06.tsr").status_code == 404
    (served.log / "anchors" / "6.cosigned").write_bytes(b"note\n")
    assert served.get("anchors/6.cosigned").content == b"note\n"
    assert served.get("anchors/").status_code == 404


def test_head_gives_what_get_gives_but_the_body(asked: Served) -> None:
    got, head = asked.get("checkpoint"), asked.get("checkpoint", "HEAD")
    assert head.content == b""
    for name in ("Content-Length", "ETag", "Content-Type", "Cache-Control"):
        assert head.headers[name] == got.headers[name]


def test_copy_that_was_fetched_is_verified_by_us_and_by_the_script_of_the_document(
    big: Served, tmp_path: Path
) -> None:
    """Everything that a checkpoint demands, and nothing that only a listing of the folder would tell."""
    note = big.get("checkpoint").content
    size = parse_checkpoint(parse_note(note).text).size
    wanted = []
    for level in range(3):
        count = size >> 8 * level
        wanted += [tile_path(level, n, min(256, count - 256 * n)) for n in range(-(-count // 256))]
    wanted += [bundle_path(n, min(256, size - 256 * n)) for n in range(-(-size // 256))]
    with httpx2.Client(trust_env=False) as client:
        for path in wanted:
            answer = client.get(f"http://127.0.0.1:{big.port}/{path}")
            assert answer.status_code == 200, path
            (tmp_path / "log" / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "log" / path).write_bytes(answer.content)
    (tmp_path / "log" / "checkpoint").write_bytes(note)
    report = verify(tmp_path, big.forge.verifier)
    assert report.findings == []
    assert report.levels[0] == "passed"
    script = VERIFY_MD.partition("```python\n")[2].partition("```")[0]
    command = [sys.executable, "-I", "-c", script, str(tmp_path), str(tmp_path / "log" / "checkpoint")]
    assert "the same" in subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


# -- attacks ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "target",
    [
        b"/../secret",
        b"/../../secret",
        b"/tile/../../secret",
        b"/tile/0/../../../secret",
        b"/tile/entries/../../../secret",
        b"/%2e%2e/secret",
        b"/..%2fsecret",
        b"/%2e%2e%2fsecret",
        b"/..\\secret",
        b"/.%00./secret",
        b"//secret",
        b"/./../secret",
        b"/anchors/../../secret",
        b"/anchors/..%2f..%2fsecret.tsr",
        b"/checkpoint/../../secret",
        b"/checkpoint/",
        b"/checkpoint%00",
        b"/checkpoint.new",
        b"//checkpoint",
        b"/%63heckpoint",
        b"/Checkpoint",
        b"http://x/../secret",
        b"/tile/",
        b"/tile/0/",
        b"/tile/0/0",
        b"/tile/00/000",
        b"/tile/8/000",
        b"/tile/-1/000",
        b"/tile/0/x000/000",
        b"/tile/0/x001/x002/x003/x004/x005/x006/x007/008",
        b"/tile/0/000.p/0",
        b"/tile/0/000.p/010",
        b"/tile/0/000.p/256",
        b"/tile/0/000.p/10/",
        b"/tile/0/000.p/10/../10",
        b"/tile/0/000.p",
        b"/tile/0/\xd9\xa0\xd9\xa0\xd9\xa0",
        b"/tile/entries/000.p/10.new",
        b"/segments/",
        b"/lock",
        b"/state/lock",
        b"/deks/",
        b"*",
    ],
)
def test_path_that_is_not_exactly_a_path_of_the_log_gets_nothing(asked: Served, target: bytes) -> None:
    try:
        answer = asked.raw(target)
    except ConnectionResetError:  # hung up on before all of the request was read: nothing too
        answer = b""
    status = answer.partition(b"\r\n")[0]
    assert not answer or status.startswith((b"HTTP/1.1 404", b"HTTP/1.1 400")), answer
    assert SECRET not in answer
    assert b"acme/node-1" not in answer
    assert asked.raw(b"/checkpoint").startswith(b"HTTP/1.1 200")


def test_link_that_leads_out_is_not_followed_at_any_step(served: Served, tmp_path: Path) -> None:
    (served.log / "anchors").mkdir()
    (served.log / "anchors" / "1.tsr").symlink_to(tmp_path / "state" / "secret")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "000").write_bytes(SECRET)
    (tmp_path / "elsewhere" / "000.p").mkdir()
    (tmp_path / "elsewhere" / "000.p" / "6").write_bytes(SECRET)
    shutil.move(served.log / "tile" / "0", tmp_path / "was")
    (served.log / "tile" / "0").symlink_to(tmp_path / "elsewhere")
    for target in (b"/anchors/1.tsr", b"/tile/0/000", b"/tile/0/000.p/6"):
        answer = served.raw(target)
        assert answer.startswith(b"HTTP/1.1 404"), answer
        assert SECRET not in answer


def test_pipe_and_folder_in_a_files_place_hang_nobody(served: Served) -> None:
    (served.log / "anchors").mkdir()
    os.mkfifo(served.log / "anchors" / "1.tsr")
    (served.log / "anchors" / "2.tsr").mkdir()
    (served.log / "anchors" / "3.tsr").write_bytes(bytes(serve_log.MAX_STAMP_BYTES + 1))
    for number in (1, 2, 3):
        assert served.get(f"anchors/{number}.tsr").status_code == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
def test_nothing_but_reading_is_a_method(asked: Served, method: str) -> None:
    before = (asked.log / "checkpoint").read_bytes()
    answer = asked.get("checkpoint", method)
    assert answer.status_code == 405
    assert answer.headers["Allow"] == "GET, HEAD"
    assert (asked.log / "checkpoint").read_bytes() == before


def test_page_of_a_strange_site_is_not_let_in_through_somebodys_browser(asked: Served) -> None:
    answer = asked.get("checkpoint", Origin="https://evil.example")
    assert not [name for name in answer.headers if name.lower().startswith("access-control-")]


def test_checkpoint_that_cannot_be_read_is_unavailable_not_a_crash(served: Served) -> None:
    (served.log / "checkpoint").write_bytes(b"torn")
    assert served.get(tile_path(0, 0, 10)).status_code == 503
    assert served.get("checkpoint").content == b"torn"


def test_garbage_and_clients_that_leave_end_nothing(asked: Served) -> None:
    for data in (b"\x16\x03\x01" + bytes(500), b"GET\r\n\r\n", b"GET /checkpoint HTTP/1.1\r\n", b""):
        with socket.create_connection(("127.0.0.1", asked.port)) as connection:
            connection.sendall(data)
    threads = [threading.Thread(target=asked.raw, args=(b"/checkpoint",)) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert asked.get("checkpoint").status_code == 200


def test_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFault, match="no public log"), serve_log.opened(tmp_path / "nowhere"):
        pass
