"""Tests of canaryaudit.records.base."""

import pytest
from pydantic import ValidationError

from canaryaudit.errors import RunDirectoryError
from canaryaudit.records import TRAINED_MODEL, ModelId, Record


class Named(Record):
    model: ModelId = TRAINED_MODEL


@pytest.mark.parametrize("text", ["before", "after-x", "after-after-x", "after-before"])
def test_a_model_is_read_from_its_name_and_written_as_it(text: str) -> None:
    model = ModelId.parse(text)
    assert str(model) == text
    assert Named.model_validate({"model": text}).model == Named(model=model).model == model
    assert Named(model=model).model_dump_json() == f'{{"model":"{text}"}}'
    assert Named.model_validate_json(f'{{"model":"{text}"}}').model == model


def test_the_trained_model_is_no_unlearning() -> None:
    assert (TRAINED_MODEL.is_trained, TRAINED_MODEL.unlearning) == (True, None)
    assert (ModelId("x").is_trained, ModelId("x").unlearning) == (False, "x")
    assert ModelId.parse("after-before") != TRAINED_MODEL


@pytest.mark.parametrize("text", ["", "after", "after-", "during", "Before", "x-after-x"])
def test_what_names_no_model_is_refused(text: str) -> None:
    with pytest.raises(RunDirectoryError, match="expected before or after-NAME"):
        ModelId.parse(text)
    with pytest.raises(ValidationError, match="expected before or after-NAME"):
        Named.model_validate({"model": text})


@pytest.mark.parametrize("value", [None, 1, ["before"], {"unlearning": "x"}, b"before"])
def test_a_model_is_named_by_a_string(value: object) -> None:
    with pytest.raises(ValidationError, match="expected before or after-NAME"):
        Named.model_validate({"model": value})


def test_the_schema_says_that_it_is_a_string() -> None:
    assert Named.model_json_schema()["properties"]["model"]["type"] == "string"
