"""The only orchestrator: which stage needs which, and what of a run is there already.

Every function works on a run directory whose lock the caller holds. A stage that a later one needs and
that has not run yet is run with its defaults, and the narrator says so. What is there is never thrown
away unasked: where it was made with other options than are asked for now, that is an error.
"""

from collections.abc import Sequence
from pathlib import Path

from canaryaudit.errors import RunDirectoryError, UnlearningError
from canaryaudit.pipeline.attack import (
    attack_canaries,
    attack_target,
    find_retrained,
    is_same_attack,
    name_of_retraining,
    run_attack,
)
from canaryaudit.pipeline.measure import run_measurement
from canaryaudit.pipeline.report import find_baseline, run_report, summarize_run
from canaryaudit.pipeline.session import RunSession
from canaryaudit.pipeline.train import run_training
from canaryaudit.pipeline.unlearn import check_options, difference, run_unlearning, select_canaries
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
        """Train the model, go on with an interrupted training, or say that it is trained.

        Args:
            options: How to train; one that has its default fits whatever is there.
            anew: Train again although there is a model; everything made from the old one is then stale.

        Raises:
            ModelError: A model, or an interrupted training, was made with other options.
        """
        return run_training(self.session, options, anew=anew)

    def measure(self, model: ModelId, options: MeasureOptions) -> Measurement:
        """Measure a model afresh.

        Raises:
            RunDirectoryError: There is no such model.
        """
        if model.is_trained:
            self._need_model()
        return run_measurement(self.session, model, options)

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
        chosen = select_canaries(self.run, options.canary)
        if not anew and self.run.has_unlearning(name):
            return self._measure_finished(options, measure_options)
        self._need_model()
        if not self.run.has_measurement(TRAINED_MODEL):
            self.progress.info("Not measured yet: measuring before anything is unlearned.")
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
        self.run.remove_work(name)  # left where it was interrupted in its last moment
        if self.run.has_measurement(model):
            raise UnlearningError(
                f"{self.run.path} has an unlearning {name!r} already: use --force to do it again, or another --name"
            )
        if differing := difference(self.run.unlearning(name), options, self.run.canary_set().inserted):
            raise UnlearningError(
                f"{self.run.path} has an unlearning {name!r} that differs from what is asked for in its "
                f"{differing}: use --force to do it again, or another --name"
            )
        self.progress.info(f"Unlearning {name!r} was done already; its measurement is still to be taken.")
        self.measure(model, measure_options)
        return self.run.unlearning(name)

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
        record = attack_target(self.session.unlearnings(), options.name)
        if record is None:
            self.progress.info("Nothing unlearned yet: unlearning first.")
            record = self.unlearn(UnlearnOptions(canary=options.canary), measure_options)
        self._need_measurement(measure_options)
        before, inserted = self.run.measurement(TRAINED_MODEL), self.run.canary_set().inserted
        canaries = attack_canaries(record, options.canary, before, inserted)
        reference = find_retrained(self.session.unlearnings(), canaries)
        if reference is None:
            name = name_of_retraining(record.name, {own.name for own in self.session.unlearnings()})
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
        return run_attack(self.session, record, reference, canaries, options)

    def report(self, options: ReportOptions, measure_options: MeasureOptions) -> tuple[Summary, list[Path]]:
        """Write the report; what it needs and is not there yet is trained and measured first."""
        baseline = find_baseline(self.session, options)  # First: a slip in its name shows before hours of training.
        self._need_measurements(measure_options)
        return run_report(self.session, options, baseline)

    def summary(self, options: ReportOptions, measure_options: MeasureOptions) -> Summary:
        """Return what a report would say; what it needs and is not there yet is trained and measured first."""
        self._need_measurements(measure_options)
        return summarize_run(self.session, options)

    def _need_model(self) -> None:
        if not self.run.has_model(TRAINED_MODEL):
            if lost := self.run.lost_half:
                raise RunDirectoryError(f"{lost} is missing, though the rest of the model is there: {self.run.see_how}")
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
        self.run.verify_weights(model)
        if not self.run.has_measurement(model):
            self.progress.info(f"Unlearning {record.name!r} is not measured yet: measuring first.")
            self.measure(model, options)

    def _need_measurements(self, options: MeasureOptions) -> None:
        self._need_measurement(options)
        for record in self.session.unlearnings():
            self._need_measurement_after(record, options)
