"""Whom an auditor trusts beside the log: a C2SP tlog-policy file, and whether a note's cosignatures meet it.

    log <vkey> [url]
    witness <name> <vkey> [url]
    group <name> <k|any|all> <name>...      members are witnesses and groups of lines above
    quorum <name|none>                      exactly once

In: the file's bytes, a note's bytes. Out: a `Trust`, and a `Quorum` that says who vouched and when. A policy
that is understood in part is never used: every problem is an error with its line and column. Names are
opaque bytes. Pure. Specified at c2sp.org/tlog-policy.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from gatebook.errors import ConfigError, Damaged, Problem, Tampered
from gatebook.ledger.note import COSIGNATURE, ED25519, Checkpoint, Verifier, check_note, parse_checkpoint

NONE: Final = "none"  # the quorum that asks for nobody; no witness or group has this name
MAX_BYTES: Final = 256 << 10
MAX_EACH: Final = 60  # logs, witnesses, groups: with the log's own line, a note of 64 signatures holds them

_WORD: Final = re.compile(r"[^ \t]+")
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
_COUNT: Final = re.compile(r"[1-9][0-9]{0,3}")


@dataclass(frozen=True)
class Log:
    """A log whose checkpoints count. `url` means what the program that reads it says."""

    verifier: Verifier
    url: str | None


@dataclass(frozen=True)
class Witness:
    """`name` has a meaning within the policy only; the key's own name is `verifier.name`."""

    name: str
    verifier: Verifier
    url: str | None


@dataclass(frozen=True)
class Group:
    """Vouches when at least `threshold` of its members do."""

    name: str
    threshold: int
    members: tuple[str, ...]


class Quorum(NamedTuple):
    """What the cosignatures of one checkpoint are worth.

    `signed`: name of each witness of the policy that cosigned -> when it says it did, in seconds since 1970.
    `missing`: the names of those that did not. `met`: whether `signed` is enough.
    """

    checkpoint: Checkpoint
    log: Verifier
    signed: Mapping[str, int]
    missing: tuple[str, ...]
    met: bool


@dataclass(frozen=True)
class Trust:
    """One policy. `groups` in the order of their lines, so that each stands behind its members."""

    logs: tuple[Log, ...]
    witnesses: tuple[Witness, ...]
    groups: tuple[Group, ...]
    quorum: str

    def met_by(self, signed: Mapping[str, int]) -> bool:
        """Whether these witnesses, by their names in the policy, are enough."""
        vouching = {witness.name for witness in self.witnesses if witness.name in signed}
        for group in self.groups:
            if sum(member in vouching for member in group.members) >= group.threshold:
                vouching.add(group.name)
        return self.quorum == NONE or self.quorum in vouching

    def judge(self, note: bytes, log: Verifier | None = None) -> Quorum:
        """Check a cosigned checkpoint. `log`: the key that is expected to have signed, where it is known.

        A policy without logs takes that one; a policy with logs has to list it. Raises Damaged when the note is
        no checkpoint, Tampered when no log that counts signed it or a known signature is wrong.
        """
        accepted = [known.verifier for known in self.logs] or ([log] if log else [])
        if log is not None:
            accepted = [known for known in accepted if known.public == log.public and known.name == log.name]
        if not accepted:
            raise Tampered(f"the policy lists no log {log.name if log else ''}: whose checkpoint is this?")
        names = {witness.verifier: witness.name for witness in self.witnesses}
        opened = check_note(note, [*accepted, *names])
        checkpoint = parse_checkpoint(opened.text)
        signed: dict[str, int] = {}
        by: Verifier | None = None
        for verifier, time_s in opened.signatures:
            if time_s is None and verifier.name == checkpoint.origin:
                by = verifier
            elif time_s:  # at time 0 a witness says nothing about when
                name = names[verifier]
                signed[name] = min(time_s, signed.get(name, time_s))
        if by is None:
            raise Tampered(f"the checkpoint of {checkpoint.origin} is not signed by its log, as the policy has it")
        missing = tuple(witness.name for witness in self.witnesses if witness.name not in signed)
        return Quorum(checkpoint, by, signed, missing, self.met_by(signed))


class Word(NamedTuple):
    text: str
    column: int


def parse_trust(data: bytes, file: str) -> Trust:
    """Raises ConfigError with all that is wrong; `file` is how its messages call the file."""
    return _Reading(file).read(data)


