"""Requests to a model behind an API, and exposure from its answers.

A request asks for the log-probability of one completion. Canaries, controls and random members of each space are
shuffled, and nothing in a request says which is which: the run alone knows, and makes the same requests again.
"""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from canaryaudit.canaries.canary import Canary, CanarySet
from canaryaudit.canaries.masking import hide_given
from canaryaudit.canaries.template import Template
from canaryaudit.corpus.vocabulary import Vocabulary
from canaryaudit.errors import MeasurementError
from canaryaudit.exposure.config import MIN_REFERENCES, MeasurementConfig
from canaryaudit.exposure.encoded_space import EncodedSpace, encode_completions
from canaryaudit.exposure.estimators.calibration import calibrate
from canaryaudit.exposure.estimators.headline import choose_headline
from canaryaudit.exposure.estimators.memorization import memorization_curves
from canaryaudit.exposure.estimators.sampled import sampled_exposure
from canaryaudit.exposure.estimators.skew_normal import skew_normal_exposure
from canaryaudit.exposure.extraction import extraction
from canaryaudit.exposure.measurement import MeasuredModel, describe_references
from canaryaudit.exposure.probing import fresh_members
from canaryaudit.exposure.references import References
from canaryaudit.models.score_file import ScoredText, tokens_of
from canaryaudit.records import (
    CanaryMeasurement,
    Estimate,
    EstimatorName,
    Measurement,
    MeasurementCost,
    TemplateEffort,
)

_ID = re.compile(r"s(\d+)-n(\d+)-(\d+)")


@dataclass(frozen=True)
class ScoreRequest:
    """One completion to be scored.

    Attributes:
        id: Tells the seed, the number of references and the place; not what it is.
        template: Its template's text.
        completion: What is to be scored.
        canary: Its id if it is a canary or control; empty for a reference.
    """

    id: str
    template: str
    completion: str
    canary: str

    @property
    def prompt(self) -> str:
        """What is read before the completion."""
        return Template.parse(self.template).prefix

    @property
    def text(self) -> str:
        """The whole text."""
        return Template.parse(self.template).fill(self.completion)


def score_requests(canary_set: CanarySet, num_references: int, seed: int) -> list[ScoreRequest]:
    """Return all requests, shuffled; the same for the same arguments.

    Args:
        canary_set: Canaries and controls.
        num_references: Random members of each template's space.
        seed: Of the members and of the order.
    """
    items: list[tuple[str, str, str]] = []
    for index, (text, group) in enumerate(canary_set.by_template().items()):
        space = canary_set.space(Template.parse(text))
        vocabulary = Vocabulary("".join(sorted(space.symbols)))
        encoded = EncodedSpace.of(space, vocabulary)
        taken = encode_completions([own.completion for own in group], vocabulary, encoded.max_length)
        rng = np.random.default_rng([seed, 6, index])
        items += [(text, own.completion, own.id) for own in group]
        drawn = fresh_members(encoded, np.unique(taken, axis=0), num_references, rng)
        items += [(text, vocabulary.decode(row[row >= 0]), "") for row in drawn]
    order = np.random.default_rng([seed, 7]).permutation(len(items)).tolist()
    return [ScoreRequest(f"s{seed}-n{num_references}-{place:06d}", *items[index]) for place, index in enumerate(order)]


def requests_answered(identifier: str, canary_set: CanarySet) -> list[ScoreRequest]:
    """Return the requests to which an answer with this id belongs.

    Raises:
        MeasurementError: It is not the id of a request.
    """
    match = _ID.fullmatch(identifier)
    if not match or int(match[2]) > 1_000_000:
        raise MeasurementError("the answers have no id of a request: keep the id of each line of the requests")
    return score_requests(canary_set, int(match[2]), int(match[1]))


