"""The report as SARIF 2.1.0, which code hosts show as alerts: one result per canary that is not indistinguishable."""

import hashlib
import json
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
class _Rule:
    """A kind of result."""

    id: str
    name: str
    level: Level
    short: str
    full: str


_VERDICTS = {
    Verdict.EXPOSED: _Rule("CA001", "SecretExposed", "error", "The model exposes a secret.", RULE["Exposed"]),
    Verdict.RESIDUAL: _Rule(
        "CA002",
        "ResidualMemorization",
        "warning",
        "A secret is distinguishable from unseen secrets.",
        RULE["Residual memorization"],
    ),
    Verdict.WEAKENED: _Rule(
        "CA003", "SecretWeakened", "warning", "A secret was weakened, not removed.", RULE["Weakened"]
    ),
    Verdict.INCONCLUSIVE: _Rule(
        "CA004", "SecretInconclusive", "warning", "The audit of a secret is inconclusive.", RULE["Inconclusive"]
    ),
}
_GATE_FAILED = _Rule(
    "CA101",
    "GateFailed",
    "error",
    "The gate failed.",
    "a canary, the model's accuracy or a baseline is not as required.",
)
_GATE_INCONCLUSIVE = _Rule(
    "CA102",
    "GateInconclusive",
    "error",
    "The gate is inconclusive.",
    "the gate passes only on a verified, complete and calibrated measurement.",
)
RULES = (*_VERDICTS.values(), _GATE_FAILED, _GATE_INCONCLUSIVE)


def render_sarif(summary: Summary) -> str:
    """Return the report as SARIF: secrets are masked like everywhere, and no figure is sharper than in the report."""
    corpus = next((fact.value for fact in summary.audited if fact.name == "Corpus"), "corpus")
    found = [canary for canary in summary.canaries if canary.last.verdict in _VERDICTS]
    results = [_canary(summary, canary, corpus) for canary in found[:MOST_RESULTS]]
    if gate := summary.gate:
        rule = _GATE_FAILED if gate.status == "failed" else _GATE_INCONCLUSIVE
        for number, remark in enumerate((gate.reasons or gate.doubts)[:_MOST_REMARKS]):
            results.append(_result(summary, rule, f"Gate: {remark}", f"gate/{number}", corpus))
    rules = [
        {
            "id": rule.id,
            "name": rule.name,
            "shortDescription": {"text": rule.short},
            "fullDescription": {"text": rule.full[0].upper() + rule.full[1:]},
            "defaultConfiguration": {"level": rule.level},
            "properties": {"tags": ["privacy", "memorization"]},
        }
        for rule in RULES
    ]
    document = {
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [
            {
                "tool": {"driver": {"name": "canaryaudit", "semanticVersion": __version__, "rules": rules}},
                "automationDetails": {"id": f"canaryaudit/{quote(visible(summary.run))}/"},
                "columnKind": "unicodeCodePoints",
                "results": results,
            }
        ],
    }
    return json_safe(json.dumps(document, ensure_ascii=False, allow_nan=False) + "\n")


def _canary(summary: Summary, canary: CanarySummary, corpus: str) -> dict[str, Any]:
    state = canary.last
    when = "After unlearning" if canary.after else "Before unlearning" if summary.unlearned else "In this model"
    text = f"{canary.id} ({canary.secret}): {WORDS[state.verdict]}. {when}: {state.reason}"
    result = _result(summary, _VERDICTS[state.verdict], text, canary.id, corpus)
    result["properties"] = {
        "exposureBits": state.exposure.bits,
        "spaceBits": canary.space_bits,
        "repetitions": canary.repetitions,
    }
    return result


def _result(summary: Summary, rule: _Rule, text: str, what: str, corpus: str) -> dict[str, Any]:
    name = f"{summary.run}/{what}"
    return {
        "ruleId": rule.id,
        "ruleIndex": RULES.index(rule),
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
