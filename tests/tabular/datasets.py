"""Tables to try requests on: scikit-learn's own, and those that lie beside the repository where there are any."""

import csv
import gzip
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import sparse
from sklearn import datasets
from sklearn.feature_extraction.text import CountVectorizer

from tests.commands import ROOT

DATA = ROOT.parent / "shared" / "data"


@dataclass(frozen=True)
class Table:
    """A binary classification task; rows have length 1 at most, and the last column of a dense one is constant.

    Attributes:
        train, test: Shape (num_rows, num_columns); dense, or CSR.
        train_labels, test_labels: 0 or 1.
        columns: Names.
        sensitive: Numbers of the columns that requests draw from.
    """

    train: Any
    train_labels: np.ndarray
    test: Any
    test_labels: np.ndarray
    columns: list[str]
    sensitive: np.ndarray


def unit_rows(matrix: Any) -> Any:
    """Return the rows, each divided by its length."""
    if sparse.issparse(matrix):
        lengths = np.sqrt(np.asarray(matrix.multiply(matrix).sum(1)).ravel())
        return (sparse.diags(1 / np.where(lengths > 0, lengths, 1)) @ matrix).tocsr()
    lengths = np.linalg.norm(matrix, axis=1, keepdims=True)
    return matrix / np.where(lengths > 0, lengths, 1)


def split(matrix: Any, labels: np.ndarray, columns: list[str], sensitive: Any = None) -> Table:
    """Return a table of four fifths for training, scaled by their own smallest and largest values if it is dense."""
    order = np.random.default_rng(0).permutation(len(labels))
    cut = len(labels) * 4 // 5
    matrix, labels = matrix[order], labels[order]
    if not sparse.issparse(matrix):
        low, high = matrix[:cut].min(0), matrix[:cut].max(0)
        matrix = np.clip((matrix - low) / np.where(high > low, high - low, 1), -1, 2)
        matrix, columns = np.c_[matrix, np.ones(len(matrix))], [*columns, "constant"]
    matrix = unit_rows(matrix)
    chosen = np.arange(matrix.shape[1] - 1) if sensitive is None else np.array(sensitive)
    return Table(matrix[:cut], labels[:cut], matrix[cut:], labels[cut:], columns, chosen)


def breast_cancer() -> Table:
    loaded = datasets.load_breast_cancer()
    return split(loaded.data, loaded.target, list(loaded.feature_names))


def digits() -> Table:
    """Ones against sevens and the rest, sparse."""
    loaded = datasets.load_digits()
    return split(sparse.csr_matrix(loaded.data), (loaded.target % 2).astype(int), [f"pixel_{i}" for i in range(64)])


def wine() -> Table:
    loaded = datasets.load_wine()
    return split(loaded.data, (loaded.target == 0).astype(int), list(loaded.feature_names))


def iris() -> Table:
    loaded = datasets.load_iris()
    return split(loaded.data, (loaded.target == 1).astype(int), list(loaded.feature_names))


def diabetes_progression() -> Table:
    loaded = datasets.load_diabetes()
    return split(loaded.data, (loaded.target > 140).astype(int), list(loaded.feature_names))


BUNDLED: dict[str, Callable[[], Table]] = {
    "breast cancer": breast_cancer,
    "digits": digits,
    "wine": wine,
    "iris": iris,
    "diabetes progression": diabetes_progression,
}


def _words(path: Path) -> list[str]:
    return path.read_text("utf-8").splitlines()


def _csr(path: Path) -> tuple[Any, np.ndarray]:
    stored = np.load(path, allow_pickle=False)
    parts = (np.ones(len(stored["indices"])), stored["indices"].astype(np.int32), stored["indptr"])
    return unit_rows(sparse.csr_matrix(parts, shape=tuple(stored["shape"]))), (stored["y"] > 0).astype(int)


def _numbers(folder: str) -> tuple[list[str], np.ndarray]:
    columns = _words(DATA / folder / "features.txt")
    index = {name: place for place, name in enumerate(columns)}
    return columns, np.array([index[name] for name in _words(DATA / folder / "sensitive.txt")])


def drebin() -> Table:
    columns, sensitive = _numbers("drebin")
    return Table(*_csr(DATA / "drebin" / "train.npz"), *_csr(DATA / "drebin" / "test.npz"), columns, sensitive)


def enron() -> Table:
    columns, sensitive = _numbers("enron")
    return split(*_csr(DATA / "enron" / "emails.npz"), columns, sensitive)


def sms() -> Table:
    with gzip.open(DATA / "sms" / "SMSSpamCollection.tsv.gz", "rt", encoding="utf-8") as file:
        lines = [line.rstrip("\n").split("\t", 1) for line in file]
    vectorizer = CountVectorizer(binary=True, min_df=3)
    matrix = vectorizer.fit_transform([text for _, text in lines]).astype(float).tocsr()
    labels = np.array([label == "spam" for label, _ in lines]).astype(int)
    return split(matrix, labels, list(vectorizer.get_feature_names_out()))


def spambase() -> Table:
    rows = np.loadtxt(DATA / "spambase" / "spambase.csv.gz", delimiter=",")
    columns = [f"frequency_{index}" for index in range(54)] + ["average_run", "longest_run", "total_run"]
    matrix = np.log1p(rows[:, :-1])
    return split(matrix, rows[:, -1].astype(int), columns)


def diabetes() -> Table:
    with (DATA / "diabetes" / "diabetes.csv").open(encoding="utf-8") as file:
        columns, *rows = list(csv.reader(file))
    matrix = np.array(rows, dtype=float)
    sensitive = [columns.index(name) for name in ("Pregnancies", "BMI", "Age")]
    return split(matrix[:, :-1], matrix[:, -1].astype(int), columns[:-1], sensitive)


def adult() -> Table:
    import pandas as pd

    parts = [pd.read_csv(DATA / "adult" / f"{name}.csv.gz").drop(columns=["fnlwgt", "education"]) for name in SPLITS]
    labels = [np.where(part.pop("income") == ">50K", 1, 0) for part in parts]
    numeric = list(parts[0].select_dtypes("number").columns)
    mean, deviation = parts[0][numeric].mean(), parts[0][numeric].std()
    whole = pd.get_dummies(pd.concat(parts), columns=[name for name in parts[0] if name not in numeric]).astype(float)
    whole[numeric] = ((whole[numeric] - mean) / deviation).clip(-4, 4)
    columns = [*whole.columns, "constant"]
    matrix = unit_rows(np.c_[whole.to_numpy(), np.ones(len(whole))])
    cut = len(labels[0])
    private = ("race", "marital", "relationship", "sex")
    sensitive = np.array([place for place, name in enumerate(columns) if name.startswith(private)])
    return Table(matrix[:cut], labels[0], matrix[cut:], labels[1], columns, sensitive)


SPLITS = ("train", "test")
SHARED: dict[str, Callable[[], Table]] = {
    "drebin": drebin,
    "enron": enron,
    "sms": sms,
    "spambase": spambase,
    "diabetes": diabetes,
    "adult": adult,
}

needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="the data sets do not lie beside the repository")
