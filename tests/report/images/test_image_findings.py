"""What the report on corrected labels says first."""

import pytest

from canaryaudit.report.images.writer import image_findings
from tests.report.image_builders import images


@pytest.mark.parametrize(("error", "expected"), [(0.06, "50 % of the accuracy lost"), (1.79, "Accuracy changed by")])
def test_a_restored_share_that_is_noise_is_no_headline(error: float, expected: str) -> None:
    made = images()
    results = tuple(line.model_copy(update={"restored_error": error}) for line in made.results)
    assert made.model_copy(update={"results": results}).headline.startswith(expected)


@pytest.mark.parametrize(
    ("interval", "told"), [((0.746, 0.775), True), ((0.46, 0.56), False), ((0.0, 0.34), True), ((0.5, 0.6), False)]
)
def test_labels_that_can_still_be_told_are_said_to_be_with_what_to_do(
    interval: tuple[float, float], told: bool
) -> None:
    made = images()
    assert made.coins
    after = (made.coins.after[0], *interval, *made.coins.after[3:])
    sentences = image_findings(made.model_copy(update={"coins": made.coins.model_copy(update={"after": after})}))
    assert any("can still be told: next, try" in own for own in sentences) is told
