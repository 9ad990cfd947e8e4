"""One measurement: every canary of a run under one model, by every estimator, with its controls."""

import math
import time
from dataclasses import dataclass, replace

import numpy as np

from canaryaudit.canaries.canary import Canary, CanarySet
from canaryaudit.canaries.masking import hide_given
from canaryaudit.errors import MeasurementError
from canaryaudit.exposure.closing import judge_closings
from canaryaudit.exposure.config import MIN_REFERENCES, MeasurementConfig
from canaryaudit.exposure.confirmation import confirm_calibration
from canaryaudit.exposure.effort import Effort, plan_effort, ranking_symbols, seconds_per_symbol, symbols_allowed
from canaryaudit.exposure.estimation import rank_targets
from canaryaudit.exposure.estimators.calibration import calibrate
from canaryaudit.exposure.estimators.headline import choose_headline
from canaryaudit.exposure.estimators.memorization import memorization_curves
from canaryaudit.exposure.estimators.sampled import FEWEST, sampled_exposure
from canaryaudit.exposure.estimators.skew_normal import FIT_SIZE, fit_skew_normal, skew_normal_exposure
from canaryaudit.exposure.execution import Execution
from canaryaudit.exposure.extraction import beam_completions, extraction
from canaryaudit.exposure.probes import RunText, TemplateProbes, prompt_records, template_probes
from canaryaudit.exposure.probing import ProbedTemplate, joint_pvalue, probe_targets
from canaryaudit.exposure.references import DRAFT_FROM, References, score_references
from canaryaudit.exposure.scoring import TILE
from canaryaudit.exposure.scoring_models import ScoringModels
from canaryaudit.exposure.targets import Asker, Targets
from canaryaudit.exposure.token_asker import asker_of
from canaryaudit.exposure.uniform_sample import DrawnSample, UniformSample
from canaryaudit.models.language_model import LanguageModel, PrefixReader
from canaryaudit.models.token_model import TokenModel
from canaryaudit.records import (
    CanaryMeasurement,
    Estimate,
    EstimatorName,
    Measurement,
    MeasurementCost,
    OtherSpellings,
    ReferenceDistribution,
    TemplateEffort,
    TokenBits,
    WorstCases,
)

_CONFIRMING = 0.25
"""Share of the time limit that fresh controls may take besides."""
_CLOSING_SEED = 5
"""Apart from the seeds of references, searches, probes, spellings and fresh controls."""


@dataclass(frozen=True)
class MeasuredModel:
    """What a measurement's record says of the model.

    Attributes:
        name: ``before`` or ``after-NAME``.
        sha256: Of the weights.
        precision: Of the matrix products.
    """

    name: str = "before"
    sha256: str = ""
    precision: str = "fp32"


@dataclass(frozen=True)
class _Found:
    """What was found out about the canaries of one template."""

    canaries: list[CanaryMeasurement]
    references: ReferenceDistribution
    effort: TemplateEffort
    search_nodes: int
    characters: int
    probed: ProbedTemplate | None = None
    spellings: OtherSpellings | None = None


