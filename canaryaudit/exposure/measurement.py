"""One measurement: every canary of a run under one model, by every estimator, with its controls."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, field_validator

from canaryaudit.canaries import Canary, CanarySet, Template
from canaryaudit.errors import MeasurementError
from canaryaudit.exposure.calibration import calibrate
from canaryaudit.exposure.exact import DEFAULT_BUDGET, enumerate_ranks, search_ranks
from canaryaudit.exposure.extraction import beam_completions, extraction, greedy_completion
from canaryaudit.exposure.headline import headline
from canaryaudit.exposure.importance import TEMPERATURES, draw_members, importance_exposure
from canaryaudit.exposure.memorisation import memorisation_curves
from canaryaudit.exposure.sampling import sampled_exposure
from canaryaudit.exposure.skewnormal import fit_skew_normal, skew_normal_exposure
from canaryaudit.masking import hide_given
from canaryaudit.model import LanguageModel, PrefixState
from canaryaudit.narration import Narrator
from canaryaudit.records import (
    CanaryMeasurement,
    Estimate,
    EstimatorName,
    Measurement,
    MeasurementCost,
    ReferenceDistribution,
)
from canaryaudit.scoring import (
    EncodedSpace,
    Ticker,
    character_bits,
    encode_completions,
    log_perplexity_bits,
    read_prefix,
)

MIN_REFERENCES = 50
"""Random completions that must be left when those of inserted canaries are taken out."""

_SAME_BITS = 1e-2
"""Two readings of one completion never lie further apart."""

ALL_ESTIMATORS: tuple[EstimatorName, ...] = ("exact", "importance", "sampled", "skew-normal")


class MeasurementConfig(BaseModel):
    """How to measure; checked when made."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_references: int = Field(default=10_000, ge=100, le=100_000_000)
    """Uniform draws of each template's space: seconds of work, and 9 bits of exposure with a tight interval."""
    estimators: tuple[EstimatorName, ...] = ALL_ESTIMATORS
    enumerate_up_to: int = Field(default=100_000, ge=0)
    """Spaces of at most this size are scored whole; larger ones are searched."""
    search_budget: int = Field(default=DEFAULT_BUDGET, ge=1)
    draws_per_temperature: int = Field(default=2_000, ge=2)
    seed: int = Field(default=0, ge=0)

    @field_validator("estimators")
    @classmethod
    def _has_a_headline(cls, estimators: tuple[EstimatorName, ...]) -> tuple[EstimatorName, ...]:
        if set(estimators) <= {"skew-normal"}:
            raise MeasurementError("the skew-normal fit gives no headline: add exact, importance or sampled")
        return estimators


@dataclass(frozen=True)
class _Group:
    """The canaries of one template, encoded."""

    template: Template
    space: EncodedSpace
    start: PrefixState
    canaries: Sequence[Canary]
    completions: np.ndarray  # (K, max_length)
    inserted: np.ndarray  # (K,) bool
    costs_bits: np.ndarray  # (K,)
    character_bits: np.ndarray  # (K, max_length)

    def without_inserted(self, completions: np.ndarray) -> np.ndarray:
        """Return which rows are not the secret of an inserted canary, shape (N,)."""
        kept = np.ones(len(completions), dtype=bool)
        for row in self.completions[self.inserted]:
            kept &= (completions != row).any(1)
        return kept

    def rivals(self, index: int, completions: np.ndarray, bits: np.ndarray) -> np.ndarray:
        """Return which rows, none of an inserted canary, are not this canary itself, shape (N,)."""
        kept = np.ones(len(completions), dtype=bool)
        near = np.flatnonzero(np.abs(bits - self.costs_bits[index]) < _SAME_BITS)
        kept[near] = (completions[near] != self.completions[index]).any(1)
        return kept


