"""Orchestration of all stages: dependencies between stages, and reuse of existing results.

The caller holds the run directory's lock. If a stage needs an earlier one that has not run, it runs with defaults and
a message says so. Existing results are never discarded without --force: different options raise an error.
"""

from collections.abc import Sequence
from pathlib import Path

from canaryaudit.canaries.canary import Canary
from canaryaudit.errors import ModelError, RunDirectoryError, UnlearningError, command
from canaryaudit.exposure import measure
from canaryaudit.exposure.probes import probes_of
from canaryaudit.exposure.references import DRAFT_FROM
from canaryaudit.exposure.scoring_models import share_scoring_models
from canaryaudit.formatting import counted, points, share_change
from canaryaudit.models.device import resolve_device, resolve_precision
from canaryaudit.models.weights import weights_bytes
from canaryaudit.pipeline.attack import (
    attack_canaries,
    attack_target,
    find_retrained,
    is_same_attack,
    name_of_retraining,
    run_attack,
)
from canaryaudit.pipeline.measure import measurement_config
from canaryaudit.pipeline.session import RunSession
from canaryaudit.pipeline.train import _is_met, _quality, training_config
from canaryaudit.pipeline.unlearn import check_options, difference, run_unlearning
from canaryaudit.plan import AttackOptions, MeasureOptions, ReportOptions, TrainOptions, UnlearnOptions
from canaryaudit.records import Measurement, ModelRecord, TrainingRecord, UnlearningRecord
from canaryaudit.report import EarlierReport, Summary, build_summary, read_baseline, write_report
from canaryaudit.report.summary.relearning import relearning_sentences
from canaryaudit.runs.layout import check_name
from canaryaudit.runs.lineage import checked_lineage
from canaryaudit.storage.files import atomic_path
from canaryaudit.training.config import TrainingConfig, read_state
from canaryaudit.training.loop import train

DEFAULT_REPORTS = Path("reports")


