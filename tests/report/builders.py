"""Plausible records of a small audit, for tests of the report."""

import math
from collections.abc import Sequence

import numpy as np

from canaryaudit.canaries.canary import Canary, CanarySet
from canaryaudit.canaries.masking import mask_completion
from canaryaudit.canaries.template import Template
from canaryaudit.exposure.estimators.memorization import memorization_curves
from canaryaudit.exposure.extraction import extraction
from canaryaudit.privacy.one_run import epsilon_ceiling, epsilon_lower_bound
from canaryaudit.records import (
    Architecture,
    Calibration,
    CanaryMeasurement,
    Closing,
    CorpusFacts,
    EpochRecord,
    Estimate,
    EstimatorName,
    Evaluation,
    Fidelity,
    Headline,
    Manifest,
    Measurement,
    MeasurementCost,
    Membership,
    ModelRecord,
    Privacy,
    ProbeExposure,
    ProbeName,
    PromptRecord,
    ReferenceDistribution,
    SkewNormalFit,
    StageRun,
    TemplateEffort,
    TrainingRecord,
    UnlearningCost,
    UnlearningRecord,
    UpdateStep,
    WorstCase,
    WorstCases,
)
from canaryaudit.report import Summary, build_summary
from canaryaudit.report.summary.build import SummaryOptions
from canaryaudit.report.tables.comparison import TablesComparison, compare_tables
from canaryaudit.report.tables.schema import (
    CertificateFigures,
    CoinFigures,
    DisclosureLine,
    LossPoint,
    MembershipFigures,
    MethodLine,
    PublishedScheme,
    ReleaseFigures,
    ResultLine,
    RunFigures,
    TableGate,
    TablesSummary,
)

PHONE = "my telephone number is {digits:10}!"
PLATE = "the plate of the van was {upper:3}-{digits:4}."
MODEL_SHA, UPDATED_SHA = "a" * 64, "b" * 64


def canary_set(
    canaries: Sequence[Canary] | None = None, num_controls: int = 64, corpus_symbols: str = "abc 0123456789"
) -> CanarySet:
    """Return canaries on two templates, with controls on the first."""
    if canaries is None:
        secrets = ["7291048365", "0042719386", "5518230947", "9380172645"]
        canaries = [
            Canary(id=f"canary-{i:02}", template=PHONE, completion=secret, repetitions=times)
            for i, (secret, times) in enumerate(zip(secrets, (16, 8, 4, 1), strict=True), 1)
        ]
        canaries.append(Canary(id="canary-05", template=PLATE, completion="QXZ-4417", repetitions=16))
    rng = np.random.default_rng(0)
    first = Template.parse(canaries[0].template)
    controls = [
        Canary(
            id=f"control-{i:02}",
            template=first.text,
            completion=first.space(corpus_symbols).sample(rng),
            repetitions=0,
            control=True,
        )
        for i in range(1, num_controls + 1)
    ]
    return CanarySet(corpus_symbols=corpus_symbols, canaries=(*canaries, *controls))


def given(secret: str, template: str = PHONE, name: str = "canary-01", repetitions: int = 6) -> Canary:
    """Return a canary whose secret its owner gave, so that it is masked."""
    return Canary(id=name, template=template, completion=secret, repetitions=repetitions, origin="given")


