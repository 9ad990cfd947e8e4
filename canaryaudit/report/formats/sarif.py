"""The report as SARIF 2.1.0, which code hosts show as alerts: one per canary that is not indistinguishable.

Others are on what makes the audit unreliable, on a damaged model, and on a gate that did not pass. So a file without
results is that of an audit that found nothing.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import quote

from canaryaudit import __version__
from canaryaudit.formatting import json_safe, shorten, visible
from canaryaudit.report.schema import CanarySummary, Summary
from canaryaudit.report.verdicts import RULE, WORDS, Verdict

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
_LONGEST = 1000
MOST_RESULTS = 5_000
"""Code hosts show no more; the canaries are the worst ones."""
_MOST_REMARKS = 20

Level = Literal["error", "warning"]


@dataclass(frozen=True)
class Rule:
    """A kind of result."""

    id: str
    name: str
    level: Level
    short: str
    full: str


_VERDICTS = {
    Verdict.EXPOSED: Rule("CA001", "SecretExposed", "error", "The model exposes a secret.", RULE["Exposed"]),
    Verdict.RESIDUAL: Rule(
        "CA002",
        "ResidualMemorization",
        "warning",
        "A secret is distinguishable from unseen secrets.",
        "its exposure is above chance, below the limit of an exposed secret, and not lower than before: not "
        "extractable, but still detectable.",
    ),
    Verdict.WEAKENED: Rule(
        "CA003",
        "SecretWeakened",
        "warning",
        "A secret was weakened, not removed.",
        "its exposure is above chance, below the limit of an exposed secret, and at least one bit lower than before "
        "unlearning.",
    ),
    Verdict.INCONCLUSIVE: Rule(
        "CA004", "SecretInconclusive", "warning", "The audit of a secret is inconclusive.", RULE["Inconclusive"]
    ),
}
GATE_FAILED = Rule(
    "CA101",
    "GateFailed",
    "error",
    "The gate failed.",
    "a canary, the model's accuracy or a baseline is not as required.",
)
GATE_INCONCLUSIVE = Rule(
    "CA102",
    "GateInconclusive",
    "error",
    "The gate is inconclusive.",
    "the gate passes only on a verified, complete and calibrated measurement.",
)
_DAMAGED = Rule(
    "CA005",
    "ModelDamaged",
    "error",
    "The model lost more accuracy than allowed.",
    "the secrets were removed, but accuracy on the text outside them fell by more than the limit.",
)
UNRELIABLE = Rule(
    "CA006",
    "AuditUnreliable",
    "warning",
    "The audit's figures are not to be relied on.",
    "the run directory is not as it was written, or the controls failed or are missing.",
)
RULES = (*_VERDICTS.values(), _DAMAGED, UNRELIABLE, GATE_FAILED, GATE_INCONCLUSIVE)


def render_sarif(summary: Summary) -> str:
    """Return the report as SARIF: secrets are masked like everywhere, and no figure is sharper than in the report."""
    corpus = next((fact.value for fact in summary.audited if fact.name == "Corpus"), "corpus")
    found = [canary for canary in summary.canaries if canary.last.verdict in _VERDICTS]
    results = [_canary(summary, canary, corpus) for canary in found[:MOST_RESULTS]]
    seen = Counter[str]()
    for rule, text in (*_whole(summary), *_gate(summary)):
        about = f"{rule.name}/{text.partition(': ')[0]}"
        seen[about] += 1
        what = about if seen[about] == 1 else f"{about}/{seen[about]}"
        results.append(sarif_result(summary.run, rule, text, what, corpus))
    return sarif_document(summary.run, results, RULES)


def render_sarif_error(run: str, message: str) -> str:
    """Return SARIF with one result: the gate is inconclusive, because there is no report."""
    return sarif_document(run, [sarif_result(run, GATE_INCONCLUSIVE, message, GATE_INCONCLUSIVE.name, "corpus")], RULES)


def sarif_document(run: str, results: Sequence[dict[str, Any]], rules: Sequence[Rule]) -> str:
    """Return a document with these results, each of one of these rules."""
    described = [
        {
            "id": rule.id,
            "name": rule.name,
            "shortDescription": {"text": rule.short},
            "fullDescription": {"text": rule.full[0].upper() + rule.full[1:]},
            "defaultConfiguration": {"level": rule.level},
            "properties": {"tags": ["privacy", "memorization"]},
        }
        for rule in rules
    ]
    document = {
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [
            {
                "tool": {"driver": {"name": "canaryaudit", "semanticVersion": __version__, "rules": described}},
                "automationDetails": {"id": f"canaryaudit/{quote(visible(run))}/"},
                "columnKind": "unicodeCodePoints",
                "results": list(results),
            }
        ],
    }
    return json_safe(json.dumps(document, ensure_ascii=False, allow_nan=False) + "\n")


def _whole(summary: Summary) -> Iterator[tuple[Rule, str]]:
    """Yield what is to be said of the audit as a whole."""
    if summary.overall.verdict is Verdict.DAMAGED:
        yield _DAMAGED, summary.overall.headline
    for fault in summary.overall.faults[:_MOST_REMARKS]:
        yield UNRELIABLE, f"{fault} (run directory)"
    tested = [("before", summary.calibration_before), ("after", summary.calibration_after)]
    for when, calibration in tested if summary.unlearned else tested[:1]:
        of = f"controls {when} unlearning" if summary.unlearned else "controls"
        if calibration is None:
            yield UNRELIABLE, f"{of}: there are none, so calibration was not tested"
        elif not calibration.passed:
            yield UNRELIABLE, f"{of}: they failed, so exposures are unreliable"


def _gate(summary: Summary) -> Iterator[tuple[Rule, str]]:
    """Yield why the gate did not pass."""
    if gate := summary.gate:
        rule = GATE_FAILED if gate.status == "failed" else GATE_INCONCLUSIVE
        for remark in (gate.reasons or gate.doubts)[:_MOST_REMARKS]:
            yield rule, remark


def _canary(summary: Summary, canary: CanarySummary, corpus: str) -> dict[str, Any]:
    state = canary.last
    when = "After unlearning" if canary.after else "Before unlearning" if summary.unlearned else "In this model"
    text = f"{canary.id} ({canary.secret}): {WORDS[state.verdict]}. {when}: {state.reason}"
    result = sarif_result(summary.run, _VERDICTS[state.verdict], text, canary.id, corpus)
    result["properties"] = {
        "exposureBits": state.exposure.bits,
        "spaceBits": canary.space_bits,
        "repetitions": canary.repetitions,
    }
    return result


def sarif_result(
    run: str, rule: Rule, text: str, what: str, corpus: str, rules: Sequence[Rule] = RULES
) -> dict[str, Any]:
    """Return one result.

    Args:
        run: Name of the run.
        rule: Its rule.
        text: What to say.
        what: What it is about, which is the same in every audit of the run.
        corpus: The audited file.
        rules: Those of the document.
    """
    name = f"{run}/{what}"
    return {
        "ruleId": rule.id,
        "ruleIndex": rules.index(rule),
        "level": rule.level,
        "message": {"text": shorten(text, _LONGEST)},
        "locations": [
            {
                # A secret has many places, which would give it away: the alert is on the text as a whole.
                "physicalLocation": {
                    "artifactLocation": {"uri": quote(visible(corpus))},
                    "region": {"startLine": 1},
                },
                "logicalLocations": [{"fullyQualifiedName": shorten(name, 200), "kind": "object"}],
            }
        ],
        "partialFingerprints": {"canary/v1": hashlib.sha256(name.encode("utf-8", "replace")).hexdigest()},
    }
