"""A grant in the guard: it opens what its role opens, only while it lasts, and the record names it."""

from __future__ import annotations

from typing import Any

import msgspec
from tests.policy.conftest import configuration_of, identity_of
from tests.policy.strategies import ROLES
from tests.replay.test_judge import asked
from tests.replay.test_replay import guarded

from gatebook.config.model import Configuration
from gatebook.replay.judge import Replay
from gatebook.trial.judge import Judge

ANN = identity_of(roles=("reader",))
GRANTED = msgspec.structs.replace(ANN, roles=("reader", "admin"), grants=(("abcdefgh", "admin"),))


def policy(*allow: dict[str, Any], deny: tuple[dict[str, Any], ...] = ()) -> Configuration:
    route = {"path": "/f/{x}/{rest...}", "identity": ["partners"], "allow": list(allow), "deny": list(deny)}
    return configuration_of(route, roles=ROLES)


ADMINS = {"name": "admins", "roles": ["admin"]}
WRITERS = {"name": "writers", "roles": ["writer"]}
READERS = {"name": "readers", "roles": ["reader"]}


def test_access_that_a_grant_allowed_names_it() -> None:
    found = guarded(policy(ADMINS), asked(), GRANTED)
    assert (found.decision.verdict, found.decision.grants) == ("allow", ("abcdefgh",))
    assert found.identity is not None
    assert (found.identity.roles, found.identity.granted) == (("reader",), ("admin",))


def test_granted_role_holds_what_it_includes() -> None:
    assert guarded(policy(WRITERS), asked(), GRANTED).decision.grants == ("abcdefgh",)


def test_access_that_needed_no_grant_names_none() -> None:
    found = guarded(policy(ADMINS, READERS), asked(), GRANTED)
    assert (found.decision.rule, found.decision.grants) == ("admins", ())
    assert guarded(policy(READERS), asked(), GRANTED).decision.grants == ()


def test_denied_access_names_no_grant() -> None:
    found = guarded(policy(READERS, deny=({"name": "no-admins", "roles": ["admin"]},)), asked(), GRANTED)
    assert (found.decision.verdict, found.decision.reason, found.decision.grants) == ("deny", "deny_rule", ())


def test_of_several_grants_the_one_that_suffices_is_named() -> None:
    both = msgspec.structs.replace(
        ANN, roles=("reader", "writer", "admin"), grants=(("bbbbbbbb", "writer"), ("abcdefgh", "admin"))
    )
    assert guarded(policy(ADMINS), asked(), both).decision.grants == ("abcdefgh",)
    needs_both = {"name": "both", "when": "'writer' in identity.roles && 'admin' in identity.roles"}
    flat = configuration_of({"path": "/f/{x}/{rest...}", "identity": ["partners"], "allow": [needs_both]})
    assert guarded(flat, asked(), both).decision.grants == ("bbbbbbbb", "abcdefgh")


def test_replay_knows_the_roles_that_were_granted() -> None:
    configuration = policy(ADMINS)
    decision = guarded(configuration, asked(), GRANTED)
    assert Replay(Judge(configuration)).judge(decision).kind == "same"
    assert Replay(Judge(policy(READERS)), [configuration]).judge(decision).kind == "other rule"
