"""What pipelines read of a run on rows: its records and the gate, in JUnit XML and SARIF, and its page's summary."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from xml.etree import ElementTree

from canaryaudit.report.formats.junit import add_suite, junit_case, junit_document
from canaryaudit.report.formats.markdown import plain
from canaryaudit.report.formats.sarif import GATE_FAILED, GATE_INCONCLUSIVE, UNRELIABLE, Rule
from canaryaudit.report.images.schema import ImageGate
from canaryaudit.report.tables.schema import TableGate

RowsGate = TableGate | ImageGate
_MOST_REMARKS = 20
INCONCLUSIVE = replace(GATE_INCONCLUSIVE, full="the gate passes only if all records of the run are verified.")
UNSOUND = replace(UNRELIABLE, full="the run directory is not as it was written.")


def failed_because(full: str) -> Rule:
    """Return the rule of a gate that failed."""
    return replace(GATE_FAILED, full=full)


def rows_junit(
    name: str, cases: list[ElementTree.Element], faults: Sequence[str], gate: RowsGate | None, condition: str
) -> str:
    """Return a report as JUnit XML: a case for each result of the run, its records, and the gate.

    Args:
        name: Of the run.
        cases: Of the results.
        faults: Of the run's files.
        gate: Of the pipeline, if there is one.
        condition: Under which it passes.
    """
    root = ElementTree.Element("testsuites", name="canaryaudit")
    add_suite(root, f"{name}: requests", cases)
    records = "; ".join(faults[:_MOST_REMARKS])
    own = [junit_case("records are verified", **({"error": records} if gate else {"skipped": records}))]
    if gate:
        failure, error = "; ".join(gate.reasons[:_MOST_REMARKS]), "; ".join(gate.doubts[:_MOST_REMARKS])
        note = "\n".join(gate.remarks[:1000])
        own.append(junit_case(f"gate: {condition}", failure=failure, error=error, note=note))
    add_suite(root, f"{name}: audit", own)
    return junit_document(root)


def common_alerts(faults: Sequence[str], gate: RowsGate | None, failed: Rule) -> Iterator[tuple[Rule, str, str]]:
    """Yield alerts about the run's files and the gate: the rule, what to say, and what it is about."""
    for number, fault in enumerate(faults[:_MOST_REMARKS], 1):
        yield UNSOUND, f"{fault} (run directory)", f"fault/{number}"
    if gate:
        rule = failed if gate.status == "failed" else INCONCLUSIVE
        for number, remark in enumerate((gate.reasons or gate.doubts)[:_MOST_REMARKS], 1):
            yield rule, remark, f"gate/{number}"


def rows_step_summary(
    title: str, sentences: Sequence[str], gate: RowsGate | None, warnings: Sequence[str], results: str
) -> str:
    """Return the result, the gate with its reasons, warnings, and all requests of a run, as Markdown.

    Args:
        title: As Markdown.
        sentences: The result, and the gate's.
        gate: Of the pipeline, if there is one.
        warnings: What must be known.
        results: As a table.
    """
    remarks = gate.remarks if gate else ()
    blocks = [
        f"## {title}",
        f"**{plain(sentences[0])}**",
        *(plain(sentence) for sentence in sentences[1:]),
        "\n".join(f"- {plain(remark, 600)}" for remark in remarks[:_MOST_REMARKS]),
        f"and {len(remarks) - _MOST_REMARKS:,} more" if len(remarks) > _MOST_REMARKS else "",
        "\n".join(f"> **Warning:** {plain(own, 600)}" for own in warnings[:_MOST_REMARKS]),
        results,
    ]
    return "\n\n".join(block for block in blocks if block) + "\n\n"
