"""YAML text -> plain data, and where each value of it stands. The only file that knows YAML.

In: the bytes of a person's file, which may be anything. Out: a Source, whose `data` is made of dict,
list, str, int, float, bool and None alone, with a line and a column for every key and value; or a
ConfigError. YAML 1.2's core types, one document, anchors and `<<` merges; tags, directives, keys given
twice and anchors given twice are refused. Size, depth and what aliases may expand to are bounded.
Never builds an object that a tag names, and never lets a second key of the same name win silently. Pure.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentEndEvent,
    DocumentStartEvent,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
    StreamEndEvent,
    StreamStartEvent,
)

from gatebook.errors import ConfigError, Problem

MAX_BYTES: Final = 4 << 20
MAX_DEPTH: Final = 24
MAX_NODES: Final = 1_000_000  # after aliases are followed; 4 MiB of plain text cannot reach it

Location = tuple[str | int, ...]
Place = tuple[int, int]  # line and column, both from 1

_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")
_NULL = re.compile(r"~|null|Null|NULL|")
_BOOL = re.compile(r"true|True|TRUE|false|False|FALSE")
_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")


@dataclass(slots=True)
class _Node:
    """A scalar, a list of nodes, or a list of (key node, node) pairs, and where it starts."""

    value: Any
    kind: str  # scalar, list, mapping
    place: Place
    merge: bool = False  # a plain `<<`, as a key


@dataclass
class Source:
    """What a file said: `data`, and places by location. Built by `read`; not changed after."""

    file: str
    data: Any = None
    keys: dict[Location, Place] = field(default_factory=dict)
    values: dict[Location, Place] = field(default_factory=dict)

    def key_at(self, location: Location) -> Place:
        """Where the key stands that leads to `location`; of a list item, or what is missing: the nearest."""
        while location:
            if location in self.keys:
                return self.keys[location]
            if location in self.values:
                return self.values[location]
            location = location[:-1]
        return (1, 1)

    def value_at(self, location: Location) -> Place:
        """Where the value at `location` starts; of what is missing: the nearest value around it."""
        while location and location not in self.values:
            location = location[:-1]
        return self.values.get(location, (1, 1))

    def problem(self, place: Place, key: str, message: str, expected: str = "", hint: str = "") -> Problem:
        return Problem(self.file, place[0], place[1], key, message, expected, hint)


def dotted(location: Location) -> str:
    """`routes[0].allow[1].when`; a key with other than plain characters is quoted and escaped."""
    text = ""
    for part in location:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            name = part if re.fullmatch(r"[A-Za-z0-9_-]{1,80}", part) else shown(part)
            text += f".{name}" if text else name
    return text


def shown(value: object) -> str:
    """What was found, in at most 60 characters and without any that could move a terminal's cursor."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "a mapping" if value else "an empty mapping"
    if isinstance(value, list):
        return "a list" if value else "an empty list"
    if isinstance(value, str):
        text = value if len(value) <= 60 else value[:57] + "..."
        return "'" + "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text) + "'"
    return str(value)[:60]


def read(data: bytes, file: str) -> Source:
    """Raises ConfigError with the file's first syntax error, or with every refused construct in it."""
    source = Source(file)
    reader = _Reader(source)
    root = reader.document(_events(_text(data, source), source))
    if root is not None and not reader.problems:
        source.values[()] = root.place
        source.data = reader.expand(root, ())
    if reader.problems:
        raise ConfigError(reader.problems)
    return source


