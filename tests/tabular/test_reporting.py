"""The report on requests, and what it measures beside them."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from canaryaudit.errors import RunDirectoryError, UnlearningError, UsageError
from canaryaudit.report.tables.schema import TablesSummary
from canaryaudit.report.tables.writer import efficacy
from canaryaudit.tabular import PreparedModel, prepare
from canaryaudit.tabular.leakage import disclosures, membership_auc
from tests.tabular.datasets import BUNDLED

TABLE = BUNDLED["breast cancer"]()
TEST = (TABLE.test, TABLE.test_labels)


@pytest.fixture(scope="module")
def updated() -> PreparedModel:
    model = prepare(LogisticRegression(fit_intercept=False), TABLE.train, TABLE.train_labels, columns=TABLE.columns)
    return model.forget(["mean radius", "mean area"]).delete(np.arange(40))


@pytest.fixture(scope="module")
def summary(updated: PreparedModel, tmp_path_factory: pytest.TempPathFactory) -> TablesSummary:
    path = tmp_path_factory.mktemp("report") / "out.html"
    against = ["retrain", "left-out", "second-order", "sisa:3"]
    found = updated.report(path, against=against, test=TEST, guarantee=(0.1, 1e-5))
    page = path.read_text("utf-8")
    assert "<h2>The updated model is the retrained one, within the tolerance.</h2>" in page
    assert page.count("<svg") == 4  # two charts, each for wide and for narrow windows
    return found


def test_the_update_is_retraining_and_the_others_are_not(summary: TablesSummary) -> None:
    lines = {line.name: line for line in summary.methods}
    assert list(lines) == ["update", "retrain", "left-out", "second-order", "sisa:3"]
    assert lines["update"].residual == summary.residual <= 1e-6
    assert lines["update"].max_loss_difference < 1e-6 < lines["second-order"].mean_loss_difference
    assert lines["update"].accuracy == lines["retrain"].accuracy
    assert lines["left-out"].residual > 1
    assert lines["update"].seconds > 0
    assert lines["retrain"].max_loss_difference == 0
    assert summary.requests == ("2 columns removed", "40 rows deleted")
    assert summary.removed == ("mean radius", "mean area")


def test_the_points_lie_on_the_diagonal_and_have_moved(summary: TablesSummary) -> None:
    far = [abs(point.retrained - point.updated) for point in summary.points]
    assert max(far) < 1e-6
    assert max(abs(point.retrained) for point in summary.points) > 0.01
    assert len(summary.points) == 400


def test_the_certificate_is_reported_beside_the_published_scheme(summary: TablesSummary) -> None:
    assert summary.certificate is not None
    assert summary.published is not None
    assert summary.certificate.accuracy == summary.methods[0].accuracy
    assert summary.published.sigma > 1000 * summary.certificate.sigma
    assert summary.majority_accuracy == pytest.approx(np.mean(TABLE.test_labels == 1))
    assert any("owner" in limit for limit in summary.limits)


def test_deleted_rows_look_like_rows_never_seen(summary: TablesSummary) -> None:
    own = summary.membership
    assert own is not None
    assert own.low <= 0.5 <= own.high
    assert (own.deleted, own.unseen) == (40, len(TABLE.test_labels))


def test_columns_that_others_repeat_are_named(summary: TablesSummary) -> None:
    told = {line.column: line for line in summary.disclosures}
    assert told["mean radius"].telling  # the perimeter stayed
    first, count = summary.disclosures[0], sum(line.telling for line in summary.disclosures)
    words = f"tell {count} of the 2 removed columns examined, best {first.column}: R2 {first.value:.3f}."
    assert any(words in sentence for sentence in efficacy(summary))
    assert told["mean radius"].measure == "R2"
    assert told["mean radius"].value is not None
    assert told["mean radius"].value > 0.9


def test_independent_columns_tell_nothing_and_copies_everything() -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {"coin": rng.integers(0, 2, 400), "noise": rng.normal(size=400), "other": rng.normal(size=400)}
    )
    frame["copy"] = 1.0 - frame["coin"]
    frame["rare"] = (np.arange(400) == 7).astype(float)
    labels = (frame["other"] + rng.normal(size=400) > 0).astype(int)
    model = prepare(LogisticRegression(), frame.astype(float), labels)
    found = {own.column: own for own in told(model.forget(["coin", "noise", "rare"]))}
    assert found["coin"].value == 1.0
    assert found["coin"].telling
    assert found["noise"].value is not None
    assert found["noise"].value < 0.1
    assert not found["noise"].telling
    assert found["rare"].value is None
    without = {own.column: own for own in told(model.forget(["coin", "copy"]))}
    assert without["coin"].value is not None
    assert without["coin"].value < 0.65


def told(model: PreparedModel) -> tuple:
    return disclosures(model.solved.point.objective, model._fixed.columns.names)


def test_the_report_has_three_formats(updated: PreparedModel, tmp_path: Path) -> None:
    written = updated.report(tmp_path / "out.json", against=["retrain"], test=TEST)
    document = json.loads((tmp_path / "out.json").read_text("utf-8"))
    assert TablesSummary.model_validate(document) == written
    updated.report(tmp_path / "out.md", against=["retrain"])
    text = (tmp_path / "out.md").read_text("utf-8")
    assert "## The updated model is the retrained one" in text
    for name in ("loss-difference.svg", "methods.svg"):
        assert name in text
        assert (tmp_path / name).exists()
    updated.report(tmp_path / "out.json", against=[])  # over an earlier report
    (tmp_path / "mine.html").write_text("mine", "utf-8")
    with pytest.raises(RunDirectoryError, match="was not written by canaryaudit"):
        updated.report(tmp_path / "mine.html", against=[])
    with pytest.raises(UsageError, match="ends in .html, .md or .json"):
        updated.report(tmp_path / "out.pdf")
    assert not (tmp_path / "out.pdf").exists()


def test_what_cannot_be_certified_is_said(tmp_path: Path) -> None:
    free = prepare(LogisticRegression(), TABLE.train, TABLE.train_labels).delete([1])
    summary = free.report(tmp_path / "out.html", against=[], guarantee=(0.1, 1e-5))
    assert summary.certificate is None
    assert "intercept is not regularized" in summary.refused
    assert "intercept is not regularized" in (tmp_path / "out.html").read_text("utf-8")


def test_reports_without_requests_or_with_wrong_tests_are_refused(updated: PreparedModel, tmp_path: Path) -> None:
    path = tmp_path / "out.html"
    model = prepare(LogisticRegression(), TABLE.train, TABLE.train_labels)
    with pytest.raises(UnlearningError, match="make a request first"):
        model.report(path)
    with pytest.raises(UnlearningError, match="test rows need 31 columns, got 30"):
        updated.report(path, test=(TABLE.test[:, 1:], TABLE.test_labels))
    with pytest.raises(UnlearningError, match="114 rows and 113 labels"):
        updated.report(path, test=(TABLE.test, TABLE.test_labels[1:]))
    with pytest.raises(UnlearningError, match="no method is called"):
        updated.report(path, against=["retrian"])
    assert not path.exists()


def test_names_in_the_data_cannot_act_in_the_page(tmp_path: Path) -> None:
    names = [f"<script>alert({index})</script>" for index in range(TABLE.train.shape[1])]
    model = prepare(LogisticRegression(), TABLE.train, TABLE.train_labels, columns=names)
    model.forget([0]).report(tmp_path / "out.html", against=[])
    page = (tmp_path / "out.html").read_text("utf-8")
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(0)" in page
    model.forget([0]).report(tmp_path / "out.md", against=[])
    assert "<script" not in (tmp_path / "out.md").read_text("utf-8")


def test_the_area_under_the_curve_is_that_of_another_program() -> None:
    rng = np.random.default_rng(0)
    members, others = np.round(rng.normal(-0.3, 1, 80), 1), np.round(rng.normal(0, 1, 120), 1)
    found = membership_auc(members, others)
    truth = np.r_[np.ones(80), np.zeros(120)]
    assert found.value == pytest.approx(roc_auc_score(truth, -np.r_[members, others]))


def test_the_interval_of_the_area_covers_as_often_as_it_says() -> None:
    """Of shifted normal distributions, whose area is known."""
    rng, covered, trials, shift = np.random.default_rng(1), 0, 600, 0.8
    true = stats.norm.cdf(shift / np.sqrt(2))
    for _ in range(trials):
        found = membership_auc(rng.normal(-shift, 1, 40), rng.normal(0, 1, 60))
        covered += found.low <= true <= found.high
    assert 0.93 <= covered / trials <= 0.975


def test_perfectly_apart_and_too_few_losses() -> None:
    assert membership_auc(np.array([0.0, 0.1]), np.array([1.0, 2.0])).value == 1.0
    with pytest.raises(UnlearningError, match="two rows of each kind, got 1 and 5"):
        membership_auc(np.zeros(1), np.ones(5))


def test_rows_that_are_of_a_kind_differ_in_the_retrained_model_too(tmp_path: Path) -> None:
    data = BUNDLED["breast cancer"]()
    estimator = LogisticRegression(fit_intercept=False)
    hard = np.argsort(prepare(estimator, data.train, data.train_labels).solved.point.margins)[:40]
    model = prepare(estimator, data.train, data.train_labels).delete(hard)  # the rows with the largest losses
    summary = model.report(tmp_path / "out.json", test=(data.test, data.test_labels))
    found = summary.membership
    assert found is not None
    assert found.high < 0.5
    assert found.retrained == pytest.approx(found.auc, abs=1e-6)
    assert found.by_selection
    assert not found.told
    assert any("so they differ by which rows they are" in sentence for sentence in efficacy(summary))
    known = found.model_copy(update={"auc": 0.7, "low": 0.6, "high": 0.8})
    assert known.told
    assert not any("by which rows" in own for own in efficacy(summary.model_copy(update={"membership": known})))
