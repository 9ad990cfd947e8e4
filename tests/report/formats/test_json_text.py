import base64
import gzip

import pytest

from canaryaudit.report.formats import json_text
from canaryaudit.report.formats.json_text import download_of, render_json
from canaryaudit.report.schema import Summary
from tests.golden import golden_summary


def unpacked(uri: str) -> str:
    return gzip.decompress(base64.b64decode(uri.split(",")[1])).decode()


def test_the_download_is_report_json() -> None:
    summary = golden_summary()
    download = download_of(summary)
    assert download is not None
    assert download.whole
    assert unpacked(download.uri) == render_json(summary)


def test_a_download_that_is_too_large_leaves_out_the_probes_and_then_everything(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    summary = golden_summary()
    whole = download_of(summary)
    assert whole is not None
    monkeypatch.setattr(json_text, "MOST_DOWNLOAD", len(whole.uri) - 100)
    part = download_of(summary)
    assert part is not None
    assert not part.whole
    found = Summary.model_validate_json(unpacked(part.uri))
    assert all(state is None or state.probes is None for c in found.canaries for state in (c.before, c.after))
    assert [canary.before.exposure for canary in found.canaries] == [c.before.exposure for c in summary.canaries]
    monkeypatch.setattr(json_text, "MOST_DOWNLOAD", 100)
    assert download_of(summary) is None
