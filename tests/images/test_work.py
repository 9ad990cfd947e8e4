"""What an update takes against retraining, by counts: checked against passes counted by hand, and their order."""

import pytest

from canaryaudit.images.training import LoopConfig
from canaryaudit.images.work import ABOUT_AS_LONG, share_of_retraining
from canaryaudit.records.images import ImageMethod, NetworkShape

SMALL = NetworkShape(height=8, width=8, channels=1, classes=10, blocks=(6,), dense=16)
LARGE = NetworkShape(height=32, width=32, channels=3, classes=10, blocks=(16, 32, 64), dense=128)
LOOP = LoopConfig(16.0, batch=128)


def test_one_pass_of_sixteen_is_a_sixteenth() -> None:
    assert share_of_retraining(LARGE, "fine-tune", 4000, LOOP) == pytest.approx(1 / 16)
    assert share_of_retraining(LARGE, "retrain", 4000, LOOP) == 1.0


@pytest.mark.parametrize(("method", "low", "high"), [("dense-layers", 0.03, 0.1), ("blocks", 0.1, 0.3)])
def test_of_thousands_of_images_an_update_takes_as_little_as_was_measured(
    method: ImageMethod, low: float, high: float
) -> None:
    share = share_of_retraining(LARGE, method, 4000, LOOP)
    assert share is not None
    assert low < share < high


def test_of_a_few_hundred_small_images_retraining_is_the_better_answer() -> None:
    shares = [share_of_retraining(SMALL, "dense-layers", images, LOOP) for images in (300, 3000, 30_000)]
    assert all(share is not None for share in shares)
    assert shares[0] > ABOUT_AS_LONG > shares[1] > shares[2]  # type: ignore[operator]


def test_a_method_of_a_pass_or_two_is_not_estimated() -> None:
    assert share_of_retraining(SMALL, "output-layer", 300, LOOP) is None
