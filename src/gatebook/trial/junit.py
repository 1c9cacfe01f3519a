"""Results as JUnit XML, for CI systems.

In: results. Out: bytes. Only the elements and attributes that all known schemas of the format share, each that any
of them requires, in their order. The host is `localhost` and times are 0, so the same results always give the same
bytes, but for the moment of the run. Pure.
"""

from __future__ import annotations

import datetime
from itertools import groupby
from xml.etree import ElementTree

from gatebook.scrub import visible
from gatebook.trial.suite import Result


def junit(results: list[Result], now: datetime.datetime) -> bytes:
    """One `testsuite` for each file of cases; a case's class is its route."""
    suites = ElementTree.Element("testsuites")
    for number, (file, group) in enumerate(groupby(results, key=lambda result: result.file)):
        cases = list(group)
        suite = ElementTree.SubElement(
            suites,
            "testsuite",
            {
                "id": str(number),
                "name": visible(file),
                "package": "gatebook.policy",
                "timestamp": now.astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S"),
                "hostname": "localhost",
                "tests": str(len(cases)),
                "failures": str(sum(bool(case.wrong) for case in cases)),
                "errors": "0",
                "time": "0",
            },
        )
        ElementTree.SubElement(suite, "properties")
        for case in cases:
            _case(suite, case)
        ElementTree.SubElement(suite, "system-out")
        ElementTree.SubElement(suite, "system-err")
    ElementTree.indent(suites)
    made: bytes = ElementTree.tostring(suites, "utf-8", xml_declaration=True)
    return made + b"\n"


def _case(suite: ElementTree.Element, result: Result) -> None:
    named = {"name": visible(result.name), "classname": result.route or "none", "time": "0"}
    case = ElementTree.SubElement(suite, "testcase", named)
    if result.wrong:
        said = visible("; ".join(result.wrong))
        failure = ElementTree.SubElement(case, "failure", {"message": said, "type": "verdict"})
        failure.text = f"{visible(result.file)}:{result.line}: {said}"
