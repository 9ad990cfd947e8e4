"""Four whole audits for tests of the page: clean, exposed, inconclusive, and one of many canaries."""

import random

from canaryaudit.canaries.canary import Canary, CanarySet
from canaryaudit.report import Summary, build_summary
from canaryaudit.report.schema import CanaryState, ProbeFigure
from canaryaudit.report.summary.build import SummaryOptions
from tests.report import builders as make

SECRETS = ("7291048365", "0042719386", "5518230947", "9380172645")
CHARACTER_BITS = (0.1, 0.2, 1.4, 2.9, 3.5, 0.0, 0.3, 0.6, 4.2, 0.9)


def placed() -> CanarySet:
    """Return canaries with places in the text, of which one is hidden and one has its template's dash."""
    inserted = [
        Canary(
            id=f"canary-{i:02}",
            template=make.PHONE,
            completion=secret,
            repetitions=times,
            places=tuple(range(100, 100 + 50 * times, 50)),
            origin="given" if i == 2 else "generated",
        )
        for i, (secret, times) in enumerate(zip(SECRETS, (16, 8, 4, 1), strict=True), 1)
    ]
    inserted.append(
        Canary(id="canary-05", template=make.PLATE, completion="QXZ-4417", repetitions=16, places=(7, 4_093))
    )
    return make.canary_set(inserted)


def audit(before: dict[str, float], after: dict[str, float] | None, **changes: object) -> Summary:
    """Return an audit with probes, a retrained model, places and likelihoods.

    Args:
        before: Exposures by id.
        after: Those after unlearning; None for a model from which nothing was unlearned.
        changes: ``calibrated``, ``fail_above`` and ``p_values``.
    """
    canaries = placed()
    ids = [canary.id for canary in canaries.inserted]
    calibrated = bool(changes.get("calibrated", True))
    first = make.probed(make.measurement(canaries, before), {}, joint_pvalue=1e-5)
    costs = {"canary-01": CHARACTER_BITS, "canary-05": (0.5, 2.0, 0.1, 0.0, 0.2, 0.3, 0.4, 3.0)}
    first = first.model_copy(
        update={"canaries": tuple(c.model_copy(update={"character_bits": costs.get(c.id)}) for c in first.canaries)}
    )
    runs = []
    if after is not None:
        measured = make.measurement(canaries, after, "after-second", sha=make.UPDATED_SHA, calibrated=calibrated)
        p_values: dict[str, float] = changes.get("p_values", {})  # type: ignore[assignment]
        again = make.measurement(canaries, dict.fromkeys(ids, 1.2), "after-retrain")
        runs = [
            (make.unlearning("second", ids), make.probed(measured, p_values)),
            (make.unlearning("retrain", ids, method="retrain", seconds=152.0), make.probed(again, {})),
        ]
    options = SummaryOptions(fail_above=changes.get("fail_above"))  # type: ignore[arg-type]
    return build_summary(make.manifest(), canaries, make.model_record(), first, runs, "story", options)


def clean() -> Summary:
    """Return an audit that nothing speaks against."""
    return audit(make.EXPOSED, make.GONE, fail_above=10)


def exposed() -> Summary:
    """Return an audit of a model that gives secrets away, and fails its gate."""
    return audit(make.EXPOSED, None, fail_above=10)


def inconclusive() -> Summary:
    """Return an audit whose controls failed after unlearning."""
    return audit(make.EXPOSED, make.GONE, calibrated=False, p_values={"canary-02": 0.004})


def many(number: int = 500, probes: int = 41) -> Summary:
    """Return a clean audit of many canaries, each asked in many ways, before and after."""
    draw = random.Random(0)
    small = clean()

    def state(of: CanaryState, share: float) -> CanaryState:
        asked = tuple(
            ProbeFigure(
                family="reworded",
                prompt=f"reworded-{i}",
                known=i % 3,
                bits=share * (of.exposure.bits or 0.0) + draw.random(),
                greedy=draw.random() < 0.1,
            )
            for i in range(probes)
        )
        exposure = of.exposure.model_copy(update={"bits": share * (of.exposure.bits or 0.0)})
        bits = tuple(4 * draw.random() for _ in range(10))
        perplexity = 20 + 60 * draw.random()
        changes = {"probes": asked, "exposure": exposure, "character_bits": bits, "log_perplexity_bits": perplexity}
        return of.model_copy(update=changes)

    first = small.canaries[0]
    assert first.after is not None
    canaries = tuple(
        first.model_copy(
            update={
                "id": f"canary-{i + 1:03}",
                "secret": f"{draw.randrange(10**10):010}",
                "places": tuple(draw.randrange(10**6) for _ in range(8)),
                "before": state(first.before, 1 - i / (2 * number)),
                "after": state(first.after, 1 - i / number),
                "retrained": None,
            }
        )
        for i in range(number)
    )
    # Checked again: a figure is rounded where a model is made, not where it is copied.
    return Summary.model_validate(small.model_copy(update={"canaries": canaries, "retrained": None}).model_dump())