def measure(
    model: LanguageModel,
    canary_set: CanarySet,
    config: MeasurementConfig,
    *,
    name: str,
    model_sha256: str,
    precision: str,
    narrator: Narrator,
) -> Measurement:
    """Measure every canary and control under ``model``, against references taken afresh from this model.

    Args:
        model: The model.
        canary_set: Canaries and controls.
        config: How to measure.
        name: ``before`` or ``after-NAME``.
        model_sha256: Of the weights.
        precision: Of the matrix products, for the record.
        narrator: Told of progress.

    Raises:
        MeasurementError: Every completion of a template is an inserted canary: there is nothing to compare with.
    """
    started = time.perf_counter()
    canaries: list[CanaryMeasurement] = []
    references: list[ReferenceDistribution] = []
    nodes = scored = 0
    groups = canary_set.by_template()
    for index, (text, members) in enumerate(groups.items()):
        stage = f"measure {name}" + (f" ({index + 1}/{len(groups)})" if len(groups) > 1 else "")
        group = _encode(model, canary_set, Template.parse(text), members)
        rng = np.random.default_rng((config.seed, index))
        drawn = group.space.sample(config.num_references, rng)
        drawn = drawn[group.without_inserted(drawn)]
        if len(drawn) < MIN_REFERENCES:
            raise MeasurementError(
                f"of {config.num_references} random completions of template {text!r} all but {len(drawn)} are inserted "
                "canaries: expected a space much larger than their number; insert fewer, or use longer slots"
            )
        reference_bits = log_perplexity_bits(model, group.start, drawn, _ticker(narrator, stage, "references"))
        scored += int((drawn >= 0).sum())
        distribution = _describe(text, group.space, reference_bits, config, rng)
        references.append(distribution)
        estimates: list[dict[EstimatorName, Estimate]] = [{} for _ in members]
        if "exact" in config.estimators:
            exact, searched = _exact_estimates(model, group, config, _ticker(narrator, stage, "exact rank"))
            nodes += searched
            for own, estimate in zip(estimates, exact, strict=True):
                own["exact"] = estimate
        undecided = [k for k, own in enumerate(estimates) if "exact" not in own or not own["exact"].trusted]
        if "importance" in config.estimators and undecided:
            tick = _ticker(narrator, stage, "importance sampling")
            for k, estimate in zip(
                undecided, _importance_estimates(model, group, undecided, config, rng, tick), strict=True
            ):
                estimates[k]["importance"] = estimate
            scored += config.draws_per_temperature * len(TEMPERATURES) * group.space.max_length
        for k, own in enumerate(estimates):
            cost = float(group.costs_bits[k])
            if "sampled" in config.estimators:
                others = reference_bits[group.rivals(k, drawn, reference_bits)]
                own["sampled"] = sampled_exposure(cost, others, group.space.bits)
            if distribution.skew_normal is not None:
                own["skew-normal"] = skew_normal_exposure(
                    cost, distribution.skew_normal, distribution.min_bits, group.space.bits
                )
        greedy = greedy_completion(model, group.start, group.space.max_length)
        beams = beam_completions(model, group.start, group.space)
        canaries += [_record(group, k, own, greedy, beams, canary_set) for k, own in enumerate(estimates)]
    order = {canary.id: place for place, canary in enumerate(canary_set.canaries)}
    canaries.sort(key=lambda canary: order[canary.id])
    return Measurement(
        model=name,
        model_sha256=model_sha256,
        seed=config.seed,
        device=str(model.device),
        precision=precision,
        num_references=config.num_references,
        canaries=tuple(canaries),
        references=tuple(references),
        calibration=calibrate(np.array([c.exposure.bits for c in canaries if c.control])),
        memorisation=memorisation_curves(canaries),
        cost=MeasurementCost(
            seconds=time.perf_counter() - started,
            references=config.num_references * len(groups),
            search_nodes=nodes,
            characters_scored=scored + nodes,
        ),
    )


def _encode(model: LanguageModel, canary_set: CanarySet, template: Template, members: Sequence[Canary]) -> _Group:
    space = EncodedSpace.of(canary_set.space(template), model.vocabulary)
    start = read_prefix(model, template.prefix)
    completions = encode_completions([canary.completion for canary in members], model.vocabulary, space.max_length)
    costs = log_perplexity_bits(model, start, completions)
    inserted = np.array([not canary.control for canary in members])
    by_character = character_bits(model, start, completions)
    return _Group(template, space, start, members, completions, inserted, costs, by_character)


