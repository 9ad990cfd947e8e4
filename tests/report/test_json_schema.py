import json

import jsonschema
import pytest

from canaryaudit.report import schema_path
from canaryaudit.report.formats.json_text import render_json
from canaryaudit.report.json_schema import generate_schemas
from tests.report import builders as make
from tests.report.formats.test_formats import hostile_summary
from tests.report.summary.test_build import several_methods


@pytest.fixture(scope="module")
def validator():
    schema = json.loads(schema_path().read_text("utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def test_the_published_schemas_are_those_of_the_models():
    """After a change of the models: python -m tests.golden; where an old reader would misread it, a new version."""
    for path, text in generate_schemas().items():
        assert path.read_text("utf-8") == text, path


@pytest.mark.parametrize(
    "make_summary",
    [make.before_after, lambda: make.before_after(after=None, fail_above=1), several_methods, hostile_summary],
)
def test_every_report_is_valid(validator, make_summary):
    validator.validate(json.loads(render_json(make_summary())))


@pytest.mark.parametrize(
    ("place", "value"),
    [("schema_version", "one"), ("canaries", {}), ("surprise", 1), ("overall", None)],
)
def test_what_is_no_report_is_not_valid(validator, place, value):
    document = json.loads(render_json(make.before_after()))
    document[place] = value
    assert not validator.is_valid(document)


def test_the_schema_says_its_version_and_what_every_figure_means():
    schema = json.loads(schema_path().read_text("utf-8"))
    assert schema["$id"] == "urn:canaryaudit:report:1"
    assert schema["$defs"]["CanaryState"]["properties"]["greedy"]["description"].startswith("Whether the greedy")
