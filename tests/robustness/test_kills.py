"""SIGKILL at random instants; `python -m tests.robustness.kills --kills 50` does more of it."""

import pytest

from tests.robustness.kills import difference, kill_audits


@pytest.mark.slow
def test_a_killed_audit_ends_as_an_undisturbed_one() -> None:
    outcome = kill_audits(kills=1, seed=1)
    assert outcome.failures == []
    assert outcome.kills == 1
    assert outcome.audits >= 1


def test_a_difference_is_found_wherever_it_is() -> None:
    one = {"a.json": {"x": [1, {"y": 2.0}]}, "b": b"bytes"}
    assert difference(one, one) == ""
    assert difference({**one, "a.json": {"x": [1, {"y": 2.5}]}}, one) == "/a.json/x/1/y: 2.5 instead of 2.0"
    assert difference({"b": b"bytes"}, one) == "/a.json is missing"
    assert difference({**one, "c": 1}, one) == "/c is too much"
    assert difference({**one, "a.json": {"x": [1]}}, one).startswith("/a.json/x: [1] instead of")
