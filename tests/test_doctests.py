"""The examples in the docstrings of the public names run, and say what each name takes, gives and refuses."""

import doctest
import inspect
import sys
from collections.abc import Iterator

import pytest

import canaryaudit
from canaryaudit import tabular
from canaryaudit.exposure import estimators
from canaryaudit.training.config import SIZES

PUBLIC = {name: getattr(door, name) for door in (canaryaudit, estimators, tabular) for name in door.__all__}
CALLABLE = [name for name, thing in PUBLIC.items() if callable(thing)]
FUNCTIONS = [name for name in CALLABLE if inspect.isfunction(PUBLIC[name])]


def example_of(thing: object) -> doctest.DocTest:
    """Return the example in a docstring; it knows the names of its module."""
    names = dict(vars(sys.modules[thing.__module__]))
    return doctest.DocTestParser().get_doctest(inspect.getdoc(thing) or "", names, str(thing), None, 0)


@pytest.fixture(autouse=True, scope="module")
def smaller_models() -> Iterator[None]:
    """Train models of 96 hidden units where the examples train small ones: what they print is the same."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SIZES, "small", (16, 96, 1))
        yield


@pytest.mark.parametrize("name", CALLABLE)
def test_every_public_name_has_an_example_that_runs(name: str) -> None:
    test = example_of(PUBLIC[name])
    assert test.examples, f"{name} has no example"
    report: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS, verbose=False)
    runner.run(test, out=report.append)
    assert not runner.failures, "".join(report)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_docstrings_name_every_parameter_and_what_comes_back(name: str) -> None:
    text = inspect.getdoc(PUBLIC[name]) or ""
    sections = dict(part.split(":\n", 1) for part in text.split("\n\n") if ":\n" in part)
    documented = [line.split(":")[0].strip() for line in sections["Args"].splitlines() if line[4:5].strip()]
    assert documented == list(inspect.signature(PUBLIC[name]).parameters)
    assert {"Returns", "Raises"} <= set(sections)


def test_a_wrong_example_is_noticed() -> None:
    def wrong() -> None:
        """Do nothing.

        Example:
            >>> 1 + 1
            3
        """

    runner = doctest.DocTestRunner(verbose=False)
    runner.run(example_of(wrong), out=lambda _: None)
    assert runner.failures == 1
