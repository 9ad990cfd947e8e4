"""A run directory with a clock: trains, unlearns and measures by the product's own stages, each case once."""

import shlex
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from canaryaudit import environment
from canaryaudit.canaries.canary import Canary, CanarySet
from canaryaudit.canaries.insertion import secret_mask
from canaryaudit.canaries.masking import hide_given
from canaryaudit.canaries.template import Template
from canaryaudit.corpus.vocabulary import Vocabulary
from canaryaudit.errors import Inconclusive
from canaryaudit.exposure import Execution, MeasuredModel, measure
from canaryaudit.exposure.estimators import skew_normal_exposure
from canaryaudit.exposure.scoring import advance_in_tiles, read_prefix
from canaryaudit.models.ensemble import as_language_model
from canaryaudit.models.language_model import LanguageModel
from canaryaudit.pipeline.insert import make_run, plan_run
from canaryaudit.pipeline.measure import measurement_config
from canaryaudit.pipeline.pipeline import Pipeline
from canaryaudit.pipeline.unlearn import run_unlearning, select_canaries
from canaryaudit.plan import InsertOptions, UnlearnOptions
from canaryaudit.progress import ProgressReporter
from canaryaudit.records import TRAINED_MODEL, CanaryMeasurement, Measurement, ModelId, UnlearningRecord
from canaryaudit.runs.run_directory import RunDirectory
from tests.reproduction.results import Case, Clock, Exposed, Reference, RunFacts, write
from tests.reproduction.settings import PUBLISHED_WINDOW, Settings, Stage

COMPLETION = 80
"""Characters that are generated after a prefix."""
CPU = torch.device("cpu")


