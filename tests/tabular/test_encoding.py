"""Tables as a run keeps them: nothing is lost by writing, and dense and sparse rows are scaled alike."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from canaryaudit.errors import CorpusError
from canaryaudit.records.tables import ColumnGroup, TableRecord
from canaryaudit.table_plan import Condition, TableInsertOptions
from canaryaudit.tabular.encoding import TableRows, encode, find_columns, scale_rows, scaled
from canaryaudit.tabular.reading import read_source


def record(*groups: ColumnGroup) -> TableRecord:
    return TableRecord(
        target="y",
        classes=("0", "1"),
        numeric_classes=True,
        groups=groups,
        matrix=False,
        identified_by="",
        sensitive=(),
        canaries=(),
    )


AGE, CITY = ColumnGroup(name="age", categories=None), ColumnGroup(name="city", categories=("Bern", "", "Oslo"))


@settings(max_examples=10, deadline=None)
@given(
    st.integers(1, 12),
    st.booleans(),
    st.lists(st.text(max_size=5), min_size=12, max_size=12, unique=True) | st.none(),
)
def test_rows_are_read_as_they_were_written(count: int, is_sparse: bool, ids: list[str] | None) -> None:
    rng = np.random.default_rng(count)
    dense = rng.normal(size=(count, 3)) * (rng.random((count, 3)) < 0.5)
    names = None if ids is None else tuple(ids[:count])
    rows = TableRows(
        sparse.csr_matrix(dense) if is_sparse else dense, rng.integers(0, 4, count), rng.random(count) < 0.3, names
    )
    again = TableRows.of(rows.arrays(), 3, 4)
    np.testing.assert_array_equal(again.codes, rows.codes)
    assert again.ids == names
    assert again.sha256() == rows.sha256()
    np.testing.assert_array_equal(again.matrix.toarray() if is_sparse else again.matrix, dense)
    for columns, classes in ((4, 4), (3, int(rows.codes.max()))):
        with pytest.raises(CorpusError, match="do not fit"):
            TableRows.of(rows.arrays(), columns, classes)


def test_dense_and_sparse_rows_are_scaled_alike_and_training_rows_to_0_to_1() -> None:
    rng = np.random.default_rng(0)
    dense = np.c_[rng.normal(50, 9, 40), np.eye(3)[rng.integers(3, size=40)]]
    own = record(*scaled((AGE, CITY), dense[:30]))
    first = scale_rows(dense, own)
    np.testing.assert_allclose(scale_rows(sparse.csr_matrix(dense), own).toarray(), first, atol=1e-15)
    assert (first[:30, 0].min(), first[:30, 0].max()) == (0, 1)
    np.testing.assert_array_equal(first[:, 1:], dense[:, 1:])


def test_columns_are_found_by_name_pattern_list_and_file(tmp_path: Path) -> None:
    own = record(AGE, CITY)
    cities = ("city=Bern", "city=", "city=Oslo")
    assert find_columns(own, ["city"], "--columns") == cities
    assert find_columns(own, ["age,city=Oslo"], "--columns") == ("age", "city=Oslo")
    assert find_columns(own, ["*=*"], "--columns") == cities
    (tmp_path / "names.txt").write_text("age\n\ncity=\n", "utf-8")
    assert find_columns(own, [str(tmp_path / "names.txt")], "--columns") == ("age", "city=")


def test_an_empty_text_is_a_category_and_numbers_stay_numbers(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    lines = [f"{number},{'' if number % 3 else 'Bern'},{number % 2}" for number in range(20)]
    path.write_text("\n".join(["age,city,y", *lines]) + "\n", "utf-8")
    options = TableInsertOptions(corpus=str(path), target="y", holdout=0.25)
    own, rows = encode(read_source(options), options)
    assert own.columns == ("age", "city=", "city=Bern")
    assert own.classes == ("0", "1")
    assert (own.numeric_classes, int(rows.heldout.sum()), len(rows.training)) == (True, 5, 15)
    dense = rows.matrix if not sparse.issparse(rows.matrix) else rows.matrix.toarray()
    np.testing.assert_array_equal(dense[:, 0], np.arange(20))
    np.testing.assert_array_equal(dense[:, 1] + dense[:, 2], np.ones(20))


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("age<18", ("age", "<", "18")),
        ("age <= -1.5e3", ("age", "<=", "-1.5e3")),
        ("city = Bern am See", ("city", "=", "Bern am See")),
        ("city==", ("city", "=", "")),
        ("a b!=x", ("a b", "!=", "x")),
    ],
)
def test_conditions_are_cut_where_their_sign_stands(text: str, parts: tuple[str, str, str]) -> None:
    found = Condition.parse(text)
    assert (found.column, found.sign, found.value) == parts