def _describe(
    template: str, space: EncodedSpace, bits: np.ndarray, config: MeasurementConfig, rng: np.random.Generator
) -> ReferenceDistribution:
    counts, edges = np.histogram(bits, bins=60)
    return ReferenceDistribution(
        template=template,
        space_bits=space.bits,
        num_references=len(bits),
        edges_bits=tuple(edges.tolist()),
        counts=tuple(counts.tolist()),
        mean_bits=float(bits.mean()),
        standard_deviation_bits=float(bits.std()),
        min_bits=float(bits.min()),
        max_bits=float(bits.max()),
        skew_normal=fit_skew_normal(bits, rng) if "skew-normal" in config.estimators else None,
    )


def _exact_estimates(
    model: LanguageModel, group: _Group, config: MeasurementConfig, tick: Ticker
) -> tuple[list[Estimate], int]:
    """Return an exact figure or certified bounds for each canary, and the prefixes that the search expanded."""
    bits = group.space.bits
    if group.space.size <= config.enumerate_up_to:
        members = group.space.members()
        costs = log_perplexity_bits(model, group.start, members, tick)
        rows = [int(np.flatnonzero((members == row).all(1))[0]) for row in group.completions]
        ranks = enumerate_ranks(costs, rows, [row for row, own in zip(rows, group.inserted, strict=True) if own])
        return [_exact(bits, rank) for rank in ranks], 0
    search = search_ranks(
        model,
        group.start,
        group.space,
        group.completions,
        group.inserted,
        group.costs_bits,
        budget=config.search_budget,
        tick=tick,
    )
    return [
        _exact(bits, rank.lower) if rank.exact else _bounded(bits, rank.lower, rank.upper) for rank in search.ranks
    ], search.nodes


def _exact(space_bits: float, rank: float) -> Estimate:
    exposure = min(max(space_bits - math.log2(rank), 0.0), space_bits)
    return Estimate(bits=exposure, low=exposure, high=exposure, trusted=True)


def _bounded(space_bits: float, lower_rank: float, upper_rank: float) -> Estimate:
    low = min(max(space_bits - math.log2(upper_rank), 0.0), space_bits)
    high = min(max(space_bits - math.log2(lower_rank), 0.0), space_bits)
    return Estimate(
        bits=low, low=low, high=high, trusted=False, note="search budget spent: certified bounds, not a figure"
    )


def _importance_estimates(
    model: LanguageModel,
    group: _Group,
    wanted: Sequence[int],
    config: MeasurementConfig,
    rng: np.random.Generator,
    tick: Ticker,
) -> list[Estimate]:
    draws = draw_members(model, group.start, group.space, config.draws_per_temperature, rng, tick)
    # A draw of an inserted secret, or of the secret itself, keeps its place among the n and counts for nothing.
    references = np.where(group.without_inserted(draws.completions), draws.bits, np.inf)
    return [
        importance_exposure(
            float(group.costs_bits[k]),
            np.where(group.rivals(k, draws.completions, draws.bits), references, np.inf),
            draws.log2_weights,
            draws.strata,
            group.space.bits,
        )
        for k in wanted
    ]


def _record(
    group: _Group,
    index: int,
    estimates: dict[EstimatorName, Estimate],
    greedy: str,
    beams: list[tuple[int, ...]],
    canary_set: CanarySet,
) -> CanaryMeasurement:
    canary = group.canaries[index]
    chosen = headline(estimates)
    own = tuple(int(symbol) for symbol in group.completions[index] if symbol >= 0)
    text = greedy[: len(canary.completion)]
    return CanaryMeasurement(
        id=canary.id,
        template=canary.template,
        repetitions=canary.repetitions,
        control=canary.control,
        masked=canary.masked,
        space_bits=group.space.bits,
        log_perplexity_bits=float(group.costs_bits[index]),
        exposure=chosen,
        estimates=estimates,
        # Whoever has the model could put a hidden secret together from these, character by character.
        character_bits=None
        if canary.masked or canary.control
        else tuple(group.character_bits[index, : len(own)].round(4).tolist()),
        extraction=extraction(
            float(group.costs_bits[index]),
            chosen,
            group.space.bits,
            greedy=text == canary.completion,
            greedy_text=hide_given(text, canary, canary_set),
            beam_rank=beams.index(own) + 1 if own in beams else None,
        ),
    )


def _ticker(narrator: Narrator, stage: str, what: str) -> Ticker:
    def tick(done: int, total: int) -> None:
        narrator.progress(stage, done, total, what)

    return tick
