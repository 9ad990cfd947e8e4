"""The names that `import canaryaudit` offers, and what they cost to import."""

import os
import subprocess
import sys
from collections.abc import Sequence

import pytest

import canaryaudit
from canaryaudit import exposure, tabular

HEAVY = ("torch", "scipy", "altair", "datasets", "pandas")


def loaded_by(arguments: Sequence[str]) -> set[str]:
    """Return which heavy modules Python imports for a command line."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPROFILEIMPORTTIME"}
    ran = subprocess.run(
        [sys.executable, "-X", "importtime", *arguments], capture_output=True, text=True, check=True, env=environment
    )
    modules = {line.rsplit("|", 1)[-1].strip() for line in ran.stderr.splitlines() if line.startswith("import time:")}
    assert "canaryaudit" in modules
    return modules & set(HEAVY)


@pytest.mark.parametrize("door", [canaryaudit, exposure, tabular], ids=lambda door: door.__name__)
def test_every_public_name_is_there(door: object) -> None:
    names = door.__all__  # type: ignore[attr-defined]
    assert len(names) == len(set(names))
    for name in names:
        assert getattr(door, name) is not None
        assert name in dir(door)


@pytest.mark.parametrize("door", [canaryaudit, exposure, tabular], ids=lambda door: door.__name__)
def test_a_name_that_is_not_there_is_an_attribute_error(door: object) -> None:
    with pytest.raises(AttributeError, match=f"module '{door.__name__}' has no attribute 'mesure'"):  # type: ignore[attr-defined]
        door.mesure  # type: ignore[attr-defined]  # noqa: B018


def test_public_names_are_the_things_themselves() -> None:
    from canaryaudit.exposure.estimators.sampled import sampled_exposure
    from canaryaudit.exposure.measurement import measure

    assert canaryaudit.measure is measure
    assert exposure.measure is measure
    assert canaryaudit.sampled_exposure is sampled_exposure


@pytest.mark.parametrize(
    "arguments",
    [("-c", "import canaryaudit"), ("-m", "canaryaudit", "--help"), ("-c", "import canaryaudit; dir(canaryaudit)")],
    ids=["import", "help", "dir"],
)
def test_importing_the_package_and_asking_for_help_load_nothing_heavy(arguments: Sequence[str]) -> None:
    assert loaded_by(arguments) == set()


def test_importing_the_estimators_loads_no_torch() -> None:
    assert loaded_by(("-c", "import canaryaudit.exposure.estimators")) == {"scipy"}
    assert loaded_by(("-c", "import canaryaudit; canaryaudit.sampled_exposure([1.0], [1.0, 2.0], 8)")) == {"scipy"}


def test_linear_models_need_no_torch_and_nothing_that_draws() -> None:
    loaded = loaded_by(("-c", "import canaryaudit; from canaryaudit.tabular import prepare, Request"))
    assert loaded <= {"scipy", "pandas"}  # scikit-learn loads pandas where it is installed


def test_a_heavy_import_is_noticed() -> None:
    assert "torch" in loaded_by(("-c", "import canaryaudit; canaryaudit.measure"))
