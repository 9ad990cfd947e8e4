"""What unlearning is for: secrets come to rank like members of their spaces that the model never saw."""

import numpy as np
import pytest

from canaryaudit.canaries.canary import Canary
from canaryaudit.models.char_lstm import CharLSTM
from canaryaudit.training.data import TrainingData
from canaryaudit.unlearning import UnlearningConfig, unlearn
from tests.unlearning.builders import exposures_bits, story, text_with_canaries, trained_model

WINDOW, REPETITIONS, SEEDS = 60, 4, 6
OWNERS = ("north gate", "engine", "old safe", "lamp room", "cellar", "chapel", "wharf", "pilot")


@pytest.fixture(scope="module")
def trained() -> tuple[CharLSTM, TrainingData, list[Canary]]:
    """A model that knows eight codes by heart."""
    codes = np.random.default_rng(0).choice(1000, len(OWNERS), replace=False)
    canaries = [
        (f"the code of the {target_index} is {{digits:3}}.", f"{code:03}")
        for target_index, code in zip(OWNERS, codes, strict=True)
    ]
    chunks = np.array_split(story(np.random.default_rng(0)), len(OWNERS) * REPETITIONS + 1)
    data, made, vocabulary = text_with_canaries(["\n\n" + "".join(chunk) for chunk in chunks], canaries)
    return trained_model(data, vocabulary, window=WINDOW, steps=400), data, made


@pytest.fixture(scope="module")
def exposures(trained: tuple[CharLSTM, TrainingData, list[Canary]]) -> np.ndarray:
    """Exact exposures after unlearning, shape (seeds, canaries), bits."""
    model, data, canaries = trained
    after = []
    for seed in range(SEEDS):
        config = UnlearningConfig(
            scope="final-layer", window=WINDOW, retain_windows=40, max_fidelity_drop=0.01, seed=seed
        )
        result = unlearn(model, data, canaries, "", config)
        assert result.notes == ()
        after.append(exposures_bits(result.model, canaries))
    return np.array(after)


def test_every_secret_was_known(trained: tuple[CharLSTM, TrainingData, list[Canary]]) -> None:
    model, _, canaries = trained
    assert exposures_bits(model, canaries) == pytest.approx(np.log2(1000))


def test_exposures_come_to_the_mean_of_secrets_never_seen(exposures: np.ndarray) -> None:
    """That is 1/ln 2 = 1.44 bits, as for controls; each seed's mean of eight has a standard error of half a bit.

    Over 32 seeds: 1.8 bits, since a secret's symbols stay likelier than their like by 0.02 bits each; with decoys
    alone 4.2.
    """
    means = exposures.mean(1)
    assert (means > 0.3).all()
    assert (means < 3).all()
    assert 0.9 < means.mean() < 2.4


def test_no_secret_is_told_by_standing_out_or_by_hiding(exposures: np.ndarray) -> None:
    """The secret's place is drawn anew with each seed: one that kept to an end of its space would be known by that.

    Were the exposures those of uniform members, a canary would fail here once in a thousand times, and
    another once in twenty thousand.
    """
    assert (exposures.min(0) < 2).all()
    assert (exposures.max(0) > 0.3).all()
    assert (exposures.std(0) > 0.3).all()