def canary_measurement(
    canary: Canary,
    space_bits: float,
    bits: float,
    *,
    greedy: bool | None = None,
    greedy_text: str | None = None,
    spread: float = 0.0,
    method: EstimatorName = "exact",
    trusted: bool = True,
) -> CanaryMeasurement:
    """Return one canary's figures; by default, it is completed greedily where its exposure is the whole space."""
    bits = min(bits, space_bits)
    greedy = bits >= space_bits - 0.01 if greedy is None else greedy
    template = Template.parse(canary.template)
    if greedy_text is None:
        filled = template.filled(canary.completion)
        other = "".join("5" if mark else c for c, mark in zip(canary.completion, filled, strict=True))
        greedy_text = canary.completion if greedy else other
    if canary.masked:
        greedy_text = mask_completion(greedy_text, canary.completion, template.filled(canary.completion))
    low, high = max(0.0, bits - spread), min(space_bits, bits + spread)
    figure = Estimate(bits=bits, low=low, high=high, trusted=trusted)
    return CanaryMeasurement(
        id=canary.id,
        template=canary.template,
        repetitions=canary.repetitions,
        control=canary.control,
        masked=canary.masked,
        space_bits=space_bits,
        log_perplexity_bits=max(0.6, space_bits + 14 - 1.4 * bits),
        exposure=Headline(bits=bits, low=low, high=high, method=method),
        estimates={
            method: figure,
            "sampled": Estimate(bits=min(bits, 11.3), low=min(low, 9.5), high=high, trusted=True),
            "skew-normal": Estimate(bits=min(bits, 8.8), low=0, high=space_bits, trusted=False, note="fit refuted"),
        },
        extraction=extraction(
            max(0.6, space_bits + 14 - 1.4 * bits),
            Headline(bits=bits, low=low, high=high, method=method),
            space_bits,
            greedy=greedy,
            greedy_text=greedy_text,
            beam_rank=None,
        ),
    )


def measurement(
    canaries: CanarySet,
    bits: dict[str, float],
    model: str = "before",
    *,
    sha: str = MODEL_SHA,
    calibrated: bool = True,
    **details: dict[str, object],
) -> Measurement:
    """Return a measurement with these exposures by id; ``details`` go to ``canary_measurement`` by name, by id."""
    rng = np.random.default_rng(1)
    spaces = {text: canaries.space(Template.parse(text)).bits for text in canaries.by_template()}
    found = []
    for canary in canaries.canaries:
        if not canary.control and canary.id not in bits:
            continue
        space_bits = spaces[canary.template]
        own = bits.get(canary.id, float(rng.exponential(1 / math.log(2))))
        more = {name: by_id[canary.id] for name, by_id in details.items() if canary.id in by_id}
        found.append(canary_measurement(canary, space_bits, own, **more))  # type: ignore[arg-type]
    controls = [m.exposure.bits for m in found if m.control]
    calibration = Calibration(
        controls=len(controls),
        mean_bits=(sum(controls) / max(1, len(controls))) if calibrated else 6.2,
        expected_mean_bits=1 / math.log(2),
        ks_pvalue=0.51 if calibrated else 0.0001,
        passed=calibrated,
    )
    return Measurement(
        model=model,
        model_sha256=sha,
        seed=0,
        device="cpu",
        precision="bf16",
        num_references=4000,
        search_budget=50_000,
        precision_bits=0.1,
        max_draws=100_000,
        time_limit=90,
        efforts=tuple(
            TemplateEffort(
                template=text,
                num_references=4000,
                search_budget=50_000,
                max_draws=100_000,
                num_prompts=4,
                probe_references=1023,
            )
            for text in canaries.by_template()
        ),
        canaries=tuple(found),
        references=tuple(reference(text, canaries) for text in canaries.by_template()),
        calibration=calibration if controls else None,
        memorization=memorization_curves(found),
        cost=MeasurementCost(seconds=8.4, references=8000, search_nodes=5120, characters_scored=90000),
    )


PROMPTS = (
    ("template", "template", "the template's own prefix", ""),
    ("context", "context-1", "the prefix after the text before canary-01", None),
    ("reworded", "reworded-1", "the prefix with another word", "your telephone number is "),
    ("bare", "bare-1", "a line break", "\n"),
)
ProbeKey = tuple[str, int]
"""Id of a prompt, and number of known characters."""
PROBES: tuple[ProbeKey, ...] = (("template", 0), ("context-1", 0), ("reworded-1", 0), ("bare-1", 0), ("bare-1", 2))


