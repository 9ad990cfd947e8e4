"""scikit-learn's binary linear classifiers: what each minimizes, and a fitted one with other coefficients."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression, RidgeClassifier, SGDClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import LabelBinarizer
from sklearn.svm import LinearSVC

from canaryaudit.errors import UnlearningError, one_line
from canaryaudit.tabular.linear.arrays import Mask, Vector
from canaryaudit.tabular.linear.losses import Logistic, MarginLoss, Squared, SquaredHinge
from canaryaudit.tabular.linear.softmax import Multinomial

SUPPORTED = "LogisticRegression, LinearSVC, RidgeClassifier or SGDClassifier"


@dataclass(frozen=True)
class Specification:
    """What an estimator minimizes, in sum form: the losses' weight is one, the penalty is p/2 |theta|^2.

    Attributes:
        loss: The loss of a margin.
        penalty: p of every coefficient.
        intercept_penalty: p of the intercept; None without an intercept.
        intercept_column: What stands in the intercept's column: the intercept is this many times its coefficient.
        class_weight: Weight of the rows of each class.
    """

    loss: MarginLoss
    penalty: float
    intercept_penalty: float | None
    intercept_column: float
    class_weight: Mapping[Any, float]


def specification_of(estimator: object, num_rows: int) -> Specification:
    """Return what an estimator minimizes.

    Args:
        estimator: Fitted or not.
        num_rows: Rows it is fitted on; an ``SGDClassifier`` takes the mean of the losses.

    Raises:
        UnlearningError: It is no estimator that this package can update.
    """
    if isinstance(estimator, Pipeline):
        raise UnlearningError(
            "expected the linear classifier, got a Pipeline: pass pipeline[-1] and pipeline[:-1].transform(X)"
        )
    for known, read in _READERS.items():
        if type(estimator) is known:
            settings: Any = estimator
            weights = settings.class_weight
            if isinstance(weights, str):
                raise UnlearningError(
                    f"class_weight={weights!r} depends on the labels, so a request would change every row: pass the "
                    "weights as a dict"
                )
            try:
                specification = read(settings, num_rows, dict(weights or {}))
                regularized = specification.penalty > 0 and math.isfinite(specification.penalty)
            except (TypeError, ValueError, ArithmeticError, AttributeError) as error:
                raise UnlearningError(
                    f"the {known.__name__} has parameters that it does not take: {one_line(error)}"
                ) from None
            if not regularized:
                raise UnlearningError(
                    "the estimator is not regularized, so its coefficients have no unique value: choose a finite C "
                    "or an alpha above 0"
                )
            return specification
    raise UnlearningError(f"cannot update a {type(estimator).__name__}: expected {SUPPORTED}")


def multinomial(estimator: Any, specification: Specification, classes: int) -> Specification:
    """Return what an estimator minimizes on more than two classes.

    Raises:
        UnlearningError: It fits a model for each class.
    """
    if type(estimator) is not LogisticRegression or estimator.solver == "liblinear":
        raise UnlearningError(
            f"y has {classes:,} classes, and {type(estimator).__name__} fits a model for each: prepare one binary "
            "estimator for each class, or a LogisticRegression with another solver than liblinear"
        )
    return replace(specification, loss=Multinomial())


def fitted_theta(estimator: Any, specification: Specification, shape: tuple[int, int]) -> Vector | None:
    """Return a fitted estimator's coefficients, class by class, the intercept's last; None if it is not fitted.

    Args:
        estimator: Fitted or not.
        specification: What it minimizes.
        shape: Numbers of classes and columns.

    Raises:
        UnlearningError: It was fitted on other columns, or on other classes.
    """
    if not hasattr(estimator, "coef_"):
        return None
    try:
        coefficients = np.asarray(estimator.coef_, dtype=np.float64)
        intercept = np.ravel(np.asarray(estimator.intercept_, dtype=np.float64))
    except (TypeError, ValueError, AttributeError) as error:
        raise UnlearningError(f"the estimator's coefficients are no numbers: {one_line(error)}") from None
    if not (np.isfinite(coefficients).all() and np.isfinite(intercept).all()):
        raise UnlearningError("the estimator has coefficients that are not finite: fit it again")
    if coefficients.ndim == 1:
        coefficients = coefficients[None]
    classes, num_columns = shape
    expected = 1 if classes == 2 else classes
    if len(coefficients) != expected:
        raise UnlearningError(
            f"the estimator has {len(coefficients)} rows of coefficients, and y has {classes:,} classes: expected "
            f"{expected:,}; pass the labels that it was fitted on"
        )
    if coefficients.shape[1] != num_columns:
        raise UnlearningError(
            f"the estimator was fitted on {coefficients.shape[1]:,} columns, X has {num_columns:,}: pass the matrix "
            "that it was fitted on"
        )
    if specification.intercept_penalty is None:
        return coefficients.ravel().copy()
    if len(intercept) != expected:
        raise UnlearningError(f"the estimator has {len(intercept)} intercepts: expected {expected}")
    return np.column_stack((coefficients, intercept / specification.intercept_column)).ravel()


def with_theta(
    estimator: Any,
    specification: Specification,
    theta: Vector,
    classes: np.ndarray[Any, Any],
    names: Sequence[str] | None,
    shown: Mask | None,
) -> Any:
    """Return a fitted copy of an estimator with other coefficients.

    Args:
        estimator: The estimator to copy; it is left as it is.
        specification: What it minimizes.
        theta: Coefficients, class by class, the intercept's last of each.
        classes: The classes; shape (num_classes,).
        names: Of all columns, if X is a DataFrame.
        shown: Which columns the copy takes, shape (num_columns,); all if None.
    """
    copied: Any = clone(estimator)  # its parameters alone: what else a fit leaves is of the data before the requests
    has_intercept = specification.intercept_penalty is not None
    by_class = theta.reshape(1 if len(classes) == 2 else len(classes), -1)
    coefficients = by_class[:, :-1] if has_intercept else by_class
    intercepts = by_class[:, -1] if has_intercept else np.zeros(len(by_class))
    if len(by_class) > 1 and specification.intercept_penalty == 0:
        intercepts = intercepts - intercepts.mean()  # as scikit-learn's: the same number on all of them says nothing
    fitted_names = None if names is None else np.array(names, dtype=object)
    if shown is not None:
        coefficients = coefficients[:, shown]
        fitted_names = None if fitted_names is None else fitted_names[shown]
    flat = np.ndim(getattr(estimator, "coef_", [[]])) == 1  # as a RidgeClassifier has it
    copied.coef_ = coefficients[0].copy() if flat else coefficients.copy()
    copied.intercept_ = intercepts * specification.intercept_column
    copied.n_features_in_ = coefficients.shape[1]
    if fitted_names is not None:
        copied.feature_names_in_ = fitted_names
    if isinstance(copied, RidgeClassifier):
        copied._label_binarizer = LabelBinarizer(pos_label=1, neg_label=-1).fit(classes)
    if not isinstance(getattr(type(copied), "classes_", None), property):  # as a RidgeClassifier's once was
        copied.classes_ = classes.copy()
    if not isinstance(copied, RidgeClassifier):
        copied.n_iter_ = np.array([0], dtype=np.int32)
    return copied


def _logistic(estimator: Any, num_rows: int, weights: Mapping[Any, float]) -> Specification:  # noqa: ARG001
    if estimator.penalty not in ("deprecated", "l2") or estimator.l1_ratio:
        raise UnlearningError("LogisticRegression needs its L2 penalty: leave penalty and l1_ratio as they are")
    penalty = 1.0 / estimator.C
    penalized = estimator.solver == "liblinear"  # which treats the intercept like a column of intercept_scaling
    return Specification(
        Logistic(),
        penalty,
        (penalty if penalized else 0.0) if estimator.fit_intercept else None,
        float(estimator.intercept_scaling) if penalized else 1.0,
        weights,
    )


def _linear_svc(estimator: Any, num_rows: int, weights: Mapping[Any, float]) -> Specification:  # noqa: ARG001
    if estimator.penalty != "l2" or estimator.loss != "squared_hinge":
        raise UnlearningError("LinearSVC needs penalty='l2' and loss='squared_hinge': another has no curvature")
    penalty = 1.0 / estimator.C
    intercept = penalty if estimator.fit_intercept else None
    return Specification(SquaredHinge(), penalty, intercept, float(estimator.intercept_scaling), weights)


def _ridge(estimator: Any, num_rows: int, weights: Mapping[Any, float]) -> Specification:  # noqa: ARG001
    if estimator.positive:
        raise UnlearningError("RidgeClassifier with positive=True cannot be updated: use positive=False")
    return Specification(Squared(), 2.0 * estimator.alpha, 0.0 if estimator.fit_intercept else None, 1.0, weights)


def _sgd(estimator: Any, num_rows: int, weights: Mapping[Any, float]) -> Specification:
    losses: dict[str, Callable[[], MarginLoss]] = {"log_loss": Logistic, "squared_hinge": SquaredHinge}
    if estimator.loss not in losses or estimator.penalty != "l2":
        raise UnlearningError("SGDClassifier needs penalty='l2' and loss='log_loss' or 'squared_hinge'")
    intercept = 0.0 if estimator.fit_intercept else None
    return Specification(losses[estimator.loss](), estimator.alpha * num_rows, intercept, 1.0, weights)


_READERS: dict[type, Callable[[Any, int, Mapping[Any, float]], Specification]] = {
    LogisticRegression: _logistic,
    LinearSVC: _linear_svc,
    RidgeClassifier: _ridge,
    SGDClassifier: _sgd,
}
