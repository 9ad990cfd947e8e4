"""The published JSON Schemas of what the report writes as JSON: one file for each version, never changed afterwards."""

import json
from pathlib import Path

from pydantic import BaseModel

from canaryaudit.report.comparison.comparison import COMPARISON_VERSION, Comparison
from canaryaudit.report.images.comparison import IMAGES_COMPARISON_VERSION, ImagesComparison
from canaryaudit.report.images.schema import IMAGES_VERSION, ImagesSummary
from canaryaudit.report.schema import SUMMARY_VERSION, Summary
from canaryaudit.report.tables.comparison import TABLES_COMPARISON_VERSION, TablesComparison
from canaryaudit.report.tables.schema import TABLES_VERSION, TablesSummary

SCHEMAS = Path(__file__).parent / "schemas"


def schema_path(name: str = "report", version: int = SUMMARY_VERSION) -> Path:
    """Return the file of a published schema."""
    return SCHEMAS / f"{name}-{version}.schema.json"


def generate_schemas() -> dict[Path, str]:
    """Return the JSON Schemas (draft 2020-12) of all that the report writes as JSON, as the models have them now.

    Returns:
        Each schema's text, by the file that publishes it.
    """
    models: tuple[tuple[str, int, type[BaseModel]], ...] = (
        ("report", SUMMARY_VERSION, Summary),
        ("comparison", COMPARISON_VERSION, Comparison),
        ("tables", TABLES_VERSION, TablesSummary),
        ("tables-comparison", TABLES_COMPARISON_VERSION, TablesComparison),
        ("images-comparison", IMAGES_COMPARISON_VERSION, ImagesComparison),
        ("images", IMAGES_VERSION, ImagesSummary),
    )
    return {schema_path(name, version): _text(name, version, model) for name, version, model in models}


def _text(name: str, version: int, model: type[BaseModel]) -> str:
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:canaryaudit:{name}:{version}",
        **model.model_json_schema(mode="serialization"),
    }
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"
