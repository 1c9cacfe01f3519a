"""Items to S3: objects of compressed lines that nobody may change or delete for as long as they are locked.

An object's key says with which item it begins, and it is written only where there is none. What is sent again
after a crash is found there, whole, in part or with more behind it, since a batch need not end where it ended
before; what was found is not written a second time. `boto3` speaks to S3.
"""

from __future__ import annotations

import datetime
import hashlib
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import zstandard

from gatebook.config import secret
from gatebook.config.sinks import S3Sink
from gatebook.errors import EnvironmentFault
from gatebook.sinks.destination import Answer, Delivered, Limits, Partly, Pause, Piece, Retry
from gatebook.sinks.fields import document
from gatebook.sinks.http import words
from gatebook.sinks.item import Item, encode

_PAUSE: Final = (301, 307, 400, 401, 403, 404, 405)  # a region, a name, a key, a right
MAX_OBJECT_BYTES: Final = 64 << 20


class S3Destination:
    limits = Limits(items=20_000, batch_bytes=16 << 20, item_bytes=1 << 20, linger_s=30.0)

    def __init__(self, settings: S3Sink, clock: Callable[[], float] = time.time) -> None:
        """Raises EnvironmentFault."""
        try:
            import boto3
            from botocore.config import Config
            from botocore.exceptions import BotoCoreError, ClientError
        except ImportError:
            raise EnvironmentFault("a sink of type s3 needs boto3: pip install 'gatebook[s3]'") from None
        self._settings = settings
        self._clock = clock
        self._refused, self._failed = ClientError, (BotoCoreError, OSError)
        self._compress = zstandard.ZstdCompressor(level=6).compress
        self._looked = settings.object_lock is None
        self._known: set[bytes] = set()  # lines of objects that were found
        credentials = {}
        if settings.access_key is not None and settings.secret_key is not None:
            credentials = {
                "aws_access_key_id": secret.read(settings.access_key).decode("latin-1"),
                "aws_secret_access_key": secret.read(settings.secret_key).decode("latin-1"),
            }
        try:
            self._client: Any = boto3.client(
                "s3",
                region_name=settings.region,
                endpoint_url=settings.url,
                verify=str(settings.certificates) if settings.certificates is not None else None,
                config=Config(
                    connect_timeout=settings.timeout,
                    read_timeout=settings.timeout,
                    retries={"total_max_attempts": 1},
                    s3={"addressing_style": "path" if settings.url is not None else "auto"},
                ),
                **credentials,
            )
        except self._failed as error:
            raise EnvironmentFault(f"S3: {words(str(error))}") from None

    def encode(self, item: Item) -> bytes:
        return encode(document(item, self._settings.format)) + b"\n"

    def send(self, batch: Sequence[Piece]) -> Answer:
        try:
            if not self._looked and (why := self._lock_is_missing()):
                return Pause(why)
            self._looked = True
            return self._put(batch)
        except self._refused as error:
            return _judge(error.response)
        except self._failed as error:
            return Retry(f"S3: {words(str(error)) or type(error).__name__}")

    def _put(self, batch: Sequence[Piece]) -> Answer:
        fresh = [n for n, piece in enumerate(batch) if _mark(piece.data) not in self._known]
        if len(fresh) < len(batch):
            return Partly(again=tuple(fresh), duplicates=len(batch) - len(fresh), why="there already", after_s=0)
        key = self._key(batch[0].item)
        locked = {}
        if self._settings.object_lock is not None:
            until = datetime.datetime.fromtimestamp(self._clock(), datetime.UTC)
            until += datetime.timedelta(seconds=self._settings.object_lock.retain)
            locked = {
                "ObjectLockMode": self._settings.object_lock.mode.upper(),
                "ObjectLockRetainUntilDate": until,
            }
        try:
            self._client.put_object(
                Bucket=self._settings.bucket,
                Key=key,
                Body=self._compress(b"".join(piece.data for piece in batch)),
                ContentType="application/x-ndjson",
                ContentEncoding="zstd",
                ChecksumAlgorithm="SHA256",
                IfNoneMatch="*",
                **locked,
            )
        except self._refused as error:
            if _status(error.response) != 412:
                raise
            return self._there(key, batch)
        self._known.clear()
        return Delivered()

    def _there(self, key: str, batch: Sequence[Piece]) -> Answer:
        """An object of that key is there: what it holds is known from here on."""
        stored = self._client.get_object(Bucket=self._settings.bucket, Key=key)["Body"].read(MAX_OBJECT_BYTES)
        try:
            data = zstandard.ZstdDecompressor().decompress(stored, max_output_size=MAX_OBJECT_BYTES)
        except zstandard.ZstdError:
            data = b""
        found = {_mark(line) for line in data.splitlines(keepends=True)}
        if _mark(batch[0].data) not in found:
            return Pause(f"{key} is there already and begins with something else: has another ledger that name?")
        self._known |= found
        return self._put(batch)

    def _key(self, first: Item) -> str:
        ident, ended = first.id.removesuffix("/open"), not first.id.endswith("/open")
        origin, _, rest = ident.rpartition("/")
        day = datetime.datetime.fromtimestamp(first.time_us / 1_000_000, datetime.UTC).strftime("%Y/%m/%d")
        number = f"{int(rest):016d}" if rest.isdigit() else rest
        mark = "" if ended else "-open"
        return f"{self._settings.prefix}{origin}/{day}/{number}{mark}.jsonl.zst"

    def _lock_is_missing(self) -> str:
        """Why the bucket does not lock objects, if it does not. Nothing is written to find out."""
        try:
            told = self._client.get_object_lock_configuration(Bucket=self._settings.bucket)
        except self._refused as error:
            if error.response.get("Error", {}).get("Code") != "ObjectLockConfigurationNotFoundError":
                raise
            told = {}
        if told.get("ObjectLockConfiguration", {}).get("ObjectLockEnabled") == "Enabled":
            return ""
        return f"bucket {self._settings.bucket} has no Object Lock: switch it on, or leave `object_lock` out"

    def close(self) -> None:
        self._client.close()


def _mark(line: bytes) -> bytes:
    """The same item always makes the same line."""
    return hashlib.sha256(line).digest()


def _status(response: dict[str, Any]) -> int:
    return int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _judge(response: dict[str, Any]) -> Answer:
    status, error = _status(response), response.get("Error", {})
    said = words(f"S3: {status} {error.get('Code', '')} {error.get('Message', '')}")
    if status in _PAUSE and error.get("Code") not in ("RequestTimeout", "RequestTimeTooSkewed"):
        return Pause(said)
    return Retry(said)