class Laboratory(Pipeline):
    """One run directory of the reproduction; its lock is held while it is open."""

    def __init__(
        self, run: RunDirectory, settings: Settings, stage: Stage, progress: ProgressReporter, number: int = 0
    ) -> None:
        super().__init__(run, ["python", "-m", "tests.reproduction", stage], progress)
        self.settings, self.part, self.number = settings, stage, number
        self.results = settings.runs / "results" / run.path.name

    @classmethod
    @contextmanager
    def open(
        cls, settings: Settings, stage: Stage, progress: ProgressReporter, number: int = 0
    ) -> Iterator["Laboratory"]:
        """Insert the stage's canaries, or go on with the run that is there; train what is not trained.

        Args:
            settings: What to insert and how to train.
            stage: Which.
            number: Repetitions for the grid, the seed for the seeds.
            progress: Told of progress.
        """
        path = settings.runs / (stage if stage in ("ten", "growth") else f"{stage}-{number}")
        options = settings.insert(stage, number)
        if RunDirectory.holds_run(path):
            run = RunDirectory.open(path)
            if run.canary_set() != plan_run(options)[0].canary_set:
                raise SystemExit(f"{path} was made with other settings: delete it, or choose other --runs")
        else:
            run, _ = make_run(path, options, ["python", "-m", "tests.reproduction", stage])
        with run.lock():
            laboratory = cls(run, settings, stage, progress, number)
            laboratory._trained(number if stage == "seeds" else 0)
            yield laboratory

    @property
    def inserted(self) -> tuple[Canary, ...]:
        """The canaries in the text."""
        return self.run.canary_set().inserted

    def original(self, controls: int | None = None) -> Case:
        """Return the trained model's case."""
        if (found := self._found("original")) is not None:
            return found
        training = self.run.model_record().training
        assert training is not None
        measured, subset = self._measured(TRAINED_MODEL, self.inserted, controls)
        references = {
            own.template: Reference(fit=own.skew_normal, min_bits=own.min_bits)
            for own in measured.references
            if own.skew_normal is not None
        }
        case = self._case(
            "original",
            "original",
            clock=(clock := self._clock("train")),
            seconds=training.seconds * clock.share if clock else None,
            train_accuracy=training.train.accuracy,
            heldout_loss=training.heldout.loss_bits,
            references=references,
            **self._exposed(TRAINED_MODEL, measured, subset, self.inserted, references),
        )
        return self._keep(case)

    def case(self, method: str, options: UnlearnOptions, *, others: bool = False, controls: int | None = None) -> Case:
        """Unlearn and measure, or return what was found before.

        Args:
            method: The page's key of the method.
            options: How to unlearn; its name is the case's.
            others: Whether to measure the canaries too that are to stay.
            controls: Of each template, how many to measure; None for all.
        """
        name = options.resolved_name
        if (found := self._found(name)) is not None:
            return found
        references = self.original(controls).references
        chosen = select_canaries(self.run, options.canary)
        self.progress.info(f"{self.run.path.name}: {name}, {len(chosen)} of {len(self.inserted)} canaries.")
        if not self.run.has_unlearning(name):
            try:
                with self._timed(name):
                    run_unlearning(self.session, options, chosen, self._lineage(options))
            except Inconclusive as refusal:
                case = self._case(name, method, clock=self._clock(name), refused=str(refusal), **self._sizes(chosen))
                return self._keep(case)
        record = self.run.unlearning(name)
        clock = self._clock(name)
        wanted = self.inserted if others else chosen
        measured, subset = self._measured(ModelId(name), wanted, controls)
        case = self._case(
            name,
            method,
            clock=clock,
            seconds=record.cost.seconds * clock.share if clock else None,
            preparation_seconds=record.cost.preparation_seconds * clock.share if clock else None,
            fidelity=record.fidelity,
            train_accuracy=record.fidelity.train_accuracy_after,
            heldout_loss=record.fidelity.heldout_loss_after,
            windows=record.affected_windows,
            notes=record.notes,
            **self._sizes(chosen),
            **self._exposed(ModelId(name), measured, subset, chosen, references),
        )
        return self._keep(case)

    def add_relearning(self, case: Case, record: UnlearningRecord) -> Case:
        """Keep a case with the attacks that were made on it."""
        return self._keep(case.model_copy(update={"relearning": record.relearning}))

    # --- inside

    def _trained(self, seed: int) -> None:
        if not self.run.has_model(TRAINED_MODEL):
            with self._timed("train"):
                self.train(self.settings.train(seed))
        training = self.run.model_record().training
        manifest = self.run.manifest
        assert training is not None
        write(
            self.results / "facts.json",
            RunFacts(
                stage=self.part,
                run=self.run.path.name,
                command=insert_command(self.settings.insert(self.part, self.number), self.run.path.name),
                corpus=manifest.corpus.name,
                sha256=manifest.corpus.sha256,
                characters=manifest.corpus.characters,
                heldout_characters=manifest.corpus.heldout_characters,
                seed=training.seed,
                epochs=training.epochs,
                versions=manifest.versions,
                machine=manifest.machine,
            ),
        )

    def _lineage(self, options: UnlearnOptions) -> Sequence[UnlearningRecord]:
        return () if options.start.unlearning is None else self.run.lineage(options.start.unlearning)

    def _measured(
        self, model: ModelId, canaries: Sequence[Canary], controls: int | None
    ) -> tuple[Measurement, CanarySet]:
        """Measure a model on these canaries, and on the others that share their templates.

        A measurement of all canaries and all controls is the product's own, and is kept in the run directory.
        """
        whole = self.run.canary_set()
        wanted = {canary.template for canary in canaries}
        if controls is None and wanted == set(whole.by_template()):
            if not self.run.has_measurement(model):
                self.measure(model, self.settings.measure)
            return self.run.measurement(model), whole
        groups = [
            [own for own in members if not own.control]
            + [own for own in members if own.control][: controls if controls is not None else len(members)]
            for template, members in whole.by_template().items()
            if template in wanted
        ]
        subset = whole.model_copy(update={"canaries": tuple(own for group in groups for own in group)})
        options = self.settings.measure
        measured = measure(
            as_language_model(self.session.model(model, CPU)),
            subset,
            measurement_config(options),
            run_text=self.session.run_text(),
            recorded_as=MeasuredModel(str(model), self.run.model_record(model).sha256),
            execution=Execution(progress=self.progress),
        )
        return measured, subset

    def _exposed(
        self,
        model: ModelId,
        measured: Measurement,
        subset: CanarySet,
        chosen: Sequence[Canary],
        references: dict[str, Reference],
    ) -> dict[str, object]:
        """Return the fields of a case that its measurement fills."""
        reader = as_language_model(self.session.model(model, CPU))
        canaries = {own.id: own for own in subset.inserted}
        ids = {own.id for own in chosen}
        paths = {template: greedy_path(reader, template) for template in {own.template for own in measured.canaries}}
        exposed = tuple(
            exposed_under(
                paths[own.template], canaries[own.id], own, subset, references.get(own.template), own.id in ids
            )
            for own in measured.canaries
            if not own.control
        )
        return {
            "model_sha256": measured.model_sha256,
            "exposed": exposed,
            "control_bits": tuple(own.exposure.bits for own in measured.canaries if own.control),
            "control_p_values": tuple(
                own.worst_case.p_value for own in measured.canaries if own.control and own.worst_case
            ),
            "canaries": tuple(own.id for own in chosen),
        }

    def _sizes(self, chosen: Sequence[Canary]) -> dict[str, int]:
        mask = secret_mask(self.run.text().characters, chosen)
        return {"published_windows": touched_windows(mask, PUBLISHED_WINDOW)}

    def _case(self, name: str, method: str, **fields: object) -> Case:
        made = {"commit": environment.commit(), "time": environment.utc_now()}
        own = {"stage": self.part, "run": self.run.path.name, "name": name, "method": method, "made": made}
        return Case.model_validate(own | fields)

    def _path(self, name: str) -> Path:
        return self.results / "cases" / f"{name}.json"

    def _found(self, name: str) -> Case | None:
        path = self._path(name)
        return Case.model_validate_json(path.read_text("utf-8")) if path.exists() else None

    def _keep(self, case: Case) -> Case:
        write(self._path(case.name), case)
        return case

    def _clock(self, name: str) -> Clock | None:
        path = self.results / "clocks" / f"{name}.json"
        return Clock.model_validate_json(path.read_text("utf-8")) if path.exists() else None

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        """Keep what the work took, whether it came to anything or was refused."""
        wall, processor = time.perf_counter(), time.process_time()
        try:
            yield
        except Inconclusive:
            self._stop(name, wall, processor)
            raise
        self._stop(name, wall, processor)

    def _stop(self, name: str, wall: float, processor: float) -> None:
        clock = Clock(wall_seconds=time.perf_counter() - wall, processor_seconds=time.process_time() - processor)
        write(self.results / "clocks" / f"{name}.json", clock)


