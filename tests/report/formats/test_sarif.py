"""SARIF: the structure that the standard requires, and an alert on everything that is not as it should be."""

import json
from typing import Any
from urllib.parse import unquote, urlsplit

import jsonschema
import pytest

from canaryaudit.canaries.canary import Canary
from canaryaudit.report import Summary
from canaryaudit.report.formats.sarif import RULES, render_sarif
from canaryaudit.report.verdicts import Verdict
from tests.golden import golden_summary
from tests.report import builders as make
from tests.report.formats.test_formats import HOSTILE, hostile_summary


def closed(required: tuple[str, ...], **properties: object) -> dict[str, object]:
    """Return the schema of an object that has no properties but these."""
    names = {"additionalProperties": False, "required": list(required), "properties": properties}
    return {"type": "object", **names}


TEXT = closed(("text",), text={"type": "string"})
LEVEL = {"enum": ["none", "note", "warning", "error"]}

TEXT = closed(("text",), text={"type": "string"})
LEVEL = {"enum": ["none", "note", "warning", "error"]}

# Of sections 3.13 to 3.52 of the standard: what this tool writes, with what is required of it.
LOG = closed(
    ("version", "runs"),
    **{"$schema": {"type": "string", "format": "uri"}},
    version={"const": "2.1.0"},
    runs={
        "type": "array",
        "minItems": 1,
        "maxItems": 1,
        "items": closed(
            ("tool", "results"),
            tool=closed(
                ("driver",),
                driver=closed(
                    ("name",),
                    name={"const": "canaryaudit"},
                    semanticVersion={"type": "string", "pattern": r"^\d+\.\d+\.\d+"},
                    rules={
                        "type": "array",
                        "uniqueItems": True,
                        "items": closed(
                            ("id", "shortDescription", "fullDescription"),  # the latter two for code hosts
                            id={"type": "string", "pattern": r"^CA\d{3}$"},
                            name={"type": "string", "pattern": r"^([A-Z][a-z]+)+$"},
                            shortDescription=TEXT,
                            fullDescription=TEXT,
                            defaultConfiguration=closed((), level=LEVEL),
                            properties={"type": "object"},
                        ),
                    },
                ),
            ),
            automationDetails=closed((), id={"type": "string", "pattern": "^canaryaudit/.*/$"}),
            columnKind={"enum": ["utf16CodeUnits", "unicodeCodePoints"]},
            results={
                "type": "array",
                "items": closed(
                    ("message", "ruleId", "locations", "partialFingerprints"),
                    ruleId={"type": "string"},
                    ruleIndex={"type": "integer", "minimum": 0},
                    level=LEVEL,
                    message=TEXT,
                    locations={
                        "type": "array",
                        "maxItems": 1,
                        "items": closed(
                            ("physicalLocation",),
                            physicalLocation=closed(
                                ("artifactLocation",),
                                artifactLocation=closed(("uri",), uri={"type": "string", "pattern": "^[!-~]+$"}),
                                region=closed(("startLine",), startLine={"type": "integer", "minimum": 1}),
                            ),
                            logicalLocations={
                                "type": "array",
                                "items": closed((), fullyQualifiedName={"type": "string"}, kind={"const": "object"}),
                            },
                        ),
                    },
                    partialFingerprints={"type": "object", "additionalProperties": {"type": "string"}},
                    properties={"type": "object"},
                ),
            },
        ),
    },
)


def results_of(summary: Summary) -> list[Any]:
    """Return the results of a document that is as the standard requires."""
    document = json.loads(render_sarif(summary))
    jsonschema.Draft202012Validator.check_schema(LOG)
    jsonschema.Draft202012Validator(LOG).validate(document)
    results = document["runs"][0]["results"]
    rules = document["runs"][0]["tool"]["driver"]["rules"]
    assert [rule["id"] for rule in rules] == [rule.id for rule in RULES]
    fingerprints = [result["partialFingerprints"]["canary/v1"] for result in results]
    assert len(set(fingerprints)) == len(fingerprints), "a host takes results with the same one for one"
    for result in results:
        assert rules[result["ruleIndex"]]["id"] == result["ruleId"]
        assert rules[result["ruleIndex"]]["defaultConfiguration"]["level"] == result["level"]
        assert not urlsplit(result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]).scheme
    return list(results)


def names_of(summary: Summary) -> list[tuple[str, str]]:
    """Return the name of each result's rule, and the beginning of its message."""
    names = {rule.id: rule.name for rule in RULES}
    return [(names[result["ruleId"]], result["message"]["text"].split(":")[0]) for result in results_of(summary)]


def judged(verdict: Verdict, **overall: object) -> Summary:
    summary = make.before_after()
    return summary.model_copy(update={"overall": summary.overall.model_copy(update={"verdict": verdict, **overall})})


def test_an_audit_that_found_nothing_has_no_results() -> None:
    assert results_of(make.before_after()) == []
    assert results_of(make.before_after(fail_above=10)) == []


def test_every_canary_that_is_not_indistinguishable_is_a_result() -> None:
    summary = make.before_after(after=None)
    found = names_of(summary)
    assert [name for name, _ in found] == ["SecretExposed"] * 4
    assert [text.split()[0] for _, text in found] == [
        canary.id for canary in summary.canaries if canary.last.verdict is Verdict.EXPOSED
    ]
    assert [name for name, _ in names_of(golden_summary())] == ["SecretWeakened", *["GateFailed"] * 3]


@pytest.mark.parametrize(
    ("summary", "result"),
    [
        (judged(Verdict.DAMAGED), "ModelDamaged"),
        (judged(Verdict.INCONCLUSIVE, faults=("model.json is damaged (changed)",)), "AuditUnreliable"),
        (make.before_after().model_copy(update={"calibration_after": None}), "AuditUnreliable"),
        (make.before_after(fail_above=2.0), "GateFailed"),
    ],
)
def test_what_is_wrong_with_the_whole_audit_is_a_result(summary: Summary, result: str) -> None:
    assert result in {name for name, _ in names_of(summary)}


def test_failed_controls_and_a_gate_that_is_inconclusive_are_results() -> None:
    found = names_of(make.before_after(calibrated=False, fail_above=10))
    assert ("AuditUnreliable", "controls before unlearning") in found
    assert ("GateInconclusive", "controls after unlearning") in found


def test_an_alert_is_the_same_alert_the_next_time() -> None:
    first, second = (results_of(make.before_after(after=None, fail_above=limit)) for limit in (2.0, 20.0))
    prints = [{result["partialFingerprints"]["canary/v1"] for result in results} for results in (first, second)]
    assert prints[1] <= prints[0]
    other = results_of(make.before_after(after=None, run_name="other"))
    assert prints[0].isdisjoint(result["partialFingerprints"]["canary/v1"] for result in other)


def test_hidden_secrets_and_markup_do_not_get_into_the_file() -> None:
    given = Canary(id="canary-01", template=make.PHONE, completion="7291048365", repetitions=6, origin="given")
    summary = make.before_after({"canary-01": 33.2}, None, make.canary_set([given]))
    assert names_of(summary) == [("SecretExposed", "canary-01 (••••••••••)")]
    assert "7291048365" not in render_sarif(summary)
    whole = render_sarif(hostile_summary())
    assert {name for name, _ in names_of(hostile_summary())} == {"AuditUnreliable"}, "it has no controls"
    assert "\x1b" not in whole
    assert "\u202e" not in whole
    assert unquote(json.loads(whole)["runs"][0]["automationDetails"]["id"]).startswith("canaryaudit/</script>")
    assert HOSTILE not in whole
