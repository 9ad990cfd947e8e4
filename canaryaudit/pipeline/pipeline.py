"""Orchestration of all stages: dependencies between stages, and reuse of existing results.

The caller holds the run directory's lock. If a stage needs an earlier one that has not run, it runs with defaults and
a message says so. Existing results are never discarded without --force: different options raise an error.
"""

from collections.abc import Sequence
from pathlib import Path

from canaryaudit.errors import RunDirectoryError, UnfitOptions, UnlearningError, command
from canaryaudit.models.huggingface import SCHEME, ModelSource
from canaryaudit.pipeline.attack import (
    attack_canaries,
    attack_target,
    find_retrained,
    is_same_attack,
    name_of_retraining,
    run_attack,
)
from canaryaudit.pipeline.external import (
    run_external_measurement,
    run_result_measurement,
    source_of,
    source_sha256,
)
from canaryaudit.pipeline.measure import run_measurement
from canaryaudit.pipeline.report import (
    check_report,
    find_baseline,
    inconclusive_at_a_gate,
    run_report,
    summarize_run,
    verify_report,
)
from canaryaudit.pipeline.report_place import fault_words
from canaryaudit.pipeline.scores import run_score_measurement
from canaryaudit.pipeline.session import RunSession
from canaryaudit.pipeline.train import run_training
from canaryaudit.pipeline.unlearn import check_options, difference, run_unlearning, select_canaries
from canaryaudit.pipeline.unlearn_external import (
    CheckpointRequest,
    check_checkpoint_options,
    check_output,
    run_checkpoint_unlearning,
)
from canaryaudit.plan import AttackOptions, MeasureOptions, ReportOptions, TrainOptions, UnlearnOptions
from canaryaudit.progress import ProgressReporter
from canaryaudit.records import TRAINED_MODEL, Measurement, ModelId, ModelRecord, UnlearningRecord
from canaryaudit.report import Summary
from canaryaudit.runs.layout import check_name
from canaryaudit.runs.lineage import checked_lineage
from canaryaudit.runs.run_directory import RunDirectory


