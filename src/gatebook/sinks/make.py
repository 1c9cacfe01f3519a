"""From a sink's settings to the destination that it means: the one place that knows all of them."""

from __future__ import annotations

from gatebook.config.sinks import (
    DatadogSink,
    ElasticsearchSink,
    FileSink,
    OTLPSink,
    S3Sink,
    Sink,
    SplunkSink,
    SyslogSink,
    WebhookSink,
)
from gatebook.sinks.datadog import DatadogDestination
from gatebook.sinks.destination import Destination
from gatebook.sinks.elasticsearch import ElasticsearchDestination
from gatebook.sinks.file import FileDestination
from gatebook.sinks.otlp import OTLPDestination
from gatebook.sinks.s3 import S3Destination
from gatebook.sinks.splunk import SplunkDestination
from gatebook.sinks.syslog import SyslogDestination
from gatebook.sinks.webhook import WebhookDestination


def make(settings: Sink) -> Destination:
    """Raises EnvironmentFault for a secret or certificate that cannot be had."""
    match settings:
        case FileSink():
            return FileDestination(settings)
        case WebhookSink():
            return WebhookDestination(settings)
        case SplunkSink():
            return SplunkDestination(settings)
        case ElasticsearchSink():
            return ElasticsearchDestination(settings)
        case DatadogSink():
            return DatadogDestination(settings)
        case OTLPSink():
            return OTLPDestination(settings)
        case SyslogSink():
            return SyslogDestination(settings)
        case S3Sink():
            return S3Destination(settings)
