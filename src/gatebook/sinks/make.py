"""From a sink's settings to the destination that it means: the one place that knows all of them."""

from __future__ import annotations

from gatebook.config.sinks import FileSink, Sink, WebhookSink
from gatebook.sinks.destination import Destination
from gatebook.sinks.file import FileDestination
from gatebook.sinks.webhook import WebhookDestination


def make(settings: Sink) -> Destination:
    """Raises EnvironmentFault for a secret or certificate that cannot be had."""
    match settings:
        case FileSink():
            return FileDestination(settings)
        case WebhookSink():
            return WebhookDestination(settings)
