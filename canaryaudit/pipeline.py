"""The only orchestrator: which stage needs which, and what of a run is there already.

Every function works on a run directory whose lock the caller holds. A stage that a later one needs and
that has not run yet is run with its defaults, and the narrator says so. What is there is never thrown
away unasked: where it was made with other options than are asked for now, that is an error.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from canaryaudit import environment
from canaryaudit.canaries import Canary
from canaryaudit.checkpoint import read_facts
from canaryaudit.errors import ModelError, RunDirectoryError, UnlearningError
from canaryaudit.exposure import MeasurementConfig, measure
from canaryaudit.files import atomic_path
from canaryaudit.insertion import InsertionPlan, run_vocabulary, secret_mask
from canaryaudit.model import CharLSTM, LSTMReader, load_weights, resolve_device, resolve_precision, weights_bytes
from canaryaudit.narration import Narrator
from canaryaudit.newrun import mask_arguments
from canaryaudit.plan import MeasureOptions, ReportOptions, TrainOptions, UnlearnOptions
from canaryaudit.records import Measurement, ModelRecord, Stage, StageRun, TrainingRecord, UnlearningRecord
from canaryaudit.report import EarlierReport, Summary, build_summary, read_baseline, write_report
from canaryaudit.report.figures import counted, points
from canaryaudit.rundir import RunDirectory, check_name
from canaryaudit.training import EPOCHS, TrainingConfig, TrainingData, seconds_per_step, train
from canaryaudit.unlearning import UnlearningConfig, unlearn

DEFAULT_REPORTS = Path("reports")


class Pipeline:
    """The stages of one run.

    Attributes:
        run: The run directory.
    """

    def __init__(self, run: RunDirectory, argv: Sequence[str], narrator: Narrator) -> None:
        self.run, self.argv, self.narrator = run, tuple(argv), narrator

    # --- train

    def train(self, options: TrainOptions, *, anew: bool = False) -> ModelRecord:
        """Train the model, go on with an interrupted training, or say that it is trained.

        Args:
            options: How to train; one that has its default fits whatever is there.
            anew: Train again although there is a model; everything made from the old one is then stale.

        Raises:
            ModelError: A model, or an interrupted training, was made with other options.
        """
        if self.run.has_model("before") and not anew:
            self.run.verify_weights("before")
            record = self.run.model_record()
            if record.training:
                self._check_asked(options, record.training, "a model trained")
            self._tidy(record)
            self.narrator.say(f"Trained already: {_quality(record)}.")
            return record
        # Where it is trained anew, a checkpoint of the very same training still serves: the result is the same.
        config = (None if anew else self._interrupted(options)) or training_config(options)
        data, vocabulary = self._data(resolve_device(config.device))
        with self._stage("train", seed=config.seed, device=config.device, precision=config.precision):
            model, training = train(data, vocabulary, config, self.narrator, self.run.checkpoint_path, atomic_path)
            sha256 = self.run.write_weights("before", weights_bytes(model))
        record = ModelRecord(architecture=model.architecture, sha256=sha256, training=training)
        self.run.write_model_record(record)
        self.run.remove_checkpoint()
        self.narrator.say(f"Trained in {training.seconds:.0f} s: {_quality(record)}.")
        return record

    def _interrupted(self, options: TrainOptions) -> TrainingConfig | None:
        """Return how an interrupted training is to go on; None if there is none that can."""
        facts = read_facts(self.run.checkpoint_path)
        if facts is None:
            return None
        config = TrainingConfig.model_validate(facts["config"])
        self._check_asked(options, config, "an interrupted training")
        return config

    def _tidy(self, record: ModelRecord) -> None:
        """Remove the checkpoint of this very training, left where it was interrupted in its last moment."""
        facts = read_facts(self.run.checkpoint_path)
        if facts and record.training and facts["seconds"] == record.training.seconds:
            self.run.remove_checkpoint()

    def _check_asked(self, options: TrainOptions, made: TrainingConfig | TrainingRecord, what: str) -> None:
        for name, default in TrainOptions():
            asked, found = getattr(options, name), getattr(made, name)
            if asked in (default, found):
                continue
            if isinstance(made, TrainingRecord) and _is_met(name, asked, made):
                continue
            flag, known = f"--{name.replace('_', '-')} {asked}", "none" if found is None else found
            raise ModelError(
                f"{self.run.path} has {what} with {name.replace('_', ' ')} {known}, not with {flag}: leave the option "
                f"out to keep it, or replace it with: canaryaudit train {self.run.path} {flag} --force"
            )

    # --- measure

    def measure(self, name: str, options: MeasureOptions) -> Measurement:
        """Measure ``before`` or ``after-NAME`` afresh.

        Raises:
            RunDirectoryError: There is no such model.
        """
        if name == "before":
            self._need_model()
        elif not self.run.has_model(name):
            raise RunDirectoryError(
                f"{self.run.path} has no model {name!r}, but {', '.join(self.models())}: choose one of them, or run: "
                f"canaryaudit unlearn {self.run.path} --name {name.removeprefix('after-')}"
            )
        device = resolve_device(options.device)
        record = self.run.model_record(name)
        reader = LSTMReader(self._model(name, device))
        config = MeasurementConfig(
            num_references=options.samples,
            estimators=options.estimators,
            search_budget=options.budget,
            seed=options.seed,
        )
        with self._stage("measure", name, seed=config.seed, device=device.type, precision="fp32"):
            measurement = measure(
                reader,
                self.run.canary_set(),
                config,
                name=name,
                model_sha256=record.sha256,
                precision="fp32",
                narrator=self.narrator,
            )
        self.run.write_measurement(measurement)
        self._tell_exposure(measurement)
        return measurement

    def models(self) -> list[str]:
        """Return the names of all models that can be measured."""
        return ["before", *(f"after-{record.name}" for record in self._unlearnings())]

    # --- unlearn

    def unlearn(
        self, options: UnlearnOptions, measure_options: MeasureOptions, *, anew: bool = False
    ) -> UnlearningRecord:
        """Unlearn canaries and measure again; a finished unlearning of that name is an error unless ``anew``.

        Raises:
            UnlearningError: The name is taken, or an id is not that of an inserted canary.
            Inconclusive: Nothing can be forgotten within the fidelity limit.
        """
        name = check_name(options.resolved_name)
        chosen = self.chosen(options.canary)
        if not anew and self.run.has_unlearning(name):
            if self.run.has_measurement(f"after-{name}"):
                raise UnlearningError(
                    f"{self.run.path} has an unlearning {name!r} already: use --force to do it again, or another --name"
                )
            self.narrator.say(f"Unlearning {name!r} was done already; its measurement is still to be taken.")
            self.measure(f"after-{name}", measure_options)
            return self.run.unlearning(name)
        self._need_model()
        if not self.run.has_measurement("before"):
            self.narrator.say("Not measured yet: measuring before anything is unlearned.")
            self.measure("before", measure_options)
        origin = self.run.model_record()
        device = resolve_device(options.device)
        precision = resolve_precision("auto", device)
        model, (data, _) = self._model("before", device), self._data(device)
        training = origin.training
        config = UnlearningConfig(
            method=options.method,
            scope=options.scope,
            replacement=options.replacement,
            retain_windows=options.retain_windows,
            max_fidelity_drop=options.max_fidelity_drop,
            tau=options.tau,
            window=training.window if training else 100,
            seed=options.seed,
            precision=precision,
        )
        with self._stage("unlearn", name, seed=config.seed, device=device.type, precision=precision):
            result = unlearn(
                model,
                data,
                chosen,
                self.run.canary_set().corpus_symbols,
                config,
                training.seconds if training else 0.0,
                self.narrator,
            )
            sha256 = self.run.write_weights(f"after-{name}", weights_bytes(result.model))
        record = UnlearningRecord(
            name=name,
            method=config.method,
            scope=config.resolved_scope,
            replacement=config.replacement,
            canaries=tuple(canary.id for canary in chosen),
            affected_windows=result.affected_windows,
            retention_windows=result.retention_windows,
            seed=config.seed,
            device=device.type,
            precision=precision,
            model_sha256=sha256,
            origin_sha256=origin.sha256,
            updates=result.updates,
            fidelity=result.fidelity,
            fidelity_limit=config.max_fidelity_drop,
            cost=result.cost,
            notes=result.notes,
        )
        self.run.write_unlearning(record)
        change = record.fidelity.train_accuracy_after - record.fidelity.train_accuracy_before
        self.narrator.say(
            f"Unlearned {counted(len(chosen), 'canary')} in {record.cost.seconds:.1f} s "
            f"(training took {record.cost.retraining_seconds:.1f} s); accuracy outside the secrets changed by "
            f"{points(change)}."
        )
        self.measure(f"after-{name}", measure_options)
        return record

    def chosen(self, identifiers: Sequence[str]) -> list[Canary]:
        """Return the inserted canaries of these ids; of none, all.

        Raises:
            UnlearningError: There is no such canary.
        """
        inserted = {canary.id: canary for canary in self.run.canary_set().inserted}
        for identifier in identifiers:
            if identifier not in inserted:
                known = ", ".join(list(inserted)[:10]) + (", …" if len(inserted) > 10 else "")
                raise UnlearningError(f"no inserted canary is called {identifier!r}: this run has {known}")
        return [inserted[identifier] for identifier in dict.fromkeys(identifiers or inserted)]

    # --- report

    def report(self, options: ReportOptions, measure_options: MeasureOptions) -> tuple[Summary, list[Path]]:
        """Write the report; what it needs and is not there yet is trained and measured first."""
        baseline = self.baseline(options)  # First: a slip in its name shows before hours of training.
        self._need_measurements(measure_options)
        with self._stage("report"):
            summary = self._summary(options, baseline)
            written = write_report(summary, self._report_directory(options), options.format)
        return summary, written

    def baseline(self, options: ReportOptions) -> EarlierReport | None:
        """Return the earlier report that this one must not be worse than, if one is named.

        Raises:
            UsageError: It is no report, or the new one would replace it.
        """
        if options.fail_worse is None:
            return None
        return read_baseline(options.fail_worse, self._report_directory(options) / "report.json")

    def _report_directory(self, options: ReportOptions) -> Path:
        return options.output or DEFAULT_REPORTS / self.run.path.resolve().name

    def summary(self, options: ReportOptions, measure_options: MeasureOptions) -> Summary:
        """Return what a report would say; what it needs and is not there yet is trained and measured first."""
        self._need_measurements(measure_options)
        return self._summary(options, None)

    def _need_measurements(self, measure_options: MeasureOptions) -> None:
        self._need_model()
        if not self.run.has_measurement("before"):
            self.narrator.say("Not measured yet: measuring first.")
            self.measure("before", measure_options)
        for record in self._unlearnings():
            self.run.verify_weights(f"after-{record.name}")
            if not self.run.has_measurement(f"after-{record.name}"):
                self.narrator.say(f"Unlearning {record.name!r} is not measured yet: measuring first.")
                self.measure(f"after-{record.name}", measure_options)

    def _summary(self, options: ReportOptions, baseline: EarlierReport | None) -> Summary:
        return build_summary(
            self.run.manifest,
            self.run.canary_set(),
            self.run.model_record(),
            self.run.measurement("before"),
            [(record, self.run.measurement(f"after-{record.name}")) for record in self._unlearnings()],
            self.run.path.resolve().name,
            reveal_secrets=options.reveal_secrets,
            fail_above=options.fail_above,
            baseline=baseline,
        )

    # --- inside

    def _need_model(self) -> None:
        if not self.run.has_model("before"):
            self.narrator.say("Not trained yet: training first.")
            self.train(TrainOptions())
        self.run.verify_weights("before")

    def _unlearnings(self) -> list[UnlearningRecord]:
        """Return the unlearnings in the order in which they were run."""
        order = {stage.name: index for index, stage in enumerate(self.run.manifest.stages) if stage.stage == "unlearn"}
        return sorted(self.run.unlearnings(), key=lambda record: order.get(record.name, -1))

    def _model(self, name: str, device: torch.device) -> CharLSTM:
        return load_weights(self.run.model_record(name).architecture, self.run.verify_weights(name), device)

    def _data(self, device: torch.device) -> tuple[TrainingData, str]:
        text, heldout, canary_set = self.run.corpus_text(), self.run.heldout_text(), self.run.canary_set()
        vocabulary = run_vocabulary(text, heldout, canary_set)
        data = TrainingData(
            train=torch.from_numpy(vocabulary.encode(text)).to(device),
            secret=torch.from_numpy(secret_mask(len(text), canary_set.canaries)).to(device),
            heldout=torch.from_numpy(vocabulary.encode(heldout)).to(device),
        )
        return data, vocabulary.symbols

    def _tell_exposure(self, measurement: Measurement) -> None:
        inserted = [canary for canary in measurement.canaries if not canary.control]
        exposures = [canary.exposure.bits for canary in inserted]
        calibration = measurement.calibration
        controls = f"; controls average {calibration.mean_bits:.2f} bits (expected 1.44)" if calibration else ""
        greedy = sum(canary.extraction.greedy for canary in inserted)
        self.narrator.say(
            f"Measured {measurement.model}: exposure {min(exposures):.1f} to {max(exposures):.1f} bits, "
            f"{greedy} of {len(inserted)} secrets completed greedily{controls}."
        )
        if calibration and not calibration.passed:
            self.narrator.warn(f"{calibration.note} (p = {calibration.ks_pvalue:.2g})")

    @contextmanager
    def _stage(
        self, stage: Stage, name: str = "", *, seed: int | None = None, device: str = "", precision: str = ""
    ) -> Iterator[None]:
        """Note a stage in the manifest when its work is done, before the record that makes it count."""
        argv = mask_arguments(self.argv, self.run.canary_set())
        started, clock = environment.utc_now(), time.perf_counter()
        yield
        self.run.add_stage(
            StageRun(
                stage=stage,
                name=name,
                argv=argv,
                started=started,
                seconds=time.perf_counter() - clock,
                seed=seed,
                device=device,
                precision=precision,
            )
        )


def training_config(options: TrainOptions) -> TrainingConfig:
    """Return the options with everything decided that they leave to the machine."""
    device = resolve_device(options.device)
    return TrainingConfig(
        size=options.size,
        epochs=options.epochs or EPOCHS[options.size],
        target_accuracy=options.target_accuracy,
        seed=options.seed,
        device=device.type,
        precision=resolve_precision(options.precision, device),
    )


def training_seconds(made: InsertionPlan, options: TrainOptions) -> float:
    """Estimate what training on a plan's text would take here, from a few steps."""
    config = training_config(options)
    steps = config.epochs * len(made.training_text) / (config.batch_size * config.window)
    return steps * seconds_per_step(len(made.vocabulary), config)


def _is_met(name: str, asked: object, training: TrainingRecord) -> bool:
    """Tell whether a finished training is as good as what is asked, though it was asked otherwise."""
    if name == "target_accuracy" and isinstance(asked, float):
        return training.train.accuracy >= asked
    return name == "epochs" and isinstance(asked, int) and bool(training.reached_target) and training.epochs <= asked


def _quality(record: ModelRecord) -> str:
    training = record.training
    if training is None:
        return "no record of its training"
    return (
        f"accuracy {training.train.accuracy:.3f} on training text, held-out loss {training.heldout.loss_bits:.2f} bits "
        f"a character, {counted(training.epochs, 'epoch')}"
    )
