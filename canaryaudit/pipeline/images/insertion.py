"""Insert stage of a run on images: read, hold rows out, and flip labels."""

from canaryaudit.formatting import counted
from canaryaudit.image_plan import ImageInsertOptions
from canaryaudit.images.reading import read_images
from canaryaudit.images.rows import plan_rows
from canaryaudit.pipeline.rows.insertion import RowsInsertion, RowsPlan
from canaryaudit.progress import ProgressReporter
from canaryaudit.records import ImagesFacts
from canaryaudit.records.images import ImagesRecord
from canaryaudit.runs.image_directory import ImageDirectory

ImageInsertionPlan = RowsPlan[ImagesRecord, ImagesFacts]


def plan_images(options: ImageInsertOptions, progress: ProgressReporter) -> ImageInsertionPlan:
    """Read images and flip labels; nothing is written."""
    source = read_images(options)
    progress.info(f"Read {source.note}.")
    record, rows, before = plan_rows(source, options)
    facts = ImagesFacts(
        name=source.name,
        reading=(source.note,),
        image=options.image,
        target=options.target,
        sha256=before,
        rows_sha256="",
        rows=len(rows.training),
        heldout_rows=int(rows.heldout.sum()),
        holdout=options.holdout,
        seed=options.seed,
    )
    return RowsPlan(record, rows, facts)


def image_sentences(made: ImageInsertionPlan) -> tuple[str, ...]:
    """Return what was inserted, in sentences."""
    facts, record = made.facts, made.record
    sentences = [
        f"{facts.rows:,} training images and {facts.heldout_rows:,} held out, {record.width} x {record.height} pixels, "
        f"{len(record.classes):,} classes in {facts.target!r}."
    ]
    if record.canaries:
        planted = sum(canary.planted for canary in record.canaries)
        controls = counted(len(record.canaries) - planted, "control")
        sentences.append(f"{counted(planted, 'flipped label')}; {controls} kept as they are.")
    return tuple(sentences)


IMAGE_INSERTION = RowsInsertion(
    ImageDirectory,
    plan_images,
    image_sentences,
    called="images",
    package="pillow",
    compared=("image", "target", "holdout", "seed"),
    planted="flipped labels",
)