def probed(
    measured: Measurement, p_values: dict[str, float], worst: ProbeKey = ("bare-1", 0), joint_pvalue: float = 0.4
) -> Measurement:
    """Return a measurement that asked in five ways too.

    Args:
        measured: The measurement.
        p_values: Of the worst case, by id; without one a canary's prefix shows all there is.
        worst: The probe that shows most of these.
        joint_pvalue: Of all together.
    """
    canaries = []
    for own in measured.canaries:
        p_value = p_values.get(own.id, 2**-own.exposure.bits)
        name, known = worst if own.id in p_values else PROBES[0]
        family = "partial" if known else name.split("-")[0]
        bits = min(own.space_bits, -math.log2(p_value) + 4 if own.id in p_values else own.exposure.bits)
        exposures = tuple(
            ProbeExposure(
                family="partial" if probe[1] else probe[0].split("-")[0],  # type: ignore[arg-type]
                prompt=probe[0],
                known=probe[1],
                bits=bits if probe == (name, known) else bits / 3,
                greedy=bits >= own.space_bits - 1,
            )
            for probe in PROBES
        )
        case = WorstCase(
            bits=bits,
            low=max(0.0, bits - 0.1),
            high=min(own.space_bits, bits + 0.1),
            method="importance",
            p_value=p_value,
            space_bits=own.space_bits,
            greedy=bits >= own.space_bits - 1,
            probe=ProbeName(family=family, prompt=name, known=known),  # type: ignore[arg-type]
        )
        canaries.append(own.model_copy(update={"worst_case": case, "probes": () if own.control else exposures}))
    prompts = tuple(
        PromptRecord(
            template=own.template,
            id=name,
            family=family,
            about=about,
            text=Template.parse(own.template).prefix if name == "template" else text,
        )  # type: ignore[arg-type]
        for own in measured.references
        for family, name, about, text in PROMPTS
    )
    cases = WorstCases(effort="default", references=1023, joint_pvalue=joint_pvalue)
    return measured.model_copy(update={"canaries": tuple(canaries), "prompts": prompts, "worst_cases": cases})


def closed(measured: Measurement, p_values: dict[str, float]) -> Measurement:
    """Return a measurement that read the closing text too: with these p-values by id, 0.5 for all others."""
    canaries = [
        own.model_copy(
            update={
                "closing": Closing(
                    bits=round(-math.log2(p_values.get(own.id, 0.5)) / 3, 4),
                    p_value=p_values.get(own.id, 0.5),
                    references=999 if own.control else 1000,
                )
            }
        )
        for own in measured.canaries
    ]
    return measured.model_copy(update={"canaries": tuple(canaries)})


def privacy(correct: int) -> Privacy:
    """Return the figures of 120 coins of which so many of 40 were guessed rightly."""
    auc = 0.5 + (correct - 20) / 40
    return Privacy(
        candidates=120,
        inserted=58,
        copies=1,
        membership=Membership(
            auc=auc,
            auc_low=auc - 0.1,
            auc_high=auc + 0.08,
            false_positive_rate=0.01,
            true_positive_rate=0.25,
            tpr_low=0.14,
            tpr_high=0.38,
        ),
        guesses=40,
        correct=correct,
        delta=1e-5,
        epsilon_low=epsilon_lower_bound(correct, 40, 120),
        epsilon_ceiling=epsilon_ceiling(40, 120),
    )


def reference(template: str, canaries: CanarySet) -> ReferenceDistribution:
    """Return a reference distribution of plausible shape."""
    space_bits = canaries.space(Template.parse(template)).bits
    costs = np.random.default_rng(2).normal(space_bits + 12, 5, 4000)
    counts, edges = np.histogram(costs, 40)
    return ReferenceDistribution(
        template=template,
        space_bits=space_bits,
        num_references=4000,
        edges_bits=tuple(edges.tolist()),
        counts=tuple(counts.tolist()),
        mean_bits=float(costs.mean()),
        standard_deviation_bits=float(costs.std()),
        min_bits=float(costs.min()),
        max_bits=float(costs.max()),
        skew_normal=SkewNormalFit(shape=0.5, location=space_bits + 10, scale=5.4, pvalue=0.31, converged=True),
    )


