"""The public face: estimators in and out, columns by name, and one line for everything that cannot be."""

import copy
import re
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression, RidgeClassifier, SGDClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from canaryaudit.errors import CanaryAuditError, Inconclusive, UnlearningError
from canaryaudit.tabular import PreparedModel, Replacement, Request, prepare

LOADED = load_breast_cancer(as_frame=True)
X: pd.DataFrame = LOADED.data / LOADED.data.max()
Y: pd.Series = LOADED.target

FITTED: dict[str, Any] = {
    "logistic": LogisticRegression(tol=1e-10, max_iter=10_000, C=2.0),
    "without intercept": LogisticRegression(fit_intercept=False, tol=1e-10, max_iter=10_000),
    "liblinear": LogisticRegression(solver="liblinear", tol=1e-10, intercept_scaling=2.0, max_iter=10_000),
    "weights": LogisticRegression(class_weight={0: 3.0}, tol=1e-10, max_iter=10_000),
    "svm": LinearSVC(tol=1e-10, max_iter=1_000_000, dual=False, C=0.5, intercept_scaling=3.0),
    "ridge": RidgeClassifier(alpha=0.7),
}


def changed_by_hand() -> tuple[pd.DataFrame, pd.Series]:
    """Return the data after ``request``, by pandas."""
    data, labels = X.copy(), Y.copy()
    data.loc[[9, 10], "mean area"] = 0.5
    labels[[0, 1]] = 1
    gone = ["mean radius", *(name for name in X if name.startswith("worst "))]
    return data.drop(columns=gone).drop(index=[5, 7]), labels.drop(index=[5, 7])


def request(model: PreparedModel) -> PreparedModel:
    """Chain requests of all four kinds."""
    changed = model.forget(["mean radius", "worst *"]).relabel([0, 1], 1).delete([5, 7])
    return changed.replace("mean area", rows=[9, 10], values=0.5)


@pytest.mark.parametrize("name", FITTED)
def test_the_result_is_what_scikit_learn_fits_on_the_changed_data(name: str) -> None:
    estimator = clone(FITTED[name]).fit(X, Y)
    updated = request(prepare(estimator, X, Y))
    data, labels = changed_by_hand()
    other = clone(estimator).fit(data, labels)
    kept = [name in data for name in X]
    assert np.abs(np.ravel(updated.estimator.coef_)[kept] - np.ravel(other.coef_)).max() < 2e-5
    assert not np.ravel(updated.estimator.coef_)[~np.array(kept)].any()
    assert np.ravel(updated.estimator.intercept_)[0] == pytest.approx(np.ravel(other.intercept_)[0], abs=2e-5)
    assert (updated.estimator.predict(X) == prepare(estimator, X, Y).estimator.predict(X)).mean() > 0.9
    assert type(updated.estimator) is type(estimator)
    assert [change.words for change in updated.history] == [
        "11 columns removed",
        "2 labels changed",
        "2 rows deleted",
        "2 values replaced",
    ]


def test_sgd_is_taken_to_the_minimum_of_its_objective() -> None:
    estimator = SGDClassifier(loss="log_loss", alpha=1e-2, random_state=0).fit(X, Y)
    model = prepare(estimator, X, Y)
    penalty = 1 / (1e-2 * len(X))
    other = LogisticRegression(C=penalty, tol=1e-10, max_iter=10_000).fit(X, Y)
    assert np.abs(model.estimator.coef_ - other.coef_).max() < 1e-4


def test_an_estimator_that_was_fitted_on_other_labels_is_warned_about() -> None:
    foreign = LogisticRegression().fit(X, np.random.default_rng(0).permutation(Y))
    assert "it was fitted on other data" in prepare(foreign, X, Y).warnings[0]
    assert prepare(LogisticRegression().fit(X, Y), X, Y).warnings == ()


def test_the_estimator_is_not_touched_and_an_unfitted_one_will_do() -> None:
    fitted = clone(FITTED["logistic"]).fit(X, Y)
    before = copy.deepcopy(fitted.__dict__)
    model = prepare(fitted, X, Y)
    model.forget("mean area")
    assert all(np.array_equal(before[key], value) for key, value in fitted.__dict__.items())
    unfitted = prepare(LogisticRegression(C=2.0), X, Y)
    assert np.abs(unfitted.estimator.coef_ - model.estimator.coef_).max() < 1e-5
    assert list(unfitted.estimator.classes_) == [0, 1]


