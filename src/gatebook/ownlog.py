"""What gatebook's processes say of themselves: text for people on a terminal, JSON lines for machines.

In: structlog's events. Out: stderr, which the supervisor's own stderr is. Never holds a credential: nothing
that a client sent is logged here, except a request's id, which the gateway made.
"""

from __future__ import annotations

import os
import sys
from typing import Literal

import structlog


def configure(role: str, least: Literal["info", "warning"] = "info") -> None:
    """`role` names the process in each line; below `least` nothing is said."""

    def _name(_logger: object, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        return {"role": role, "pid": os.getpid(), **event}

    terminal = sys.stderr.isatty()
    colours = terminal and not os.environ.get("NO_COLOR")
    last: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer(
            colors=colours,
            pad_event_to=24,
            # The default one shows local variables, credentials among them.
            exception_formatter=structlog.dev.plain_traceback,
        )
        if terminal
        else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[
            _name,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info if not terminal else structlog.processors.StackInfoRenderer(),
            last,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(least),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
