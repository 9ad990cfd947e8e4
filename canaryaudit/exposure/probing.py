"""Every canary and control of a template under every probe, in one pass; then the worst case of each.

The canaries, the controls and fresh members of the space are scored together after all prompts, each prompt read once
and each prefix of a completion once after it. The costs of characters are kept, so that knowing the first ones of a
secret takes no pass of its own. References are the controls and the fresh members, since a uniform member that was
never inserted is a control. Where hardly any of them reaches a canary that stands out, its exposure after that very
prompt is found by search and importance sampling.
"""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from canaryaudit.canaries.canary import Canary, CanarySet
from canaryaudit.errors import UnreadableText
from canaryaudit.exposure.config import MeasurementConfig
from canaryaudit.exposure.effort import Effort, refining_config, seconds_per_symbol
from canaryaudit.exposure.encoded_space import EncodedSpace, match_targets
from canaryaudit.exposure.estimation import rank_targets
from canaryaudit.exposure.estimators.headline import choose_headline
from canaryaudit.exposure.estimators.sampled import ENOUGH_LIKELIER, sampled_exposure
from canaryaudit.exposure.estimators.worst_case import (
    ReferenceScores,
    WorstCase,
    extended_p_value,
    joint_p_value,
    log2_weights,
)
from canaryaudit.exposure.execution import Execution
from canaryaudit.exposure.probes import Probe, TemplateProbes
from canaryaudit.exposure.scoring import score_log_perplexity
from canaryaudit.exposure.targets import Asker, Targets
from canaryaudit.exposure.token_asker import asker_of
from canaryaudit.models.language_model import LanguageModel
from canaryaudit.models.token_model import TokenModel
from canaryaudit.records import CanaryMeasurement, Headline, ProbeExposure, ProbeName
from canaryaudit.records import WorstCase as WorstCaseRecord

_TOO_FEW = 2
"""References without which there is nothing to judge by."""
_CEILING_BITS = 1.0
"""Where the template's own prefix shows all but this much of what there is, no other prompt is looked into."""
_STANDS_OUT = 0.05


TEMPLATE_PROBE = ProbeName(family="template", prompt="template", known=0)


@dataclass(frozen=True)
class AskedProbe:
    """A probe with what it reads.

    Attributes:
        name: As records name it.
        text: The prompt's text.
        given: Characters of the completion that are given.
    """

    name: ProbeName
    text: str
    given: int


@dataclass(frozen=True)
class ProbedTemplate:
    """What the probes showed of one template's canaries and controls, in the order of the targets.

    Attributes:
        exposures: Under every probe; empty for controls.
        worst: None for all where the space has too few members.
        rank_p_values: Of the inserted canaries, by rank alone.
        references: Number of references.
        search_nodes: Prefixes expanded by searches.
        characters: Characters scored.
        unread: Why the model could not read a prompt, by the prompt's id.
    """

    exposures: list[tuple[ProbeExposure, ...]]
    worst: list[WorstCaseRecord | None]
    rank_p_values: list[float]
    references: int
    search_nodes: int
    characters: int
    unread: Mapping[str, str] = field(default_factory=dict)


def joint_pvalue(templates: Sequence[ProbedTemplate]) -> float | None:
    """Return the probability that as many secrets never seen stand out as much, None where none was judged."""
    judged = [own for own in templates if own.rank_p_values]
    if not judged:
        return None
    return joint_p_value([own.rank_p_values for own in judged], [own.references for own in judged])


