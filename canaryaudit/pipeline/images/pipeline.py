"""Orchestration of the stages of a run on images: what each needs runs first, and existing results are kept."""

from collections.abc import Sequence
from pathlib import Path

from canaryaudit.errors import Inconclusive, NewerVersion, RunDirectoryError, UnlearningError
from canaryaudit.image_plan import ImageReportOptions, ImageTrainOptions, ImageUnlearnOptions
from canaryaudit.images.network import as_input
from canaryaudit.images.relabeling import Training, relabel_network
from canaryaudit.images.second_order import Correction
from canaryaudit.images.training import LoopConfig
from canaryaudit.images.work import ABOUT_AS_LONG, share_of_retraining
from canaryaudit.models.device import resolve_device
from canaryaudit.models.weights import weights_bytes
from canaryaudit.pipeline.images.figures import measure_images
from canaryaudit.pipeline.images.report import check_image_report, run_image_report, verify_image_report
from canaryaudit.pipeline.images.requests import correction_words, resolve_corrections
from canaryaudit.pipeline.images.session import ImageSession
from canaryaudit.pipeline.images.training import fresh_network, train_images
from canaryaudit.pipeline.report_place import fault_words
from canaryaudit.progress import ProgressReporter
from canaryaudit.records import TRAINED_MODEL, ModelId
from canaryaudit.records.images import (
    CorrectionRecord,
    ImageMeasurement,
    ImageMethod,
    ImageModelRecord,
    RelabelingRecord,
)
from canaryaudit.report.images.schema import ImagesSummary
from canaryaudit.runs.image_directory import ImageDirectory
from canaryaudit.runs.layout import check_name
from canaryaudit.runs.lineage import checked_lineage


class ImagePipeline:
    """The stages of one run on images, each with what it needs.

    Args:
        run: The run directory, whose lock the caller holds.
        argv: The command line, for the manifest.
        progress: Told of progress.
    """

    def __init__(self, run: ImageDirectory, argv: Sequence[str], progress: ProgressReporter) -> None:
        self.session = ImageSession(run, argv, progress)
        self.run, self.progress = run, progress

    def train(self, options: ImageTrainOptions, *, anew: bool = False) -> ImageModelRecord:
        """Train the network, or report that it is already trained.

        Raises:
            ModelError: A model was made with other options.
        """
        return train_images(self.session, options, anew=anew)

    def measure(self, model: ModelId, device: str = "cpu") -> ImageMeasurement:
        """Measure a network, even if it was measured before.

        Raises:
            RunDirectoryError: There is no such model.
        """
        if model.is_trained:
            self._need_model()
        return measure_images(self.session, model, resolve_device(device))

    def unlearn(self, options: ImageUnlearnOptions, *, anew: bool = False) -> RelabelingRecord:
        """Correct labels and measure; a finished unlearning of that name is an error unless ``anew``.

        Raises:
            UnlearningError: The name is taken, or the request does not fit the images.
            Inconclusive: The update does not reach its tolerance.
        """
        name = check_name(options.resolved_name)
        if not anew and self.run.has_unlearning(name):
            raise UnlearningError(
                f"{self.run.path} already has an unlearning {name!r}: use --force to replace it, or another --name"
            )
        lineage = checked_lineage(self.run, options.start, name, self.session.models(), self.progress)
        earlier = [record.request for record in lineage]
        request = resolve_corrections(self.session, options, earlier)
        self._need_model()
        if not self.run.has_measurement(TRAINED_MODEL):
            self.progress.info("Not measured yet: measuring before unlearning.")
            self.measure(TRAINED_MODEL)
        record = self._carry_out(options, name, request, earlier)
        self.measure(ModelId(name), options.device)
        return record

    def _carry_out(
        self, options: ImageUnlearnOptions, name: str, request: CorrectionRecord, earlier: list[CorrectionRecord]
    ) -> RelabelingRecord:
        """Carry out a request on a model, and write the result."""
        session, trained = self.session, self.run.trained_model()
        device = resolve_device(options.device)
        correction = Correction(
            session.training_images().to(device),
            session.labels(earlier).to(device),
            session.labels([*earlier, request]).to(device),
            as_input,
            trained.precision,
            options.seed,
        )
        training = Training(
            LoopConfig(trained.epochs, trained.learning_rate, trained.batch, trained.seed, trained.precision),
            lambda: fresh_network(trained.network, trained.seed).to(device),
        )
        share = share_of_retraining(trained.network, options.method, len(correction.new), training.loop)
        self._compare_with_retraining(options.method, share)
        with session.stage("unlearn", name, seed=options.seed, device=device.type, precision=trained.precision):
            network = session.model(options.start, device)
            after = relabel_network(network, correction, options.method, training, self.progress)
        record = RelabelingRecord(
            name=name,
            method=options.method,
            request=request,
            words=f"{correction_words(request)}: {after.words}",
            updated_parameters=after.parameters,
            residual=after.residual,
            seconds=after.seconds,
            training_seconds=trained.seconds,
            seed=options.seed,
            device=device.type,
            precision=trained.precision,
            model_sha256=self.run.write_weights(ModelId(name), weights_bytes(after.module)),
            origin=options.start,
            origin_sha256=self.run.model_sha256(options.start),
            estimated_share=share,
        )
        self.run.write_unlearning(record)
        self.progress.info(f"{record.words}, {100 * record.cost:.1f} % of the training's time.")
        return record

    def _compare_with_retraining(self, method: ImageMethod, share: float | None) -> None:
        """Say before an update what it takes against retraining, and when retraining is the better answer."""
        if share is None or method == "retrain":
            return
        words = f"{method} is estimated at {100 * share:.0f} % of what retraining takes"
        if share < ABOUT_AS_LONG:
            self.progress.info(f"{words}.")
            return
        self.progress.warn(
            f"{words}: retraining is the better answer for so few small images: canaryaudit unlearn {self.run.path} "
            "--method retrain"
        )

    def report(self, options: ImageReportOptions) -> tuple[ImagesSummary, list[Path]]:
        """Verify the run and write the report, after missing measurements.

        Raises:
            Inconclusive: There is a gate, and no report can be made of the run.
        """
        directory = check_image_report(self.session, options)
        found = verify_image_report(self.session, options)
        if {finding.state for finding in found} <= {"stale"} and not self.run.is_read_only:
            self._need_measurements()
            found = verify_image_report(self.session, options) if found else found
        faults = tuple(map(fault_words, found))
        try:
            return run_image_report(self.session, options, directory, faults)
        except (Inconclusive, NewerVersion):  # their messages say what to do: there is nothing to repair
            raise
        except Exception as error:  # what somebody edited may break anything that computes with it
            if not faults:
                raise
            if options.fail_auc is None:
                raise RunDirectoryError(f"{self.run.path}/{faults[0]}: {self.run.see_how}") from error
            raise Inconclusive(f"the gate cannot pass: {faults[0]}; {self.run.see_how}") from error

    def _need_model(self) -> None:
        if not self.run.has_model(TRAINED_MODEL):
            self.progress.info("Not trained yet: training first.")
            self.train(ImageTrainOptions())
        self.run.verify_weights(TRAINED_MODEL)

    def _need_measurements(self) -> None:
        for model in self.session.models() if self.run.has_model(TRAINED_MODEL) else ():
            if not self.run.has_measurement(model):
                self.progress.info(f"{model} is not measured yet: measuring first.")
                self.measure(model)
