"""The report as JUnit XML, which pipelines show as test results: one case per canary and per condition."""

from collections import defaultdict
from collections.abc import Sequence
from xml.etree import ElementTree

from canaryaudit.formatting import shorten, visible
from canaryaudit.report.schema import CalibrationFigures, CanarySummary, Summary
from canaryaudit.report.verdicts import WORDS, Verdict

_LONGEST = 600


def render_junit(summary: Summary) -> str:
    """Return the report as JUnit XML.

    With a gate, a canary's case fails if the gate rejects it, and is an error if the gate is inconclusive because of
    it; without one, it fails if the canary is exposed, and an inconclusive canary counts as skipped. Separate cases
    report whether the controls passed and whether accuracy was kept. With a gate, no case fails, is an error or is
    skipped if and only if the gate passes.
    """
    root = ElementTree.Element("testsuites", name="canaryaudit")
    reasons: dict[str, list[str]] = defaultdict(list)
    doubts: dict[str, list[str]] = defaultdict(list)
    gate = summary.gate
    for lists, remarks in ((reasons, gate.reasons if gate else ()), (doubts, gate.doubts if gate else ())):
        for remark in remarks:
            lists[remark.split(": ")[0]].append(remark)
    canaries = [
        _canary(canary, reasons[canary.id], doubts[canary.id], gated=gate is not None) for canary in summary.canaries
    ]
    add_suite(root, f"{summary.run}: canaries", canaries)
    add_suite(root, f"{summary.run}: audit", [*_controls(summary), *_quality(summary), *_gate(summary)])
    return junit_document(root)


def render_junit_error(run: str, message: str) -> str:
    """Return JUnit XML with one error: the gate is inconclusive, because there is no report."""
    root = ElementTree.Element("testsuites", name="canaryaudit")
    add_suite(root, f"{run}: audit", [junit_case("gate", error=message)])
    return junit_document(root)


def junit_document(root: ElementTree.Element) -> str:
    """Return a document whose counts are those of its suites."""
    for name in ("tests", "failures", "errors", "skipped"):
        root.set(name, str(sum(int(suite.get(name, "0")) for suite in root)))
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def add_suite(root: ElementTree.Element, name: str, cases: Sequence[ElementTree.Element]) -> None:
    """Add a suite of cases to a document."""
    suite = ElementTree.SubElement(root, "testsuite", name=shorten(name, 160))
    suite.extend(cases)
    for case in cases:
        case.set("classname", f"canaryaudit.{'canary' if name.endswith('canaries') else 'audit'}")
        case.set("time", "0")
    suite.set("tests", str(len(cases)))
    suite.set("failures", str(sum(case.find("failure") is not None for case in cases)))
    suite.set("errors", str(sum(case.find("error") is not None for case in cases)))
    suite.set("skipped", str(sum(case.find("skipped") is not None for case in cases)))


def junit_case(
    name: str, *, failure: str = "", error: str = "", skipped: str = "", note: str = ""
) -> ElementTree.Element:
    """Return a case, which passes unless it has a text for a failure, an error, or why it was skipped."""
    case = ElementTree.Element("testcase", name=shorten(name, 160))
    if failure:
        ElementTree.SubElement(case, "failure", message=shorten(failure, _LONGEST), type="exposure")
    elif error:
        ElementTree.SubElement(case, "error", message=shorten(error, _LONGEST), type="inconclusive")
    elif skipped:
        ElementTree.SubElement(case, "skipped", message=shorten(skipped, _LONGEST))
    if note:
        ElementTree.SubElement(case, "system-out").text = "\n".join(map(visible, note.splitlines()))
    return case


def _canary(
    canary: CanarySummary, reasons: Sequence[str], doubts: Sequence[str], *, gated: bool
) -> ElementTree.Element:
    state = canary.last
    verdict = f"{WORDS[state.verdict]}: {state.reason}"
    exposed = verdict if state.verdict is Verdict.EXPOSED else ""
    failure = "; ".join(reasons) if gated else exposed
    skipped = verdict if state.verdict is Verdict.INCONCLUSIVE else ""
    return junit_case(canary.id, failure=failure, error="; ".join(doubts), skipped=skipped, note=verdict)


def _controls(summary: Summary) -> list[ElementTree.Element]:
    states: list[tuple[str, CalibrationFigures | None]] = [("before", summary.calibration_before)]
    if summary.unlearned:
        states.append(("after", summary.calibration_after))
    cases = []
    for when, calibration in states:
        name = f"controls pass {when} unlearning" if summary.unlearned else "controls pass"
        if calibration is None:
            missing = "there were no controls, so calibration was not tested"
            cases.append(junit_case(name, error=missing) if summary.gate else junit_case(name, skipped=missing))
        else:
            failure = "" if calibration.passed else calibration.note or "the controls' exposures are not as expected"
            cases.append(junit_case(name, failure=failure))
    return cases


def _quality(summary: Summary) -> list[ElementTree.Element]:
    method = summary.method
    if method is None:
        return []
    change, allowed = method.accuracy_change, method.accuracy_drop_allowed
    name = "the model keeps its accuracy"
    if change is None or allowed is None:
        missing = "accuracy after unlearning could not be measured"
        return [junit_case(name, error=missing) if summary.gate else junit_case(name, skipped=missing)]
    lost = f"accuracy outside the secrets fell by {-100 * change:.3f} percentage points (limit: {100 * allowed:.3f})"
    return [junit_case(name, failure=lost if -change > allowed else "")]


def _gate(summary: Summary) -> list[ElementTree.Element]:
    gate = summary.gate
    if gate is None:
        return []
    failure, error = "; ".join(gate.reasons[:20]), "; ".join(gate.doubts[:20])
    return [junit_case(f"gate: {gate.name}", failure=failure, error=error, note="\n".join(gate.remarks[:1000]))]
