"""Records as JSON files: read with full validation, and errors that name the repair."""

from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import from_json

from canaryaudit.errors import Damaged, NewerVersion, RunDirectoryError, one_line
from canaryaudit.formatting import plain_fault
from canaryaudit.records import SCHEMA_VERSION
from canaryaudit.storage.files import open_plain, read_errors

MAX_JSON_BYTES = 48 * 2**20
"""A measurement takes about 2 kB per canary, so this is twice what 10,000 canaries need. Larger files, and files that
exceed the next two limits, are not records: parsing them and listing their errors would take gigabytes."""
MAX_JSON_VALUES = 2_000_000
"""Commas and opening brackets, an upper bound on the values: about 70 per canary in a measurement."""
MAX_JSON_KEYS = 1_000
"""Keys of one object; no record has a hundred."""

R = TypeVar("R", bound=BaseModel)


def record_json(record: BaseModel) -> str:
    """Return the contents of a record's file."""
    return record.model_dump_json(indent=2) + "\n"


def read_record(path: Path, kind: type[R], repair: str) -> R:
    """Read and check a record.

    Args:
        path: A JSON file.
        kind: The type of record it must hold.
        repair: What to do if it does not, as a clause.

    Raises:
        RunDirectoryError: It is missing, too large, of a newer schema, or not such a record.
    """
    with read_errors(path):
        try:
            with open_plain(path, repair) as file:
                data = file.read(MAX_JSON_BYTES + 1)
        except FileNotFoundError:
            raise RunDirectoryError(f"{path} is missing: {repair}") from None
    try:
        return validated(data, kind, SCHEMA_VERSION)
    except NewerVersion as error:
        raise NewerVersion(f"{path} {error}") from None
    except ValueError as error:
        raise Damaged(path, str(error), repair) from None


def validated(data: bytes, kind: type[R], newest: int | None = None) -> R:
    """Parse and check a record; any input takes at most a gigabyte and a few seconds.

    Args:
        data: JSON.
        kind: The type of record it must hold.
        newest: The newest supported ``schema_version``; None to skip the check.

    Raises:
        NewerVersion: It is of a newer schema.
        ValueError: It is not such a record; the message says why in one line.
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
        # Not ``model_validate_json``: it keeps a copy of the whole document for every missing field.
        return kind.model_validate(document)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(map(str, first["loc"])) or "document"
        raise ValueError(f"{one_line(ValueError(field))}: {one_line(ValueError(plain_fault(first['msg'])))}") from None
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