def probe_targets(
    asker: Asker,
    targets: Targets,
    own_prefix: Sequence[Headline],
    probes: TemplateProbes,
    effort: Effort,
    seed: Sequence[int],
    execution: Execution,
) -> ProbedTemplate:
    """Put every probe to the canaries and controls of one template.

    Args:
        asker: Asks the model.
        targets: Canaries and controls.
        own_prefix: Their exposures after the template's own prefix.
        probes: The template's.
        effort: How much to do.
        seed: Of the fresh members, and of what is looked into; its second number is the template's.
        execution: How to carry it out.
    """
    controls = int((~targets.inserted).sum())
    rng = np.random.default_rng([*seed, 0])
    fresh = fresh_members(targets.text_space, targets.text_rows, max(0, effort.probe_references - controls), rng)
    references = controls + len(fresh)
    if references < _TOO_FEW:
        nothing: list[WorstCaseRecord | None] = [None] * len(targets.canaries)
        return ProbedTemplate([()] * len(targets.canaries), nothing, [], references, 0, 0)
    probing = len(probes.prompts) * targets.space.reading_symbols(len(targets.canaries) + len(fresh))
    refining = effort.refining_symbols if math.isfinite(effort.refining_symbols) else probing
    asking, looking = execution.parts((probing, refining))
    asked = _Asked(asker, targets, fresh, probes, asking)
    scores = ReferenceScores(asked.costs[:, asked.is_reference], asked.log2_weights)
    place = np.cumsum(asked.is_reference) - 1  # of each reference among the references
    worst = [
        scores.judge(asked.costs[:, k]) if targets.inserted[k] else scores.judge_reference(int(place[k]))
        for k in range(len(targets.canaries))
    ]
    looked = _looked_into(asker, asked, worst, own_prefix, effort, seed, looking)
    records: list[WorstCaseRecord | None] = []
    for k, own in enumerate(worst):
        found = {probe: headline for (canary, probe), headline in looked.figures.items() if canary == k}
        records.append(_worst_record(asked, k, own, own_prefix[k], found))
    return ProbedTemplate(
        exposures=[asked.exposures(k) if targets.inserted[k] else () for k in range(len(targets.canaries))],
        worst=records,
        rank_p_values=[own.p_value for own, inserted in zip(worst, targets.inserted, strict=True) if inserted],
        references=references,
        search_nodes=looked.search_nodes,
        characters=asked.characters + looked.characters,
        unread=asked.unread,
    )


def worst_probe(found: CanaryMeasurement, probes: TemplateProbes) -> AskedProbe | None:
    """Return the probe that shows most of a canary; None where it is the template's own prefix."""
    if found.worst_case is None or found.worst_case.probe == TEMPLATE_PROBE:
        return None
    name = found.worst_case.probe
    prompt = next(index for index, own in enumerate(probes.prompts) if own.id == name.prompt)
    given = next(own.given for own in probes.probes if (own.prompt, own.known) == (prompt, name.known))
    return AskedProbe(name, probes.prompts[prompt].text, given)


def exposure_asked(
    model: LanguageModel | TokenModel,
    canary_set: CanarySet,
    canary: Canary,
    asked: AskedProbe | None,
    config: MeasurementConfig,
) -> tuple[float, Headline]:
    """Return an inserted canary's log-perplexity and exposure under one probe, of what is not known of it.

    Args:
        model: The model.
        canary_set: Its inserted canaries do not count as each other's references.
        canary: The one.
        asked: The probe; the template's own prefix if not given.
        config: How to rank it.
    """
    alike = [other for other in canary_set.inserted if other.template == canary.template]
    asker = asker_of(model, canary_set)
    behind = asker.targets(canary.template, alike)
    if asked is not None:
        behind = asker.asked(behind, asked.text, [own.id for own in alike].index(canary.id), asked.given)
    index = [own.id for own in behind.canaries].index(canary.id)
    cost = float(behind.log_perplexity_bits[index])
    if behind.tokens is not None and behind.tokens.drawn is not None:  # No path leads to most members.
        drawn = behind.tokens.drawn[: config.num_references]
        costs = score_log_perplexity(behind.reader, behind.start, drawn)
        return cost, choose_headline({"sampled": sampled_exposure(cost, costs, behind.space.bits)})
    ranked = rank_targets(behind, config, (config.seed, 0, 3), Execution(), wanted=index)
    return cost, choose_headline(ranked.estimates[index])


