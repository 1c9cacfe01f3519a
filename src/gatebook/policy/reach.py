"""Which requests of its route a rule speaks of: its `methods` and `paths`.

In: a rule and its route when the configuration is compiled; the method and path of a matched request. Out:
whether the rule speaks of that request. An allow rule takes a path as it is spelt. A deny rule takes every
spelling that a laxer server would serve the same thing for: other letter case or width, a slash at the end.
So no spelling slips past a deny. Names of parameters bind nothing here. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from gatebook.config.model import Route, Rule
from gatebook.policy.path import fold, segments_of
from gatebook.policy.route import REST, Finding, Shape, fold_shape, parse_template, shape_of

Effect = Literal["deny", "allow"]


class Reach(NamedTuple):
    """Compiled. None: every method, or every path, of the route."""

    methods: frozenset[str] | None
    shapes: tuple[Shape, ...] | None
    lax: bool

    def takes_method(self, method: str) -> bool:
        return self.methods is None or method in self.methods

    def takes_path(self, path: str) -> bool:
        """`path` as received; its route has matched, so it is canonical."""
        if self.shapes is None:
            return True
        segments = segments_of(path) or [""]
        if self.lax:
            segments = [fold(segment) for segment in segments]
            if segments[-1] == "":
                segments.pop()
        return any(_fits(shape, segments) for shape in self.shapes)

    def covers(self, other: Reach, route: Route) -> bool:
        """Whether this one speaks of every request of the route that `other` speaks of."""
        if self.methods is not None and not self.methods >= (other.methods or methods_of(route)):
            return False
        if self.shapes is None:
            return True
        whole = shape_of(parse_template(route.path))
        theirs = (whole,) if other.shapes is None else other.shapes
        if self.lax and not other.lax:
            theirs = tuple(fold_shape(shape) for shape in theirs)
        if other.lax and not self.lax:
            return False
        return all(any(_contains(shape, their) for shape in self.shapes) for their in theirs)


WHOLE = Reach(None, None, False)


def reach(rule: Rule, route: Route, effect: Effect) -> Reach:
    """Raises ValueError where a template is none; `problems` reports it."""
    methods = frozenset(rule.methods) or None
    if methods is not None and "GET" in methods and "HEAD" not in route.methods:
        methods |= {"HEAD"}  # as a route's own methods do
    lax = effect == "deny"
    shapes = [shape_of(parse_template(template)) for template in rule.paths]
    return Reach(methods, tuple(fold_shape(s) if lax else s for s in shapes) or None, lax)


def methods_of(route: Route) -> frozenset[str]:
    """All that can reach the route; HEAD, where GET is, unless another route has taken it."""
    return frozenset(route.methods) | ({"HEAD"} if "GET" in route.methods else frozenset())


def problems(rule: Rule, route: Route, effect: Effect, place: tuple[str | int, ...]) -> list[Finding]:
    """Methods and paths that no request of the route has."""
    known = methods_of(route)
    found: list[Finding] = [
        ((*place, "methods", at), f"route {route.name} has no method {method}", " or ".join(sorted(known)))
        for at, method in enumerate(rule.methods)
        if method not in known
    ]
    try:
        whole = shape_of(parse_template(route.path))
    except ValueError:
        return found  # reported with the route
    for at, template in enumerate(rule.paths):
        try:
            shape = shape_of(parse_template(template))
        except ValueError as error:
            found.append(((*place, "paths", at), str(error), "segments as in a route's path"))
            continue
        both = (fold_shape(shape), fold_shape(whole)) if effect == "deny" else (shape, whole)
        if not _meet(*both):
            found.append(
                ((*place, "paths", at), f"no path of route {route.name} fits", f"a template within {route.path}")
            )
    return found


def _fits(shape: Shape, segments: Sequence[str]) -> bool:
    for at, text in enumerate(shape):
        if at == len(segments):
            return False
        if text == REST:
            return segments[at] != ""
        if segments[at] != text if text is not None else not segments[at]:
            return False
    return len(shape) == len(segments)


def _contains(wide: Shape, narrow: Shape) -> bool:
    """Whether every path that fits `narrow` fits `wide`."""
    for at, text in enumerate(wide):
        if at == len(narrow) or (narrow[at] == REST and text != REST):
            return False
        if text == REST:
            return narrow[at] != ""
        if narrow[at] != text if text is not None else narrow[at] == "":
            return False
    return len(wide) == len(narrow)


def _meet(one: Shape, other: Shape) -> bool:
    """Whether some path fits both."""
    for a, b in zip(one, other, strict=False):
        if a == REST or b == REST:
            return a != "" and b != ""
        if (a is None or b is None) and "" in (a, b):
            return False
        if a is not None and b is not None and a != b:
            return False
    return len(one) == len(other)
