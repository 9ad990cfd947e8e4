"""Tests of the fresh controls that decide on a calibration that failed."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from canaryaudit.canaries.canary import Canary, CanarySet
from canaryaudit.exposure.confirmation import confirm_calibration
from canaryaudit.exposure.consistency import measurement_fault
from canaryaudit.exposure.estimators import calibrate, calibration
from canaryaudit.exposure.estimators.calibration import FRESH_CONTROLS
from canaryaudit.records import CanaryMeasurement, Measurement
from tests.exposure.test_measurement import canary, run, two_templates

TEMPLATES = ("code {digits:6}", "word {lower:5}")
DRAWN = {TEMPLATES[0]: "123456", TEMPLATES[1]: "abcde"}
FAILED = calibrate(np.full(16, 9.0), np.full(16, 20.0))


def canaries_of(*templates: str) -> CanarySet:
    own = [canary(f"canary-{number:02}", text, DRAWN[text]) for number, text in enumerate(templates, 1)]
    others = [
        canary(f"control-{number:02}", text, DRAWN[text][::-1], control=True)
        for number, text in enumerate(templates, 1)
    ]
    return CanarySet(corpus_symbols="", canaries=(*own, *others))


class Model:
    """Gives fresh controls exposures of a known law, and keeps what it was asked."""

    def __init__(self, draw: Callable[[np.random.Generator], float]) -> None:
        self.draw, self.rng = draw, np.random.default_rng(0)
        self.asked: list[tuple[str, list[Canary], int]] = []

    def __call__(self, text: str, members: list[Canary], index: int) -> Sequence[CanaryMeasurement]:
        self.asked.append((text, members, index))
        bits = {own.id: self.draw(self.rng) for own in members}
        return [
            CanaryMeasurement.model_construct(
                id=own.id, control=own.control, space_bits=19.0, exposure=FakeHeadline(bits[own.id])
            )
            for own in members
        ]

    @property
    def fresh(self) -> list[Canary]:
        return [own for _, members, _ in self.asked for own in members if own.control]


class FakeHeadline:
    """An exposure of which no more is read."""

    def __init__(self, bits: float) -> None:
        self.bits = bits


def sound(rng: np.random.Generator) -> float:
    return min(float(-np.log2(rng.random())), 19.0)


def test_a_test_that_passes_draws_nothing() -> None:
    passed = calibrate(-np.log2(np.linspace(0.02, 0.98, 16)))
    model = Model(sound)
    assert confirm_calibration(passed, canaries_of(*TEMPLATES), 0, model) is passed
    assert confirm_calibration(None, canaries_of(*TEMPLATES), 0, model) is None
    assert not model.asked


def test_fresh_controls_are_shared_out_among_the_templates_and_are_no_canary() -> None:
    model = Model(sound)
    found = confirm_calibration(FAILED, canaries_of(*TEMPLATES), 5, model)
    assert found is not None
    assert found.confirmation is not None
    assert found.passed
    assert [index for _, _, index in model.asked] == [0, 1]
    assert len(model.fresh) == found.confirmation.controls == FRESH_CONTROLS
    assert len({own.completion for own in model.fresh}) == FRESH_CONTROLS
    assert {own.completion for own in model.fresh}.isdisjoint({"123456", "654321", "abcde", "edcba"})
    assert all(own.repetitions == 0 for own in model.fresh)
    again = Model(sound)
    confirm_calibration(FAILED, canaries_of(*TEMPLATES), 6, again)
    assert model.fresh != again.fresh, "they follow the measurement's seed"


def test_a_measurement_that_is_broken_stays_so() -> None:
    found = confirm_calibration(FAILED, canaries_of(*TEMPLATES), 0, Model(lambda rng: min(sound(rng) + 2, 19.0)))
    assert found is not None
    assert found.confirmation is not None
    assert not found.passed


def test_a_space_without_enough_members_left_leaves_the_first_test() -> None:
    small = CanarySet(
        corpus_symbols="",
        canaries=(canary("canary-01", "{digits:1}", "1"), canary("control-01", "{digits:1}", "2", control=True)),
    )
    model = Model(sound)
    assert confirm_calibration(FAILED, small, 0, model) is FAILED
    assert len(model.fresh) <= 8


def test_a_sound_model_passes_by_fresh_controls_and_the_record_follows(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first test is made to fail always, as one in a hundred does."""
    monkeypatch.setattr(calibration, "SMALLEST_PVALUE", 1.1)
    canary_set = two_templates(4)
    result = run(canary_set, estimators=("exact",))
    assert Measurement.model_validate_json(result.model_dump_json()) == result
    assert result.calibration is not None
    assert result.calibration.confirmation is not None
    assert result.calibration.passed
    assert measurement_fault(result, canary_set) == ""
    first = result.calibration
    bits = tuple(own / 2 for own in first.confirmation.exposures_bits)
    halved = first.model_copy(update={"confirmation": first.confirmation.model_copy(update={"exposures_bits": bits})})
    edited = result.model_copy(update={"calibration": halved})
    assert measurement_fault(edited, canary_set) == "its calibration does not follow from its controls"