def measure(
    model: LanguageModel | TokenModel,
    canary_set: CanarySet,
    config: MeasurementConfig,
    *,
    draft: PrefixReader | None = None,
    run_text: RunText | None = None,
    recorded_as: MeasuredModel | None = None,
    execution: Execution | None = None,
) -> Measurement:
    r"""Measure every canary and control under ``model``, against references taken afresh from this model.

    Args:
        model: The model.
        canary_set: Canaries and controls.
        config: How to measure.
        draft: The same model, faster and less exact, for the bulk of a large reference sample.
        run_text: What the model was trained on, from which prompts are taken; needed where the configuration asks for
            any besides the templates' own prefixes.
        recorded_as: What the record says of the model; ``before``, without a digest, if not given.
        execution: Who is told of progress, what keeps finished parts of this very measurement, and who shares the work
            (the followers have got the same model and draft ready); alone, untold and unkept if not given.

    Returns:
        Exposure of every canary and control, in the order of the set, with the controls' calibration and the
        memorization curve.

    Raises:
        MeasurementError: Every completion of a template is an inserted canary: there is nothing to compare with. Or a
            prompt of the user's cannot be asked.

    Examples:
        An untrained model has seen no secret, so canary and controls look alike:

        >>> import torch
        >>> from canaryaudit.canaries.canary import Canary
        >>> from canaryaudit.models.char_lstm import CharLSTM, LSTMLanguageModel
        >>> from canaryaudit.records import Architecture
        >>> _ = torch.manual_seed(0)
        >>> lstm = CharLSTM(Architecture(vocabulary="\n .0123456789cdeo", embedding=4, hidden=8, layers=1))
        >>> text, secrets = "code {digits:3}.", np.random.default_rng(1).permutation(1000)[:33]
        >>> canaries = [Canary(id="canary-01", template=text, completion=f"{secrets[0]:03d}", repetitions=1)]
        >>> for number, secret in enumerate(secrets[1:], 1):
        ...     control = {"id": f"control-{number:02d}", "repetitions": 0, "control": True}
        ...     canaries.append(Canary(template=text, completion=f"{secret:03d}", **control))
        >>> canary_set = CanarySet(corpus_symbols="", canaries=canaries)
        >>> measurement = measure(LSTMLanguageModel(lstm.eval()), canary_set, MeasurementConfig())
        >>> measurement.canaries[0].exposure.method, measurement.calibration.passed
        ('exact', True)
    """
    recorded_as, execution = recorded_as or MeasuredModel(), execution or Execution()
    started = time.perf_counter()
    all_probes = _all_probes(canary_set, config, run_text)
    asker, groups = asker_of(model, canary_set), canary_set.by_template()
    found: list[_Found] = []
    left, seconds = symbols_allowed(model, config), seconds_per_symbol(model)
    parts = replace(execution, stage=f"measure {recorded_as.name}").parts([1.0] * len(groups))
    for index, (text, members) in enumerate(groups.items()):
        group = asker.targets(text, members)
        probes = all_probes[index] if all_probes else None
        effort = plan_effort(
            config,
            group.space,
            seconds,
            allowed=left / (len(groups) - index),
            targets=len(members),
            prompts=len(probes.prompts) if probes else 0,
        )
        own = replace(parts[index], facts=f"template {index + 1} of {len(groups)}" if len(groups) > 1 else "")
        found.append(_measure_group((asker, draft), canary_set, group, (index, effort), own, probes))
        left = max(0.0, left - found[-1].characters - found[-1].search_nodes)
    canaries = [canary for own in found for canary in own.canaries]
    order = {canary.id: place for place, canary in enumerate(canary_set.canaries)}
    canaries.sort(key=lambda canary: order[canary.id])
    controls = [canary for canary in canaries if canary.control]
    calibration = calibrate(
        np.array([canary.exposure.bits for canary in controls]), np.array([canary.space_bits for canary in controls])
    )

    def measure_fresh(text: str, members: list[Canary], index: int) -> list[CanaryMeasurement]:
        fresh = asker.targets(text, members)
        staged = replace(execution, stage=f"measure {recorded_as.name}, fresh controls").parts([1.0] * len(groups))
        allowed = _CONFIRMING * symbols_allowed(model, config) / len(groups)
        effort = plan_effort(config, fresh.space, seconds, allowed=allowed, targets=len(members), prompts=0)
        # Numbers after those of the templates, so that no draw is one of before.
        numbered = (len(groups) + index, effort)
        own = _measure_group((asker, draft), canary_set, fresh, numbered, staged[index], None)
        found.append(replace(own, canaries=[]))  # for the work that it took
        return own.canaries

    calibration = confirm_calibration(calibration, canary_set, config.seed, measure_fresh)
    nodes = sum(own.search_nodes for own in found)
    references = tuple(own.references for own in found[: len(groups)])
    probed = [own.probed for own in found if own.probed]
    unread = [own.probed.unread if own.probed else {} for own in found]
    return Measurement(
        model=recorded_as.name,
        model_sha256=recorded_as.sha256,
        seed=config.seed,
        device=str(asker.device),
        precision=recorded_as.precision,
        num_references=config.num_references,
        search_budget=config.search_budget,
        precision_bits=config.precision_bits,
        max_draws=config.max_draws,
        time_limit=config.time_limit,
        efforts=tuple(own.effort for own in found[: len(groups)]),
        canaries=tuple(canaries),
        references=references,
        calibration=calibration,
        memorization=memorization_curves(canaries),
        spellings=tuple(own.spellings for own in found[: len(groups)] if own.spellings),
        prompts=tuple(
            record for own, reasons in zip(all_probes, unread, strict=False) for record in prompt_records(own, reasons)
        ),
        worst_cases=WorstCases(
            effort=config.probes, references=max(own.references for own in probed), joint_pvalue=joint_pvalue(probed)
        )
        if probed
        else None,
        cost=MeasurementCost(
            seconds=time.perf_counter() - started,
            references=sum(own.effort.num_references for own in found),
            search_nodes=nodes,
            characters_scored=sum(own.characters for own in found) + nodes,
        ),
    )


