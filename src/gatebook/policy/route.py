"""Which route a request belongs to: a trie over path segments, compiled from the configuration.

In: method and request target as received. Out: `Match` with the route and its decoded parameters, or
`Miss` with the reason. The path decides first (literals before parameters before `{rest...}`, segment by
segment), then the method. A path that a laxer server (one that ignores letter case or a trailing slash)
would give to another template never matches. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal, NamedTuple
from urllib.parse import quote

import msgspec

from gatebook.config.model import Configuration, Route
from gatebook.errors import ConfigError, Problem
from gatebook.policy.path import fold, query_is_clean, segments_of

Finding = tuple[tuple[str | int, ...], str, str]  # location in the configuration, message, expected

_PARAMETER = re.compile(r"\{([a-z_][a-z0-9_]{0,63})(\.\.\.)?\}")
_EXPECTED = "segments such as orders, {order_id} or a last {rest...}"


class Match(msgspec.Struct, frozen=True, gc=False):
    """A route was found. `index` is the route's place in the configuration; `path` is as received."""

    route: Route
    index: int
    params: dict[str, str]
    path: str
    query: str


class Miss(msgspec.Struct, frozen=True, gc=False):
    """No route was found. `allow` names the methods of a path that exists, for the Allow header of a 405."""

    reason: Literal["path_not_canonical", "no_route", "method_not_allowed"]
    path: str
    query: str
    allow: tuple[str, ...] = ()


class Part(NamedTuple):
    """One segment of a template. `text` is the decoded literal, or the parameter's name."""

    kind: Literal["literal", "parameter", "rest"]
    text: str


def parse_template(template: str) -> tuple[Part, ...]:
    """`/orders/{order_id}` -> its parts. Raises ValueError with a message for the operator."""
    if not template.startswith("/"):
        raise ValueError("does not begin with '/'")
    parts: list[Part] = []
    texts = template[1:].split("/")
    for position, text in enumerate(texts):
        found = _PARAMETER.fullmatch(text)
        if found is None:
            parts.append(Part("literal", _literal(text, last=position == len(texts) - 1)))
        elif found[2] and position != len(texts) - 1:
            raise ValueError(f"{text} is not the last segment")
        else:
            parts.append(Part("rest" if found[2] else "parameter", found[1]))
    names = [part.text for part in parts if part.kind != "literal"]
    if len(set(names)) != len(names):
        raise ValueError("names a parameter twice")
    return tuple(parts)


def _literal(text: str, last: bool) -> str:
    if not text:
        if last:
            return ""
        raise ValueError("has an empty segment")
    if "{" in text or "}" in text:
        raise ValueError(f"{text}: a parameter takes a whole segment and has a lower-case name")
    segments = segments_of("/" + quote(text, safe="%!$&'()*+,=:@~"))
    if segments is None:
        raise ValueError(f"{text}: no canonical path holds this segment")
    return segments[0]


Shape = tuple[str | None, ...]  # literals; None for a parameter; "{...}" at the end for the rest
REST = "{...}"  # no literal holds braces


def shape_of(parts: Sequence[Part]) -> Shape:
    """A template without its parameters' names: two of one shape fit the same paths."""
    return tuple(
        part.text if part.kind == "literal" else None if part.kind == "parameter" else REST for part in parts
    )


def fold_shape(shape: Shape) -> Shape:
    """What a server that ignores case, width and a slash at the end takes the template for."""
    if shape[-1] == "":
        shape = shape[:-1]
    return tuple(text if text is None or text == REST else fold(text) for text in shape)


class _Leaf:
    """Where a template ends: its routes by method. `family` is the folded shape, as a number."""

    __slots__ = ("allow", "family", "fixed", "targets")

    def __init__(self, family: int, fixed: bool) -> None:
        self.family = family
        self.fixed = fixed  # all literals: nothing is left to interpretation
        self.targets: dict[str, tuple[Route, int, tuple[tuple[str, int], ...], tuple[str, int] | None]] = {}
        self.allow: tuple[str, ...] = ()


class _Node:
    __slots__ = ("leaf", "literals", "parameter", "rest")

    def __init__(self) -> None:
        self.literals: dict[str, _Node] = {}
        self.parameter: _Node | None = None
        self.rest: _Leaf | None = None
        self.leaf: _Leaf | None = None

    def place(self, shape: Shape, leaf: _Leaf) -> _Leaf:
        """Put `leaf` where `shape` ends, unless one is there; return what is there."""
        node = self
        for text in shape:
            if text == REST:
                node.rest = node.rest or leaf
                return node.rest
            if text is None:
                node.parameter = node.parameter or _Node()
                node = node.parameter
            else:
                node = node.literals.setdefault(text, _Node())
        node.leaf = node.leaf or leaf
        return node.leaf

    def find(self, segments: Sequence[str]) -> _Leaf | None:
        """The leaf for `segments`. Each node is visited at most once a branch, so work is bounded."""
        node, depth, count = self, 0, len(segments)
        untried: list[tuple[_Node, int, bool]] = []  # node, depth, whether only its rest is left to try
        rest_only = False
        while True:
            if depth < count:
                segment = segments[depth]
                if not rest_only:
                    child = node.literals.get(segment)
                    if child is not None:
                        if segment and (node.parameter is not None or node.rest is not None):
                            untried.append((node, depth, node.parameter is None))
                        node, depth = child, depth + 1
                        continue
                    child = node.parameter
                    if child is not None and segment:
                        if node.rest is not None:
                            untried.append((node, depth, True))
                        node, depth = child, depth + 1
                        continue
                if node.rest is not None and segment:
                    return node.rest
            elif node.leaf is not None:
                return node.leaf
            if not untried:
                return None
            node, depth, rest_only = untried.pop()
            if not rest_only and node.parameter is not None:  # its literal led nowhere
                if node.rest is not None:
                    untried.append((node, depth, True))
                node, depth = node.parameter, depth + 1


