"""How much of each thing a measurement does, so that it ends in time.

A time limit becomes a number of symbols that the model may read, by the model's size and a fixed speed and never by a
clock: the same options give the same figures on every machine, whatever else it does. Each template gets an equal part
of what is left. Of this the probes may take half, the references a quarter; the exact search, importance sampling and a
closer look at other prompts share the rest. Only options with their default values are lowered.
"""

import math
from dataclasses import dataclass

from canaryaudit.exposure.config import MeasurementConfig
from canaryaudit.exposure.encoded_space import EncodedSpace
from canaryaudit.exposure.importance_sampling import TEMPERATURES
from canaryaudit.exposure.scoring import TILE
from canaryaudit.records import TemplateEffort

OPERATIONS_PER_SECOND = 1e11
"""Of matrix products in float32, each multiplication and each addition one, on two cores that do nothing else: three
quarters of what was measured, 1.3e11."""
_SECONDS_PER_SYMBOL = 1e-6
"""Of the work besides matrix products; decides for tiny models only."""
_SECONDS_PER_DRAW = 6e-8
"""Of each symbol that may follow, when one is drawn from all proposals."""
_SECONDS_PER_CHILD = 1.2e-7
"""Of each symbol that may follow, when the search looks at it."""
_ASSUMED_MULTIPLICATIONS = 1_100_000
"""Of a model that does not say: those of the small LSTM."""

REFERENCES = 1023
"""Controls and fresh members together in probes: a secret that none of them reaches has p = 2^-10, ten bits, the border
from which on the report calls it exposed."""
CLOSING_REFERENCES, LONGEST_CLOSING = 1000, 24
"""Members after which a template's closing text is read, controls and fresh ones together; and its characters that are
read at most."""
_CLOSING_SHARE = 0.05
_FEWEST_PROBE_REFERENCES, _FEWEST_PROMPTS = 127, 4
_FEWEST_REFERENCES = 1_250
_FEWEST_DRAWS = 125
"""From each proposal, in the first round."""
_MOST_REFINED = {"default": 4, "thorough": 1000}
"""Prompts of one template after which exposures are looked into."""
_DEFAULTS = MeasurementConfig()


@dataclass(frozen=True)
class Effort:
    """How much is done for one template.

    Attributes:
        config: How its canaries are ranked after its own prefix.
        probe_references: Controls and fresh members that probes are judged by.
        num_prompts: The most prompts.
        refining_symbols: What the model may read for a closer look after other prompts.
        closing_references: Members after which the closing text is read.
    """

    config: MeasurementConfig
    probe_references: int
    num_prompts: int
    refining_symbols: float
    closing_references: int

    def record(self, template: str, *, enumerated: bool) -> TemplateEffort:
        """Return what the measurement's record says of it."""
        return TemplateEffort(
            template=template,
            num_references=self.config.num_references,
            search_budget=0 if enumerated else self.config.search_budget,
            max_draws=0 if enumerated else self.config.max_draws,
            num_prompts=self.num_prompts,
            probe_references=self.probe_references if self.num_prompts else 0,
        )


def symbols_allowed(model: object, config: MeasurementConfig) -> float:
    """Return how many symbols a model may read within the time limit; infinite without one."""
    return config.time_limit / seconds_per_symbol(model) if config.time_limit else math.inf


def seconds_per_symbol(model: object) -> float:
    """Return how long a model takes to read a symbol, by its size.

    Args:
        model: Says by ``multiplications`` how many one symbol takes; if it does not, it is taken for the small LSTM.
    """
    size = getattr(model, "multiplications", _ASSUMED_MULTIPLICATIONS)
    return _SECONDS_PER_SYMBOL + 2 * size / OPERATIONS_PER_SECOND


def plan_effort(
    config: MeasurementConfig, space: EncodedSpace, seconds: float, *, allowed: float, targets: int, prompts: int
) -> Effort:
    """Share out what may be read for one template.

    Args:
        config: What was asked for.
        space: R.
        seconds: Per symbol that the model reads.
        allowed: Symbols that may be read.
        targets: Number of canaries and controls.
        prompts: Number of prompts, the template's own included; 0 without probes.
    """
    if math.isinf(allowed):
        return Effort(config, REFERENCES, prompts, math.inf, _closing_references(config, space, allowed))
    left = max(0.0, allowed - 2 * TILE * space.max_length)  # greedy completion and beam search
    references, num_prompts = _probe_effort(config, space, left, targets, prompts)
    probing = num_prompts * space.reading_symbols(references + targets)
    num_references = config.num_references
    while num_references // 2 >= _FEWEST_REFERENCES and space.reading_symbols(num_references) > left / 4:
        if config.num_references != _DEFAULTS.num_references:
            break
        num_references //= 2
    left = max(0.0, left - probing - space.reading_symbols(num_references))
    enumerate_up_to, draws, most_draws = config.enumerate_up_to, config.draws_per_temperature, config.max_draws
    budget = config.search_budget
    if space.size <= enumerate_up_to:
        if enumerate_up_to == _DEFAULTS.enumerate_up_to and space.reading_symbols(space.size) > 0.7 * left:
            enumerate_up_to = 0
        else:
            left -= space.reading_symbols(space.size)
    if budget == _DEFAULTS.search_budget:
        budget = min(budget, max(TILE, int(0.15 * left / _symbols_per_node(space, seconds))))
    refining = 0.25 * max(0.0, left) if num_prompts > 1 else 0.0
    if space.size > enumerate_up_to:
        rest = left - refining - budget * _symbols_per_node(space, seconds)
        draws, most_draws = _draws_within(config, space, seconds, rest)
    ranking = {
        "num_references": num_references,
        "enumerate_up_to": enumerate_up_to,
        "search_budget": budget,
        "draws_per_temperature": draws,
        "max_draws": most_draws,
    }
    closings = _closing_references(config, space, allowed)
    return Effort(config.model_copy(update=ranking), references, num_prompts, refining, closings)


