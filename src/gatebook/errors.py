"""The exceptions of gatebook: whose fault it is, what to do next, and the exit code.

An error class exists only where some caller decides on it. Every message says what happened,
where, and what to do next. Pure; imports nothing of ours.
"""

from __future__ import annotations

from dataclasses import dataclass


class GatebookError(Exception):
    """Base of all errors that are shown to a person as one message, never as a traceback."""

    exit_code = 1


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with a configuration. `line` and `column` count from 1; 0 means the whole file."""

    file: str
    line: int
    column: int
    key: str  # dotted path, such as "routes[0].allow[1].when"
    message: str  # what was found
    expected: str = ""  # what would be right
    hint: str = ""  # the nearest known key, or what to do next

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        text = f"{place}: {self.key + ': ' if self.key else ''}{self.message}"
        if self.expected:
            text += f"; expected {self.expected}"
        if self.hint:
            text += f" ({self.hint})"
        return text


class ConfigError(GatebookError):
    """The operator's configuration is wrong. Carries every problem found, never only the first."""

    exit_code = 2

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(str(p) for p in problems))
        self.problems = problems


class UsageError(GatebookError):
    """The command line is wrong."""

    exit_code = 2


class EnvironmentFault(GatebookError):
    """The machine does not offer what is needed: a folder's mode, a port, a program, a running process."""

    exit_code = 3


class LedgerError(GatebookError):
    """Base of what can be wrong with a ledger."""

    exit_code = 10


class Damaged(LedgerError):
    """Bytes are missing or unreadable, as after a disk fault. Content may be lost; nobody need have lied."""

    exit_code = 11


class Tampered(LedgerError):
    """Bytes contradict what was signed. Never repaired, never signed again."""

    exit_code = 12


class Incomplete(LedgerError):
    """What is there is genuine, but something that should be there is not."""

    exit_code = 13


class LedgerBusy(LedgerError):
    """Another process holds the ledger's lock."""

    exit_code = 14


class LedgerFull(LedgerError):
    """The disk took no more, or a sync failed: nothing more is acknowledged by this process."""

    exit_code = 15


class RecorderUnavailable(GatebookError):
    """No acknowledgement from the recorder. The guard's only right answer to it is 503."""

    exit_code = 16
