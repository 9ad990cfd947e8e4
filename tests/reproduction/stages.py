"""The four parts of the reproduction, each as far as time allowed: baselines first, the default method last."""

from collections.abc import Callable

from canaryaudit.plan import AttackOptions, UnlearnOptions
from canaryaudit.progress import ProgressReporter
from tests.reproduction.laboratory import Laboratory
from tests.reproduction.results import Case
from tests.reproduction.settings import REPLACEMENT, Settings, Stage

BASELINES = ("original", "retrain", "fine-tune", "sisa")
CLOSED_FORMS = ("first-order", "text", "default")
METHODS = (*BASELINES, *CLOSED_FORMS, "attack")
"""What a part may be made of; relearning attacks are made on the default, for several seeds."""


def grid(settings: Settings, progress: ProgressReporter, methods: tuple[str, ...]) -> None:
    """Unlearn secrets of four lengths from a model for each number of repetitions.

    Retraining, fine-tuning and shards unlearn all four at once, since what they cost does not depend on the number;
    closed forms unlearn them one at a time, each from the trained model.
    """
    for repetitions in settings.grid_repetitions:
        with Laboratory.open(settings, "grid", progress, repetitions) as laboratory:
            controls = settings.measured_controls
            laboratory.original(controls)
            for method in ("retrain", "fine-tune"):
                if method in methods:
                    laboratory.case(method, UnlearnOptions(method=method, device="cpu"), controls=controls)
            for method in CLOSED_FORMS:
                for canary in laboratory.inserted if method in methods else ():
                    laboratory.case(method, _closed_form(method, canary.id), controls=controls)
            for shards in settings.sisa.get(repetitions, ()) if "sisa" in methods else ():
                # Without a limit: models of a fifth of the text predict it worse, and that is to be seen.
                options = UnlearnOptions(
                    method="sisa", shards=shards, name=f"sisa-{shards}", max_fidelity_drop=1.0, device="cpu"
                )
                laboratory.case(f"sisa-{shards}", options, controls=controls)


def _closed_form(method: str, canary: str) -> UnlearnOptions:
    name, common = f"{method}-{canary}", {"canary": (canary,), "device": "cpu"}
    match method:
        case "first-order":
            own: dict[str, object] = {"method": "first-order", "replacement": REPLACEMENT}
        case "text":
            own = {"method": "second-order", "scope": "final-layer", "replacement": REPLACEMENT}
        case _:
            own = {}
    return UnlearnOptions.model_validate({"name": name} | common | own)


def ten(settings: Settings, progress: ProgressReporter, methods: tuple[str, ...]) -> None:
    """Unlearn ten random canaries of three templates at once."""
    with Laboratory.open(settings, "ten", progress) as laboratory:
        laboratory.original()
        if "default" in methods:
            laboratory.case("default", UnlearnOptions(name="default", device="cpu"))
        if "retrain" in methods:
            laboratory.case("retrain", UnlearnOptions(method="retrain", device="cpu"))


def seeds(settings: Settings, progress: ProgressReporter, methods: tuple[str, ...]) -> None:
    """Unlearn the published telephone number, and attack the result, for several seeds."""
    for seed in settings.seeds:
        with Laboratory.open(settings, "seeds", progress, seed) as laboratory:
            laboratory.original()
            for method, options in (
                ("retrain", UnlearnOptions(method="retrain", device="cpu")),
                ("default", UnlearnOptions(name="default", device="cpu")),
            ):
                if method not in methods:
                    continue
                case = laboratory.case(method, options)
                if method == "default" and "attack" in methods and not case.refused and case.relearning is None:
                    attack = AttackOptions(name="default", steps=settings.steps, device="cpu")
                    record = laboratory.attack(attack, settings.measure, anew=False)
                    laboratory.add_relearning(case, record)


def growth(settings: Settings, progress: ProgressReporter, methods: tuple[str, ...]) -> None:
    """Unlearn more and more of many canaries; and three requests in turn beside all at once."""
    settings.write_lines()
    # Means over many canaries: each needs less than a lone one.
    measure = settings.measure.model_copy(update={"search_budget": 2_000, "max_draws": 10_000, "precision_bits": 0.3})
    settings = settings.with_(measure=measure)
    with Laboratory.open(settings, "growth", progress) as laboratory:
        laboratory.original()
        if "default" not in methods:
            return
        ids = [canary.id for canary in laboratory.inserted]

        def request(name: str, chosen: list[str], start: str = "before") -> Case:
            options = UnlearnOptions.model_validate(
                {"name": name, "canary": tuple(chosen), "from": start, "device": "cpu"}
            )
            return laboratory.case("default", options, others=True)

        for count in settings.growth_counts:
            request(f"first-{count}", ids[:count])
        third = settings.chain
        request("at-once", ids[: 3 * third])
        start = "before"
        for link in range(3):
            if request(f"link-{link + 1}", ids[link * third : (link + 1) * third], start).refused:
                break
            start = f"after-link-{link + 1}"


RUN: dict[Stage, Callable[[Settings, ProgressReporter, tuple[str, ...]], None]] = {
    "grid": grid,
    "ten": ten,
    "seeds": seeds,
    "growth": growth,
}