def _events(text: str, source: Source) -> Iterator[Any]:
    """The parser's events. It was not written for hostile input: whatever it raises is a ConfigError here."""
    try:
        yield from YAML(typ="safe", pure=True).parse(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = (mark.line + 1, mark.column + 1) if mark else (0, 0)
        said = str(error.problem or error.context)
        if error.problem and error.context and error.context_mark:
            said += f", {error.context} from line {error.context_mark.line + 1}"
        raise ConfigError([_syntax(source, place, said)]) from None
    except Exception as error:  # such as OverflowError, from chr() of a large escape
        raise ConfigError([_syntax(source, (0, 0), f"{type(error).__name__}: {error}")]) from None


def _text(data: bytes, source: Source) -> str:
    if len(data) > MAX_BYTES:
        message = f"more than {MAX_BYTES >> 20} MiB"
        raise ConfigError([source.problem((0, 0), "", message, "a configuration of at most 4 MiB")])
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = data[: error.start]
        place = (before.count(b"\n") + 1, error.start - before.rfind(b"\n"))
        message = f"byte 0x{data[error.start]:02x} is not UTF-8"
        raise ConfigError([source.problem(place, "", message, "a file in UTF-8")]) from None
    found = _UNPRINTABLE.search(text)
    if found:
        at = found.start()
        place = (text.count("\n", 0, at) + 1, at - text.rfind("\n", 0, at))
        raise ConfigError([source.problem(place, "", f"control character U+{ord(found[0]):04X}", "plain text")])
    return text


def _syntax(source: Source, place: Place, said: str) -> Problem:
    if "'\\t'" in said or "tab character" in said.lower():
        return source.problem(place, "", "a tab where YAML allows none", "spaces for indentation")
    hint = "text that holds ': ' needs quotes" if said.startswith("mapping values are not allowed") else ""
    return source.problem(place, "", f"not valid YAML: {said}", hint=hint)


class _Reader:
    """One file's reading: parser events -> nodes -> data. Collects problems and goes on."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.problems: list[Problem] = []
        self._anchors: dict[str, _Node] = {}
        self._count = 0

    def document(self, events: Iterator[Any]) -> _Node | None:
        root: _Node | None = None
        documents = 0
        for event in events:
            if isinstance(event, DocumentStartEvent):
                documents += 1
                if documents > 1:
                    self._refuse(event, "a second document", "one document in the file")
                    return root
                if event.version or event.tags:
                    self._refuse(event, "a YAML directive", "none; they are not needed")
            elif not isinstance(event, (StreamStartEvent, StreamEndEvent, DocumentEndEvent)):
                root = self._node(event, events, 0)
                if root is None:
                    return None
        return root

    def _refuse(self, event: Any, message: str, expected: str = "") -> None:
        self.problems.append(self.source.problem(_place(event), "", message, expected))

    def _node(self, event: Any, events: Iterator[Any], depth: int) -> _Node | None:
        """The node that `event` begins; None when the file is too deep to go on."""
        if isinstance(event, AliasEvent):
            known = self._anchors.get(event.anchor)
            if known is None:
                self._refuse(event, f"*{event.anchor} names no anchor that is complete before it")
                return _Node("", "scalar", _place(event))
            return _Node(known.value, known.kind, _place(event))
        if event.ctag is not None and str(event.ctag) != "!":
            tag = str(event.ctag).replace("tag:yaml.org,2002:", "!!", 1)
            self._refuse(event, f"the tag {shown(tag)}", "a plain value; tags are not needed here")
        if depth > MAX_DEPTH:
            self._refuse(event, "nested too deeply", f"at most {MAX_DEPTH} levels")
            return None
        node = self._begin(event, events, depth)
        if node is not None and event.anchor is not None:
            if event.anchor in self._anchors:
                self._refuse(event, f"the anchor &{event.anchor} a second time", "another name")
            self._anchors[event.anchor] = node
        return node

    def _begin(self, event: Any, events: Iterator[Any], depth: int) -> _Node | None:
        if isinstance(event, ScalarEvent):
            plain = event.implicit[0] and event.style is None
            if found := _UNPRINTABLE.search(event.value):
                self._refuse(event, f"an escape for the character U+{ord(found[0]):04X}", "plain text")
            value = self._scalar(event) if plain else event.value
            return _Node(value, "scalar", _place(event), plain and event.value == "<<")
        if isinstance(event, SequenceStartEvent):
            items: list[_Node] = []
            while not isinstance(inner := next(events), SequenceEndEvent):
                node = self._node(inner, events, depth + 1)
                if node is None:
                    return None
                items.append(node)
            return _Node(items, "list", _place(event))
        assert isinstance(event, MappingStartEvent)  # noqa: S101 - the parser has no other event here
        return self._mapping(event, events, depth)

    def _mapping(self, event: Any, events: Iterator[Any], depth: int) -> _Node | None:
        pairs: list[tuple[_Node, _Node]] = []
        first: dict[str, Place] = {}
        while not isinstance(inner := next(events), MappingEndEvent):
            text = inner.value if isinstance(inner, ScalarEvent) else None
            key = self._node(inner, events, depth + 1)
            value = self._node(next(events), events, depth + 1) if key is not None else None
            if key is None or value is None:
                return None
            if text is None:
                self._refuse(inner, "a key that is not a plain name", "a name")
                continue
            if text in first:
                line = first[text][0]
                self._refuse(inner, f"the key {shown(text)} a second time", f"once; the first is in line {line}")
                continue
            first[text] = key.place
            if value.value is None:
                value.place = key.place  # of a value that is not there, the parser only knows the next line
            pairs.append((_Node(text, "scalar", key.place, key.merge), value))
        return _Node(pairs, "mapping", _place(event))

    def _scalar(self, event: Any) -> str | int | float | bool | None:
        text: str = event.value
        if _NULL.fullmatch(text):
            return None
        if _BOOL.fullmatch(text):
            return text.lower() == "true"
        if _INT.fullmatch(text) and len(text) <= 20:
            return int(text, 0) if text[:2] in ("0o", "0x") else int(text)
        if _FLOAT.fullmatch(text):
            number = float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
            if math.isfinite(number):
                return number
            self._refuse(event, f"{shown(text)} is not a finite number", "a number")
        return text

    def expand(self, node: _Node, location: Location) -> Any:
        """Plain data; fills the places. What aliases expand to is counted, so that no bomb goes off."""
        self._count += 1
        if self._count > MAX_NODES or len(location) > MAX_DEPTH:
            if self._count < 2 * MAX_NODES:
                bound = f"at most {MAX_NODES} values, {MAX_DEPTH} levels deep"
                self.problems.append(self.source.problem(node.place, "", "aliases that expand too far", bound))
                self._count = 2 * MAX_NODES  # said once
            return None
        if node.kind == "scalar":
            return node.value
        if node.kind == "list":
            items = []
            for number, item in enumerate(node.value):
                self.source.values[(*location, number)] = item.place
                items.append(self.expand(item, (*location, number)))
            return items
        mapping: dict[str, Any] = {}
        for key, value in self._merged(node, 0):
            if key.value in mapping:
                continue  # the nearer one stands; within one mapping there are no two
            inner = (*location, key.value)
            self.source.keys[inner] = key.place
            self.source.values[inner] = value.place
            mapping[key.value] = self.expand(value, inner)
        return mapping

    def _merged(self, node: _Node, depth: int) -> Iterator[tuple[_Node, _Node]]:
        """A mapping's own pairs, then those of its `<<`, in order."""
        late: list[_Node] = []
        for key, value in node.value:
            if not key.merge:
                yield key, value
            else:
                late += value.value if value.kind == "list" else [value]
        for other in late:
            self._count += 1
            if other.kind != "mapping" or depth > MAX_DEPTH:
                self.problems.append(self.source.problem(other.place, "<<", "nothing to merge", "a mapping"))
            elif self._count <= MAX_NODES:
                yield from self._merged(other, depth + 1)


def _place(event: Any) -> Place:
    return (event.start_mark.line + 1, event.start_mark.column + 1)
