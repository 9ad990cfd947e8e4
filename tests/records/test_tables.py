"""Records of runs on tables: what a reader is told of how a request was carried out."""

import pytest

from canaryaudit.records.tables import PathName, TableMethod, TableUnlearningRecord


@pytest.mark.parametrize(
    ("method", "path", "way"),
    [
        ("second-order", "stored inverse", "stored inverse"),
        ("second-order", "fit from nothing", "retrained, which is cheaper here"),
        ("retrain", "fit from nothing", "fit from nothing"),  # as was asked for
    ],
)
def test_a_retraining_that_nobody_asked_for_is_said_to_be_cheaper(
    method: TableMethod, path: PathName, way: str
) -> None:
    assert TableUnlearningRecord.model_construct(method=method, path=path).way == way
