"""The only orchestrator: which stage needs which, and what of a run is there already.

Every function works on a run directory whose lock the caller holds. A stage that a later one needs and
that has not run yet is run with its defaults, and the narrator says so. What is there is never thrown
away unasked: where it was made with other options than are asked for now, that is an error.
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
            self.progress.info(f"Trained already: {_quality(record, self.run.manifest)}.")
            return record
        # Where it is trained anew, a checkpoint of the very same training still serves: the result is the same.
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
        """Return how an interrupted training is to go on; None if there is none that can."""
        state = read_state(self.run.checkpoint_path)
        if state is None:
            return None
        self._check_asked(options, state.config, "an interrupted training")
        return state.config

    def _tidy(self, record: ModelRecord) -> None:
        """Remove the checkpoint of this very training, left where it was interrupted in its last moment."""
        state = read_state(self.run.checkpoint_path)
        if state and record.training and state.seconds == record.training.seconds:
            self.run.remove_checkpoint()

    def _check_asked(self, options: TrainOptions, made: TrainingConfig | TrainingRecord, what: str) -> None:
        for name, default in TrainOptions():
            asked, found = getattr(options, name), getattr(made, name)
            if asked in (default, found):
                continue
            if isinstance(made, TrainingRecord) and _is_met(name, asked, made):
                continue
            flag, known = f"--{name.replace('_', '-')}", "none" if found is None else found
            again = command("canaryaudit", "train", self.run.path, flag, asked, "--force")
            raise ModelError(
                f"{self.run.path} has {what} with {name.replace('_', ' ')} {known}, not with {flag} {asked}: leave the "
                f"option out to keep it, or replace it with: {again}"
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
            make = command("canaryaudit", "unlearn", self.run.path, "--name", name.removeprefix("after-"))
            raise RunDirectoryError(
                f"{self.run.path} has no model {name!r}, but {', '.join(self.models())}: choose one of them, or run: "
                f"{make}"
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
            Inconclusive: Nothing can be forgotten within the fidelity limit.
        """
        name = check_name(options.resolved_name)
        check_options(options)
        chosen = self.chosen(options.canary)
        if not anew and self.run.has_unlearning(name):
            self.run.remove_work(name)  # left where it was interrupted in its last moment
            if self.run.has_measurement(f"after-{name}"):
                raise UnlearningError(
                    f"{self.run.path} has an unlearning {name!r} already: use --force to do it again, or another --name"
                )
            if differing := difference(self.run.unlearning(name), options, self.run.canary_set().inserted):
                raise UnlearningError(
                    f"{self.run.path} has an unlearning {name!r} that differs from what is asked for in its "
                    f"{differing}: use --force to do it again, or another --name"
                )
            self.progress.info(f"Unlearning {name!r} was done already; its measurement is still to be taken.")
            self.measure(f"after-{name}", measure_options)
            return self.run.unlearning(name)
        self._need_model()
        if not self.run.has_measurement("before"):
            self.progress.info("Not measured yet: measuring before anything is unlearned.")
            self.measure("before", measure_options)
        models = ["before"] if options.start == "before" else self.models()
        lineage = checked_lineage(self.run, options.start, name, models, self.progress)
        # What earlier requests forgot is forgotten again. Left out, it came back: after two more requests on a tiny
        # model (three seeds) to 2.6 bits on average, 1.7 so; retaining its windows did not help (2.6 bits).
        earlier = self.chosen([own for link in lineage for own in link.canaries]) if lineage else []
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

    # --- attack

    def attack(self, options: AttackOptions, measure_options: MeasureOptions, *, anew: bool = True) -> UnlearningRecord:
        """Attack what was unlearned by training it further, beside a model retrained on corrected text.

        Args:
            options: What to attack, and how.
            measure_options: For the measurements of what must be made first.
            anew: Attack again although this very attack was made.

        Raises:
            UnlearningError: No such unlearning, or it was not for a canary that is asked for.
            Inconclusive: The unlearning or the retraining that the attack needs came to nothing.
        """
        record = attack_target(self._unlearnings(), options.name)
        if record is None:
            self.progress.info("Nothing unlearned yet: unlearning first.")
            record = self.unlearn(UnlearnOptions(canary=options.canary), measure_options)
        self._need_measurement(measure_options)
        before, inserted = self.run.measurement("before"), self.run.canary_set().inserted
        canaries = attack_canaries(record, options.canary, before, inserted)
        reference = find_retrained(self._unlearnings(), canaries)
        if reference is None:
            name = name_of_retraining(record.name, {own.name for own in self._unlearnings()})
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
        for own in (record, reference):
            self._need_measurement_after(own, measure_options)
        if not anew and is_same_attack(record, reference, canaries, options):
            self.progress.info(f"Attacked {record.name!r} already.")
            return record
        written = run_attack(self, record, reference, canaries, options)
        if written.relearning:
            for sentence in relearning_sentences(written.relearning, written.cost.speedup):
                self.progress.info(sentence)
        return written

    # --- report

    def report(self, options: ReportOptions, measure_options: MeasureOptions) -> tuple[Summary, list[Path]]:
        """Write the report; what it needs and is not there yet is trained and measured first."""
        baseline = self.baseline(options)  # First: a slip in its name shows before hours of training.
        self._need_measurements(measure_options)
        with self.stage("report"):
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

    def summary(self, options: ReportOptions, measure_options: MeasureOptions) -> Summary:
        """Return what a report would say; what it needs and is not there yet is trained and measured first."""
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

    # --- inside

    def _need_model(self) -> None:
        if not self.run.has_model("before"):
            if lost := self.run.lost_half:
                raise RunDirectoryError(f"{lost} is missing, though the rest of the model is there: {self.run.see_how}")
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
            self.progress.info(f"Unlearning {record.name!r} is not measured yet: measuring first.")
            self.measure(f"after-{record.name}", options)

    def _unlearnings(self) -> list[UnlearningRecord]:
        """Return the unlearnings in the order in which they were run."""
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
