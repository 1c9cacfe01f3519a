"""The role hierarchy: which roles somebody holds who holds some.

In: the configuration's `roles`, and the roles of a credential. Out: those roles and all that they include,
directly or by others. Compiled once; a configuration without `includes` costs nothing. A circle makes the
roles in it equal here; that it is an error is said by config.crosscheck. Never takes a role away. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from gatebook.config.model import Role
from gatebook.identity.types import Identity


class Hierarchy:
    """False where no role includes another."""

    def __init__(self, roles: Mapping[str, Role]) -> None:
        self._all = {name: _closure(name, roles) for name, role in roles.items() if role.includes}

    def __bool__(self) -> bool:
        return bool(self._all)

    def held(self, roles: Iterable[str]) -> tuple[str, ...]:
        """`roles` in their order, then what they include."""
        found = dict.fromkeys(roles)
        for name in tuple(found):
            found.update(dict.fromkeys(self._all.get(name, ())))
        return tuple(found)

    def widen(self, identity: Identity) -> Identity:
        """The same identity, with all roles that it holds."""
        if self._all.keys().isdisjoint(identity.roles):
            return identity
        return msgspec.structs.replace(identity, roles=self.held(identity.roles))


def _closure(name: str, roles: Mapping[str, Role]) -> tuple[str, ...]:
    found = {name: None}
    waiting = [name]
    while waiting:
        role = roles.get(waiting.pop())
        for inner in role.includes if role is not None else ():
            if inner not in found:
                found[inner] = None
                waiting.append(inner)
    return tuple(found)