class _Reading:
    def __init__(self, file: str) -> None:
        self._file = file
        self._problems: list[Problem] = []
        self._line = 0
        self._logs: list[Log] = []
        self._witnesses: list[Witness] = []
        self._groups: list[Group] = []
        self._named: dict[str, int] = {}  # witnesses and groups: on which line
        self._member_of: dict[str, str] = {}
        self._quorum: str | None = None
        self._quorum_line = 0

    def read(self, data: bytes) -> Trust:
        for words in self._lines(data):
            keyword, rest = words[0], words[1:]
            match keyword.text:
                case "log":
                    self._log(keyword, rest)
                case "witness":
                    self._witness(keyword, rest)
                case "group":
                    self._group(keyword, rest)
                case "quorum":
                    self._set_quorum(keyword, rest)
                case other:
                    self._wrong(
                        keyword, f"{_shown(other)} is no line of a policy", "log, witness, group or quorum"
                    )
        self._line = 0
        if not self._problems and self._quorum is None:
            self._wrong(Word("", 0), "there is no quorum line", "one line `quorum <name>` or `quorum none`")
        if self._problems or self._quorum is None:
            raise ConfigError(self._problems)
        return Trust(tuple(self._logs), tuple(self._witnesses), tuple(self._groups), self._quorum)

    def _wrong(self, word: Word, message: str, expected: str = "") -> None:
        self._problems.append(Problem(self._file, self._line, word.column, "", message, expected))

    def _lines(self, data: bytes) -> Iterator[list[Word]]:
        """The words of each line that says something."""
        if len(data) > MAX_BYTES:
            self._wrong(Word("", 0), f"{len(data)} bytes", f"at most {MAX_BYTES}")
            return
        lines = data.decode("utf-8", "surrogateescape").split("\n")
        if lines.pop():
            self._line = len(lines) + 1
            self._wrong(Word("", 1), "the last line has no newline: the file may be cut off", "a newline")
        for self._line, line in enumerate(lines, 1):
            if control := _CONTROL.search(line):
                at = Word("", control.start() + 1)
                self._wrong(at, f"the control character {ord(control[0]):#04x}", "tab and newline only")
                continue
            words = [Word(found[0], found.start() + 1) for found in _WORD.finditer(line)]
            if words and not words[0].text.startswith("#"):
                yield words

    def _key(self, word: Word, algorithm: int, what: str) -> Verifier | None:
        try:
            verifier = Verifier.from_vkey(word.text)
        except Damaged as error:
            self._wrong(word, str(error), f"the vkey of a {what}")
            return None
        if verifier.algorithm != algorithm:
            self._wrong(word, f"a key of algorithm {verifier.algorithm:02x}", f"{algorithm:02x}, that of a {what}")
            return None
        known = [log.verifier for log in self._logs] + [witness.verifier for witness in self._witnesses]
        for other in known:
            if other.public == verifier.public:
                self._wrong(word, f"the same key as that of {other.name}", "each key once")
                return None
        return verifier

    def _log(self, keyword: Word, rest: list[Word]) -> None:
        if len(rest) not in (1, 2):
            self._wrong(keyword, f"log with {len(rest)} words after it", "log <vkey> [url]")
            return
        verifier = self._key(rest[0], ED25519, "log")
        if verifier is not None:
            self._logs.append(Log(verifier, rest[1].text if rest[1:] else None))
            self._bound(keyword, self._logs)

    def _witness(self, keyword: Word, rest: list[Word]) -> None:
        if len(rest) not in (2, 3):
            self._wrong(keyword, f"witness with {len(rest)} words after it", "witness <name> <vkey> [url]")
            return
        named = self._name(rest[0])
        verifier = self._key(rest[1], COSIGNATURE, "witness")
        if named and verifier is not None:
            self._witnesses.append(Witness(rest[0].text, verifier, rest[2].text if rest[2:] else None))
            self._bound(keyword, self._witnesses)

    def _bound(self, keyword: Word, found: list[Log] | list[Witness] | list[Group]) -> None:
        if len(found) == MAX_EACH + 1:
            self._wrong(keyword, f"more than {MAX_EACH} lines `{keyword.text}`", f"at most {MAX_EACH}")

    def _name(self, word: Word) -> bool:
        """Define a name, even when the rest of its line is wrong, so that lines below are not blamed for it."""
        if word.text == NONE:
            self._wrong(word, f"the name {NONE} is taken: it is the quorum of nobody", "another name")
            return False
        if word.text in self._named:
            line = self._named[word.text]
            self._wrong(word, f"{_shown(word.text)} is defined on line {line} already", "another name")
            return False
        self._named[word.text] = self._line
        return True

    def _group(self, keyword: Word, rest: list[Word]) -> None:
        if len(rest) < 3:
            self._wrong(keyword, f"group with {len(rest)} words after it", "group <name> <k|any|all> <name>...")
            return
        name, count, *members = rest
        for member in members:
            if member.text not in self._named:
                message = f"{_shown(member.text)} is no witness or group of a line above"
                self._wrong(member, message, "a name that is defined already")
            elif other := self._member_of.get(member.text):
                self._wrong(
                    member, f"{_shown(member.text)} is a member of {_shown(other)} already", "each name once"
                )
            self._member_of.setdefault(member.text, name.text)
        threshold = self._threshold(count, len(members))
        if self._name(name) and threshold:
            self._groups.append(Group(name.text, threshold, tuple(member.text for member in members)))
            self._bound(keyword, self._groups)

    def _threshold(self, word: Word, members: int) -> int:
        if word.text == "any":
            return 1
        if word.text == "all":
            return members
        if _COUNT.fullmatch(word.text) and int(word.text) <= members:
            return int(word.text)
        self._wrong(
            word, f"{_shown(word.text)} of {members} members", f"any, all, or a number from 1 to {members}"
        )
        return 0

    def _set_quorum(self, keyword: Word, rest: list[Word]) -> None:
        if len(rest) != 1:
            self._wrong(keyword, f"quorum with {len(rest)} words after it", "quorum <name|none>")
            return
        if self._quorum is not None:
            self._wrong(keyword, f"a second quorum; the first is on line {self._quorum_line}", "exactly one")
            return
        name = rest[0]
        if name.text != NONE and name.text not in self._named:
            message = f"{_shown(name.text)} is no witness or group of a line above"
            self._wrong(name, message, "a name that is defined already, or none")
        self._quorum, self._quorum_line = name.text, self._line


def _shown(name: str) -> str:
    """A name as a message can carry it: printable, and not endless."""
    plain = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return repr(plain[:80])
