"""Random rules, routes, callers and requests, dense enough that they meet."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from tests.policy.conftest import identity_of

from gatebook.identity.types import Identity

METHODS = ("GET", "PUT")
TEMPLATES = (
    "/f/{x}/{rest...}",
    "/f/{x}/{y}",
    "/f/a/{rest...}",
    "/f/a/{y}",
    "/f/a/B",
    "/f/{x}/b/",
    "/{z}/{rest...}",
)
PATHS = ("/f/a/b", "/f/a/B", "/f/A/b", "/f/c/b", "/f/a/b/", "/f/a/c", "/f/c/d/e", "/f/a", "/f/a/%C3%A9", "/f/a/..")
CONDITIONS = (
    "true",
    "false",
    "identity.claims.tenant == 'a'",
    "identity.claims.tenant == request.headers['x-tenant']",
    "'reader' in identity.roles",
    "request.method == 'GET'",
    "path.x == 'a'",
    "1 / int(path.x) == 1",
)
ROLES: dict[str, Any] = {"admin": {"includes": ["writer"]}, "writer": {"includes": ["reader"]}, "reader": {}}

_some_roles = st.lists(st.sampled_from(sorted(ROLES)), max_size=2, unique=True)
_some_names = st.lists(st.sampled_from("gh"), max_size=2, unique=True)


@st.composite
def rules(draw: st.DrawFn, word: str, anonymous: bool = False) -> list[dict[str, Any]]:
    """Up to four, named after `word`. Anonymous ones ask for no roles and the like."""
    made = []
    for number in range(draw(st.integers(0, 4))):
        rule: dict[str, Any] = {
            "methods": draw(st.lists(st.sampled_from(METHODS), max_size=1)),
            "paths": draw(st.lists(st.sampled_from(TEMPLATES), max_size=2)),
            "mode": draw(st.sampled_from(["enforce", "enforce", "shadow"])),
        }
        if not anonymous:
            rule |= {"roles": draw(_some_roles), "groups": draw(_some_names), "scopes": draw(_some_names)}
        when = draw(st.none() | st.sampled_from(CONDITIONS))
        if when is not None or not any(rule[key] for key in rule.keys() - {"mode"}):
            rule["when"] = when or "true"
        made.append({"name": f"{word}{number}", **rule})
    return made


@st.composite
def routes(draw: st.DrawFn) -> dict[str, Any]:
    identity: Any = draw(st.sampled_from([["partners"], ["partners"], ["partners", "others"], "none"]))
    return {
        "path": "/f/{x}/{rest...}",
        "methods": list(METHODS),
        "identity": identity,
        "deny": draw(rules("deny", identity == "none")),
        "allow": draw(rules("allow", identity == "none")),
    }


@st.composite
def callers(draw: st.DrawFn) -> Identity | None:
    if draw(st.integers(0, 9)) == 0:
        return None
    return identity_of(
        provider=draw(st.sampled_from(["partners", "partners", "others"])),
        roles=tuple(draw(_some_roles)),
        groups=tuple(draw(_some_names)),
        scopes=tuple(draw(_some_names)),
        claims=draw(st.sampled_from([{}, {"tenant": "a"}, {"tenant": 1}])),
    )


methods = st.sampled_from([*METHODS, "HEAD"])
paths = st.sampled_from(PATHS)
headers = st.sampled_from([{}, {"x-tenant": "a"}, {"x-tenant": "b"}])