def _measure_group(
    asked_by: tuple[Asker, PrefixReader | None],
    canary_set: CanarySet,
    group: Targets,
    numbered: tuple[int, Effort],
    execution: Execution,
    probes: TemplateProbes | None,
) -> _Found:
    (asker, draft), model, text, space = asked_by, group.reader, group.template.text, group.space
    index, effort = numbered
    config = effort.config
    probes = probes and probes.at_most(effort.num_prompts)
    sample: UniformSample | None = None
    if group.tokens and group.tokens.drawn is not None:  # No path leads to most members: ranks are sampled.
        sampled = ("sampled", *(name for name in config.estimators if name == "skew-normal"))
        config = config.model_copy(update={"estimators": sampled, "search_budget": 1, "max_draws": 1})
        sample = DrawnSample(space, group.tokens.drawn, config.num_references)
    sample = sample or UniformSample(space, config.num_references, (config.seed, index, 0))
    ranking = sum(ranking_symbols(config, space, seconds_per_symbol(model)).values())
    probing = len(probes.prompts) * space.reading_symbols(effort.probe_references) if probes else 0.0
    work = (space.reading_symbols(config.num_references), ranking, 1.3 * probing)
    drawing, searching, asking = execution.parts(work)
    rng = np.random.default_rng((config.seed, index))
    references = score_references(
        ScoringModels(model, draft if min(config.num_references, space.size) >= DRAFT_FROM else None),
        group,
        sample,
        rng,
        drawing,
        f"references-{index}",
    )
    if references.total < MIN_REFERENCES:
        raise MeasurementError(
            f"of {config.num_references} random completions of template {text!r} all but {references.total} are "
            "inserted canaries: expected a space much larger than their number; insert fewer, or use longer slots"
        )
    distribution = describe_references(text, space.bits, references, config, rng)
    ranked = rank_targets(group, config, (config.seed, index, 1), searching, references)
    estimates = ranked.estimates
    for k, own in enumerate(estimates):
        cost = float(group.log_perplexity_bits[k])
        if "sampled" in config.estimators:
            others = references.where(references.target_index != k)
            # Of a space with hardly a member but this one no number of draws tells anything: its rank is counted.
            if others.total >= FEWEST or "exact" not in own:
                own["sampled"] = sampled_exposure(
                    cost, others.bits, space.bits, counts=others.counts, rescored=others.rescored
                )
        if distribution.skew_normal is not None:
            own["skew-normal"] = skew_normal_exposure(
                cost, [distribution.min_bits], space.bits, fit=distribution.skew_normal
            )
    greedy = asker.greedy_text(group)
    beams = [] if isinstance(sample, DrawnSample) else beam_completions(model, group.start, space)
    canaries = [_record(group, k, own, greedy, beams, canary_set) for k, own in enumerate(estimates)]
    closings, closing_symbols = judge_closings(
        asker, group, effort.closing_references, (config.seed, index, _CLOSING_SEED)
    )
    canaries = [own.model_copy(update={"closing": closing}) for own, closing in zip(canaries, closings, strict=True)]
    made = effort.record(text, enumerated=space.size <= config.enumerate_up_to and "exact" in config.estimators)
    nodes = ranked.search_nodes
    characters = ranked.characters + int(space.reading_symbols(config.num_references)) + 2 * TILE * space.max_length
    characters += closing_symbols
    spellings = asker.other_spellings(group, np.random.default_rng((config.seed, index, 3)))
    if probes is None:
        return _Found(canaries, distribution, made, nodes, characters, None, spellings)
    probed = probe_targets(
        asker, group, [own.exposure for own in canaries], probes, effort, (config.seed, index, 2), asking
    )
    canaries = [
        own.model_copy(update={"probes": exposures, "worst_case": worst})
        for own, exposures, worst in zip(canaries, probed.exposures, probed.worst, strict=True)
    ]
    nodes, characters = nodes + probed.search_nodes, characters + probed.characters
    return _Found(canaries, distribution, made, nodes, characters, probed, spellings)


