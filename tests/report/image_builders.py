"""A report on corrected labels of images, with something in every section."""

from canaryaudit.report.images.comparison import ImagesComparison, compare_images
from canaryaudit.report.images.schema import ImageGate, ImageResultLine, ImagesSummary
from canaryaudit.report.tables.schema import CoinFigures


def images() -> ImagesSummary:
    """Return a report on corrected labels of a network."""

    def line(method: str, accuracy: float, seconds: float, **more: float | bool | None) -> ImageResultLine:
        is_same = bool(more.get("comparable", True))
        return ImageResultLine(
            name=f"by <b>{method}</b>" if method == "fine-tune" else method,
            origin="before",
            method=method,
            words=f"1,981 labels corrected, 1,981 of them flipped canaries: {method}",
            corrected=1981 if is_same else 12,
            comparable=is_same,
            accuracy=accuracy,
            f1=accuracy - 0.01,
            restored=(accuracy - 0.6312) / (0.7106 - 0.6312) if is_same else None,
            restored_error=0.06 if is_same else None,
            flipped_right=0.85,
            flipped_wrong=0.04,
            kept_right=0.96,
            residual=4e-6 if method == "output-layer" else None,
            seconds=seconds,
            cost=seconds / 105.0,
        )

    return ImagesSummary(
        images="cifar <i>ten</i>.parquet",
        run="cifar",
        target="label",
        classes=10,
        rows=10_000,
        evaluated_on="images held out",
        parameters=206_922,
        training_seconds=105.0,
        accuracy_before=0.6312,
        f1_before=0.6274,
        majority_accuracy=0.1086,
        flipped_right_before=0.33,
        flipped_wrong_before=0.63,
        kept_right_before=0.97,
        result="output-layer",
        results=(
            line("fine-tune", 0.6740, 4.2),
            line("output-layer", 0.6710, 2.6),
            line("retrain", 0.7106, 104.0),
            line("first-order", 0.6325, 3.6, comparable=False),
        ),
        coins=CoinFigures(
            what="flipped labels",
            before=(0.982, 0.978, 0.986, 4.2, 1981, 4000),
            after=(0.761, 0.746, 0.775, 1.3, 1981, 4000),
        ),
        gate=ImageGate(
            fail_auc=0.75,
            status="failed",
            reasons=("output-layer: AUC 0.761 of flipped labels, expected 0.25 to 0.75",),
            doubts=(),
        ),
        faults=("measurements/before.json is damaged (it was changed)",),
        signed=False,
        versions=("python 3.11.7",),
        limits=("A network is not convex: there is no certificate.",),
    )


def compared_images() -> ImagesComparison:
    """Return a comparison of two runs on images, one of them read from its report."""
    other = images().model_copy(update={"gate": None, "faults": (), "coins": None, "result": "retrain"})
    return compare_images([images(), other], ["a/cifar", "b/cifar"], ["b/cifar"])
