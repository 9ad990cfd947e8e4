"""Comparison of several runs on images: the last result of each beside the others', on one page."""

from collections.abc import Collection, Sequence
from pathlib import Path

from canaryaudit import formatting as figures
from canaryaudit.report.comparison.comparison import unique_names
from canaryaudit.report.earlier import read_earlier
from canaryaudit.report.images.schema import IMAGES_VERSION, ImagesSummary
from canaryaudit.report.judgment import Figure, GateStatus, Number, Part
from canaryaudit.report.rows.comparison import ComparisonView, change_words, judged, unverified_note

IMAGES_COMPARISON_VERSION = 1


class ImageRunLine(Part):
    """The last result of one run."""

    name: str
    verified: bool
    """Whether the figures are those of a run directory, which was verified; false for a ``report.json``."""
    images: str
    target: str
    rows: int
    classes: int
    parameters: int
    result: str
    """The unlearning that the figures are of."""
    method: str
    corrected: int
    """Labels corrected by it and all before it."""
    accuracy_before: Number
    accuracy: Number
    majority_accuracy: Number
    """Of the constant classifier."""
    restored: Figure
    """Share of the lost accuracy that is back; None without a retrained network with the same labels."""
    coins_before: Figure
    coins_after: Figure
    """AUC of the coins of flipped labels; None without flipped labels."""
    seconds: Number
    cost: Number
    """As a share of the training's time."""
    warnings: tuple[str, ...]


class ImagesComparison(Part):
    """comparison.json of runs on images."""

    schema_version: int = IMAGES_COMPARISON_VERSION
    images: tuple[str, ...]
    """Names of the files or folders of all runs, each once."""
    runs: tuple[ImageRunLine, ...]
    reasons: tuple[str, ...]
    """Why the gate did not pass; empty if it passed or there was no gate."""
    status: GateStatus | None
    """The worst result of any run's gate; None without a gate."""

    @property
    def headline(self) -> str:
        """The result in one sentence."""
        better = sum(run.accuracy > run.accuracy_before for run in self.runs)
        return f"{better:,} of {len(self.runs):,} networks are better with corrected labels than before."

    @property
    def note(self) -> str:
        """Says which figures nothing verified; empty if all are of run directories."""
        return unverified_note(self.runs)


def read_images_report(path: Path) -> ImagesSummary:
    """Read an earlier report of a run on images, without its gate, which may have judged another state of the run.

    Raises:
        UsageError: It cannot be read, or is no such report.
    """
    wanted = "a run directory on images, or the report.json of its report"
    report = read_earlier(path, ImagesSummary, str(path), wanted, "write the report again", IMAGES_VERSION)
    return report.model_copy(update={"gate": None})


def compare_images(
    summaries: Sequence[ImagesSummary], paths: Sequence[str], reports: Collection[str] = ()
) -> ImagesComparison:
    """Compare runs, in the given order.

    Args:
        summaries: The report of each run.
        paths: The runs' paths, which distinguish runs with the same name.
        reports: The paths of those that were read from a ``report.json``.
    """
    names = unique_names([own.run for own in summaries], paths)
    reasons, status = judged([(name, own.gate) for name, own in zip(names, summaries, strict=True)])
    return ImagesComparison(
        images=tuple(dict.fromkeys(own.images for own in summaries)),
        runs=tuple(
            _line(name, summary, verified=path not in reports)
            for name, path, summary in zip(names, paths, summaries, strict=True)
        ),
        reasons=reasons,
        status=status,
    )


def _line(name: str, summary: ImagesSummary, *, verified: bool) -> ImageRunLine:
    main, coins = summary.main, summary.coins
    return ImageRunLine(
        name=name,
        verified=verified,
        images=summary.images,
        target=summary.target,
        rows=summary.rows,
        classes=summary.classes,
        parameters=summary.parameters,
        result=summary.result,
        method=main.method,
        corrected=main.corrected,
        accuracy_before=summary.accuracy_before,
        accuracy=main.accuracy,
        majority_accuracy=summary.majority_accuracy,
        restored=main.restored,
        coins_before=coins.before[0] if coins else None,
        coins_after=coins.after[0] if coins else None,
        seconds=main.seconds,
        cost=main.cost,
        warnings=summary.faults,
    )


def _cells(own: ImageRunLine) -> list[str]:
    return [
        own.name,
        f"{own.images}, {own.target}",
        f"{own.rows:,} images, {own.classes:,} classes, {own.parameters:,} parameters",
        f"{own.result}, {figures.counted(own.corrected, 'label')}",
        own.method,
        f"{own.accuracy_before:.4f} → {own.accuracy:.4f}",
        f"{own.majority_accuracy:.4f}",
        figures.percent(own.restored, 0),
        change_words(own.coins_before, own.coins_after),
        f"{own.seconds:.1f}",
        figures.percent(own.cost, 1),
    ]


def _short_cells(own: ImageRunLine) -> list[str]:
    return [
        f"{own.accuracy_before:.4f} → {own.accuracy:.4f}",
        figures.percent(own.restored, 0),
        change_words(own.coins_before, own.coins_after),
        figures.percent(own.cost, 1),
    ]


IMAGES_VIEW = ComparisonView(
    "images",
    "Runs in the given order, each with its last result. Accuracy on the images held out, before → after. Restored: "
    "the share of the accuracy lost to wrong labels that came back, with a retrained network at 100 %. AUC of flips: "
    "whether the network tells which labels were flipped, before → after. See each run's report for details.",
    "Corrected labels after Warnecke et al., “Machine Unlearning of Features and Labels”, NDSS 2023.",
    (
        "Run",
        "Images, labels",
        "Network",
        "Result",
        "By",
        "Accuracy",
        "Constant classifier",
        "Restored",
        "AUC of flips",
        "Time, s",
        "Of the training's",
    ),
    _cells,
    ("accuracy", "restored", "AUC", "cost"),
    _short_cells,
)
