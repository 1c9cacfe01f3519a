"""Cases files: read strictly, with a line for everything that is wrong, and no case that expects nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.policy.conftest import configuration_of

from gatebook.errors import ConfigError
from gatebook.trial.cases import Located, read_cases

CONFIGURATION = configuration_of("/o")
NOW = 1.7e9


def cases(folder: Path, text: str) -> list[Located]:
    path = folder / "cases.yaml"
    path.write_text(text)
    return read_cases(path, CONFIGURATION, NOW)


def problems(folder: Path, text: str) -> list[str]:
    with pytest.raises(ConfigError) as raised:
        cases(folder, text)
    return [str(problem).removeprefix(f"{folder}/") for problem in raised.value.problems]


def test_short_and_long_forms_mean_the_same(tmp_path: Path) -> None:
    short, long = cases(
        tmp_path,
        """cases:
  - {name: a, request: GET /o?x=1, identity: none, expect: deny}
  - name: b
    request: {method: GET, target: "/o?x=1"}
    expect: {verdict: deny}
""",
    )
    assert short.case.request == long.case.request
    assert short.case.expect == long.case.expect
    assert short.case.identity is long.case.identity is None
    assert (short.line, long.line) == (2, 3)


def test_time_is_the_cases_or_the_files_or_now(tmp_path: Path) -> None:
    text = """cases:
  - {name: a, request: GET /o, expect: deny, at: "2026-01-05T10:00:00+01:00"}
  - {name: b, request: GET /o, expect: deny}
"""
    assert [each.at for each in cases(tmp_path, text)] == [1767603600.0, NOW]
    assert [each.at for each in cases(tmp_path, "at: 2026-01-05\n" + text)] == [1767603600.0, 1767571200.0]


def test_request_says_all_that_conditions_read(tmp_path: Path) -> None:
    (located,) = cases(
        tmp_path,
        """cases:
  - name: a
    request:
      {method: GET, target: "/o?q=1", host: "api:8443", headers: {X-A: b}, address: "::1", port: 7,
       protocol: "2", tls: none}
    expect: deny
""",
    )
    facts = located.case.request.request(located.at).facts()
    assert (facts.host, facts.headers, facts.address, facts.port) == ("api:8443", {"x-a": "b"}, "::1", 7)
    assert (facts.protocol, facts.tls_version, facts.tls_sni) == ("2", None, None)


ONE = "cases:\n  - {name: a, request: GET /o, expect: deny"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "cases.yaml:1:1: the file is no mapping; expected `cases:` and a list of them"),
        ("cases: []", "cases.yaml:1:8: cases: found an empty list; expected at least 1 item"),
        (f"{ONE}, expct: allow}}", "cases.yaml:2:46: cases[0].expct: unknown key (did you mean `expect`?)"),
        ("cases:\n  - {name: a, request: GET /o}", "cases.yaml:2:5: cases[0].expect: missing"),
        (
            "cases:\n  - {name: a, request: GET /o, expect: {}}",
            "cases.yaml:2:40: cases[0].expect: found an empty mapping; "
            "expected one of verdict, status, reason, rule, route, shadow",
        ),
        ("cases:\n  - {name: a, request: GET /o, expect: maybe}", "cases.yaml:2:40: cases[0].expect.verdict"),
        (
            "cases:\n  - {name: a, request: GET /o, expect: {reason: no_rul}}",
            "cases.yaml:2:49: cases[0].expect.reason: found 'no_rul'; expected a reason as records have it",
        ),
        (
            "cases:\n  - {name: a, request: /o, expect: deny}",
            "cases.yaml:2:24: cases[0].request: found '/o'; expected a method and a path, such as GET /orders/7",
        ),
        (
            f"{ONE}, identity: {{provider: partner}}}}",
            "cases.yaml:2:67: cases[0].identity.provider: no identity provider is called 'partner' "
            "(did you mean `partners`?)",
        ),
        (f"{ONE}, identity: {{role: [a]}}}}", "cases.yaml:2:57: cases[0].identity.role: unknown key"),
        (
            f"{ONE}, identity: {{roles: a}}}}",
            "cases.yaml:2:64: cases[0].identity.roles: found 'a'; expected a list",
        ),
        (f"{ONE}, at: soon}}", "cases.yaml:2:50: cases[0].at: found 'soon'; expected a time such as 2026-11-24"),
        (
            f"{ONE}}}\n  - {{name: a, request: GET /p, expect: deny}}",
            "cases.yaml:3:12: cases[1].name: a second case 'a'; expected a name of its own; the first is in line",
        ),
        (f"{ONE}}}\ncases: []", "cases.yaml:3:1: the key 'cases' a second time"),
        ("cases: [{name: !!python/name:os.system x}]", "cases.yaml:1:16: the tag"),
    ],
)
def test_what_is_wrong_with_a_file_is_told_with_its_line(tmp_path: Path, text: str, said: str) -> None:
    (found,) = problems(tmp_path, text)
    assert found.startswith(said)


def test_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        read_cases(tmp_path / "none.yaml", CONFIGURATION, NOW)
