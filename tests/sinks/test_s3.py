"""S3: a server of others', moto, gets each item once, and locked; peers/ shows that locks hold."""

from __future__ import annotations

import datetime
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
import zstandard
from botocore.exceptions import ClientError
from moto.server import ThreadedMotoServer
from pydantic import ValidationError
from tests.sinks.test_delivery import ids, traffic
from tests.sinks.twin import Sink

from gatebook.config.sinks import S3Sink
from gatebook.sinks.destination import Answer, Delivered, Pause, Piece, Retry
from gatebook.sinks.s3 import S3Destination
from gatebook.sinks.stream import Place, Stream


class Server:
    """Where an S3 is, and by which key."""

    def __init__(self, url: str, key: str = "a") -> None:
        self.url = url
        self.key = key


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    made = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    made.start()
    host, port = made.get_host_and_port()
    yield Server(f"http://{host}:{port}")
    made.stop()


class Bucket:
    """A new bucket, with Object Lock; and what is in it, as an auditor reads it."""

    def __init__(self, server: Server, name: str, *, lock: bool = True) -> None:
        self.name = name
        self.client: Any = boto3.client(
            "s3",
            endpoint_url=server.url,
            region_name="us-east-1",
            aws_access_key_id=server.key,
            aws_secret_access_key=server.key,
        )
        self.client.create_bucket(Bucket=name, ObjectLockEnabledForBucket=lock)

    def keys(self) -> list[str]:
        return [each["Key"] for each in self.client.list_objects_v2(Bucket=self.name).get("Contents", [])]

    def lines(self) -> list[dict[str, Any]]:
        found = []
        for key in self.keys():
            body = self.client.get_object(Bucket=self.name, Key=key)["Body"].read()
            found += [json.loads(line) for line in zstandard.decompress(body).splitlines()]
        return found

    def ids(self) -> list[str]:
        return [line["id"] for line in self.lines()]


@pytest.fixture
def bucket(server: Server, request: pytest.FixtureRequest) -> Bucket:
    name = request.node.name.replace("_", "-").replace("[", "-").replace("]", "")[:60].strip("-")
    return Bucket(server, name)


OPEN: list[S3Destination] = []


@pytest.fixture(autouse=True)
def _closing() -> Iterator[None]:
    yield
    while OPEN:
        OPEN.pop().close()


def destination(server: Server, bucket: str, tmp_path: Path, **more: Any) -> S3Destination:
    (tmp_path / "key").write_text(server.key)
    settings = {
        "type": "s3",
        "bucket": bucket,
        "region": "us-east-1",
        "url": server.url,
        "access_key": {"file": str(tmp_path / "key")},
        "secret_key": {"file": str(tmp_path / "key")},
        "object_lock": {"mode": "compliance", "retain": "7y"},
        **more,
    }
    OPEN.append(made := S3Destination(S3Sink.model_validate(settings)))
    return made


def pieces(made: S3Destination, requests: int) -> list[Piece]:
    return [Piece(item, made.encode(item)) for item in Stream(traffic(requests), Place()).read(1000)]


def settled(made: S3Destination, batch: list[Piece]) -> int:
    """Send until all is stored; how many were there before."""
    duplicates = 0
    while batch:
        answer = made.send(batch)
        assert not isinstance(answer, (Pause, Retry)), answer
        duplicates += getattr(answer, "duplicates", 0)
        batch = [batch[n] for n in getattr(answer, "again", ())]
    return duplicates


def test_items_are_there_once_and_locked(server: Server, bucket: Bucket, tmp_path: Path) -> None:
    made = destination(server, bucket.name, tmp_path, prefix="audit/")
    made.limits = made.limits._replace(linger_s=0)
    Sink(tmp_path, traffic(30), made).run()  # type: ignore[arg-type]
    assert bucket.ids() == ids(*range(0, 60, 2))
    (key,) = bucket.keys()
    assert key == "audit/acme/node-1/2023/11/14/0000000000000000.jsonl.zst"
    kept = bucket.client.head_object(Bucket=bucket.name, Key=key)
    assert kept["ObjectLockMode"] == "COMPLIANCE"
    years = (kept["ObjectLockRetainUntilDate"] - datetime.datetime.now(datetime.UTC)).days / 365
    assert 6.9 < years < 7.1


def test_nobody_can_delete_what_is_locked(server: Server, bucket: Bucket, tmp_path: Path) -> None:
    made = destination(server, bucket.name, tmp_path)
    settled(made, pieces(made, 2))
    (version,) = bucket.client.list_object_versions(Bucket=bucket.name)["Versions"]
    which = {"Bucket": bucket.name, "Key": version["Key"], "VersionId": version["VersionId"]}
    with pytest.raises(ClientError, match="AccessDenied"):
        bucket.client.delete_object(**which)


@pytest.mark.parametrize(("first", "then"), [(3, 3), (3, 7), (7, 3), (1, 8), (8, 1)])
def test_what_is_sent_again_after_a_crash_is_there_once(
    server: Server, bucket: Bucket, tmp_path: Path, first: int, then: int
) -> None:
    """A batch need not end where it ended before the crash."""
    before = destination(server, bucket.name, tmp_path)
    batch = pieces(before, 8)
    settled(before, batch[:first])
    after = destination(server, bucket.name, tmp_path)
    settled(after, batch[:then])
    settled(after, batch[then:])
    assert bucket.ids() == [piece.item.id for piece in batch]


def test_object_of_somebody_else_is_never_taken_for_ours(server: Server, bucket: Bucket, tmp_path: Path) -> None:
    made = destination(server, bucket.name, tmp_path)
    batch = pieces(made, 2)
    key = made._key(batch[0].item)
    bucket.client.put_object(Bucket=bucket.name, Key=key, Body=b"something", ChecksumAlgorithm="SHA256")
    answer = made.send(batch)
    assert isinstance(answer, Pause)
    assert "something else" in answer.why


def test_bucket_that_locks_nothing_pauses_before_anything_is_written(server: Server, tmp_path: Path) -> None:
    plain = Bucket(server, "no-lock-at-all", lock=False)
    made = destination(server, plain.name, tmp_path)
    answer = made.send(pieces(made, 1))
    assert isinstance(answer, Pause)
    assert "no Object Lock" in answer.why
    assert plain.keys() == []


def test_without_object_lock_it_asks_for_none(server: Server, tmp_path: Path) -> None:
    plain = Bucket(server, "no-lock-wanted", lock=False)
    made = destination(server, plain.name, tmp_path, object_lock=None)
    assert made.send(pieces(made, 1)) == Delivered()
    assert len(plain.keys()) == 1


def test_bucket_that_is_not_there_pauses(server: Server, tmp_path: Path) -> None:
    made = destination(server, "nowhere-to-be-found", tmp_path)
    assert isinstance(made.send(pieces(made, 1)), Pause)


def test_nobody_answers(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]

    made = destination(Server(f"http://127.0.0.1:{port}"), "bucket", tmp_path)
    answer: Answer = made.send(pieces(made, 1))
    assert isinstance(answer, Retry)


@pytest.mark.parametrize(
    "more",
    [
        {"access_key": {"env": "A"}},
        {"bucket": "Not_A_Bucket"},
        {"object_lock": {"retain": "1h"}},
        {"prefix": "a\nb"},
    ],
)
def test_settings_that_make_no_sense_are_refused(more: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        S3Sink.model_validate({"type": "s3", "bucket": "audit", **more})
