"""A report.json that an earlier command wrote."""

from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel

from canaryaudit.errors import UsageError
from canaryaudit.report.schema import SUMMARY_VERSION
from canaryaudit.storage.json_records import MAX_JSON_BYTES, validated

R = TypeVar("R", bound=BaseModel)


def read_earlier(path: Path, kind: type[R], name: str, wanted: str, again: str, version: int = SUMMARY_VERSION) -> R:
    """Read a report, or the part of it that is needed.

    Args:
        path: Its ``report.json``.
        kind: What is needed of it.
        name: What messages call it: its flag and path.
        wanted: What messages ask for instead.
        again: What messages advise for a report of another version.
        version: The schema version that it must have.

    Raises:
        UsageError: It cannot be read, is no report, or has another schema version.
    """
    try:
        with path.open("rb") as file:
            report = validated(file.read(MAX_JSON_BYTES + 1), kind)
    except OSError as error:
        raise UsageError(f"{name}: {error.strerror}; give {wanted}") from error
    except ValueError as error:
        raise UsageError(f"{name}: expected {wanted} ({error})") from error
    found = getattr(report, "schema_version", None)
    if found != version:
        raise UsageError(
            f"{name}: expected schema version {version}, got {found}; {again} with this version of canaryaudit"
        )
    return report
