"""Records as JSON files: what is read was checked, and what is wrong with it is said with its repair."""

import json
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from canaryaudit.errors import Damaged, NewerVersion, RunDirectoryError, one_line
from canaryaudit.files import read_errors
from canaryaudit.records import SCHEMA_VERSION

MAX_JSON_BYTES = 64 * 2**20
"""A record is a few kilobytes; a larger file is no record, and reading it would only take memory."""

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
    remedy = repair if repair.startswith("delete") else f"delete it, then {repair}"
    if not path.is_file():  # A pipe would be waited for.
        raise Damaged(path, "not a plain file", remedy)
    with read_errors(path):
        if path.stat().st_size > MAX_JSON_BYTES:
            raise Damaged(path, f"larger than {MAX_JSON_BYTES // 2**20} MB", remedy)
        data = path.read_bytes()
    try:
        document = json.loads(data)
        version = document.get("schema_version", 0) if isinstance(document, dict) else 0
        if isinstance(version, int) and version > SCHEMA_VERSION:
            raise NewerVersion(
                f"{path} was written by a newer canaryaudit (schema {version}, this one reads up to "
                f"{SCHEMA_VERSION}): upgrade canaryaudit"
            )
        return kind.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"])) or "document"
        raise Damaged(path, f"{place}: {first['msg']}", remedy) from None
    except (ValueError, RecursionError) as error:
        raise Damaged(path, f"not a JSON record: {one_line(error)}", remedy) from None