def measure_scores(
    requests: Sequence[ScoreRequest],
    scored: Mapping[str, ScoredText],
    canary_set: CanarySet,
    recorded_as: MeasuredModel,
    config: MeasurementConfig,
) -> Measurement:
    """Measure exposure from answers: by the sampled rank and its extrapolation.

    Args:
        requests: What was asked.
        scored: The answers, by id.
        canary_set: Canaries and controls.
        recorded_as: What the record says of the model.
        config: Its seed is that of the extrapolation.

    Raises:
        MeasurementError: There are too few references.
    """
    by_template: dict[str, list[ScoreRequest]] = defaultdict(list)
    for own in requests:
        by_template[own.template].append(own)
    canaries: list[CanaryMeasurement] = []
    described = []
    for index, (text, group) in enumerate(canary_set.by_template().items()):
        costs, greedy = _costs(by_template[text], scored)
        space = canary_set.space(Template.parse(text))
        is_reference = np.array([not own.canary for own in by_template[text]])
        own_costs = {own.canary: cost for own, cost in zip(by_template[text], costs, strict=True) if own.canary}
        said = {own.canary: is_greedy for own, is_greedy in zip(by_template[text], greedy, strict=True)}
        controls = np.array([own_costs[own.id] for own in group if own.control])
        bits = np.concatenate((costs[is_reference], controls))
        if len(bits) < MIN_REFERENCES:
            raise MeasurementError(
                f"template {text!r} has {len(bits)} references: expected at least {MIN_REFERENCES}; ask for "
                "more --samples"
            )
        rng = np.random.default_rng((config.seed, index))
        references = References(bits, np.ones(len(bits), dtype=np.int32), np.full(len(bits), -1), None, 0.0)
        distribution = describe_references(text, space.bits, references, config, rng)
        described.append(distribution)
        for canary in group:
            cost = float(own_costs[canary.id])
            # A control is no reference of its own.
            others = bits if not canary.control else np.delete(bits, int(np.flatnonzero(bits == cost)[-1]))
            estimates: dict[EstimatorName, Estimate] = {"sampled": sampled_exposure(cost, others, space.bits)}
            if distribution.skew_normal is not None:
                estimates["skew-normal"] = skew_normal_exposure(
                    cost, [distribution.min_bits], space.bits, fit=distribution.skew_normal
                )
            canaries.append(_record(canary, canary_set, (cost, space.bits, said[canary.id]), estimates))
    order = {canary.id: place for place, canary in enumerate(canary_set.canaries)}
    canaries.sort(key=lambda canary: order[canary.id])
    unseen = [canary for canary in canaries if canary.control]
    return Measurement(
        model=recorded_as.name,
        model_sha256=recorded_as.sha256,
        seed=config.seed,
        device="api",
        precision=recorded_as.precision,
        num_references=max(own.num_references for own in described),
        search_budget=0,
        precision_bits=config.precision_bits,
        max_draws=0,
        time_limit=0,
        efforts=tuple(_effort(own.template, own.num_references) for own in described),
        canaries=tuple(canaries),
        references=tuple(described),
        calibration=calibrate(
            np.array([own.exposure.bits for own in unseen]), np.array([own.space_bits for own in unseen])
        ),
        memorization=memorization_curves(canaries),
        cost=MeasurementCost(
            seconds=0.0, references=len(requests), search_nodes=0, characters_scored=sum(len(r.text) for r in requests)
        ),
    )


def _costs(requests: Sequence[ScoreRequest], scored: Mapping[str, ScoredText]) -> tuple[np.ndarray, list[bool]]:
    """Return what each completion costs, and whether each of its tokens is the likeliest.

    Of tokens, those count that end behind the last boundary within the prompt that all texts share, up to the first
    that ends at or after the completion.
    """
    answers = [scored[own.id] for own in requests]
    before = len(requests[0].prompt)
    shared: set[int] | None = None
    for answer in answers:
        if answer.ends:
            ends = {end for end in answer.ends if end <= before}
            shared = ends if shared is None else shared & ends
    cut = max(shared or {0}, default=0)
    costs, greedy = [], []
    for own, answer in zip(requests, answers, strict=True):
        if answer.bits is not None:
            costs.append(answer.bits)
            greedy.append(all(answer.likeliest) if answer.likeliest else False)
            continue
        until = before + len(own.completion)
        chosen = [k for k, (begin, end, _) in enumerate(tokens_of(answer)) if end > cut and begin < until]
        values = [answer.token_bits[k] for k in chosen]
        if not np.isfinite(values).all():
            raise MeasurementError(
                f"template {own.template!r}: the first token of a text has no log-probability, and belongs to the "
                "secret: use a template with text before its first slot"
            )
        costs.append(sum(values))
        greedy.append(bool(answer.likeliest) and all(answer.likeliest[k] for k in chosen))
    return np.array(costs), greedy


def _record(
    canary: Canary, canary_set: CanarySet, found: tuple[float, float, bool], estimates: dict[EstimatorName, Estimate]
) -> CanaryMeasurement:
    cost, space_bits, greedy = found
    chosen = choose_headline(estimates)
    return CanaryMeasurement(
        id=canary.id,
        template=canary.template,
        repetitions=canary.repetitions,
        control=canary.control,
        masked=canary.masked,
        kind=canary.kind,
        space_bits=space_bits,
        log_perplexity_bits=cost,
        exposure=chosen,
        estimates=estimates,
        extraction=extraction(
            cost,
            chosen,
            space_bits,
            greedy=greedy,
            greedy_text=hide_given(canary.completion, canary, canary_set) if greedy else "",
            beam_rank=None,
        ),
    )


def _effort(template: str, num_references: int) -> TemplateEffort:
    return TemplateEffort(
        template=template,
        num_references=num_references,
        search_budget=0,
        max_draws=0,
        num_prompts=0,
        probe_references=0,
    )
