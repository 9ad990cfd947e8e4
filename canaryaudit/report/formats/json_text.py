"""The report as JSON: the file beside the page, and the data that the page offers for download."""

import base64
import gzip
import json
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from canaryaudit.formatting import json_safe
from canaryaudit.report.schema import CanaryState, Summary

MOST_DOWNLOAD = 500_000
"""Largest download within the page, in characters: with more, a page of 500 canaries would exceed two megabytes."""


@dataclass(frozen=True)
class Download:
    """Data that a page offers.

    Attributes:
        uri: The summary's JSON, compressed, as a ``data:`` URI.
        whole: Whether it is all of report.json, not without the exposure under each probe.
    """

    uri: str
    whole: bool


def download_of(summary: Summary) -> Download | None:
    """Return the summary's data for a page; None if they are too large for it."""
    for whole in (True, False):
        content = summary if whole else _without_probes(summary)
        data = base64.b64encode(gzip.compress(render_json(content).encode(), mtime=0)).decode()
        if len(data) <= MOST_DOWNLOAD:
            return Download(f"data:application/gzip;base64,{data}", whole)
    return None


def _without_probes(summary: Summary) -> Summary:
    def short(state: CanaryState | None) -> CanaryState | None:
        return state.model_copy(update={"probes": None}) if state else None

    canaries = tuple(
        canary.model_copy(update={name: short(getattr(canary, name)) for name in ("before", "after", "retrained")})
        for canary in summary.canaries
    )
    return summary.model_copy(update={"canaries": canaries})


def render_json(summary: BaseModel) -> str:
    """Return the summary as JSON with one line per list entry, so versions can be compared.

    The result is valid JSON without infinities or invisible characters.
    """
    parts = [f" {json.dumps(name)}: {_lines(value)}" for name, value in summary.model_dump(mode="json").items()]
    return json_safe("{\n" + ",\n".join(parts) + "\n}\n")


def _lines(value: Any) -> str:
    if not isinstance(value, list) or not value:
        return _compact(value)
    return "[\n" + ",\n".join(f"  {_compact(item)}" for item in value) + "\n ]"


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
