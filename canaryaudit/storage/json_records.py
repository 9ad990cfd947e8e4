"""Records as JSON files: what is read was checked, and what is wrong with it is said with its repair."""

from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import from_json

from canaryaudit.errors import Damaged, NewerVersion, RunDirectoryError, one_line
from canaryaudit.records import SCHEMA_VERSION
from canaryaudit.storage.files import read_errors

MAX_JSON_BYTES = 48 * 2**20
"""A measurement takes some 2 kB a canary, so that one of 10,000 canaries has room twice over. Beyond, and where the
next two are exceeded, a file is no record: to parse it, and to list all that is wrong with it, takes gigabytes."""
MAX_JSON_VALUES = 2_000_000
"""Commas and opening brackets, which are at least as many as values: some 70 a canary in a measurement."""
MAX_JSON_KEYS = 1_000
"""Of one object; no record has a hundred."""

R = TypeVar("R", bound=BaseModel)


def record_json(record: BaseModel) -> str:
    """Return a record as the contents of its file."""
    return record.model_dump_json(indent=2) + "\n"


def read_record(path: Path, kind: type[R], repair: str) -> R:
    """Read and check a record.

    Args:
        path: A JSON file.
        kind: What it must hold.
        repair: What to do if it does not, as a clause.

    Raises:
        RunDirectoryError: It is missing, too large, of a newer schema, or no such record.
    """
    if not path.exists():
        raise RunDirectoryError(f"{path} is missing: {repair}")
    remedy = repair if repair.startswith(("delete", "see")) else f"delete it, then {repair}"
    if not path.is_file():  # A pipe would be waited for.
        raise Damaged(path, "not a plain file", remedy)
    with read_errors(path):
        if path.stat().st_size > MAX_JSON_BYTES:
            raise Damaged(path, f"larger than {MAX_JSON_BYTES // 2**20} MB", remedy)
        data = path.read_bytes()
    try:
        return validated(data, kind, SCHEMA_VERSION)
    except NewerVersion as error:
        raise NewerVersion(f"{path} {error}") from None
    except ValueError as error:
        raise Damaged(path, str(error), remedy) from None


def validated(data: bytes, kind: type[R], newest: int | None = None) -> R:
    """Parse and check a record, within a gigabyte and some seconds whatever the bytes are.

    Args:
        data: JSON.
        kind: What it must hold.
        newest: The newest ``schema_version`` that is understood; None where there is none to look at.

    Raises:
        NewerVersion: It is of a newer schema.
        ValueError: It is no such record; the message says why, in one line.
    """
    if len(data) > MAX_JSON_BYTES:
        raise ValueError(f"larger than {MAX_JSON_BYTES // 2**20} MB")
    if sum(map(data.count, (b",", b"[", b"{"))) > MAX_JSON_VALUES:
        raise ValueError(f"more than {MAX_JSON_VALUES:,} values")
    try:
        document = from_json(data)
        _check_objects(document)
        version = document.get("schema_version", 0) if isinstance(document, dict) else 0
        if newest is not None and isinstance(version, int) and version > newest:
            raise NewerVersion(
                f"was written by a newer canaryaudit (schema {str(version)[:20]}, this one reads up to {newest}): "
                "upgrade canaryaudit"
            )
        # Not ``model_validate_json``: it keeps a copy of the whole document for every field that is missing.
        return kind.model_validate(document)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"])) or "document"
        raise ValueError(f"{one_line(ValueError(place))}: {one_line(ValueError(first['msg']))}") from None
    except ValueError as error:
        raise ValueError(f"not a JSON record: {one_line(error)}") from None


def _check_objects(document: Any) -> None:
    waiting = [document]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            if len(value) > MAX_JSON_KEYS:
                raise ValueError(f"an object with more than {MAX_JSON_KEYS:,} keys")
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)
