"""`where`: one CEL expression of type bool over a record that is to be sent elsewhere. Pure.

In: `record`, the item in our own form, as a map; and `kind`. What cannot be evaluated holds: a filter that is
wrong about some record sends one too many, and never loses one. `has(record.identity.subject)` asks for what may
be missing.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from cel_expr_python import cel

from gatebook.policy.condition import compile_in

_environment = cel.NewEnv(
    variables={"record": cel.Type.Map(cel.Type.STRING, cel.Type.DYN), "kind": cel.Type.STRING}
)


class Where(NamedTuple):
    program: Any

    def holds(self, kind: str, record: dict[str, Any]) -> bool:
        """False only where the expression says so."""
        try:
            value = self.program.eval(data={"kind": kind, "record": record}).value()
        except Exception:  # the C++ runtime raises RuntimeError, ValueError or TypeError, as it pleases
            return True
        return value is not False


def compile_where(text: str) -> Where:
    """Raises ValueError, in CEL's own words, unless `text` is an expression of type bool."""
    program = compile_in(_environment, text)
    if program.return_type() not in (cel.Type.BOOL, cel.Type.DYN):
        raise ValueError(f"is of type {program.return_type().name()}")
    return Where(program)
