"""Cost against size, on one thread: corpus, canaries, completions, width of the model."""

import math
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch

from canaryaudit import environment
from canaryaudit.corpus.vocabulary import Vocabulary
from canaryaudit.exposure import Execution, MeasurementConfig, ScoredMembers
from canaryaudit.exposure.references import DRAFT_FROM, score_references
from canaryaudit.exposure.scoring import read_prefix, score_log_perplexity
from canaryaudit.exposure.scoring_models import ScoringModels
from canaryaudit.exposure.uniform_sample import UniformSample
from canaryaudit.models.char_lstm import BFloat16LanguageModel, CharLSTM, LSTMLanguageModel
from canaryaudit.models.device import resolve_precision
from canaryaudit.models.language_model import LanguageModel, PrefixState
from canaryaudit.records import Architecture
from canaryaudit.training import loop as training
from canaryaudit.training.config import TrainingConfig
from canaryaudit.training.loop import seconds_per_step
from canaryaudit.unlearning import UnlearningConfig, unlearn
from tests.benchmarks.bench_scoring import PREFIX, SYMBOLS, untrained
from tests.benchmarks.bench_stream import cost_of, write_corpus
from tests.benchmarks.tiny import measured, trained

CORPUS_MEGABYTES = (1, 10, 100, 1000)
CANARIES = (1, 10, 100, 500)
COMPLETIONS = (1_000, 10_000, 100_000, 1_000_000)
WIDTHS = (128, 256, 512, 1024)
CHARACTERS = 300_000
EPOCHS = 12


def run() -> Iterator[str]:
    """Yield the lines of the tables of COST.md, as they are measured."""
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"
    environment.keep_freed_memory()
    yield from _corpora()
    yield from _completions()
    yield from _widths()
    yield from _canaries()


def _table(name: str, columns: list[str], rows: Iterator[list[float]], counted: int) -> Iterator[str]:
    """Yield a table whose first column is the size.

    Its last line has b of cost = a size^b between the two largest sizes, for the first ``counted`` other columns:
    what the smaller ones cost is in part what every run costs.
    """
    yield f"\n| {name} | {' | '.join(columns)} |"
    yield f"| --: | {' | '.join('--:' for _ in columns)} |"
    found = []
    for row in rows:
        found.append(row)
        yield f"| {row[0]:,.0f} | {' | '.join(f'{value:,.4g}' for value in row[1:])} |"
    before, last = found[-2:]
    powers = [math.log(last[place] / before[place], last[0] / before[0]) for place in range(1, counted + 1)]
    yield f"| *grows as* | {' | '.join(f'*size^{power:.2f}*' for power in powers)}{' |' * (len(columns) - counted + 1)}"


def _corpora() -> Iterator[str]:
    def rows() -> Iterator[list[float]]:
        for megabytes in CORPUS_MEGABYTES:
            with tempfile.TemporaryDirectory() as scratch:
                corpus, made = Path(scratch, "corpus.txt"), Path(scratch, "run")
                write_corpus(corpus, megabytes * 10**6)
                insert = cost_of("insert", str(corpus), "-o", str(made), "-q")
                first = cost_of("train", str(made), "--epochs", "1", "--precision", "fp32", "-q")
            yield [megabytes, insert.processor_seconds, insert.megabytes, first.processor_seconds, first.megabytes]

    columns = ["insert, s", "at most, MB", "train to its first step, s", "at most, MB"]
    return _table("corpus, MB", columns, rows(), 1)


class _Weightless:
    """A model that knows and costs nothing: what is left is the work around it, which no GPU does."""

    vocabulary, device = Vocabulary(SYMBOLS), torch.device("cpu")
    _law = torch.full((1, len(SYMBOLS)), -math.log2(len(SYMBOLS)))

    def read(self, symbols: torch.Tensor) -> PrefixState:
        return PrefixState(self._law, ())

    def advance(self, state: PrefixState, symbols: torch.Tensor) -> PrefixState:
        return PrefixState(self._law.expand(len(symbols), -1), ())


