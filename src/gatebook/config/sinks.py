"""The section `sinks`: where records are sent besides the ledger. Pure."""

from __future__ import annotations

from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from gatebook.config.base import Model, Secret
from gatebook.config.value import AuthorityUrl, Duration, FilePath, Name, SinkUrl, Size, SyslogAddress

Kind = Literal["access", "admin", "alert", "system"]


class AnySink(Model):
    """What every sink has."""

    records: list[Kind] = Field(
        default=["access", "admin", "alert", "system"], min_length=1, description="kinds of record to send"
    )
    where: str | None = Field(
        default=None, description="a CEL expression over `record` and `kind`: only what it does not refuse is sent"
    )
    start: Literal["beginning", "now"] = Field(
        default="beginning",
        description="where a sink begins that has sent nothing yet: at the first record, or behind the last",
    )
    salts: bool = Field(
        default=True,
        description="send each record's salt along, so that what a sink holds can be checked against the ledger",
    )


Format = Annotated[
    Literal["gatebook", "ecs", "ocsf", "otel", "datadog", "cim"],
    Field(description="whose field names: our own, Elastic's, OCSF's, OpenTelemetry's, Datadog's or Splunk CIM's"),
]


class FileSink(AnySink):
    type: Literal["file"] = Field(description="lines of JSON in a file of this machine")
    path: FilePath = Field(description="the file that lines of JSON are appended to; made with mode 0600")
    format: Format = "gatebook"
    rotate: Literal["never", "daily"] = Field(
        default="never", description="daily: the file of a day that is over gets its date at its name's end (UTC)"
    )


class Web(AnySink):
    """What every sink has that is reached by HTTP."""

    certificates: FilePath | None = Field(
        default=None, description="PEM file of the authorities that may vouch for it; default: the system's"
    )
    client_certificate: FilePath | None = Field(
        default=None, description="PEM file of our own certificate and its key, where the sink asks for one"
    )
    proxy: AuthorityUrl | None = Field(default=None, description="an HTTP proxy on the way to it")
    timeout: Duration = Field(default=10.0, ge=0.1, le=300, description="how long it may take to answer")


class HTTPSink(Web):
    url: SinkUrl = Field(description="where it listens; https, or http on this machine alone")


class WebhookSink(HTTPSink):
    type: Literal["webhook"] = Field(description="a POST to a URL of your own, signed as Standard Webhooks has it")
    format: Format = "gatebook"
    secret: Secret = Field(
        description="what each message is signed with (HMAC-SHA256, as Standard Webhooks has it)"
    )


class SplunkSink(HTTPSink):
    type: Literal["splunk_hec"] = Field(description="Splunk's HTTP Event Collector")
    token: Secret = Field(description="the collector's token")
    index: str | None = Field(
        default=None,
        pattern=r"^[a-z0-9_][a-z0-9_-]{0,79}$",
        description="the index for the events; default: the token's own",
    )
    sourcetype: str = Field(
        default="gatebook", pattern=r"^[a-z0-9_]{1,64}$", description="`:access` and so on is put behind it"
    )
    acknowledge: bool = Field(
        default=False,
        description="wait until the indexers have it; the token needs `useACK`, which Splunk Cloud lacks",
    )
    acknowledge_timeout: Duration = Field(
        default=300.0, ge=1, le=3600, description="after that the batch is sent again, on another channel"
    )


class ElasticsearchSink(HTTPSink):
    type: Literal["elasticsearch"] = Field(description="Elasticsearch or OpenSearch, into a data stream")
    api_key: Secret | None = Field(default=None, description="an API key, as Elasticsearch encodes it")
    username: str | None = Field(default=None, description="a user, for Basic authentication instead of a key")
    password: Secret | None = Field(default=None, description="that user's password")
    data_stream: str = Field(
        default="logs-gatebook.access-default",
        pattern=r"^[a-z]+-[a-z0-9_.]+-[a-z0-9_.]+$",
        description="its name: type, data set and namespace",
    )

    @model_validator(mode="after")
    def _check(self) -> ElasticsearchSink:
        if self.api_key is not None and self.username is not None:
            raise ValueError("expected api_key or username, found both")
        if (self.username is None) != (self.password is None):
            raise ValueError("expected username and password, found one of them")
        return self