def manifest(**changes: object) -> Manifest:
    """Return a manifest of a run of three stages."""
    first = ("/opt/venv/bin/canaryaudit", "insert", "story.txt", "-t", PHONE, "-o", "runs/story")
    corpus = CorpusFacts(
        name="story.txt",
        sha256="c" * 64,
        audited_sha256="d" * 64,
        characters=131_072,
        heldout_characters=6_553,
        heldout_sha256="a" * 64,
        paragraphs=1_204,
        documents=1,
        lowercase=True,
        skip_chars=265,
        holdout=0.05,
        seed=7,
    )
    whole = Manifest(
        canaryaudit="0.1.0",
        versions={"python": "3.11.9", "torch": "2.13.0"},
        commit="0123abcd",
        machine={"processor": "x86-64", "cores": 2, "memory_gib": 16},
        corpus=corpus,
        stages=(
            StageRun(stage="insert", argv=first, started="2026-01-02T03:04:05Z", seconds=0.4, seed=7),
            StageRun(
                stage="train",
                argv=("canaryaudit", "train", "runs/story"),
                started="2026-01-02T03:05:05Z",
                seconds=152.0,
                seed=7,
                device="cpu",
                precision="bf16",
            ),
        ),
        warnings=(),
    )
    return whole.model_copy(update=changes)


def model_record() -> ModelRecord:
    """Return the description of a trained model."""
    training = TrainingRecord(
        size="small",
        epochs=25,
        batch_size=32,
        window=100,
        learning_rate=3e-3,
        seed=7,
        device="cpu",
        precision="bf16",
        seconds=152.0,
        characters_per_second=25_000,
        parameters=3_300_000,
        train=Evaluation(accuracy=0.955, accuracy_all=0.957, loss_bits=0.21),
        heldout=Evaluation(accuracy=0.471, accuracy_all=0.471, loss_bits=3.1),
        baseline_accuracy=0.171,
        history=tuple(
            EpochRecord(epoch=i, loss_bits=4.0 / i, accuracy=0.3 * i, heldout_loss_bits=3.5 - 0.1 * i, seconds=50.0 * i)
            for i in (1, 2, 3)
        ),
        planned_epochs=25,
    )
    return ModelRecord(
        architecture=Architecture(vocabulary="abc 0123456789", embedding=64, hidden=512, layers=2),
        sha256=MODEL_SHA,
        training=training,
    )


def unlearning(
    name: str = "second-order",
    canaries: Sequence[str] = (),
    *,
    drop: float = 0.001,
    seconds: float = 3.4,
    **changes: object,
) -> UnlearningRecord:
    """Return an unlearning that lost ``drop`` of the accuracy."""
    record = UnlearningRecord(
        name=name,
        method="second-order",
        scope="final-layer",
        replacement="decoys",
        canaries=tuple(canaries),
        affected_windows=46,
        retention_windows=300,
        seed=7,
        device="cpu",
        precision="fp32",
        model_sha256=UPDATED_SHA,
        origin_sha256=MODEL_SHA,
        updates=(
            UpdateStep(
                step_norm=2.31,
                gradient_norm=0.41,
                objective_before=1.93,
                objective_after=0.72,
                damping=1e-3,
                residual=4e-4,
                curvature_min=1.1e-3,
                solver_iterations=60,
                converged=True,
            ),
        ),
        fidelity=Fidelity(
            train_accuracy_before=0.955,
            train_accuracy_after=0.955 - drop,
            train_accuracy_all_before=0.957,
            train_accuracy_all_after=0.950,
            train_loss_before=0.21,
            train_loss_after=0.24,
            heldout_accuracy_before=0.471,
            heldout_accuracy_after=0.470,
            heldout_loss_before=3.10,
            heldout_loss_after=3.11,
        ),
        fidelity_limit=0.003,
        cost=UnlearningCost(
            seconds=seconds, gradients=600, curvature_products=60, retraining_seconds=152.0, speedup=152.0 / seconds
        ),
    )
    return record.model_copy(update=changes)