class Pipeline(RunSession):
    """The stages of one run."""

    # --- train

    def train(self, options: TrainOptions, *, anew: bool = False) -> ModelRecord:
        """Train the model, resume an interrupted training, or report that it is already trained.

        Args:
            options: How to train; an option with its default value matches any existing model.
            anew: Retrain even if a model exists; everything made from the old model becomes stale.

        Raises:
            ModelError: A model, or an interrupted training, was made with other options.
        """
        if self.run.has_model("before") and not anew:
            self.run.verify_weights("before")
            record = self.run.model_record()
            if record.training:
                self._check_asked(options, record.training, "a model trained")
            self._tidy(record)
            self.progress.info(f"Already trained: {_quality(record, self.run.manifest)}.")
            return record
        # With ``anew``, a checkpoint of the same training is still used: the result is identical.
        config = (None if anew else self._interrupted(options)) or training_config(options)
        data, vocabulary = self.data(resolve_device(config.device))
        with self.stage("train", seed=config.seed, device=config.device, precision=config.precision):
            model, training = train(
                data, vocabulary, config, self.progress, self.run.checkpoint_path, atomic_path, processes=self.processes
            )
            sha256 = self.run.write_weights("before", weights_bytes(model))
        record = ModelRecord(architecture=model.architecture, sha256=sha256, training=training)
        self.run.write_model_record(record)
        self.run.remove_checkpoint()
        self.progress.info(f"Trained in {training.seconds:.0f} s: {_quality(record, self.run.manifest)}.")
        return record

    def _interrupted(self, options: TrainOptions) -> TrainingConfig | None:
        """Return the configuration of an interrupted training to resume; None if there is none."""
        state = read_state(self.run.checkpoint_path)
        if state is None:
            return None
        self._check_asked(options, state.config, "an interrupted training")
        return state.config

    def _tidy(self, record: ModelRecord) -> None:
        """Remove this training's checkpoint, if the command was interrupted just before removing it."""
        state = read_state(self.run.checkpoint_path)
        if state and record.training and state.seconds == record.training.seconds:
            self.run.remove_checkpoint()

    def _check_asked(self, options: TrainOptions, made: TrainingConfig | TrainingRecord, what: str) -> None:
        for name, default in TrainOptions():
            asked, actual = getattr(options, name), getattr(made, name)
            if asked in (default, actual):
                continue
            if isinstance(made, TrainingRecord) and _is_met(name, asked, made):
                continue
            flag, known = f"--{name.replace('_', '-')}", "none" if actual is None else actual
            again = command("canaryaudit", "train", self.run.path, flag, asked, "--force")
            raise ModelError(
                f"{self.run.path} has {what} with {name.replace('_', ' ')} {known}, not with {flag} {asked}: drop the "
                f"option to keep it, or replace it with: {again}"
            )

    # --- measure

    def measure(self, name: str, options: MeasureOptions) -> Measurement:
        """Measure ``before`` or ``after-NAME``, even if it was measured before.

        Raises:
            RunDirectoryError: There is no such model.
        """
        if name == "before":
            self._need_model()
        elif not self.run.has_model(name):
            make = command("canaryaudit", "unlearn", self.run.path, "--name", name.removeprefix("after-"))
            raise RunDirectoryError(
                f"{self.run.path} has no model {name!r}: choose one of {', '.join(self.models())}, or run: {make}"
            )
        device = resolve_device(options.device)
        record = self.run.model_record(name)
        model = self.model(name, device)
        config = measurement_config(options)
        large = options.samples >= DRAFT_FROM
        with_draft = large and resolve_precision(options.precision, device) == "bf16"
        with self.stage("measure", name, seed=config.seed, device=device.type, precision="fp32"):
            readers = share_scoring_models(model, large=large, with_draft=with_draft, processes=self.processes)
            measurement = measure(
                readers.model,
                self.run.canary_set(),
                config,
                name=name,
                model_sha256=record.sha256,
                precision="fp32",
                progress=self.progress,
                draft=readers.draft,
                cache=self.run.measurement_cache(f"{name} {record.sha256} {config} {readers.draft is not None}"),
                processes=self.processes,
                run_text=self.run_text() if config.probes != "none" or config.prompts else None,
            )
        self.run.write_measurement(measurement)
        self.run.remove_parts()
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
            Inconclusive: No update stays within the fidelity limit.
        """
        name = check_name(options.resolved_name)
        check_options(options)
        chosen = self.chosen(options.canary)
        if not anew and self.run.has_unlearning(name):
            self.run.remove_work(name)  # left over if the command was interrupted just before removing it
            if self.run.has_measurement(f"after-{name}"):
                raise UnlearningError(
                    f"{self.run.path} already has an unlearning {name!r}: use --force to replace it, or another --name"
                )
            if differing := difference(self.run.unlearning(name), options, self.run.canary_set().inserted):
                raise UnlearningError(
                    f"{self.run.path} already has an unlearning {name!r} that differs in its {differing}: use --force "
                    "to replace it, or another --name"
                )
            self.progress.info(f"{name!r} was already unlearned, but not measured: measuring it.")
            self.measure(f"after-{name}", measure_options)
            return self.run.unlearning(name)
        self._need_model()
        if not self.run.has_measurement("before"):
            self.progress.info("Not measured yet: measuring before unlearning.")
            self.measure("before", measure_options)
        models = ["before"] if options.start == "before" else self.models()
        lineage = checked_lineage(self.run, options.start, name, models, self.progress)
        # Earlier requests are re-applied. Otherwise their secrets return: after two more requests on a tiny model
        # (three seeds), to 2.6 bits on average instead of 1.7. Retaining their windows did not help (2.6 bits).
        earlier = self.chosen([identifier for link in lineage for identifier in link.canaries]) if lineage else []
        record = run_unlearning(self, options, chosen, earlier, lineage)
        change = share_change(record.fidelity.train_accuracy_before, record.fidelity.train_accuracy_after)
        self.progress.info(
            f"Unlearned {counted(len(chosen), 'canary')} in {record.cost.seconds:.1f} s "
            f"(training took {record.cost.retraining_seconds:.1f} s); accuracy outside the secrets changed by "
            f"{points(change)}."
        )
        self.measure(f"after-{name}", measure_options)
        return record

    def chosen(self, identifiers: Sequence[str]) -> list[Canary]:
        """Return the inserted canaries with these ids, or all if no id is given.

        Raises:
            UnlearningError: There is no such canary.
        """
        inserted = {canary.id: canary for canary in self.run.canary_set().inserted}
        for identifier in identifiers:
            if identifier not in inserted:
                known = ", ".join(list(inserted)[:10]) + (", …" if len(inserted) > 10 else "")
                raise UnlearningError(f"no inserted canary is called {identifier!r}: this run has {known}")
        return [inserted[identifier] for identifier in dict.fromkeys(identifiers or inserted)]

    # --- attack

    def attack(self, options: AttackOptions, measure_options: MeasureOptions, *, anew: bool = True) -> UnlearningRecord:
        """Attack an unlearned model by training it further, and compare it with a model retrained on corrected text.

        Args:
            options: What to attack, and how.
            measure_options: For measurements of models that must be made first.
            anew: Attack again even if the record contains this attack.

        Raises:
            UnlearningError: No such unlearning, or it does not include a requested canary.
            Inconclusive: The unlearning or the retraining that the attack needs gave no result.
        """
        record = attack_target(self._unlearnings(), options.name)
        if record is None:
            self.progress.info("No unlearned model yet: unlearning first.")
            record = self.unlearn(UnlearnOptions(canary=options.canary), measure_options)
        self._need_measurement(measure_options)
        before, inserted = self.run.measurement("before"), self.run.canary_set().inserted
        canaries = attack_canaries(record, options.canary, before, inserted)
        reference = find_retrained(self._unlearnings(), canaries)
        if reference is None:
            name = name_of_retraining(record.name, {unlearning.name for unlearning in self._unlearnings()})
            self.progress.info(f"No model retrained without these canaries yet: retraining first, as {name!r}.")
            retraining = UnlearnOptions(
                name=name,
                method="retrain",
                replacement=record.replacement,
                canary=record.canaries,
                max_fidelity_drop=record.fidelity_limit,
                seed=record.seed,
                device=options.device,
            )
            reference = self.unlearn(retraining, measure_options)
        for unlearning in (record, reference):
            self._need_measurement_after(unlearning, measure_options)
        if not anew and is_same_attack(record, reference, canaries, options):
            self.progress.info(f"{record.name!r} was already attacked.")
            return record
        written = run_attack(self, record, reference, canaries, options)
        if written.relearning:
            for sentence in relearning_sentences(written.relearning, written.cost.speedup):
                self.progress.info(sentence)
        return written

    # --- report

    def report(self, options: ReportOptions, measure_options: MeasureOptions) -> tuple[Summary, list[Path]]:
        """Write the report, after missing training and measurements."""
        baseline = self.baseline(options)  # First, to report a wrong path before hours of training.
        self._need_measurements(measure_options)
        with self.stage("report"):
            summary = self._summary(options, baseline)
            written = write_report(summary, self._report_directory(options), options.format)
        return summary, written

    def baseline(self, options: ReportOptions) -> EarlierReport | None:
        """Return the earlier report that this one must not be worse than, if one is given.

        Raises:
            UsageError: It is not a report, or the new report would overwrite it.
        """
        if options.fail_worse is None:
            return None
        return read_baseline(options.fail_worse, self._report_directory(options) / "report.json")

    def summary(self, options: ReportOptions, measure_options: MeasureOptions) -> Summary:
        """Return the summary of the report, after missing training and measurements."""
        self._need_measurements(measure_options)
        return self._summary(options, None)

    def _report_directory(self, options: ReportOptions) -> Path:
        return options.output or DEFAULT_REPORTS / self.run.path.resolve().name

    def _need_measurements(self, options: MeasureOptions) -> None:
        self._need_measurement(options)
        for record in self._unlearnings():
            self._need_measurement_after(record, options)

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
            prompt_texts=self._prompt_texts() if options.reveal_secrets else None,
        )

    def _prompt_texts(self) -> dict[tuple[str, str], str]:
        """Return the texts of the prompts that measurements leave out, drawn again, by template and id."""
        measurement = self.run.measurement("before")
        probes = probes_of(measurement, self.run.canary_set(), self.run_text()) if measurement.worst_cases else []
        return {(own.template, prompt.id): prompt.text for own in probes for prompt in own.prompts}

    # --- dependencies

    def _need_model(self) -> None:
        if not self.run.has_model("before"):
            if lost := self.run.lost_half:
                raise RunDirectoryError(f"{lost} is missing, but the rest of the model exists: {self.run.see_how}")
            self.progress.info("Not trained yet: training first.")
            self.train(TrainOptions())
        self.run.verify_weights("before")

    def _need_measurement(self, options: MeasureOptions) -> None:
        self._need_model()
        if not self.run.has_measurement("before"):
            self.progress.info("Not measured yet: measuring first.")
            self.measure("before", options)

    def _need_measurement_after(self, record: UnlearningRecord, options: MeasureOptions) -> None:
        self.run.verify_weights(f"after-{record.name}")
        if not self.run.has_measurement(f"after-{record.name}"):
            self.progress.info(f"after-{record.name} is not measured yet: measuring first.")
            self.measure(f"after-{record.name}", options)

    def _unlearnings(self) -> list[UnlearningRecord]:
        """Return the unlearnings in the order in which they ran."""
        order = {stage.name: index for index, stage in enumerate(self.run.manifest.stages) if stage.stage == "unlearn"}
        return sorted(self.run.unlearnings(), key=lambda record: order.get(record.name, -1))

    def _tell_exposure(self, measurement: Measurement) -> None:
        inserted = [canary for canary in measurement.canaries if not canary.control]
        exposures = [canary.exposure.bits for canary in inserted]
        calibration = measurement.calibration
        controls = f"; controls average {calibration.mean_bits:.2f} bits (expected 1.44)" if calibration else ""
        greedy = sum(canary.extraction.greedy for canary in inserted)
        self.progress.info(
            f"Measured {measurement.model}: exposure {min(exposures):.1f} to {max(exposures):.1f} bits, "
            f"{greedy} of {len(inserted)} secrets completed greedily{controls}."
        )
        if calibration and not calibration.passed:
            self.progress.warn(f"{calibration.note} (p = {calibration.ks_pvalue:.2g})")
