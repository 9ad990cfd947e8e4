"""Canaries in tables: fair and independent coins, and nothing changed but what they decide."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import sparse

from canaryaudit.errors import CorpusError
from canaryaudit.records.tables import TableRecord
from canaryaudit.table_plan import TableInsertOptions
from canaryaudit.tabular.encoding import TableRows
from canaryaudit.tabular.planting import check_canaries, current_values, plant, source_column
from tests.tabular.test_encoding import AGE, CITY, record

TOTAL = 300


def rows(*, is_sparse: bool = False) -> TableRows:
    rng = np.random.default_rng(3)
    dense = np.c_[rng.integers(0, 90, TOTAL).astype(float), np.eye(3)[rng.integers(3, size=TOTAL)]]
    heldout = np.zeros(TOTAL, dtype=bool)
    heldout[rng.permutation(TOTAL)[:60]] = True
    codes = (rng.random(TOTAL) < 0.4).astype(int)
    return TableRows(sparse.csr_matrix(dense) if is_sparse else dense, codes, heldout, None)


def options(**more: object) -> TableInsertOptions:
    return TableInsertOptions(corpus="x.csv", target="y", **more)


def planted(**more: object) -> tuple[TableRecord, TableRows]:
    return plant(record(AGE, CITY), rows(), options(**more))


def test_a_label_is_flipped_exactly_where_the_coin_says_so() -> None:
    before, (own, after) = rows(), planted(flip_labels=50)
    assert len(own.canaries) == 100
    changed = set(np.flatnonzero(before.codes != after.codes).tolist())
    assert changed == {int(before.training[canary.row]) for canary in own.canaries if canary.planted}
    assert len({canary.row for canary in own.canaries}) == 100
    for canary in own.canaries:
        assert canary.original == own.classes[int(before.codes[before.training[canary.row]])] != canary.value
    np.testing.assert_array_equal(after.matrix, before.matrix)
    check_canaries(own, after)


def test_coins_are_fair_and_do_not_depend_on_the_label() -> None:
    counts = []
    for seed in range(60):
        own, _ = planted(flip_labels=50, seed=seed)
        counts.append([sum(c.planted for c in own.canaries), sum(c.planted for c in own.canaries if c.original == "1")])
    total, positive = np.array(counts).sum(axis=0)
    assert abs(total - 3000) < 4 * np.sqrt(1500)
    candidates = sum(c.original == "1" for seed in range(60) for c in planted(flip_labels=50, seed=seed)[0].canaries)
    assert abs(positive - candidates / 2) < 4 * np.sqrt(candidates / 4)


@pytest.mark.parametrize("is_sparse", [False, True])
@pytest.mark.parametrize(("column", "value"), [("age", "200"), ("city", "Oslo"), ("city", "Atlantis")])
def test_a_value_is_planted_and_the_own_one_kept(column: str, value: str, is_sparse: bool) -> None:
    before = rows(is_sparse=is_sparse)
    own, after = plant(record(AGE, CITY), before, options(plant=(f"{column}={value}:30",)))
    group, old = source_column(own, column, ""), source_column(record(AGE, CITY), column, "")
    values = current_values(own, after.matrix[after.training], group)
    originals = current_values(record(AGE, CITY), before.matrix[before.training], old)
    expected = float(value) if column == "age" else value
    for canary in own.canaries:
        assert canary.original == originals[canary.row]
        assert values[canary.row] == (expected if canary.planted else canary.original)
    untouched = set(range(len(values))) - {canary.row for canary in own.canaries}
    assert all(values[row] == originals[row] for row in untouched)
    assert len(own.columns) == after.matrix.shape[1]
    np.testing.assert_array_equal(after.codes, before.codes)


def test_labels_and_values_have_candidates_of_their_own() -> None:
    own, _ = planted(flip_labels=20, plant=("age=1:20", "city=Bern:20"))
    assert len({canary.row for canary in own.canaries}) == len(own.canaries) == 120
    with pytest.raises(CorpusError, match="need twice as many training rows"):
        planted(flip_labels=100, plant=("age=1:30",))


def test_of_more_classes_a_random_other_one_is_planted() -> None:
    own = record().model_copy(update={"classes": ("a", "b", "c", "d")})
    before = replace(rows(), codes=np.random.default_rng(4).integers(0, 4, TOTAL))
    made, after = plant(own, before, options(flip_labels=100))
    assert len({(canary.original, canary.value) for canary in made.canaries}) == 12  # all but a class and itself
    planted = {int(before.training[canary.row]) for canary in made.canaries if canary.planted}
    assert set(np.flatnonzero(before.codes != after.codes).tolist()) == planted
    assert all(own.classes[after.codes[before.training[c.row]]] == c.value for c in made.canaries if c.planted)