class DatadogSink(Web):
    type: Literal["datadog"] = Field(description="Datadog's intake of logs")
    site: str = Field(
        default="datadoghq.com",
        pattern=r"^[a-z0-9-]+(\.[a-z0-9-]+)+$",
        description="the site that the organisation is on: datadoghq.com, datadoghq.eu, us5.datadoghq.com",
    )
    url: SinkUrl | None = Field(default=None, description="an intake of somebody else's that speaks the same")
    api_key: Secret = Field(description="an API key")
    service: Name = Field(default="gatebook", description="the service that logs stand under")
    tags: list[str] = Field(default=[], max_length=100, description="such as env:prod")


class OTLPSink(HTTPSink):
    type: Literal["otlp"] = Field(
        description="an OpenTelemetry collector, OTLP over HTTP, protobuf; `/v1/logs` is added"
    )
    headers: dict[str, Secret] = Field(
        default={}, description="header fields of the collector's own, such as a key"
    )


class SyslogSink(AnySink):
    type: Literal["syslog"] = Field(description="a syslog server: RFC 5424 over TLS (RFC 5425)")
    address: SyslogAddress = Field(description="tls://host:6514, or tcp://host:port on this machine alone")
    certificates: FilePath | None = Field(
        default=None, description="PEM file of the authorities that may vouch for it; default: the system's"
    )
    client_certificate: FilePath | None = Field(
        default=None, description="PEM file of our own certificate and its key, where the server asks for one"
    )
    format: Format = "gatebook"
    facility: int = Field(default=13, ge=0, le=23, description="the facility; 13 is the log audit")
    enterprise: int = Field(
        default=32473,
        ge=1,
        description="the enterprise number of the structured data; the default is for examples",
    )
    max_message: Size = Field(
        default=65536,
        ge=1024,
        le=1 << 20,
        description="longer messages go without their exact records, or not at all",
    )
    timeout: Duration = Field(default=10.0, ge=0.1, le=300, description="for a connection, and for a batch")

    @property
    def scheme(self) -> str:
        return self.address.partition(":")[0]

    @property
    def host(self) -> str:
        return urlsplit(self.address).hostname or ""

    @property
    def port(self) -> int:
        return urlsplit(self.address).port or 0


class ObjectLock(Model):
    mode: Literal["compliance", "governance"] = Field(
        default="compliance", description="compliance: nobody can shorten it, not the account's owner either"
    )
    retain: Duration = Field(ge=86400, description="for how long from the day that it is written: 400d, 7y")


class S3Sink(AnySink):
    type: Literal["s3"] = Field(description="S3 or what speaks like it; needs `pip install 'gatebook[s3]'`")
    bucket: str = Field(
        pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$", description="the bucket, which has to be there"
    )
    prefix: str = Field(
        default="", pattern=r"^[A-Za-z0-9!_.*'()/-]{0,200}$", description="what every key begins with"
    )
    region: str | None = Field(default=None, description="the bucket's region; default: the environment's")
    url: SinkUrl | None = Field(default=None, description="an S3 of somebody else's")
    certificates: FilePath | None = Field(
        default=None, description="PEM file of the authorities that may vouch for it; default: those of boto3"
    )
    access_key: Secret | None = Field(
        default=None, description="access key id; default: as boto3 finds it: environment, profile, instance role"
    )
    secret_key: Secret | None = Field(default=None, description="the secret access key that goes with it")
    object_lock: ObjectLock | None = Field(
        default=None, description="lock each object against change and deletion"
    )
    format: Format = "gatebook"
    timeout: Duration = Field(
        default=30.0, ge=1, le=300, description="how long it may take to connect, and to answer"
    )

    @model_validator(mode="after")
    def _check(self) -> S3Sink:
        if (self.access_key is None) != (self.secret_key is None):
            raise ValueError("expected access_key and secret_key, found one of them")
        return self


Sink = Annotated[
    FileSink | WebhookSink | SplunkSink | ElasticsearchSink | DatadogSink | OTLPSink | SyslogSink | S3Sink,
    Field(discriminator="type"),
]