def insert_command(options: InsertOptions, run: str) -> str:
    """Return the command line that inserts as ``options`` say, but for the secrets that were given."""
    words = ["canaryaudit", "insert", Path(options.corpus).name]
    words += ["--lowercase"] * options.lowercase
    words += ["--skip-chars", str(options.skip_chars)] * bool(options.skip_chars)
    for template in options.template or ():
        words += ["-t", shlex.quote(template)]
    words += ["--secret", "…"] * len(options.secret) or ["-n", str(options.num_canaries)]
    words += ["-r", ",".join(map(str, options.repetitions)), "--controls", str(options.controls)]
    words += ["--seed", str(options.seed)] * bool(options.seed)
    return " ".join([*words, "-o", f"runs/paper/{run}"])


@dataclass(frozen=True)
class GreedyPath:
    """What a model says by itself after a prefix.

    Attributes:
        text: Its likeliest characters, one after the other.
        log2_probs: The law of each, given those before it, shape (COMPLETION, V).
        vocabulary: Of the model.
    """

    text: str
    log2_probs: np.ndarray
    vocabulary: Vocabulary

    def bits(self, secret: str) -> float:
        """Return what ``secret`` costs where each of its characters is read after the model's own, not after its."""
        symbols = self.vocabulary.encode(secret)
        return float(-self.log2_probs[np.arange(len(symbols)), symbols].sum())


def greedy_path(reader: LanguageModel, template: str) -> GreedyPath:
    """Generate ``COMPLETION`` characters after a template's prefix."""
    state, distributions = read_prefix(reader, Template.parse(template).prefix), []
    for _ in range(COMPLETION):
        distributions.append(state.log2_probs[0].double().cpu().numpy())
        state = advance_in_tiles(reader, state, state.log2_probs.argmax(1))
    log2_probs = np.stack(distributions)
    return GreedyPath(reader.vocabulary.decode(log2_probs.argmax(1)), log2_probs, reader.vocabulary)


def exposed_under(
    path: GreedyPath,
    canary: Canary,
    measured: CanaryMeasurement,
    canary_set: CanarySet,
    reference: Reference | None,
    chosen: bool,
) -> Exposed:
    """Return one canary's figures, the stale ones from the original model's references."""
    template, worst = Template.parse(canary.template), measured.worst_case
    path_bits = path.bits(canary.completion)

    def stale(bits: float) -> float | None:
        if reference is None:
            return None
        return skew_normal_exposure(bits, [reference.min_bits], measured.space_bits, fit=reference.fit).bits

    return Exposed(
        id=canary.id,
        template=canary.template,
        length=len(template.secret_of(canary.completion)),
        repetitions=canary.repetitions,
        chosen=chosen,
        space_bits=measured.space_bits,
        log_perplexity_bits=measured.log_perplexity_bits,
        greedy_path_bits=path_bits,
        exposure_bits=measured.exposure.bits,
        low=measured.exposure.low,
        high=measured.exposure.high,
        method=measured.exposure.method,
        stale_bits=stale(path_bits),
        stale_forced_bits=stale(measured.log_perplexity_bits),
        greedy=measured.extraction.greedy,
        completion=hide_given(path.text, canary, canary_set),
        worst_bits=worst.bits if worst else None,
        worst_p_value=worst.p_value if worst else None,
        worst_family=worst.probe.family if worst else "",
    )


def touched_windows(mask: np.ndarray, window: int) -> int:
    """Count the windows of ``window`` characters and one label that hold a marked character.

    Args:
        mask: Shape (N,), bool.
        window: Characters read; the label is the one after them.
    """
    marked = np.concatenate(([0], np.cumsum(mask)))  # (N + 1,)
    return int((marked[window + 1 :] > marked[: -window - 1]).sum())