def _completions() -> Iterator[str]:
    model, space = untrained()
    reader = LSTMLanguageModel(model)
    quick = BFloat16LanguageModel(model) if resolve_precision("auto", torch.device("cpu")) == "bf16" else None
    targets = space.sample(64, np.random.default_rng(1))

    def seconds(scorer: LanguageModel, count: int, draft: LanguageModel | None) -> float:
        start = read_prefix(scorer, PREFIX)
        return _processor_seconds(
            lambda: score_references(
                ScoringModels(scorer, draft),
                ScoredMembers(
                    space,
                    start,
                    targets,
                    inserted=np.zeros(len(targets), dtype=bool),
                    log_perplexity_bits=score_log_perplexity(scorer, start, targets),
                ),
                UniformSample(space, count, (0,)),
                np.random.default_rng(2),
                Execution(),
            )
        )

    def rows() -> Iterator[list[float]]:
        for count in COMPLETIONS:
            taken = seconds(reader, count, quick if count >= DRAFT_FROM else None)
            around = seconds(_Weightless(), count, None)
            yield [count, taken, around, 1e6 * taken / count, 1e6 * around / count]

    columns = ["all, s", "around the model, s", "all, µs each", "around the model, µs each"]
    return _table("completions", columns, rows(), 2)


def _widths() -> Iterator[str]:
    space = untrained()[1]
    completions = space.sample(20_000, np.random.default_rng(0))
    precision = resolve_precision("auto", torch.device("cpu"))

    def rows() -> Iterator[list[float]]:
        for width in WIDTHS:
            architecture = Architecture(vocabulary=SYMBOLS, embedding=64, hidden=width, layers=2)
            model = CharLSTM(architecture).eval()
            scorer = LSTMLanguageModel(model)
            start = read_prefix(scorer, PREFIX)
            scoring = _processor_seconds(lambda s=scorer, p=start: score_log_perplexity(s, p, completions))
            kept, training.SIZES["paper"] = training.SIZES["paper"], (64, width, 2)
            try:
                step = seconds_per_step(len(SYMBOLS), TrainingConfig(size="paper", epochs=1, precision=precision))
            finally:
                training.SIZES["paper"] = kept
            rate = 6 * model.num_parameters * 3200 / step / 1e9
            yield [width, 1000 * step, 1e6 * scoring / len(completions), model.num_parameters / 1e6, rate]

    columns = [f"training step, ms ({precision})", "scoring, µs each (fp32)", "weights, millions", "training, GFLOP/s"]
    return _table("hidden units", columns, rows(), 2)


def _canaries() -> Iterator[str]:
    templates = ("The strong-room opens to {digits:4}-{digits:4}.", "My number is {digits:8}.")
    with tempfile.TemporaryDirectory() as scratch:
        corpus = Path(scratch, "corpus.txt")
        write_corpus(corpus, CHARACTERS)
        text = corpus.read_text("utf-8")
    tiny = trained(text, templates, canaries=max(CANARIES), repetitions=(3,), epochs=EPOCHS)
    known = tiny.canary_set

    def rows() -> Iterator[list[float]]:
        for count in CANARIES:
            few = known.model_copy(update={"canaries": (*known.inserted[:count], *known.controls)})
            measuring = partial(measured, tiny.model, few, MeasurementConfig())
            config = UnlearningConfig(max_fidelity_drop=1.0)
            forgetting = partial(unlearn, tiny.model, tiny.data, few.inserted, known.corpus_symbols, config)
            yield [count, _processor_seconds(measuring), _processor_seconds(forgetting)]

    return _table("canaries", ["measure, s", "unlearn, s"], rows(), 2)


def _processor_seconds(work: Callable[[], object]) -> float:
    """Return the processor time of some work; the clock's would count what else the machine does."""
    began = time.process_time()
    work()
    return max(time.process_time() - began, math.ulp(1.0))