class Pipeline:
    """The stages of one run, each with what it needs.

    Args:
        run: The run directory, whose lock the caller holds.
        argv: The command line, for the manifest.
        progress: Told of progress.
    """

    def __init__(self, run: RunDirectory, argv: Sequence[str], progress: ProgressReporter) -> None:
        self.session = RunSession(run, argv, progress)
        self.run, self.progress = run, progress

    def train(self, options: TrainOptions, *, anew: bool = False) -> ModelRecord:
        """Train the model, resume an interrupted training, or report that it is already trained.

        Args:
            options: How to train; an option with its default value matches any existing model.
            anew: Retrain even if a model exists; everything made from the old model becomes stale.

        Raises:
            ModelError: A model, or an interrupted training, was made with other options.
        """
        return run_training(self.session, options, anew=anew)

    def measure(self, model: ModelId, options: MeasureOptions) -> Measurement:
        """Measure a model, even if it was measured before.

        Raises:
            RunDirectoryError: There is no such model.
        """
        if model.is_trained and (external := self.run.external_model()):
            return self.measure_external(source_of(external), options)
        if self.run.external_model(model):
            return run_result_measurement(self.session, model, options)
        if model.is_trained:
            self._need_model()
        return run_measurement(self.session, model, options)

    def measure_external(self, source: ModelSource, options: MeasureOptions) -> Measurement:
        """Measure a model that lies outside the run, and make it the run's model.

        Raises:
            ModelError: There is no such model, or it cannot be read safely.
            RunDirectoryError: The run has a model of its own.
        """
        return run_external_measurement(self.session, source, options)

    def measure_scores(self, path: Path, options: MeasureOptions) -> Measurement:
        """Measure a model behind an API by its answers to the run's requests, and make it the run's model.

        Raises:
            MeasurementError: The answers cannot be used.
            RunDirectoryError: The run has a model of its own.
        """
        return run_score_measurement(self.session, path, options)

    def unlearn_checkpoint(
        self,
        options: UnlearnOptions,
        request: CheckpointRequest,
        measure_options: MeasureOptions,
        *,
        anew: bool = False,
    ) -> UnlearningRecord:
        """Unlearn canaries from a model that lies outside the run, write the updated checkpoint, and measure it.

        Raises:
            UnlearningError: The name or the output is taken, or an id is not that of an inserted canary.
            ModelError: The checkpoint cannot be read.
            Inconclusive: No update stays within the fidelity limit.
        """
        name = check_name(options.resolved_name)
        check_checkpoint_options(options, request)
        chosen = select_canaries(self.run, options.canary)
        if not anew and self.run.has_unlearning(name):
            return self._measure_finished(options, measure_options)
        if request.output is not None:
            check_output(self.run.path, request.output)
        self._need_measured_checkpoint(options, request, measure_options, anew=anew)
        models = [TRAINED_MODEL] if options.start.is_trained else self.session.models()
        lineage = checked_lineage(self.run, options.start, name, models, self.progress)
        record = run_checkpoint_unlearning(self.session, options, request, chosen, lineage)
        self.measure(ModelId(name), measure_options)
        return record

    def _need_measured_checkpoint(
        self, options: UnlearnOptions, request: CheckpointRequest, measure_options: MeasureOptions, *, anew: bool
    ) -> None:
        """Measure the checkpoint to unlearn from, unless that is done.

        Raises:
            UnlearningError: The run is about another model, and is not to be about this one ``anew``.
        """
        recorded = self.run.external_model()
        if request.source is None or options.method == "retrain":
            if recorded is None:
                raise UnlearningError(
                    f"{self.run.path} has no model of transformers yet: measure the trained one first with --model "
                    "hf:PATH"
                )
        elif not options.start.is_trained:
            raise UnfitOptions(f"--from {options.start} tells the model: drop --model")
        elif recorded is None:
            self.progress.info("Not measured yet: measuring before unlearning.")
            self.measure_external(request.source, measure_options)
            return
        elif source_sha256(request.source) != self.run.model_record().sha256:
            if not anew:
                raise UnlearningError(
                    f"{SCHEME}{request.source.path} is not the model that {self.run.path} is about "
                    f"({recorded.source}): make a run of its own with canaryaudit insert, or use --force to measure it "
                    "in place of that one"
                )
            self.progress.info("Another model than before: measuring it before unlearning.")
            self.measure_external(request.source, measure_options)
            return
        if not self.run.has_measurement(TRAINED_MODEL):
            self.progress.info("Not measured yet: measuring before unlearning.")
            self.measure(TRAINED_MODEL, measure_options)

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
        self._refuse_external()
        chosen = select_canaries(self.run, options.canary)
        if not anew and self.run.has_unlearning(name):
            return self._measure_finished(options, measure_options)
        self._need_model()
        if not self.run.has_measurement(TRAINED_MODEL):
            self.progress.info("Not measured yet: measuring before unlearning.")
            self.measure(TRAINED_MODEL, measure_options)
        models = [TRAINED_MODEL] if options.start.is_trained else self.session.models()
        lineage = checked_lineage(self.run, options.start, name, models, self.progress)
        record = run_unlearning(self.session, options, chosen, lineage)
        self.measure(ModelId(name), measure_options)
        return record

    def _measure_finished(self, options: UnlearnOptions, measure_options: MeasureOptions) -> UnlearningRecord:
        """Measure what an interrupted command had unlearned.

        Raises:
            UnlearningError: It is measured already, or was unlearned otherwise than asked for.
        """
        name, model = options.resolved_name, ModelId(options.resolved_name)
        self.run.remove_work(name)  # left over if the command was interrupted just before removing it
        if self.run.has_measurement(model):
            raise UnlearningError(
                f"{self.run.path} already has an unlearning {name!r}: use --force to replace it, or another --name"
            )
        if differing := difference(self.run.unlearning(name), options, self.run.canary_set().inserted):
            raise UnlearningError(
                f"{self.run.path} already has an unlearning {name!r} that differs in its {differing}: use --force "
                "to replace it, or another --name"
            )
        self.progress.info(f"{name!r} was already unlearned, but not measured: measuring it.")
        self.measure(model, measure_options)
        return self.run.unlearning(name)

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
        if external := self.run.external_model():
            _ = source_of(external)  # What is behind an API cannot be trained.
        record = attack_target(self.session.unlearnings(), options.name) or self._unlearn_to_attack(
            options, measure_options
        )
        self._need_measurement(measure_options)
        before, inserted = self.run.measurement(TRAINED_MODEL), self.run.canary_set().inserted
        canaries = attack_canaries(record, options.canary, before, inserted)
        reference = find_retrained(self.session.unlearnings(), canaries) or self._retrain_to_compare(
            record, options, measure_options
        )
        for unlearning in (record, reference):
            self.run.remove_work(unlearning.name)  # left over if a command was interrupted just before removing it
            self._need_measurement_after(unlearning, measure_options)
        if not anew and is_same_attack(record, reference, canaries, options):
            self.progress.info(f"{record.name!r} was already attacked.")
            return record
        return run_attack(self.session, record, reference, canaries, options)

    def _unlearn_to_attack(self, options: AttackOptions, measure_options: MeasureOptions) -> UnlearningRecord:
        """Unlearn what is to be attacked.

        Raises:
            UnlearningError: The model lies outside the run, and nobody said where the result is to be written.
        """
        if self.run.external_model():
            unlearn = command("canaryaudit", "unlearn", self.run.path, "-o", "FOLDER")
            raise UnlearningError(f"{self.run.path} has no unlearned checkpoint to attack: run {unlearn} first")
        self.progress.info("No unlearned model yet: unlearning first.")
        return self.unlearn(UnlearnOptions(canary=options.canary), measure_options)

    def _retrain_to_compare(
        self, record: UnlearningRecord, options: AttackOptions, measure_options: MeasureOptions
    ) -> UnlearningRecord:
        """Retrain without the canaries of an unlearning.

        Raises:
            UnlearningError: The model lies outside the run, so its user must retrain it.
        """
        if self.run.external_model():
            add = command("canaryaudit", "unlearn", self.run.path, "--method", "retrain", "--model", "hf:PATH")
            each = (
                " and --canary for each of them" if len(record.canaries) < len(self.run.canary_set().inserted) else ""
            )
            raise UnlearningError(
                "an attack is compared with a model that never saw these canaries: retrain without them, and add that "
                f"checkpoint with {add}{each}"
            )
        name = name_of_retraining(record.name, {unlearning.name for unlearning in self.session.unlearnings()})
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
        return self.unlearn(retraining, measure_options)

    def report(self, options: ReportOptions, measure_options: MeasureOptions) -> tuple[Summary, list[Path]]:
        """Verify the run and write the report, after missing training and measurements.

        Raises:
            Inconclusive: There is a gate, and no report can be made of the run.
        """
        check_report(options)  # First, to report a wrong path before hours of training.
        baseline = find_baseline(self.session, options)
        faults = self._verify_measured(options, measure_options)
        with inconclusive_at_a_gate(self.session, options, faults):
            return run_report(self.session, options, baseline, faults)

    def summary(self, options: ReportOptions, measure_options: MeasureOptions) -> Summary:
        """Return the summary of the report, after missing training and measurements.

        Raises:
            Inconclusive: There is a gate, and no report can be made of the run.
        """
        check_report(options)
        faults = self._verify_measured(options, measure_options)
        with inconclusive_at_a_gate(self.session, options, faults):
            return summarize_run(self.session, options, faults)

    def _verify_measured(self, options: ReportOptions, measure_options: MeasureOptions) -> tuple[str, ...]:
        """Return the faults of the run; unless there are some, measure what is missing or stale."""
        states = {finding.state for finding in verify_report(self.session, options)}
        if states <= {"stale"}:
            self._need_measurements(measure_options)
        # What has just been made is sound; what was stale may have been made again.
        return tuple(map(fault_words, verify_report(self.session, options))) if states else ()

    def _refuse_external(self) -> None:
        """Refuse what needs a model that canaryaudit trained."""
        if self.run.external_model():
            _ = self.run.model_record().lstm

    def _need_model(self) -> None:
        if self.run.external_model():
            return
        if not self.run.has_model(TRAINED_MODEL):
            if lost := self.run.lost_half:
                raise RunDirectoryError(f"{lost} is missing, but the rest of the model exists: {self.run.see_how}")
            self.progress.info("Not trained yet: training first.")
            self.train(TrainOptions())
        self.run.verify_weights(TRAINED_MODEL)

    def _need_measurement(self, options: MeasureOptions) -> None:
        self._need_model()
        if not self.run.has_measurement(TRAINED_MODEL):
            self.progress.info("Not measured yet: measuring first.")
            self.measure(TRAINED_MODEL, options)

    def _need_measurement_after(self, record: UnlearningRecord, options: MeasureOptions) -> None:
        model = ModelId(record.name)
        if record.external is None:
            self.run.verify_weights(model)
        if not self.run.has_measurement(model):
            self.progress.info(f"{model} is not measured yet: measuring first.")
            self.measure(model, options)

    def _need_measurements(self, options: MeasureOptions) -> None:
        self._need_measurement(options)
        for record in self.session.unlearnings():
            self._need_measurement_after(record, options)
