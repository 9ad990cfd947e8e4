"""Reports and measurements as notebooks show them."""

import html

import pytest

from canaryaudit.canaries.canary import MASK
from canaryaudit.report.formats.notebook import MOST_CANARIES
from tests.report import builders


def test_a_notebook_shows_the_verdict_and_every_canary() -> None:
    summary = builders.before_after()
    page = summary._repr_html_()
    assert html.escape(summary.overall.headline, quote=False) in html.unescape(page)
    for canary in summary.canaries[:MOST_CANARIES]:
        assert f"<td>{canary.id}</td>" in page
    assert "<script" not in page


def test_a_given_secret_stays_masked_and_markup_is_escaped() -> None:
    canary_set = builders.canary_set([builders.given("4155550123"), builders.given("4155550199", name="<b>two")])
    page = builders.before_after({"canary-01": 30.0, "<b>two": 2.0}, None, canary_set)._repr_html_()
    assert "4155550123" not in page
    assert MASK in page
    assert "<b>two" not in page
    assert "&lt;b&gt;two" in page


def test_a_measurement_is_a_frame_with_a_row_per_canary_and_control() -> None:
    pandas = pytest.importorskip("pandas")
    measured = builders.measurement(builders.canary_set(), builders.EXPOSED)
    frame = measured.to_frame()
    assert isinstance(frame, pandas.DataFrame)
    assert list(frame["id"]) == [canary.id for canary in measured.canaries]
    assert list(frame["exposure_bits"]) == [canary.exposure.bits for canary in measured.canaries]
    assert frame["control"].sum() == sum(canary.control for canary in measured.canaries) > 0
    assert frame.loc[~frame["control"], "repetitions"].min() >= 1


def test_a_frame_without_pandas_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    from canaryaudit.errors import MeasurementError

    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MeasurementError, match="pip install pandas"):
        builders.measurement(builders.canary_set(), builders.EXPOSED).to_frame()
