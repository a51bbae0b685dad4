"""The JUnit XML report: a test case for each item and each rule, for CI systems.

The dialect is that of Jenkins' xUnit plugin, which CI systems read.
"""

from __future__ import annotations

import re
from collections import Counter
from xml.etree import ElementTree  # writes, never reads

from harness.reports.summary import Summary
from harness.verdict import Finding

SUITE = "work-queue"
# what XML 1.0 can't hold, not even escaped
UNPRINTABLE = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def render(summary: Summary, items: tuple[str, ...]) -> str:
    """The report as XML text.

    Args:
        summary: of the run.
        items: those seeded; each distinct one is a test case by name.
    """
    suite = ElementTree.Element("testsuite", name=SUITE, time=f"{summary.seconds:.3f}")
    findings = summary.verdict.findings if summary.verdict else ()
    about: dict[str, list[Finding]] = {}
    for finding in findings:
        about.setdefault(finding.item or finding.rule, []).append(finding)
    extra = [name for name in about if name not in items]
    for item, count in Counter(items).items():
        case = _case(suite, "items", item, about.get(item, []))
        if summary.verdict is None:
            ElementTree.SubElement(case, "skipped", message="the run ended before a verdict")
        elif count > 1:
            case.set("assertions", str(count))
    for name in extra:
        _case(suite, "rules", name, about[name])
    if summary.failure:
        case = ElementTree.SubElement(suite, "testcase", classname=SUITE, name="run")
        error = ElementTree.SubElement(case, "error", type=summary.failure.kind)
        error.set("message", _printable(summary.failure.text))
    elif not extra:
        _case(suite, "rules", "every other rule holds", [])
    cases = suite.findall("testcase")
    suite.set("tests", str(len(cases)))
    for kind, attribute in (("failure", "failures"), ("error", "errors"), ("skipped", "skipped")):
        suite.set(attribute, str(len(suite.findall(f"testcase/{kind}"))))
    ElementTree.indent(suite)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(
        suite, encoding="unicode"
    )


def _case(
    suite: ElementTree.Element, group: str, name: str, findings: list[Finding]
) -> ElementTree.Element:
    case = ElementTree.SubElement(
        suite, "testcase", classname=f"{SUITE}.{group}", name=_printable(name)
    )
    for finding in findings:
        failure = ElementTree.SubElement(case, "failure", type=finding.rule)
        failure.set("message", _printable(finding.text))
    return case


def _printable(text: str) -> str:
    return UNPRINTABLE.sub(lambda match: f"\\x{ord(match[0]):02x}", text)