class Routes:
    """All routes of a configuration, ready to match. Raises ConfigError where `problems` finds any."""

    def __init__(self, configuration: Configuration) -> None:
        found = problems(configuration)
        if found:
            raise ConfigError([Problem("", 0, 0, dotted(place), said, wanted) for place, said, wanted in found])
        self._exact = _Node()
        self._lax = _Node()
        self._fixed: dict[str, _Leaf] = {}
        self._always_lax = False
        families: dict[Shape, int] = {}
        leaves: list[_Leaf] = []
        for index, route in enumerate(configuration.routes):
            parts = parse_template(route.path)
            shape = shape_of(parts)
            folded = fold_shape(shape)
            family = families.setdefault(folded, len(families))
            fixed = all(part.kind == "literal" for part in parts)
            leaf = self._exact.place(shape, _Leaf(family, fixed))
            self._lax.place(folded, _Leaf(family, fixed))
            if folded != shape:
                self._always_lax = True
            if fixed and segments_of(route.path) is not None:
                self._fixed[route.path] = leaf
            names = tuple((part.text, at) for at, part in enumerate(parts) if part.kind == "parameter")
            rest = (parts[-1].text, len(parts) - 1) if parts[-1].kind == "rest" else None
            for method in route.methods:
                leaf.targets[method] = (route, index, names, rest)
            leaves.append(leaf)
        for leaf in leaves:
            if "GET" in leaf.targets:
                leaf.targets.setdefault("HEAD", leaf.targets["GET"])
            leaf.allow = tuple(sorted(leaf.targets))

    def match(self, method: str, raw_uri: str) -> Match | Miss:
        """The route of a request, or why there is none. Never raises, whatever `raw_uri` holds."""
        path, mark, query = raw_uri.partition("?")
        if mark and not query_is_clean(query):
            return Miss("path_not_canonical", path, query)
        leaf = self._fixed.get(path)
        segments: list[str] = []
        if leaf is None:
            found = segments_of(path)
            if found is None:
                return Miss("path_not_canonical", path, query)
            segments = found
            leaf = self._exact.find(segments)
            if leaf is None or not (leaf.fixed or self._is_beyond_doubt(leaf, path, segments)):
                return Miss("no_route", path, query)
        target = leaf.targets.get(method)
        if target is None:
            return Miss("method_not_allowed", path, query, leaf.allow)
        route, index, names, rest = target
        params = {name: segments[at] for name, at in names} if names else {}
        if rest is not None:
            params[rest[0]] = "/".join(segments[rest[1] :])
        return Match(route, index, params, path, query)

    def _is_beyond_doubt(self, leaf: _Leaf, path: str, segments: list[str]) -> bool:
        """Whether a server that ignores case and a trailing slash would choose the same template."""
        slash = segments[-1] == ""
        if "%" in path:
            folded = [fold(segment) for segment in segments]
        else:
            low = path.lower()
            if not (self._always_lax or slash) and low == path:
                return True
            folded = low[1:].split("/")
        if slash:
            folded.pop()
        other = self._lax.find(folded)
        return other is not None and other.family == leaf.family


def dotted(location: Sequence[str | int]) -> str:
    """("routes", 3, "path") -> "routes[3].path"."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).lstrip(".")


def problems(configuration: Configuration) -> list[Finding]:
    """What makes the routes ambiguous or unmatchable."""
    found: list[Finding] = []
    names: dict[str, int] = {}
    taken: dict[tuple[Shape, str], str] = {}
    for index, route in enumerate(configuration.routes):
        if names.setdefault(route.name, index) != index:
            found.append(
                (("routes", index, "name"), f"{route.name} is taken by another route", "a name of its own")
            )
        try:
            shape = shape_of(parse_template(route.path))
        except ValueError as error:
            found.append((("routes", index, "path"), str(error), _EXPECTED))
            continue
        for at, method in enumerate(route.methods):
            other = taken.setdefault((shape, method), route.name)
            if other != route.name:
                found.append(
                    (
                        ("routes", index, "methods", at),
                        f"{method} on these paths already belongs to route {other}",
                        "one route for each path and method",
                    )
                )
    return found


def warnings(configuration: Configuration) -> list[Finding]:
    """Templates that a laxer server would take for one another, though the configuration tells them apart."""
    found: list[Finding] = []
    families: dict[Shape, tuple[Shape, str]] = {}
    for index, route in enumerate(configuration.routes):
        try:
            shape = shape_of(parse_template(route.path))
        except ValueError:
            continue
        other, name = families.setdefault(fold_shape(shape), (shape, route.name))
        if other != shape:
            found.append(
                (
                    ("routes", index, "path"),
                    f"differs from route {name} only in letter case or a trailing slash",
                    "paths that no upstream takes for one another",
                )
            )
    return found