def test_columns_can_be_dropped_from_the_estimator() -> None:
    model = prepare(FITTED["logistic"], X, Y)
    dropped = model.forget(["mean radius", "mean area"], drop=True).delete([3])
    kept = X.drop(columns=["mean radius", "mean area"])
    assert dropped.estimator.n_features_in_ == 28
    whole = model.forget(["mean radius", "mean area"]).delete([3]).estimator
    assert np.abs(dropped.estimator.decision_function(kept) - whole.decision_function(X)).max() < 1e-9
    with pytest.raises(ValueError, match="feature names"):
        dropped.estimator.predict(X)


@pytest.mark.parametrize("kind", ["array", "sparse", "frame"])
def test_arrays_sparse_matrices_and_frames_give_the_same(kind: str) -> None:
    values = {"array": X.to_numpy(), "sparse": sparse.csc_matrix(X.to_numpy()), "frame": X}[kind]
    model = prepare(LogisticRegression(), values, Y, columns=list(X))
    reference = prepare(LogisticRegression(), X, Y)
    asked = Request(
        replacements=(Replacement("mean area", 0.25, [1, 2]), Replacement(["mean texture"], [[0.0]] * 3, [2, 3, 4]))
    )
    assert np.abs(model.apply(asked).estimator.coef_ - reference.apply(asked).estimator.coef_).max() < 1e-6


@pytest.mark.parametrize("kind", ["array", "sparse"])
def test_values_of_all_rows_are_replaced_again_and_again(kind: str) -> None:
    """More rows change than a tail holds: the matrix is written anew, and row numbers stay what they are."""
    values = X.to_numpy() if kind == "array" else sparse.csr_matrix(X.to_numpy())
    model, data = prepare(LogisticRegression(), values, Y).delete([0, 100]), X.to_numpy().copy()
    rng = np.random.default_rng(6)
    gone = np.isin(np.arange(len(data)), [0, 100, 300])
    for column in (2, 5):
        new = rng.random(len(data) - 2)
        model = model.replace(column, values=new)
        data[np.setdiff1d(np.arange(len(data)), [0, 100]), column] = new
    model = model.replace([7], [50, 51], [[0.1], [0.2]]).delete([300]).replace(8, [301], 0.9)
    data[[50, 51], 7], data[301, 8] = [0.1, 0.2], 0.9
    other = LogisticRegression(tol=1e-10, max_iter=10_000).fit(data[~gone], Y[~gone])
    assert np.abs(model.estimator.coef_ - other.coef_).max() < 1e-5


def test_changes_of_the_matrix_afterwards_do_not_reach_the_model() -> None:
    for values in (X.to_numpy().copy(), sparse.csr_matrix(X.to_numpy())):
        model = prepare(LogisticRegression(fit_intercept=False), values, Y)
        expected = model.delete([4]).estimator.coef_
        values *= 3.0
        assert np.array_equal(model.delete([4]).estimator.coef_, expected)


def test_a_sparse_matrix_with_zeros_and_repetitions_is_the_same_matrix() -> None:
    dense = X.to_numpy()[:, :3]
    rows, columns = np.indices(dense.shape)
    twice = np.r_[rows.ravel(), rows.ravel(), 0], np.r_[columns.ravel(), columns.ravel(), 1]
    untidy = sparse.coo_matrix((np.r_[dense.ravel() / 2, dense.ravel() / 2, 0.0], twice))
    first, second = (prepare(LogisticRegression(), values, Y).forget(1).estimator for values in (dense, untidy))
    assert np.abs(first.coef_ - second.coef_).max() < 1e-7


def test_labels_of_any_kind_stay_what_they_are() -> None:
    names = np.where(Y == 1, "benign", "malignant")
    model = prepare(LogisticRegression(), X, names)
    assert list(model.estimator.classes_) == ["benign", "malignant"]
    flipped = np.flatnonzero(names == "benign")[:30]
    updated = model.relabel(flipped, "malignant")
    expected = names.copy()
    expected[flipped] = "malignant"
    other = LogisticRegression(tol=1e-10, max_iter=10_000).fit(X, expected)
    assert np.abs(updated.estimator.coef_ - other.coef_).max() < 1e-4


