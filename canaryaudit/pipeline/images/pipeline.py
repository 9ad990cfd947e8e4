"""The stages of a run on images."""

from collections.abc import Sequence

from canaryaudit.errors import command
from canaryaudit.image_plan import ImageReportOptions, ImageTrainOptions, ImageUnlearnOptions
from canaryaudit.images.network import as_input
from canaryaudit.images.relabeling import Training, relabel_network
from canaryaudit.images.second_order import Correction
from canaryaudit.images.training import LoopConfig
from canaryaudit.images.work import ABOUT_AS_LONG, share_of_retraining
from canaryaudit.models.device import resolve_device
from canaryaudit.models.weights import weights_bytes
from canaryaudit.pipeline.images.figures import measure_images
from canaryaudit.pipeline.images.report import CHECKS, summarize_image_run
from canaryaudit.pipeline.images.requests import correction_words, resolve_corrections
from canaryaudit.pipeline.images.session import ImageSession
from canaryaudit.pipeline.images.training import fresh_network, train_images
from canaryaudit.pipeline.rows.pipeline import RowsPipeline
from canaryaudit.records import ModelId
from canaryaudit.records.images import (
    CorrectionRecord,
    ImageMeasurement,
    ImageModelRecord,
    RelabelingRecord,
)
from canaryaudit.report.images.files import image_report_files
from canaryaudit.report.images.pipelines import render_images_step_summary
from canaryaudit.report.images.schema import ImagesSummary
from canaryaudit.report.rows.files import Makers
from canaryaudit.runs.image_directory import ImageDirectory


class ImagePipeline(RowsPipeline[ImageReportOptions, ImagesSummary]):
    """The stages of one run on images."""

    checks = CHECKS
    training = ImageTrainOptions
    opened = ImageSession
    run: ImageDirectory
    session: ImageSession

    def train(self, options: ImageTrainOptions, *, anew: bool = False) -> ImageModelRecord:
        """Train the network, or report that it is already trained.

        Raises:
            ModelError: A model was made with other options.
        """
        return train_images(self.session, options, anew=anew)

    def measure_model(self, model: ModelId, device: str) -> ImageMeasurement:
        """Measure a network."""
        return measure_images(self.session, model, resolve_device(device))

    def resolve(self, options: ImageUnlearnOptions, lineage: Sequence[RelabelingRecord]) -> CorrectionRecord:
        """Return the labels to correct."""
        return resolve_corrections(self.session, options, [record.request for record in lineage])

    def carry_out(
        self, options: ImageUnlearnOptions, name: str, request: CorrectionRecord, lineage: Sequence[RelabelingRecord]
    ) -> RelabelingRecord:
        """Correct labels in a network, and write the result."""
        earlier = [record.request for record in lineage]
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
        self._compare_with_retraining(options, share)
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

    def _compare_with_retraining(self, options: ImageUnlearnOptions, share: float | None) -> None:
        """Say before an update what it takes against retraining, and when retraining is the better answer."""
        if share is None or options.method == "retrain":
            return
        words = f"{options.method} is estimated at {100 * share:.0f} % of what retraining takes"
        if share < ABOUT_AS_LONG:
            self.progress.info(f"{words}.")
            return
        same: list[object] = []  # the request that retraining is to carry out instead
        same += ["--from", options.start] if not options.start.is_trained else []
        same += ["--relabel", options.relabel] if options.relabel else []
        same += [word for name in options.canary for word in ("--canary", name)]
        same += ["--name", f"{options.name}-retrained"] if options.name else []
        retrain = command("canaryaudit", "unlearn", self.run.path, "--method", "retrain", *same)
        self.progress.warn(f"{words}: retraining is the better answer for so few small images: {retrain}")

    def summarize(self, options: ImageReportOptions, faults: Sequence[str]) -> ImagesSummary:
        """Return what a report says."""
        return summarize_image_run(self.session, options, faults)

    def report_files(self, summary: ImagesSummary) -> Makers:
        """Return what makes each format's files."""
        return image_report_files(summary)

    def step_summary(self, summary: ImagesSummary) -> str:
        """Return what the page of a pipeline's run says."""
        return render_images_step_summary(summary)

    def is_same_request(self, options: ImageUnlearnOptions, record: RelabelingRecord) -> bool:
        """Return whether an unlearning carried out what is asked for."""
        return self.resolve(options, self.session.lineage(options.start)) == record.request