EXPOSED = {"canary-01": 33.3, "canary-02": 33.3, "canary-03": 21.7, "canary-04": 2.4, "canary-05": 27.5}
GONE = {"canary-01": 2.1, "canary-02": 0.4, "canary-03": 1.2, "canary-04": 0.9, "canary-05": 3.0}


def before_after(
    before: dict[str, float] = EXPOSED,
    after: dict[str, float] | None = GONE,
    canaries: CanarySet | None = None,
    *,
    run_name: str = "story",
    reveal_secrets: bool = False,
    fail_above: float | None = None,
    calibrated: bool = True,
    drop: float = 0.001,
    seconds: float = 3.4,
    preparation: float = 0.0,
    facts: Manifest | None = None,
) -> Summary:
    """Return the summary of a whole audit; without ``after``, of one in which nothing was unlearned."""
    canaries = canaries or canary_set()
    unlearnings = []
    if after is not None:
        ids = [canary.id for canary in canaries.inserted]
        measured = measurement(canaries, after, "after-second-order", sha=UPDATED_SHA, calibrated=calibrated)
        record = unlearning(canaries=ids, drop=drop, seconds=seconds)
        cost = record.cost.model_copy(update={"preparation_seconds": preparation})
        unlearnings.append((record.model_copy(update={"cost": cost}), measured))
    return build_summary(
        facts or manifest(),
        canaries,
        model_record(),
        measurement(canaries, before, calibrated=calibrated),
        unlearnings,
        run_name,
        SummaryOptions(reveal_secrets=reveal_secrets, fail_above=fail_above),
    )


def three_digits(fail_above: float | None = None) -> Summary:
    """Return the summary of an audit of three-digit secrets: at rank 1, at rank 2, and in the middle."""
    template = "the PIN is {digits:3}."
    canaries = canary_set(
        [
            Canary(id=f"canary-0{i}", template=template, completion=secret, repetitions=4)
            for i, secret in enumerate(("417", "902", "358"), 1)
        ]
    )
    bits = {"canary-01": math.log2(1000), "canary-02": math.log2(500), "canary-03": 1.0}
    return before_after(bits, None, canaries, fail_above=fail_above)


def with_bounds(measured: Measurement, low: float, high: float) -> Measurement:
    """Return a measurement whose first canary was searched in vain: certified bounds, and an importance estimate."""
    first = measured.canaries[0]
    headline = first.exposure.model_copy(update={"method": "importance"})
    estimates = {
        "exact": Estimate(bits=low, low=low, high=high, trusted=False, note="search budget spent: certified bounds"),
        "importance": Estimate(bits=headline.bits, low=headline.low, high=headline.high, trusted=True),
        "sampled": Estimate(bits=headline.bits + 0.2, low=headline.low, high=headline.high + 0.3, trusted=True),
    }
    changed = first.model_copy(update={"exposure": headline, "estimates": estimates})
    return measured.model_copy(update={"canaries": (changed, *measured.canaries[1:])})