def people() -> tuple[pd.DataFrame, np.ndarray]:
    rng = np.random.default_rng(0)
    raw = pd.DataFrame(
        {
            "age": rng.normal(size=300),
            "sex": rng.choice(["Male", "Female"], 300),
            "job": rng.choice(["a", "b", "c"], 300),
            "sex_ratio": rng.random(300),
        }
    )
    frame = pd.get_dummies(raw).astype(float)
    return frame, (frame["age"] + frame["sex_Male"] + rng.normal(size=300) > 0.5).to_numpy().astype(int)


def test_a_one_hot_group_goes_together() -> None:
    frame, labels = people()
    model = prepare(LogisticRegression(), frame, labels)
    for asked in ("sex_Male", ["sex_Female"], "job_b"):
        updated = model.forget(asked)
        family = "sex" if "sex" in str(asked) else "job"
        members = {name for name in frame if name.startswith(f"{family}_") and name != "sex_ratio"}
        assert set(updated.removed) == members
        assert any("one-hot group" in warning for warning in updated.warnings)
    assert model.forget("job").removed == ("job_a", "job_b", "job_c")
    assert model.forget("age").warnings == ()


def test_scaling_with_what_is_removed_is_warned_about() -> None:
    unit = X.to_numpy() / np.linalg.norm(X.to_numpy(), axis=1, keepdims=True)
    by_rows = prepare(LogisticRegression(), unit, Y)
    assert "scaled to length 1" in by_rows.forget(0).warnings[0]
    assert by_rows.delete([0]).warnings == ()
    lonely = unit.copy()
    lonely[0] = np.eye(30)[4]
    assert prepare(LogisticRegression(), lonely, Y).delete([3]).warnings == ()
    standard = StandardScaler().fit_transform(X)
    by_columns = prepare(LogisticRegression(), standard, Y, columns=list(X))
    assert "scaled with the rows" in by_columns.delete([4]).warnings[0]
    assert by_columns.forget("mean area").warnings == ()
    assert prepare(LogisticRegression(), X * 0.9, Y).delete([1]).warnings == ()


MODEL = prepare(LogisticRegression(), X, Y)

NAMED = prepare(LogisticRegression(), X, np.where(Y == 1, "benign", "malignant"))


def with_part(name: str, value: object) -> LogisticRegression:
    """Return a fitted estimator, one part of which is broken."""
    broken = LogisticRegression(max_iter=1000).fit(X, Y)
    setattr(broken, name, value)
    return broken


