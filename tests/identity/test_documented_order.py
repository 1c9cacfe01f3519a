"""docs/identity.md lists the checks of a token in their order; a token that fails many fails by the first."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from tests.identity.mint import ABSENT, NOW, claims, mint, oidc, provider_keys, rsa_key

from gatebook.identity.jws import Unfit
from gatebook.identity.jwt import read, verify

DOCUMENT = (Path(__file__).parents[2] / "docs" / "identity.md").read_text("utf-8")


class Fault(NamedTuple):
    """What is wrong with a token in one respect."""

    header: dict[str, Any]
    claims: dict[str, Any]
    forged: bool = False


FAULTS = {
    4: Fault({"crit": ["b64"]}, {}),
    5: Fault({}, {"iss": "https://login.example/"}),
    6: Fault({"alg": "RS512"}, {}),
    7: Fault({"typ": "logout+jwt"}, {}),
    8: Fault({"kid": "nobody"}, {}),
    9: Fault({"kid": "e1"}, {}),
    10: Fault({}, {}, forged=True),
    11: Fault({}, {"aud": ["another-api"]}),
    12: Fault({}, {"nbf": "soon"}),
    13: Fault({}, {"exp": NOW - 31}),
    14: Fault({}, {"nbf": NOW + 31}),
    15: Fault({}, {"iat": NOW - 4000}),
    16: Fault({}, {"cnf": {"jkt": "x"}}),
    17: Fault({}, {"sub": ""}),
}


def documented() -> dict[int, str]:
    """Number of the check -> its reason."""
    section = DOCUMENT.partition("### Checks of a token\n")[2].partition("\n#")[0]
    return {int(number): reason for number, reason in re.findall(r"^\| (\d+) \|.*\| `(\w+)` \|$", section, re.M)}


def refusal(faults: list[Fault]) -> str:
    header: dict[str, Any] = {}
    said: dict[str, Any] = {}
    for fault in reversed(faults):  # where two touch the same, the earlier check's stays
        header |= fault.header
        said |= fault.claims
    key = rsa_key("attacker" if any(fault.forged for fault in faults) else "r1")
    token = mint(claims(**said), header, key.pkcs1)
    try:
        verify(read(token), "staff", oidc(), provider_keys(), bytes(32), NOW)
    except Unfit as error:
        return error.reason
    return ""


def test_every_check_but_those_of_the_form_is_tried_here() -> None:
    assert sorted(documented()) == [1, 2, 3, *FAULTS]
    assert refusal([]) == ""


@pytest.mark.parametrize("number", FAULTS)
def test_token_that_fails_every_check_from_here_on_fails_by_this_one(number: int) -> None:
    assert refusal([FAULTS[number]]) == documented()[number]
    assert refusal([fault for at, fault in FAULTS.items() if at >= number]) == documented()[number]


def test_token_without_issue_time_is_as_old_as_it_may_still_become() -> None:
    assert refusal([Fault({}, {"iat": ABSENT, "exp": NOW + 3631})]) == documented()[15]