def tables() -> TablesSummary:
    """Return a report on requests to a linear model, with something in every section."""

    def line(name: str, residual: float, difference: float, seconds: float, note: str = "") -> MethodLine:
        return MethodLine(
            name=name,
            residual=residual,
            mean_loss_difference=difference,
            max_loss_difference=9 * difference,
            accuracy=0.9772,
            f1=0.8471,
            seconds=seconds,
            preparation_seconds=1.7,
            speedup=0.33 / seconds if seconds else None,
            note=note,
        )

    return TablesSummary(
        estimator="LogisticRegression",
        loss="logistic",
        rows=39_380,
        columns=2081,
        requests=("100 columns removed", "10 rows deleted"),
        removed=("url::<b>a</b>", "url::b"),
        residual=2.4e-7,
        tolerance=1e-6,
        path="stored inverse",
        preparation_seconds=1.7,
        evaluated_on="test rows",
        majority_accuracy=0.9529,
        majority_f1=0.4879,
        methods=(
            line("update", 2.4e-7, 1e-9, 0.038, "stored inverse"),
            line("retrain", 9e-7, 0.0, 0.33, "fastest solver: L-BFGS"),
            line("left-out", 37.0, 5.5e-3, 0.0),
            line("sisa:5", 12.0, 2e-3, 0.2, "5 of 5 shards retrained"),
        ),
        certificate=CertificateFigures(
            epsilon=0.1,
            delta=1e-5,
            releases=1,
            sigma=6.1e-5,
            distance=2e-6,
            strong_convexity=1.0,
            rounding=1e-8,
            accuracy=0.9772,
            f1=0.8471,
        ),
        refused="",
        published=PublishedScheme(residual=4.8, sigma=189.7, accuracy=0.9529, f1=0.4879),
        disclosures=(
            DisclosureLine(column="url::b", measure="AUC", value=0.93, telling=True),
            DisclosureLine(column="age", measure="R2", value=0.1, telling=False),
            DisclosureLine(column="rare", measure="AUC", value=None, telling=False),
        ),
        membership=MembershipFigures(auc=0.51, low=0.42, high=0.6, retrained=0.51, deleted=10, unseen=9846),
        warnings=("rows were scaled to length 1 with the removed columns in them",),
        limits=("It covers models published after the request, not one that was published before.",),
        points=tuple(LossPoint(retrained=x / 100, updated=x / 100) for x in range(-5, 20)),
        run=RunFigures(
            name="apps",
            table="apps.npz",
            target="<i>malware</i>",
            result="second",
            results=(
                ResultLine(
                    name="first",
                    origin="before",
                    words="100 columns removed",
                    path="stored inverse",
                    update_work=2.6e8,
                    retraining_work=1.2e10,
                    residual=1.1e-7,
                    max_loss_difference=4e-9,
                    accuracy=0.9771,
                    seconds=0.02,
                    retraining_seconds=0.33,
                ),
                ResultLine(
                    name="second",
                    origin="after-first",
                    words="10 rows deleted",
                    path="fit from nothing",
                    update_work=3e10,
                    retraining_work=1.2e10,
                    residual=2.4e-7,
                    max_loss_difference=9e-9,
                    accuracy=0.9772,
                    seconds=0.31,
                    retraining_seconds=0.33,
                ),
            ),
            coins=(
                CoinFigures(
                    what="flipped labels",
                    before=(0.731, 0.695, 0.764, 1.2, 409, 800),
                    after=(0.502, 0.462, 0.542, 0.0, 409, 800),
                ),
            ),
            releases=ReleaseFigures(epsilon=0.1, delta=1e-5, made=2, planned=3),
            gate=TableGate(
                fail_residual=1e-7,
                status="failed",
                reasons=("first: residual 1.1e-07, above 1e-07", "second: residual 2.4e-07, above 1e-07"),
                doubts=(),
            ),
            faults=(),
            signed=False,
            revealed=True,
            versions=("scikit-learn 1.9.1",),
        ),
    )


def compared_tables() -> TablesComparison:
    """Return a comparison of a run on a table with an earlier report of another, which nothing verified."""
    first = tables()
    assert first.run is not None
    line = first.update.model_copy(update={"max_loss_difference": 3e-9, "accuracy": 0.9705})
    run = first.run.model_copy(update={"name": "nightly", "gate": None, "coins": (), "faults": ()})
    second = first.model_copy(
        update={"run": run, "methods": (line, *first.methods[1:]), "certificate": None, "warnings": ()}
    )
    return compare_tables([first, second], ["runs/apps", "old/report.json"], {"old/report.json"})
