"""A real S3 server, versitygw, with Object Lock: what our sink has written, nobody can take away or shorten.

`make test-peers` builds it from the Go module proxy. It keeps objects as files below a folder of the test's.
"""

from __future__ import annotations

import datetime
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from botocore.exceptions import ClientError
from tests.ports import free_port
from tests.sinks.test_delivery import ids, traffic
from tests.sinks.test_s3 import Bucket, Server, destination, pieces, settled
from tests.sinks.twin import Sink

PROGRAM = Path(__file__).parents[1] / ".peers" / "bin" / "versitygw"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder, port = tmp_path_factory.mktemp("versitygw"), free_port()
    for name in ("data", "versions"):
        (folder / name).mkdir()
    process = subprocess.Popen(
        [
            PROGRAM,
            "--port",
            f"127.0.0.1:{port}",
            "posix",
            "--versioning-dir",
            folder / "versions",
            folder / "data",
        ],
        env=os.environ | {"ROOT_ACCESS_KEY": "key-of-the-test", "ROOT_SECRET_KEY": "key-of-the-test"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.STDOUT,
    )
    until = time.monotonic() + 30
    while True:
        assert process.poll() is None, "versitygw has ended"
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            break
        except OSError:
            assert time.monotonic() < until, "versitygw does not listen"
            time.sleep(0.05)
    yield Server(f"http://127.0.0.1:{port}", "key-of-the-test")
    process.terminate()
    process.wait(10)


def test_items_are_there_once_and_can_neither_be_deleted_nor_be_kept_for_less(
    server: Server, tmp_path: Path
) -> None:
    bucket = Bucket(server, "locked")
    made = destination(server, bucket.name, tmp_path, prefix="audit/")
    made.limits = made.limits._replace(linger_s=0)
    Sink(tmp_path, traffic(30), made).run()  # type: ignore[arg-type]
    assert bucket.ids() == ids(*range(0, 60, 2))
    (key,) = bucket.keys()
    kept = bucket.client.get_object_retention(Bucket=bucket.name, Key=key)["Retention"]
    assert kept["Mode"] == "COMPLIANCE"
    (version,) = bucket.client.list_object_versions(Bucket=bucket.name)["Versions"]
    which = {"Bucket": bucket.name, "Key": key, "VersionId": version["VersionId"]}
    shorter = kept["RetainUntilDate"] - datetime.timedelta(days=365)
    acts: tuple[Callable[[], object], ...] = (
        lambda: bucket.client.delete_object(**which, BypassGovernanceRetention=True),
        lambda: bucket.client.put_object_retention(
            **which, Retention={"Mode": "COMPLIANCE", "RetainUntilDate": shorter}
        ),
        lambda: bucket.client.put_object_retention(
            **which, Retention={"Mode": "GOVERNANCE", "RetainUntilDate": kept["RetainUntilDate"]}
        ),
    )
    for act in acts:
        with pytest.raises(ClientError, match="AccessDenied"):
            act()


@pytest.mark.parametrize(("first", "then"), [(3, 3), (3, 7), (7, 3)])
def test_what_is_sent_again_after_a_crash_is_there_once(
    server: Server, tmp_path: Path, first: int, then: int
) -> None:
    bucket = Bucket(server, f"again-{first}-{then}")
    before = destination(server, bucket.name, tmp_path)
    batch = pieces(before, 8)
    settled(before, batch[:first])
    after = destination(server, bucket.name, tmp_path)
    settled(after, batch[:then])
    settled(after, batch[then:])
    assert bucket.ids() == [piece.item.id for piece in batch]
