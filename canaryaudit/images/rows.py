"""Images as a run keeps them: bytes, labels, what is held out, and which labels were flipped by coins.

Of twice as many random training rows as are to be flipped, a fair coin of its own decides for each whether its label is
flipped; another class was drawn for every one of them. Those that keep their label are the controls, so one-run bounds
hold for the change of one label.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from canaryaudit.corpus.cells import Arrays, arrays_sha256, held_out, id_arrays, ids_of, sorted_classes
from canaryaudit.errors import CorpusError
from canaryaudit.image_plan import ImageInsertOptions
from canaryaudit.images.reading import Pixels, SourceImages, as_codes
from canaryaudit.records.images import ImagesRecord
from canaryaudit.records.tables import TableCanary

Labels = np.ndarray[Any, np.dtype[np.int64]]
Places = np.ndarray[Any, np.dtype[np.intp]]
FEWEST_ROWS = 20
MOST_CLASSES = 1000


@dataclass(frozen=True, eq=False)
class ImageRows:
    """The rows of a run on images.

    Attributes:
        pixels: All images, held-out ones included, shape (N, H, W, C).
        labels: Which class each row has, with flips, shape (N,).
        heldout: Which rows are held out, shape (N,).
        ids: What identifies each row, as text; None for row numbers, from 1.
    """

    pixels: Pixels
    labels: Labels
    heldout: "np.ndarray[Any, np.dtype[np.bool_]]"
    ids: tuple[str, ...] | None

    def arrays(self) -> Arrays:
        """Return the arrays that a file holds."""
        return {
            "pixels": self.pixels,
            "labels": self.labels,
            "heldout": self.heldout.astype(np.uint8),
            **id_arrays(self.ids),
        }

    @classmethod
    def of(cls, arrays: Mapping[str, np.ndarray[Any, Any]], record: ImagesRecord) -> "ImageRows":
        """Return the rows of a file.

        Raises:
            CorpusError: They do not fit the record, or its canaries do not fit them.
        """
        try:
            rows = cls(arrays["pixels"], arrays["labels"], arrays["heldout"].astype(bool), ids_of(arrays))
            size = (record.height, record.width, record.channels)
            if rows.pixels.dtype != np.uint8 or rows.pixels.shape[1:] != size or rows.labels.dtype != np.int64:
                raise ValueError("shapes")
            counts = {len(rows.pixels), *rows.labels.shape, *rows.heldout.shape, len(rows.ids or rows.labels)}
            if len(counts) != 1 or not ((rows.labels >= 0) & (rows.labels < len(record.classes))).all():
                raise ValueError("labels")
        except (KeyError, ValueError, TypeError, IndexError, UnicodeDecodeError) as error:
            raise CorpusError(
                f"the run's images do not fit their record ({type(error).__name__}): verify the run"
            ) from None
        total, classes = len(rows.training), {*record.classes}
        for canary in record.canaries:
            if canary.row >= total or not {canary.original, canary.value} <= classes or canary.kind != "label":
                raise CorpusError(f"{canary.id} is no row of these images with two of their labels: verify the run")
        return rows

    @property
    def training(self) -> Places:
        """Which rows are trained on, in order."""
        return np.flatnonzero(~self.heldout)

    def sha256(self) -> str:
        """Return the SHA-256 of everything."""
        return arrays_sha256(self.arrays())


def plan_rows(source: SourceImages, options: ImageInsertOptions) -> tuple[ImagesRecord, ImageRows, str]:
    """Hold rows out and flip labels.

    Args:
        source: The images as they were read.
        options: What to hold out and to flip.

    Returns:
        The record, the rows with flips, and the SHA-256 of the rows without.

    Raises:
        CorpusError: There are too few rows or classes.
    """
    total = len(source.labels)
    if total < FEWEST_ROWS:
        raise CorpusError(f"{source.name} has {total} images: expected at least {FEWEST_ROWS}")
    classes, _ = sorted_classes(source.labels)
    if len(classes) > MOST_CLASSES:
        raise CorpusError(f"{options.target!r} has {len(classes):,} classes: expected at most {MOST_CLASSES:,}")
    rows = ImageRows(
        source.pixels, as_codes(source.labels, classes), held_out(total, options.holdout, options.seed), source.ids
    )
    if len(np.unique(rows.labels[rows.training])) < 2:
        raise CorpusError(f"{options.target!r} has one class among the training rows: expected at least two")
    height, width, channels = source.pixels.shape[1:]
    record = ImagesRecord(
        image=options.image,
        target=options.target,
        classes=tuple(classes),
        height=height,
        width=width,
        channels=channels,
        identified_by=options.id or "",
        canaries=(),
    )
    before = rows.sha256()
    if not options.flip_labels:
        return record, rows, before
    canaries = _draw_canaries(rows, classes, options)
    labels = rows.labels.copy()
    planted = [canary for canary in canaries if canary.planted]
    places = rows.training[[canary.row for canary in planted]]
    labels[places] = as_codes([str(canary.value) for canary in planted], classes)
    flipped = ImageRows(rows.pixels, labels, rows.heldout, rows.ids)
    return record.model_copy(update={"canaries": canaries}), flipped, before


def _draw_canaries(rows: ImageRows, classes: Sequence[str], options: ImageInsertOptions) -> tuple[TableCanary, ...]:
    total = len(rows.training)
    if 2 * options.flip_labels > total:
        raise CorpusError(
            f"{options.flip_labels:,} flipped labels need twice as many training rows, and there are {total:,}: flip "
            "fewer"
        )
    rng = np.random.default_rng([options.seed, 2])
    candidates = np.sort(rng.permutation(total)[: 2 * options.flip_labels])
    coins = rng.integers(0, 2, size=len(candidates)).astype(bool)
    own = rows.labels[rows.training[candidates]]
    others = (own + rng.integers(1, len(classes), size=len(own))) % len(classes)
    counts, digits = {True: 0, False: 0}, max(2, len(str(len(candidates))))
    found = []
    for row, coin, was, other in zip(candidates.tolist(), coins.tolist(), own.tolist(), others.tolist(), strict=True):
        counts[coin] += 1
        name = f"{'canary' if coin else 'control'}-{counts[coin]:0{digits}}"
        found.append(
            TableCanary(id=name, kind="label", row=row, planted=coin, original=classes[was], value=classes[other])
        )
    return tuple(found)
