"""The section `sinks`: where records are sent besides the ledger. Pure."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from gatebook.config.base import Model, Secret
from gatebook.config.value import AuthorityUrl, Duration, FilePath, SinkUrl

Kind = Literal["access", "admin", "alert", "system"]


class AnySink(Model):
    """What every sink has."""

    records: list[Kind] = Field(
        default=["access", "admin", "alert", "system"], min_length=1, description="kinds of record to send"
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


class HTTPSink(AnySink):
    """What every sink has that is reached by HTTP."""

    url: SinkUrl = Field(description="where it listens; https, or http on this machine alone")
    certificates: FilePath | None = Field(
        default=None, description="PEM file of the authorities that may vouch for it; default: the system's"
    )
    client_certificate: FilePath | None = Field(
        default=None, description="PEM file of our own certificate and its key, where the sink asks for one"
    )
    proxy: AuthorityUrl | None = Field(default=None, description="an HTTP proxy on the way to it")
    timeout: Duration = Field(default=10.0, ge=0.1, le=300, description="how long it may take to answer")


class WebhookSink(HTTPSink):
    type: Literal["webhook"] = Field(description="a POST to a URL of your own, signed as Standard Webhooks has it")
    format: Format = "gatebook"
    secret: Secret = Field(
        description="what each message is signed with (HMAC-SHA256, as Standard Webhooks has it)"
    )


Sink = Annotated[FileSink | WebhookSink, Field(discriminator="type")]
