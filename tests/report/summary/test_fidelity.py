"""Quality, and the canaries that were to stay."""

from statistics import fmean

import pytest

from canaryaudit.report.schema import CanaryState, ProbeFigure, Summary
from canaryaudit.report.summary.fidelity import with_kept_canaries
from tests.report import builders as make


def partly(*, targeted: tuple[str, ...]) -> Summary:
    """Return an audit in which only some canaries were to be forgotten."""
    summary = make.before_after(after={**make.GONE, "canary-04": 30.5, "canary-05": 28.0})
    canaries = [own.model_copy(update={"targeted": own.id in targeted}) for own in summary.canaries]
    return summary.model_copy(update={"canaries": tuple(canaries)})


def test_what_the_other_canaries_kept_is_said() -> None:
    summary = partly(targeted=("canary-01", "canary-02", "canary-03"))
    assert summary.method is not None
    line = with_kept_canaries(summary.method, summary.canaries).fidelity[-1]
    others = [own for own in summary.canaries if own.id in ("canary-04", "canary-05")]
    assert line.key == "kept_exposure"
    assert line.after == pytest.approx(fmean(own.after.exposure.bits or 0.0 for own in others if own.after))
    assert 28 < (line.after or 0.0) < 30
    assert line.before == pytest.approx(fmean(own.before.exposure.bits or 0.0 for own in others))
    assert line.change == pytest.approx((line.after or 0.0) - (line.before or 0.0))
    assert line.name == "Mean exposure of 2 other canaries, bits"


def test_what_they_kept_under_other_prompts_is_said_too() -> None:
    # Behind its own prefix the canary stays as it was; under the others it is gone.
    def state(own: CanaryState | None, *bits: float) -> CanaryState | None:
        probes = [
            ProbeFigure(family=family, prompt=family, known=0, bits=each, greedy=False)
            for family, each in zip(("template", "context", "bare"), bits, strict=True)
        ]
        return own and own.model_copy(update={"probes": tuple(probes)})

    summary = partly(targeted=("canary-01", "canary-02", "canary-03"))
    canaries = [
        own.model_copy(update={"before": state(own.before, 9.0, 8.0, 4.0), "after": state(own.after, 9.0, 1.0, 0.5)})
        for own in summary.canaries
    ]
    assert summary.method is not None
    line = with_kept_canaries(summary.method, canaries).fidelity[-1]
    assert (line.key, line.before, line.after) == ("kept_elsewhere", 6.0, 0.75)
    assert line.name == "Mean exposure of 2 other canaries under other prompts, bits"


def test_one_other_canary_is_called_one() -> None:
    summary = partly(targeted=tuple(f"canary-0{number}" for number in range(1, 5)))
    assert summary.method is not None
    assert with_kept_canaries(summary.method, summary.canaries).fidelity[-1].name.startswith("Exposure of the other")


def test_where_all_were_to_go_nothing_is_said_of_others() -> None:
    summary = make.before_after()
    assert summary.method is not None
    assert all(own.targeted for own in summary.canaries)
    assert with_kept_canaries(summary.method, summary.canaries) == summary.method
