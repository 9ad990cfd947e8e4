"""Insert stage of a run on images: read, hold rows out, flip labels, and create the run directory."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import canaryaudit
from canaryaudit import environment
from canaryaudit.errors import RunDirectoryError, UsageError
from canaryaudit.formatting import counted
from canaryaudit.image_plan import ImageInsertOptions
from canaryaudit.images.reading import read_images
from canaryaudit.images.rows import ImageRows, plan_rows
from canaryaudit.progress import ProgressReporter
from canaryaudit.records import ImagesFacts, ImagesManifest, StageRun
from canaryaudit.records.images import ImagesRecord
from canaryaudit.runs.image_directory import ImageDirectory


@dataclass(frozen=True, eq=False)
class ImagePlan:
    """An insertion into a set of images.

    Attributes:
        record: Classes and canaries.
        rows: The rows, with flipped labels.
        facts: Of the manifest.
    """

    record: ImagesRecord
    rows: ImageRows
    facts: ImagesFacts


def plan_images(options: ImageInsertOptions, progress: ProgressReporter) -> ImagePlan:
    """Read images and flip labels; nothing is written."""
    if options.corpus == "-":
        raise UsageError("images cannot be read from standard input: give a file or a folder")
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
    return ImagePlan(record, rows, facts)


def make_image_run(
    path: Path, options: ImageInsertOptions, argv: Sequence[str], progress: ProgressReporter, *, replace: bool = False
) -> ImagePlan:
    """Plan the insertion and write the run directory.

    Args:
        path: A directory that is missing or empty.
        options: What to flip.
        argv: The command line, for the manifest.
        progress: Told what the images were taken for.
        replace: Delete the run that the directory already holds.

    Raises:
        RunDirectoryError: The directory holds something else, or a run.
        CorpusError: The images cannot be used.
    """
    ImageDirectory(path).check_can_create(replace=replace)
    source = Path(options.corpus)
    if replace and source.exists() and source.resolve().is_relative_to(path.resolve()):
        raise RunDirectoryError(
            f"the images {source} are in the run to be replaced: copy them elsewhere, or choose another directory"
        )
    started, clock = environment.utc_now(), time.perf_counter()
    made = plan_images(options, progress)
    stage = StageRun(
        stage="insert", argv=tuple(argv), started=started, seconds=time.perf_counter() - clock, seed=options.seed
    )
    manifest = ImagesManifest(
        canaryaudit=canaryaudit.__version__,
        versions=environment.versions("pillow"),
        commit=environment.commit(),
        machine=environment.machine(),
        images=made.facts,
        stages=(stage,),
        warnings=(),
    )
    ImageDirectory.create(path, manifest=manifest, record=made.record, arrays=made.rows.arrays(), replace=replace)
    return made


def find_image_run(path: Path, options: ImageInsertOptions, progress: ProgressReporter) -> ImagePlan | None:
    """Return the plan of an existing run, if it was made with these options; None if the directory holds no run.

    Raises:
        RunDirectoryError: The run was made from other images or with other options; or the directory cannot hold one.
    """
    ImageDirectory(path).check_can_create(replace=True)
    if not ImageDirectory.holds_run(path):
        return None
    run = ImageDirectory.open(path)
    made = plan_images(options, progress)
    there = run.manifest.facts
    differing = [
        name
        for name in ("image", "target", "holdout", "seed", "sha256")
        if getattr(there, name) != getattr(made.facts, name)
    ]
    if differing or run.record() != made.record:
        part = differing[0] if differing else "flipped labels"
        part = {"sha256": f"images ({there.name})"}.get(part, part)
        raise RunDirectoryError(
            f"{path} already holds a run that differs in its {part}: choose another directory, or replace the run with "
            "--force"
        )
    return made


def image_sentences(made: ImagePlan) -> tuple[str, ...]:
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