def refining_config(
    config: MeasurementConfig, space: EncodedSpace, seconds: float, *, allowed: float, wanted: int
) -> tuple[MeasurementConfig, int]:
    """Return how to look into exposures after one other prompt, and after how many prompts at most.

    Args:
        config: How the canaries were ranked after the template's own prefix.
        space: R.
        seconds: Per symbol that the model reads.
        allowed: Symbols that may be read after all of them together.
        wanted: Prompts after which it is worth it.
    """
    few = config.model_copy(
        update={
            "enumerate_up_to": min(config.enumerate_up_to, 20_000),
            "search_budget": min(config.search_budget, 5_000),
            "draws_per_temperature": min(config.draws_per_temperature, 500),
            "max_draws": min(config.max_draws, 20_000),
        }
    )
    most = min(wanted, _MOST_REFINED.get(config.probes, _MOST_REFINED["default"]))
    if math.isinf(allowed) or not most:
        return few, most
    least = few.search_budget * _symbols_per_node(space, seconds)
    least += len(TEMPERATURES) * _FEWEST_DRAWS * _symbols_per_draw(space, seconds)
    most = max(1, min(most, int(allowed / least)))
    rest = allowed / most - few.search_budget * _symbols_per_node(space, seconds)
    draws, most_draws = _draws_within(few, space, seconds, rest, lowered=True)
    return few.model_copy(update={"draws_per_temperature": draws, "max_draws": most_draws}), most


def ranking_symbols(config: MeasurementConfig, space: EncodedSpace, seconds: float) -> dict[str, float]:
    """Return the most that ranking may take, by exact ranks and by importance sampling; for progress."""
    if space.size <= config.enumerate_up_to:
        return {"exact": space.reading_symbols(space.size), "importance": 0.0}
    return {
        "exact": config.search_budget * _symbols_per_node(space, seconds),
        "importance": config.max_draws * _symbols_per_draw(space, seconds),
    }


def _probe_effort(
    config: MeasurementConfig, space: EncodedSpace, left: float, targets: int, prompts: int
) -> tuple[int, int]:
    """Return the number of references and of prompts that take at most half of what may be read, if few enough do."""
    references = REFERENCES
    if config.probes == "thorough":
        return references, prompts
    while references > _FEWEST_PROBE_REFERENCES and prompts * space.reading_symbols(references + targets) > left / 2:
        references //= 2
    affordable = int(left / 2 / max(1.0, space.reading_symbols(references + targets)))
    return references, min(prompts, max(_FEWEST_PROMPTS, affordable))


def _closing_references(config: MeasurementConfig, space: EncodedSpace, allowed: float) -> int:
    """Return the number of members after which the closing text is read, for a small share of what may be read."""
    references = min(CLOSING_REFERENCES, config.num_references)
    while references // 2 >= _FEWEST_PROBE_REFERENCES:
        if space.reading_symbols(references) + LONGEST_CLOSING * references <= _CLOSING_SHARE * allowed:
            break
        references //= 2
    return references


def _draws_within(
    config: MeasurementConfig, space: EncodedSpace, seconds: float, allowed: float, *, lowered: bool = False
) -> tuple[int, int]:
    """Return the draws of the first round from each proposal, and the most of all, that are affordable."""
    affordable = int(max(0.0, allowed) / _symbols_per_draw(space, seconds))
    first, most = config.draws_per_temperature, config.max_draws
    if lowered or first == _DEFAULTS.draws_per_temperature:
        while first // 2 >= _FEWEST_DRAWS and first * len(TEMPERATURES) > affordable:
            first //= 2
    if lowered or most == _DEFAULTS.max_draws:
        most = min(most, max(1, affordable))
    return first, most


def _symbols_per_node(space: EncodedSpace, seconds: float) -> float:
    """Return what the expansion of a prefix costs, in symbols read."""
    return 1 + _SECONDS_PER_CHILD * space.num_symbols / seconds


def _symbols_per_draw(space: EncodedSpace, seconds: float) -> float:
    """Return what an importance draw costs at most, in symbols read."""
    drawing = _SECONDS_PER_DRAW * space.num_symbols / seconds
    return (space.max_length - 1) + space.max_length * drawing