def fresh_members(space: EncodedSpace, taken: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Draw different members uniformly, none of those taken: ``count``, or as many as the space has.

    Args:
        space: R.
        taken: Members that are not to be drawn, shape (K, max_length).
        count: How many to draw.
        rng: Draws.

    Returns:
        Symbol ids, shape (at most count, max_length), padded with -1.
    """
    if space.size <= 4 * (count + len(taken)):
        members = space.members()
        free = members[match_targets(members, taken) < 0]
        return free[np.sort(rng.permutation(len(free))[:count])]
    drawn = space.sample(0, rng)
    while len(drawn) < count:
        more = np.concatenate((drawn, space.sample(2 * count, rng)))
        _, firsts = np.unique(more, axis=0, return_index=True)
        drawn = more[np.sort(firsts)]
        drawn = drawn[match_targets(drawn, taken) < 0][:count]
    return drawn


class _Asked:
    """The costs of a template's targets and fresh members under every probe.

    Attributes:
        costs: Of what is not known, shape (Q, K + fresh), the targets first.
        probes: Those that the model could read.
        unread: Why it could not read a prompt, by the prompt's id.
        is_reference: Which of them are references: the controls and the fresh members, shape (K + fresh,).
        greedy: Whether what is not known is the greedy completion, shape (Q, K + fresh).
    """

    def __init__(
        self, asker: Asker, targets: Targets, fresh: np.ndarray, probes: TemplateProbes, execution: Execution
    ) -> None:
        found = asker.probe_costs(targets, fresh, probes, execution)
        read = [index for index in range(len(probes.prompts)) if index not in found.unread]
        rows = [index for index, probe in enumerate(probes.probes) if probe.prompt not in found.unread]
        self.targets, self.probes = targets, probes.of(read)
        self.unread = {probes.prompts[index].id: reason for index, reason in found.unread.items()}
        self.costs, self.greedy, self.characters = found.bits[rows], found.greedy[rows], found.symbols
        self.is_reference = np.concatenate((~targets.inserted, np.ones(len(fresh), dtype=bool)))
        self.log2_weights = log2_weights([probe.family for probe in self.probes.probes])

    @cached_property
    def _reference_costs(self) -> np.ndarray:
        return np.sort(self.costs[:, self.is_reference], axis=1)

    def space_bits(self, canary: int, probe: Probe) -> float:
        """Return log2 of the size of the space that the known characters of a canary leave."""
        node = 0
        space = self.targets.text_space
        for symbol in self.targets.text_rows[canary, : probe.given].tolist():
            node = int(space.next_node[node, symbol])
        return float(space.log2_counts[node])

    def exposures(self, canary: int) -> tuple[ProbeExposure, ...]:
        """Return a canary's exposure under every probe, by the references."""
        ordered, own = self._reference_costs, self.costs[:, canary]
        count = ordered.shape[1]
        likelier = [
            (np.searchsorted(row, cost, "left") + np.searchsorted(row, cost, "right")) / 2
            for row, cost in zip(ordered, own, strict=True)
        ]
        return tuple(
            ProbeExposure(
                **self.name(probe).model_dump(),
                bits=round(min(-float(np.log2((number + 0.5) / (count + 1))), self.space_bits(canary, probe)), 4),
                greedy=bool(self.greedy[index, canary]),
            )
            for index, (probe, number) in enumerate(zip(self.probes.probes, likelier, strict=True))
        )

    def shows_most(self, canary: int, worst: WorstCase) -> int:
        """Return the probe that shows most of a canary: by rank, or, beyond all references, by what it can show."""
        if not worst.unmatched:
            return worst.probe
        ceilings = [self.space_bits(canary, probe) for probe in self.probes.probes]
        return int(np.argmax(np.minimum(worst.tail_bits, ceilings) + self.log2_weights))

    def name(self, probe: Probe) -> ProbeName:
        """Return a probe as records name it."""
        return ProbeName(family=probe.family, prompt=self.probes.prompts[probe.prompt].id, known=probe.known)

    def sampled(self, canary: int, probe: int) -> Headline:
        """Return a target's exposure under a probe, by the references but itself."""
        others = self.is_reference.copy()
        others[canary] = False
        space_bits = self.space_bits(canary, self.probes.probes[probe])
        found = sampled_exposure(float(self.costs[probe, canary]), self.costs[probe, others], space_bits)
        return Headline(bits=found.bits, low=found.low, high=found.high, method="sampled")


@dataclass(frozen=True)
class _LookedInto:
    """Exposures found by search and importance sampling, by canary and probe, and the work that they took."""

    figures: dict[tuple[int, int], Headline]
    search_nodes: int
    characters: int


def _looked_into(
    asker: Asker,
    asked: _Asked,
    worst: Sequence[WorstCase],
    own_prefix: Sequence[Headline],
    effort: Effort,
    seed: Sequence[int],
    execution: Execution,
) -> _LookedInto:
    """Find the exposure of inserted canaries that hardly a reference reaches, after the prompt that shows most."""
    targets = asked.targets
    wanted: dict[tuple[int, bytes], list[int]] = defaultdict(list)
    for k, own in enumerate(worst):
        index = asked.shows_most(k, own)
        if not targets.inserted[k] or own.p_value > _STANDS_OUT or index == 0:
            continue
        if (asked.costs[index, asked.is_reference] <= asked.costs[index, k]).sum() >= ENOUGH_LIKELIER:
            continue  # the references tell it well enough
        if own_prefix[k].low < targets.space.bits - _CEILING_BITS:
            given = asked.probes.probes[index].given
            wanted[index, targets.text_rows[k, :given].tobytes()].append(k)
    few, most = refining_config(
        effort.config,
        targets.space,
        seconds_per_symbol(targets.reader),
        allowed=effort.refining_symbols,
        wanted=len(wanted),
    )
    figures: dict[tuple[int, int], Headline] = {}
    nodes = characters = 0
    # Those that speak for most canaries first; what is not looked into keeps the references' lower bound.
    order = sorted(wanted.items(), key=lambda item: (-len(item[1]), item[0][0]))[:most]
    parts = execution.parts([1.0] * len(order))
    for turn, (((index, _), canaries), own_part) in enumerate(zip(order, parts, strict=True)):
        probe = asked.probes.probes[index]
        try:
            behind = asker.asked(targets, asked.probes.prompts[probe.prompt].text, canaries[0], probe.given)
        except UnreadableText:
            continue  # Members longer than those that were asked for do not fit: the references' figure stays.
        if behind.tokens is not None and behind.tokens.drawn is not None:
            continue  # No path leads to most members, so there is nothing to search.
        ranked = rank_targets(behind, few, (*seed[:2], turn, 3), own_part)
        by_id = {canary.id: own for canary, own in zip(behind.canaries, ranked.estimates, strict=True)}
        for k in canaries:
            if estimates := by_id[targets.canaries[k].id]:
                figures[k, index] = choose_headline(estimates)
        nodes += ranked.search_nodes
        characters += ranked.characters
    return _LookedInto(figures, nodes, characters)


def _worst_record(
    asked: _Asked, canary: int, worst: WorstCase, own_prefix: Headline, found: dict[int, Headline]
) -> WorstCaseRecord:
    """Write down a worst case: by the template's own prefix, or by the probe that shows more than it, all told."""
    index = asked.shows_most(canary, worst)
    known = {index: found.get(index) or asked.sampled(canary, index), 0: own_prefix}
    weights = asked.log2_weights
    # By rank the worst probe is what the ranks say; beyond them, what is certain of the exposures decides.
    certain = max(known, key=lambda probe: known[probe].low + weights[probe])
    probe = certain if worst.unmatched else index
    p_value = worst.p_value
    if asked.targets.inserted[canary]:
        p_value = extended_p_value(worst, known[probe].low, float(weights[probe]))
    exposure = known[probe]
    return WorstCaseRecord(
        bits=exposure.bits,
        low=exposure.low,
        high=exposure.high,
        method=exposure.method,
        p_value=p_value,
        probe=asked.name(asked.probes.probes[probe]),
        space_bits=asked.space_bits(canary, asked.probes.probes[probe]),
        greedy=bool(asked.greedy[probe, canary]),
    )