def _all_probes(canary_set: CanarySet, config: MeasurementConfig, run_text: RunText | None) -> list[TemplateProbes]:
    """Return the probes of each template; none where only the templates' own prefixes are asked for."""
    if config.probes == "none" and not config.prompts:
        return []
    if run_text is None:
        raise MeasurementError("expected the text that the model was trained on: prompts are taken from it")
    given = dict(enumerate(config.prompts, 1))
    return [
        template_probes(text, members, run_text, config.probes, given, config.seed)
        for text, members in canary_set.by_template().items()
    ]


def describe_references(
    template: str, space_bits: float, references: References, config: MeasurementConfig, rng: np.random.Generator
) -> ReferenceDistribution:
    """Return what a record says of a template's references, with the law that is fitted to them if that is asked for.

    Args:
        template: Its text.
        space_bits: log2 of the size of R.
        references: Random members of R.
        config: Names the estimators.
        rng: Draws of them for the fit.
    """
    bits, counts = references.bits, references.counts
    histogram, edges = np.histogram(bits, bins=60, weights=counts)
    mean = float(np.average(bits, weights=counts))
    fitted = references.subsample(FIT_SIZE, rng) if "skew-normal" in config.estimators else None
    return ReferenceDistribution(
        template=template,
        space_bits=space_bits,
        num_references=references.total,
        edges_bits=tuple(edges.tolist()),
        counts=tuple(int(number) for number in histogram),
        mean_bits=mean,
        standard_deviation_bits=math.sqrt(float(np.average((bits - mean) ** 2, weights=counts))),
        min_bits=float(bits.min()),
        max_bits=float(bits.max()),
        skew_normal=None if fitted is None else fit_skew_normal(fitted, rng),
        rescored=0 if references.rescored is None else len(references.rescored.rows),
        draft_error_bits=references.draft_error_bits,
    )


def _record(
    group: Targets,
    index: int,
    estimates: dict[EstimatorName, Estimate],
    greedy: str,
    beams: list[tuple[int, ...]],
    canary_set: CanarySet,
) -> CanaryMeasurement:
    canary = group.canaries[index]
    chosen = choose_headline(estimates)
    own = tuple(int(symbol) for symbol in group.completions[index] if symbol >= 0)
    text = greedy[: len(canary.completion)]
    bits = tuple(group.symbol_bits[index, : len(own)].round(4).tolist())
    ends = group.ends[index, : len(own)].tolist()
    return CanaryMeasurement(
        id=canary.id,
        template=canary.template,
        repetitions=canary.repetitions,
        control=canary.control,
        masked=canary.masked,
        kind=canary.kind,
        space_bits=group.space.bits,
        log_perplexity_bits=float(group.log_perplexity_bits[index]),
        exposure=chosen,
        estimates=estimates,
        # Whoever has the model could put a hidden secret together from these, character by character.
        character_bits=None if canary.masked or canary.control or group.tokens else bits,
        token_bits=None
        if canary.masked or canary.control or not group.tokens
        else tuple(TokenBits(end=end, bits=cost) for end, cost in zip(ends, bits, strict=True)),
        extraction=extraction(
            float(group.log_perplexity_bits[index]),
            chosen,
            group.space.bits,
            greedy=text == canary.completion,
            greedy_text=hide_given(text, canary, canary_set),
            beam_rank=beams.index(own) + 1 if own in beams else None,
        ),
    )
