"""What can still be told: of removed columns from those that stay, and of deleted rows from their loss.

A model cannot forget what other columns repeat.

A column that is mostly zero, or has two values, is a fact that is there or not: how well the others predict it is the
area under the ROC curve of a logistic regression. For any other column it is R^2 of a ridge regression. Both are
cross-validated, on at most ``MOST_ROWS`` rows.
"""

import math
import warnings
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.stats import norm, rankdata
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import r2_score, roc_auc_score
from sklearn.model_selection import KFold, StratifiedKFold, cross_val_predict

from canaryaudit.errors import UnlearningError
from canaryaudit.tabular.linear.arrays import Matrix, Vector, column_values
from canaryaudit.tabular.linear.objective import Objective

MOST_ROWS = 4000
FOLDS = 3
MOST_COLUMNS = 20
"""Columns examined of one model; the largest are taken."""
_MOSTLY_ZERO = 0.5
_TELLING_AUC, _TELLING_R2 = 0.8, 0.5


@dataclass(frozen=True)
class Disclosure:
    """How well the remaining columns predict a removed one.

    Attributes:
        column: Its name.
        measure: ``AUC`` of whether it is there, 0.5 for a coin; or ``R2`` of its value, 0 for none.
        value: The cross-validated figure; None where a class has fewer rows than folds.
        rows: Rows it was computed on.
    """

    column: str
    measure: Literal["AUC", "R2"]
    value: float | None
    rows: int

    @property
    def telling(self) -> bool:
        """Whether the rest gives the column away."""
        limit = _TELLING_AUC if self.measure == "AUC" else _TELLING_R2
        return self.value is not None and self.value >= limit


def disclosures(objective: Objective, names: tuple[str, ...], seed: int = 0) -> tuple[Disclosure, ...]:
    """Return what the remaining columns tell of each removed one, the most telling first.

    Args:
        objective: On the present data; it still holds the removed columns' values.
        names: Of all columns that the user knows.
        seed: Of the folds, and of the rows where there are more than ``MOST_ROWS``.
    """
    removed = [index for index in range(len(names)) if not objective.kept[index]]
    present = np.flatnonzero(objective.rows.present)
    rng = np.random.default_rng(seed)
    if len(present) > MOST_ROWS:
        present = np.sort(rng.choice(present, MOST_ROWS, replace=False))
    matrix = objective.rows.take(present)
    if len(removed) > MOST_COLUMNS:
        filled = [np.count_nonzero(column_values(matrix, column)) for column in removed]
        removed = [removed[place] for place in np.argsort(filled)[::-1][:MOST_COLUMNS]]
    rest = matrix[:, np.flatnonzero(objective.kept[: len(names)])]
    found = [_disclosure(rest, column_values(matrix, column), names[column], seed) for column in removed]
    return tuple(sorted(found, key=lambda own: -1.0 if own.value is None else own.value, reverse=True))


def _disclosure(rest: Matrix, values: Vector, name: str, seed: int) -> Disclosure:
    distinct = np.unique(values)
    binary = len(distinct) <= 2 or (values == 0).mean() >= _MOSTLY_ZERO
    if not binary:
        folds = KFold(FOLDS, shuffle=True, random_state=seed)
        predicted = cross_val_predict(Ridge(), rest, values, cv=folds)
        return Disclosure(name, "R2", float(r2_score(values, predicted)), len(values))
    there = values == distinct.max() if len(distinct) == 2 else values != 0
    if min(there.sum(), (~there).sum()) < FOLDS:
        return Disclosure(name, "AUC", None, len(values))
    split = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    with warnings.catch_warnings():  # A lower bound will do: who iterates longer finds more, not less.
        warnings.simplefilter("ignore", ConvergenceWarning)
        scores = cross_val_predict(
            LogisticRegression(C=10.0, max_iter=200), rest, there, cv=split, method="decision_function"
        )
    return Disclosure(name, "AUC", float(roc_auc_score(there, scores)), len(values))


@dataclass(frozen=True)
class Auc:
    """An area under the ROC curve with its 95 % interval.

    Attributes:
        value: The probability that a member's loss is smaller than another row's, ties half.
        low: Lower end.
        high: Upper end.
    """

    value: float
    low: float
    high: float


def membership_auc(members: Vector, others: Vector) -> Auc:
    """Return how well a small loss tells members from others: 0.5 if not at all.

    The interval is that of DeLong, DeLong & Clarke-Pearson 1988, on the logit scale.

    Args:
        members: Losses, shape (num_members,), at least two.
        others: Losses of rows that were never seen, shape (num_others,), at least two.

    Raises:
        UnlearningError: There are too few of either.
    """
    count, rest = len(members), len(others)
    if min(count, rest) < 2:
        raise UnlearningError(f"a membership test needs two rows of each kind, got {count:,} and {rest:,}")
    # Larger is a member.
    together = rankdata(np.concatenate((-members, -others)))
    first = (together[:count] - rankdata(-members)) / rest
    second = 1.0 - (together[count:] - rankdata(-others)) / count
    value = float(first.mean())
    variance = float(np.var(first, ddof=1) / count + np.var(second, ddof=1) / rest)
    if not 0 < value < 1 or variance == 0:
        return Auc(value, value, value)
    logit, spread = math.log(value / (1 - value)), math.sqrt(variance) / (value * (1 - value))
    ends = [1 / (1 + math.exp(-(logit + sign * float(norm.ppf(0.975)) * spread))) for sign in (-1, 1)]
    return Auc(value, ends[0], ends[1])
