"""Tests of canaryaudit.exposure.effort: what a measurement may take, what it takes, and what its figures are worth."""

import math
from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor

from canaryaudit.canaries.canary import Canary, CanarySet
from canaryaudit.canaries.template import Template
from canaryaudit.corpus.vocabulary import Vocabulary
from canaryaudit.exposure import Execution, MeasurementConfig, measure
from canaryaudit.exposure.effort import (
    OPERATIONS_PER_SECOND,
    plan_effort,
    ranking_symbols,
    refining_config,
    seconds_per_symbol,
    symbols_allowed,
)
from canaryaudit.exposure.encoded_space import EncodedSpace
from canaryaudit.exposure.probes import RunText
from canaryaudit.exposure.scoring import read_prefix, score_log_perplexity
from canaryaudit.models.char_lstm import CharLSTM, LSTMLanguageModel
from canaryaudit.models.language_model import PrefixState
from canaryaudit.records import Architecture, Measurement, TemplateEffort
from tests.fakes import Recorder, TableModel, every_member, naive_ranks

SYMBOLS = "\n !-0123456789abcdefghijklmnopqrstuvwxyz"
MANY = "\n" + "".join(chr(0x4E00 + number) for number in range(2_999))


class CountingModel(TableModel):
    """A table that says it is large, and counts the rows that it advances."""

    multiplications = 20_000_000

    def __init__(self, seed: int = 0, memorized: tuple[str, ...] = ()) -> None:
        super().__init__(SYMBOLS, seed, memorized=memorized)
        self.rows = 0

    def advance(self, state: PrefixState, symbols: Tensor) -> PrefixState:
        self.rows += len(symbols)
        return super().advance(state, symbols)


def space_of(template: str, symbols: str = SYMBOLS) -> EncodedSpace:
    vocabulary = Vocabulary("".join(sorted({*symbols, *SYMBOLS})))
    return EncodedSpace.of(Template.parse(template).space(symbols), vocabulary)


def canary_set(templates: tuple[str, ...], secrets: tuple[str, ...], controls: int) -> CanarySet:
    canaries = []
    for number, (template, secret) in enumerate(zip(templates, secrets, strict=True)):
        canaries.append(Canary(id=f"canary-{number}", template=template, completion=secret, repetitions=4))
        rng = np.random.default_rng(number)
        drawn = {Template.parse(template).space(SYMBOLS).sample(rng) for _ in range(3 * controls)} - {secret}
        canaries += [
            Canary(id=f"control-{number}-{k}", template=template, completion=own, repetitions=0, control=True)
            for k, own in enumerate(sorted(drawn)[:controls])
        ]
    return CanarySet(corpus_symbols=SYMBOLS, canaries=canaries)


def measured(
    model: TableModel, canaries: CanarySet, progress: Recorder | None = None, **options: object
) -> Measurement:
    text = "the quick brown fox jumps over the lazy dog - 0 1 2 3\n" * 40
    vocabulary = Vocabulary(SYMBOLS)
    run_text = RunText(vocabulary.encode(text), np.zeros(len(text), dtype=bool), vocabulary)
    config = MeasurementConfig(**options)  # type: ignore[arg-type]
    return measure(model, canaries, config, run_text=run_text, execution=Execution(progress=progress or Recorder()))


@pytest.mark.parametrize(
    ("template", "symbols", "multiplications", "templates"),
    [
        ("{hex:64}", SYMBOLS, 1_100_000, 1),
        ("{digits:9}", SYMBOLS, 1_100_000, 10),
        ("{digits:10}", MANY, 2_600_000, 1),
        ("{any:8}", MANY, 2_600_000, 1),
        ("{any:8}", MANY, 4_700_000, 3),
        ("{digits:6}", SYMBOLS, 3_200_000, 20),
    ],
)
def test_what_is_planned_fits_into_the_time_limit(
    template: str, symbols: str, multiplications: int, templates: int
) -> None:
    config, space = MeasurementConfig(probes="default"), space_of(template, symbols)
    seconds = 1e-6 + 2 * multiplications / OPERATIONS_PER_SECOND
    allowed = config.time_limit / seconds / templates
    effort = plan_effort(config, space, seconds, allowed=allowed, targets=42, prompts=23)
    planned = sum(ranking_symbols(effort.config, space, seconds).values())
    planned += space.reading_symbols(effort.config.num_references)
    planned += effort.num_prompts * space.reading_symbols(effort.probe_references + 42)
    few, most = refining_config(effort.config, space, seconds, allowed=effort.refining_symbols, wanted=4)
    planned += most * sum(ranking_symbols(few, space, seconds).values())
    assert planned <= 1.05 * allowed
    assert effort.probe_references >= 127
    assert effort.config.num_references >= 1_250


def test_options_that_were_asked_for_are_not_lowered() -> None:
    asked = MeasurementConfig(samples=20_000, budget=60_000, max_draws=300_000, draws_per_temperature=3_000)
    few = plan_effort(asked, space_of("{hex:64}"), 1.0, allowed=10.0, targets=40, prompts=0).config
    assert few == asked
    lowered = plan_effort(MeasurementConfig(), space_of("{hex:64}"), 1.0, allowed=10.0, targets=40, prompts=0).config
    assert lowered.num_references < 2_500
    assert lowered.search_budget == 512
    assert lowered.max_draws == 1


def test_without_a_limit_everything_is_done_as_asked() -> None:
    config = MeasurementConfig(time_limit=0, probes="default")
    assert symbols_allowed(TableModel(SYMBOLS), config) == math.inf
    effort = plan_effort(config, space_of("{hex:64}"), 1e-5, allowed=math.inf, targets=9, prompts=23)
    assert (effort.config, effort.probe_references, effort.num_prompts) == (config, 1023, 23)


