"""An explanation as lines of text, for a terminal. Pure, but for printing; hostile text is made harmless.

In: what `trial.explain` gives, nothing secret among it. Out: the request, its route or what it may have been meant
for, the caller, each rule with its conditions, the verdict. Never leaves a rule out.
"""

from __future__ import annotations

import sys
from typing import Any

from gatebook.cli.report import harmless, paint, say


def say_explained(told: dict[str, Any]) -> None:
    asked = told["request"]
    say(f"{asked['method']} {harmless(asked['target'])}")
    route, miss = told["route"], told["miss"]
    if route is None:
        _say_miss(miss)
    else:
        params = "".join(f", {name} = {value}" for name, value in route["params"].items())
        _line("route", f"{route['name']}, {route['path']}{params}")
        _line("identity", _who(told["identity"], route["identity"]))
        for lent in (told["identity"] or {}).get("granted", []):
            _line("granted", f"{lent['role']}, by grant {lent['grant']}")
        for rule in told["rules"]:
            _say_rule(rule)
    verdict = told["verdict"]
    colour = "32" if verdict["verdict"] == "allow" else "31"
    _line("verdict", paint(_ruled(verdict), colour, sys.stdout))
    if verdict["shadow"] is not None:
        _line("shadow", f"{_ruled(verdict['shadow'])}, if the rules in shadow mode were enforced")
    if verdict["grants"]:
        _line("by grant", f"{' and '.join(verdict['grants'])}: denied without")
    for what in told["not_evaluated"]:
        _line("note", f"not evaluated, a guard may still refuse: {what}")
    if told["grants_unread"]:
        _line("note", f"no grant counts, they cannot be read: {told['grants_unread']}")


def _say_miss(miss: dict[str, Any]) -> None:
    _line("route", "none" + (f": {miss['why']}" if miss["why"] else ""))
    if miss["methods"]:
        _line("", f"the path exists, with {', '.join(miss['methods'])}")
    for near in miss["near"]:
        _line("near", f"{near['name']}, {' '.join(near['methods'])} {near['path']}: {near['difference']}")


def _who(who: dict[str, Any] | None, accepted: list[str] | str) -> str:
    if accepted == "none":
        return "none is asked for"
    if who is None:
        return f"no credential; accepted: {', '.join(accepted)}"
    if "refused" in who:
        return f"refused: {who['refused']}" + (
            f", as a credential of {who['provider']}" if who["provider"] else ""
        )
    told = f"{who['provider']}: {who['subject']}"
    for name in ("client", "roles", "groups", "scopes"):
        if who[name]:
            told += f", {name} {who[name] if name == 'client' else ' '.join(who[name])}"
    if who["provider"] not in accepted:
        told += f"; but this route accepts {', '.join(accepted)}"
    return told + ("; verified" if who["verified"] else "; as given, not verified")


_HOLDS = {True: "holds", False: "does not hold", None: "cannot be evaluated"}


def _say_rule(rule: dict[str, Any]) -> None:
    said = _HOLDS[rule["holds"]]
    if rule["mode"] == "shadow":
        said += "; in shadow, not enforced"
    elif rule["decides"]:
        said += "; decides"
    elif not rule["asked"]:
        said += "; not asked any more"
    _line(rule["effect"], f"{rule['name']}: {said}")
    for part in rule["parts"]:
        _say_part(part)


def _say_part(part: dict[str, Any]) -> None:
    mark = {True: "yes", False: "no", None: "?"}[part["holds"]]
    if part["what"] == "when":
        error = f"  ({part['error']})" if part.get("error") else ""
        _line("", f"  {mark:<4}when {part['wanted'][0]}{error}")
        for value in part.get("values", []):
            _line("", f"        {value['name']} = {value.get('value') or '(' + value['error'] + ')'}")
    else:
        found = ", ".join(part.get("found") or []) or "none"
        verb = "is" if part["what"] in ("methods", "paths") else "held"
        _line("", f"  {mark:<4}{part['what']} {' or '.join(part['wanted'])}; {verb} {found}")


def _ruled(verdict: dict[str, Any]) -> str:
    status = f" {verdict['status']}" if "status" in verdict else ""
    return f"{verdict['verdict']}{status}: {verdict['reason']} {verdict['rule'] or ''}".rstrip()


def _line(name: str, text: str) -> None:
    say(f"  {name:<10}{harmless(text) if not text.startswith(chr(27)) else text}")
