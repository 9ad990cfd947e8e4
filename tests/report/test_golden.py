import re

import pytest

from tests.golden import FILES, produce

NUMBER = re.compile(r"-?\d+\.\d+(?:e-?\d+)?")


@pytest.fixture(scope="module")
def produced():
    return produce()


def test_every_golden_file_is_still_made(produced):
    assert sorted(path.name for path in FILES.iterdir()) == sorted(produced)


@pytest.mark.parametrize("name", sorted(path.name for path in FILES.iterdir()))
def test_a_format_changes_only_when_it_is_meant_to(produced, name):
    """After a change that is meant: make golden."""
    golden, made = ((FILES / name).read_text("utf-8")), produced[name]
    assert NUMBER.sub("#", made) == NUMBER.sub("#", golden)
    # Another processor may round the last digit otherwise.
    assert [float(n) for n in NUMBER.findall(made)] == pytest.approx(
        [float(n) for n in NUMBER.findall(golden)], rel=1e-4, abs=0.011
    )


def test_no_golden_file_holds_the_hidden_secret():
    for path in FILES.iterdir():
        assert "0123456789" not in path.read_text("utf-8"), path