WRONG: dict[str, tuple[Any, str]] = {
    "unknown column": (lambda: MODEL.forget("mean radus"), "no column is called 'mean radus'"),
    "similar column": (lambda: MODEL.forget("radius"), "similar ones are mean radius"),
    "unknown number": (lambda: MODEL.forget(30), "there is no column 30: expected 0 to 29"),
    "no column": (lambda: MODEL.forget([]), "the request changes nothing"),
    "column of another type": (lambda: MODEL.forget([1.5]), "a column is a name or a number, got float"),
    "every column": (lambda: MODEL.forget("*"), "keep at least one"),
    "removed column": (lambda: MODEL.forget("mean area").forget("mean area"), "column mean area was removed before"),
    "value of a removed column": (lambda: MODEL.forget("mean area").replace("mean area"), "was removed before"),
    "unknown row": (lambda: MODEL.delete([569]), "there is no row 569: expected 0 to 568"),
    "row twice": (lambda: MODEL.delete([3, 4, 3]), "row 3 is given more than once"),
    "deleted row": (lambda: MODEL.delete([3]).delete([3]), "row 3 was deleted before"),
    "label of a deleted row": (lambda: MODEL.delete([3]).relabel([3], 1), "row 3 was deleted before"),
    "rows as text": (lambda: MODEL.delete(["3"]), "rows are numbers"),
    "short mask": (lambda: MODEL.delete(np.ones(5, dtype=bool)), r"a mask of rows needs shape \(569,\), got \(5,\)"),
    "unknown label": (lambda: MODEL.relabel([1], 2), "unknown label 2: expected 0 or 1"),
    "longer label": (lambda: NAMED.relabel([1], "benignant"), "unknown label benignant: expected benign or malignant"),
    "too few labels": (lambda: MODEL.relabel([1, 2, 3], [0, 1]), "one label for each of 3 rows, got 2"),
    "one class left": (lambda: MODEL.relabel(np.arange(569), 1), "all rows have the same label"),
    "one class deleted": (lambda: MODEL.delete(Y.to_numpy() == 1), "all rows have the same label"),
    "values of another shape": (lambda: MODEL.replace(["mean area"], [1, 2], [1, 2, 3]), r"values need shape \(2, 1\)"),
    "infinite value": (lambda: MODEL.replace("mean area", [1], np.inf), "must be finite"),
    "text as value": (lambda: MODEL.replace("mean area", [1], "x"), "values need shape"),
    "pipeline": (lambda: prepare(make_pipeline(StandardScaler(), LogisticRegression()), X, Y), "pass pipeline"),
    "forest": (lambda: prepare(RandomForestClassifier(), X, Y), "cannot update a RandomForestClassifier: expected"),
    "hinge": (lambda: prepare(LinearSVC(loss="hinge"), X, Y), "loss='squared_hinge'"),
    "lasso": (lambda: prepare(LogisticRegression(l1_ratio=1.0, solver="saga"), X, Y), "needs its L2 penalty"),
    "balanced": (lambda: prepare(LogisticRegression(class_weight="balanced"), X, Y), "pass the weights as a dict"),
    "no penalty": (lambda: prepare(LogisticRegression(C=np.inf), X, Y), "not regularized"),
    "three classes": (
        lambda: prepare(LinearSVC(), X, np.arange(569) % 3),
        "y has 3 classes, and LinearSVC fits a model",
    ),
    "a text for C": (lambda: prepare(LogisticRegression(C="x"), X, Y), "has parameters that it does not take"),
    "texts for coefficients": (lambda: prepare(with_part("coef_", "q"), X, Y), "coefficients are no numbers"),
    "coefficients of NaN": (lambda: prepare(with_part("coef_", np.full((1, 30), np.nan)), X, Y), "are not finite"),
    "two intercepts": (lambda: prepare(with_part("intercept_", [0.0, 1.0]), X, Y), "has 2 intercepts: expected 1"),
    "no classes": (lambda: prepare(LogisticRegression(), X, np.arange(569) / 3), "y holds 0.333.* no whole number"),
    "one class": (lambda: prepare(LogisticRegression(), X, np.ones(569)), "y has 1 classes"),
    "missing label": (lambda: prepare(LogisticRegression(), X, Y.where(Y.index > 0)), "y has missing labels"),
    "missing value": (lambda: prepare(LogisticRegression(), X.mask(X > 0.9), Y), "X cannot be used: .*NaN"),
    "short y": (lambda: prepare(LogisticRegression(), X, Y[:-1]), "X has 569 rows and y 568 labels"),
    "one dimension": (lambda: prepare(LogisticRegression(), X["mean area"].to_numpy(), Y), "X cannot be used"),
    "fitted on others": (
        lambda: prepare(LogisticRegression().fit(X[["mean area"]], Y), X, Y),
        "was fitted on 1 columns",
    ),
    "text column": (lambda: prepare(LogisticRegression(), X.assign(name="x"), Y), "column name holds .*encode it"),
    "column twice": (lambda: prepare(LogisticRegression(), X, Y, columns=["a"] * 30), "two columns are called a"),
    "too few names": (
        lambda: prepare(LogisticRegression(), X, Y, columns=["a"]),
        "a name for each of 30 columns, got 1",
    ),
    "no tolerance": (lambda: prepare(LogisticRegression(), X, Y, tolerance=0), "must be a positive number"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_is_refused_in_one_line(case: str) -> None:
    work, message = WRONG[case]
    with pytest.raises(UnlearningError, match=message) as caught:
        work()
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, CanaryAuditError)


def test_a_residual_that_rounding_holds_up_is_said_and_not_returned() -> None:
    with pytest.raises(Inconclusive, match=r"the gradient's norm stops at .*, above the tolerance of 1e-25: scale"):
        prepare(LogisticRegression(fit_intercept=False), X * 1e3, Y, tolerance=1e-25)


def test_a_model_says_what_it_is() -> None:
    updated = MODEL.delete([3])
    assert re.fullmatch(r"PreparedModel\(LogisticRegression, 1 request, residual [\d.]+e-\d+\)", repr(updated))
    assert updated == updated
    assert updated != MODEL


def test_constant_columns_do_no_harm() -> None:
    model = prepare(LogisticRegression(), X.assign(zero=0.0, one=1.0), Y)
    assert model.forget("zero").residual <= 1e-6
    assert model.estimator.coef_[0, 30] == 0