def test_a_model_that_says_its_size_is_taken_at_its_word() -> None:
    lstm = CharLSTM(Architecture(vocabulary="".join(sorted(SYMBOLS)), embedding=8, hidden=32, layers=2)).eval()
    # Four gates: recurrent weights of both layers, the second layer's inputs, the output padded to vectors of 16.
    expected = 4 * 32 * (32 + 64) + 32 * 48
    assert seconds_per_symbol(LSTMLanguageModel(lstm)) == pytest.approx(1e-6 + 2 * expected / 1e11)
    assert seconds_per_symbol(TableModel(SYMBOLS)) == pytest.approx(1e-6 + 2 * 1.1e6 / 1e11)


@pytest.mark.parametrize("template", ["{digits:2-4}!", "{choice:a|bb|bcd}-{hex:2}", "{[ab]:3}"])
def test_reading_counts_the_distinct_prefixes_of_all_members(template: str) -> None:
    texts = list(Template.parse(template).space(SYMBOLS))
    prefixes = {text[:end] for text in texts for end in range(1, len(text))}
    space = space_of(template)
    assert space.reading_symbols(math.inf) == len(prefixes)
    assert space.reading_symbols(1) == space.max_length - 1


@cache
def of_three_templates() -> tuple[CountingModel, Measurement, Recorder]:
    templates = ("the key is {hex:40}", "call {digits:8}!", "pin {lower:7}")
    secrets = ("0a" * 20, "31415926!"[:8], "abcdefg")
    model, progress = CountingModel(memorized=("31415926",)), Recorder()
    return model, measured(model, canary_set(templates, secrets, 8), progress, probes="default"), progress


def test_what_is_read_stays_within_the_time_limit() -> None:
    model, found, _ = of_three_templates()
    allowed = symbols_allowed(model, MeasurementConfig())
    # Tiles are filled up, which counts for nothing in a plan: some for each symbol of each stage.
    padding = 512 * sum(12 * own.num_prompts + 40 * 40 for own in found.efforts)
    assert model.rows <= allowed + padding
    assert model.rows >= 0.2 * allowed
    assert [own.template for own in found.efforts] == [own.template for own in found.references]
    assert all(isinstance(own, TemplateEffort) and own.num_references < 10_000 for own in found.efforts[:1])


def test_the_same_options_give_the_same_figures_whatever_the_clock_says(monkeypatch: pytest.MonkeyPatch) -> None:
    _, one, _ = of_three_templates()
    ticks = iter(float(number) ** 3 for number in range(10**9))
    monkeypatch.setattr("time.perf_counter", lambda: next(ticks))
    templates = ("the key is {hex:40}", "call {digits:8}!", "pin {lower:7}")
    other = measured(
        CountingModel(memorized=("31415926",)),
        canary_set(templates, ("0a" * 20, "31415926", "abcdefg"), 8),
        probes="default",
    )
    assert other.model_copy(update={"cost": one.cost}) == one


def test_progress_never_falls_and_ends_with_the_work() -> None:
    _, _, progress = of_three_templates()
    shares = [done / total for _, done, total, _ in progress.told]
    assert shares == sorted(shares)
    assert len({stage for stage, *_ in progress.told}) == 1
    assert max(np.diff([0.0, *shares, 1.0])) < 0.2
    assert shares[-100] < 0.99
    assert {"template 1 of 3, references", "template 3 of 3, probes"} <= {facts for *_, facts in progress.told}


@pytest.mark.parametrize("memorized", [(), ("012",), ("012", "987")])
def test_intervals_of_bounded_estimates_hold_the_enumerated_ranks(memorized: tuple[str, ...]) -> None:
    """Nothing is enumerated, the search ends early, few draws are made: headlines must still hold the truth."""
    template, held, total = "{digits:3}", 0, 0
    for seed in range(8):
        model = CountingModel(seed, memorized)
        members, _ = every_member(template, model)
        costs = score_log_perplexity(model, read_prefix(model, ""), members)
        canaries = canary_set((template,), ("012",), 8)
        found = measured(model, canaries, time_limit=0.02, enumerate_up_to=0, budget=7, samples=120, seed=seed)
        texts = [own.completion for own in canaries.canaries]
        ids = [model.vocabulary.encode(text) for text in texts]
        rows = [int(np.flatnonzero((members == own).all(1))[0]) for own in ids]
        truth = naive_ranks(costs, rows, rows[:1])
        for own, rank in zip(found.canaries, truth, strict=True):
            exposure = own.space_bits - math.log2(rank)
            certain = own.estimates["exact"]
            assert certain.low - 1e-9 <= exposure <= certain.high + 1e-9
            held += own.exposure.low - 1e-9 <= exposure <= own.exposure.high + 1e-9
            total += 1
        assert found.efforts[0].max_draws < 2_000
    assert held >= 0.93 * total
    assert not all(own.estimates["exact"].trusted for own in found.canaries)


def test_a_wide_vocabulary_takes_little_memory() -> None:
    import tracemalloc

    from canaryaudit.exposure import draw_members

    model = TableModel(MANY)
    space = EncodedSpace.of(Template.parse("{any:2}").space(MANY), model.vocabulary)
    start = model.read(torch.zeros(0, dtype=torch.long))
    tracemalloc.start()
    draw_members(model, start, space, 200, np.random.default_rng(0))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # All proposals of all 1,200 prefixes at once would be 170 MB.
    assert peak < 110e6
