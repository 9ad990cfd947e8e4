"""Images as their owner keeps them: Parquet with encoded images, saved data sets, .npz arrays, a folder per class."""

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from canaryaudit.corpus.arrow_rows import dataset_table, is_saved_dataset, parquet_table, saved_dataset
from canaryaudit.corpus.cells import cell_text, check_ids, check_labels, column_place
from canaryaudit.corpus.fields import listed
from canaryaudit.corpus.listing import format_of
from canaryaudit.corpus.tables import Table
from canaryaudit.errors import CorpusError, one_line
from canaryaudit.image_plan import ImageInsertOptions

MOST_PIXELS = 256 * 256
"""Of one image: the network is made for small ones."""
MOST_BYTES = 4 * 2**30
"""Of all decoded images, which are kept in memory."""
SMALLEST = 8
"""Height and width, in pixels, below which two convolutions and a pooling leave nothing."""
_ENDINGS = "a .parquet or .npz file, the folder of a saved data set, or a folder of images for each class"
_PICTURES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"}
_GRAY = {"1", "L"}
_DEEP = ("I;16", "I;16B", "I;16L", "I;16N")
"""Gray of 16 bits, which Pillow would cut off at 255."""
_UNKNOWN_RANGE = {"I": "whole numbers of 32 bits", "F": "fractions"}

Pixels = np.ndarray[Any, np.dtype[np.uint8]]


@dataclass(frozen=True, eq=False)
class SourceImages:
    """Images that were read.

    Attributes:
        name: What messages call them.
        note: What they were taken for, in a sentence.
        pixels: Shape (num_rows, H, W, C).
        labels: As text.
        ids: What identifies each row, as text; None for row numbers.
    """

    name: str
    note: str
    pixels: Pixels
    labels: tuple[str, ...]
    ids: tuple[str, ...] | None


def read_images(options: ImageInsertOptions) -> SourceImages:
    """Read images with their labels.

    Args:
        options: Which.

    Raises:
        CorpusError: They cannot be read, or are not images of one size with labels; the message says what to do.
    """
    path = Path(options.corpus)
    if not path.exists():
        raise CorpusError(f"no such images: {options.corpus}; give {_ENDINGS}")
    if path.is_dir():
        if is_saved_dataset(path):
            return _cells(dataset_table(saved_dataset(path), path.name), path, options)
        return _folders(path, options)
    if path.suffix == ".npz":
        return _arrays(path, options)
    if format_of(path) == "parquet":
        return _cells(parquet_table(path, path.name), path, options)
    raise CorpusError(f"{options.corpus} holds no images that can be read: give {_ENDINGS}")


# --- encoded images


def _cells(table: Table, path: Path, options: ImageInsertOptions) -> SourceImages:
    named = {"--image": options.image, "--target": options.target, "--id": options.id}
    places = [column_place(table, name, flag) for flag, name in named.items() if name]
    if len(set(places)) < len(places):
        raise CorpusError("--image, --target and --id: expected different columns")
    labels, ids = list[str](), list[str]()

    def encoded() -> Iterator[tuple[str, bytes]]:
        for number, row in table.rows(frozenset(places)):
            labels.append(cell_text(row[places[1]]))
            if options.id:
                ids.append(cell_text(row[places[2]]))
            yield f"row {number:,}", _encoded(row[places[0]], number, path, options.image)

    pixels = _decoded(encoded(), table.name)
    check_labels(labels, options.target)
    if options.id:
        check_ids(ids, options.id)
    return SourceImages(
        table.name, _note(table.name, pixels), pixels, tuple(labels), tuple(ids) if options.id else None
    )


def _encoded(cell: Any, number: int, path: Path, column: str) -> bytes:
    """Return an encoded image: bytes, or as ``datasets`` writes it, ``{bytes, path}``."""
    if isinstance(cell, Mapping):
        file = cell.get("path")
        cell = cell.get("bytes")
        if cell is None and isinstance(file, str):
            beside = path.parent / file  # an absolute path stays what it is
            if not beside.is_file():
                raise CorpusError(f"row {number:,} has its image in {file}, which is not there: put it back")
            return beside.read_bytes()
    if not isinstance(cell, bytes):
        what = "nothing" if cell is None else f"a value of type {type(cell).__name__}"
        raise CorpusError(f"row {number:,} has {what} in {column!r}: expected an encoded image, such as a PNG's bytes")
    return cell


def _folders(path: Path, options: ImageInsertOptions) -> SourceImages:
    if options.id:
        raise CorpusError("--id is for columns: a folder's images are known by their paths, such as cat/001.png")
    files = sorted(
        file
        for folder in path.iterdir()
        if folder.is_dir()
        for file in folder.iterdir()
        if file.suffix.lower() in _PICTURES
    )
    if not files:
        raise CorpusError(f"{path} has no folders of images, and is no saved data set: give {_ENDINGS}")
    names = tuple(file.relative_to(path).as_posix() for file in files)
    pixels = _decoded(((name, file.read_bytes()) for name, file in zip(names, files, strict=True)), path.name)
    return SourceImages(path.name, _note(path.name, pixels), pixels, tuple(file.parent.name for file in files), names)


def _decoded(encoded: Iterator[tuple[str, bytes]], source: str) -> Pixels:
    """Decode images, which must all have one size; gray ones get three channels if any is colored."""
    images: list[Pixels] = []
    first, used = "", 0
    for name, data in encoded:
        image = _decode(data, name)
        if images and image.shape[:2] != images[0].shape[:2]:
            raise CorpusError(
                f"{name} is {_size(image)} pixels and {first} is {_size(images[0])}: bring all images to one size"
            )
        first, used = first or name, used + image.nbytes
        if used > MOST_BYTES:
            raise CorpusError(f"{source} takes more than {MOST_BYTES // 2**30} GiB when decoded: give fewer images")
        images.append(image)
    if not images:
        raise CorpusError(f"{source} has no rows")
    if len({image.shape[2] for image in images}) > 1:
        images = [np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image for image in images]
    return _checked(np.stack(images), source)


def _decode(data: bytes, name: str) -> Pixels:
    try:
        from PIL import Image
    except ModuleNotFoundError:
        raise CorpusError("encoded images need Pillow: pip install 'canaryaudit[images]', or give arrays") from None
    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.width * image.height > MOST_PIXELS:  # before anything is decoded
                raise CorpusError(
                    f"{name} is {image.width} x {image.height} pixels: expected at most {MOST_PIXELS:,} in all; make "
                    "the images smaller"
                )
            if image.mode in _UNKNOWN_RANGE:
                raise CorpusError(f"{name} holds {_UNKNOWN_RANGE[image.mode]}: save images of 8 or 16 bits, or arrays")
            if image.mode in _DEEP:
                pixels: Pixels = np.rint(np.asarray(image) / 257).astype(np.uint8)
            else:
                pixels = np.asarray(image.convert("L" if image.mode in _GRAY else "RGB"))
    except CorpusError:
        raise
    except Exception as error:  # noqa: BLE001 - damaged files make the decoder raise any exception
        reason = "an unknown format" if type(error).__name__ == "UnidentifiedImageError" else one_line(error)
        raise CorpusError(f"{name} is not an image that can be read ({reason}): correct or remove it") from None
    return pixels[:, :, None] if pixels.ndim == 2 else pixels


# --- arrays


def _arrays(path: Path, options: ImageInsertOptions) -> SourceImages:
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
    except Exception as error:  # noqa: BLE001 - a damaged archive makes the reader raise any exception
        raise CorpusError(f"{path} is not a plain .npz file ({one_line(error)}): save arrays of numbers") from None
    named = {"--image": options.image, "--target": options.target, "--id": options.id}
    for flag, name in named.items():
        if name and name not in arrays:
            raise CorpusError(f"{flag} {name}: {path.name} has no array of this name among {listed(arrays)}")
    pixels, stretched = _bytes(arrays[options.image], path.name)
    columns = [arrays[name] for name in (options.target, options.id) if name]
    for name, array in zip((options.target, options.id), columns, strict=False):
        if array.shape != (len(pixels),):
            raise CorpusError(
                f"{path.name} has {len(pixels):,} images and {name!r} of shape {array.shape}: expected one for each"
            )
    labels, *ids = (tuple(cell_text(own) for own in array.tolist()) for array in columns)
    check_labels(labels, options.target)
    if options.id:
        check_ids(ids[0], options.id)
    note = ", ".join(part for part in (_note(path.name, pixels), stretched) if part)
    return SourceImages(path.name, note, pixels, labels, ids[0] if ids else None)


def _bytes(array: np.ndarray[Any, Any], source: str) -> tuple[Pixels, str]:
    """Return images as bytes, shape (N, H, W, C), and how their values were stretched; empty if they were not.

    The type and the largest value tell the scale: bytes count to 255, whole numbers of 16 bits above it to 65,535, and
    values of another type that use less than half of a byte, or of bytes that are 0 and 1 only, to their largest one.
    """
    if array.ndim not in (3, 4) or array.dtype.kind not in "buif" or not array.size:
        raise CorpusError(
            f"{source} has images of shape {array.shape} and type {array.dtype}: expected numbers of shape (rows, "
            "height, width) or (rows, height, width, channels)"
        )
    if not np.isfinite(array).all():
        place = int(np.flatnonzero(~np.isfinite(array).reshape(len(array), -1).all(axis=1))[0]) + 1
        raise CorpusError(f"row {place:,} of {source} has values that are missing or not finite: correct them")
    low, high = float(array.min()), float(array.max())
    largest = _scale_of(array.dtype, high)
    if low < 0 or high > largest:
        raise CorpusError(f"{source} has values from {low:g} to {high:g}: expected 0 to 255, or 0 to 1")
    is_ready = array.dtype == np.uint8 and largest == 255.0
    pixels = array if is_ready else np.rint(array * (255.0 / largest)).astype(np.uint8)
    note = "" if largest == 255.0 else f"values of 0 to {largest:,g} stretched to 255"
    return _checked(pixels[..., None] if pixels.ndim == 3 else pixels, source), note


def _scale_of(dtype: "np.dtype[Any]", high: float) -> float:
    """Return the value that is the brightest."""
    if high <= 1:  # fractions, or whole numbers of black and white
        return 1.0
    if dtype == np.uint16 and high > 255:
        return 65_535.0
    if dtype == np.uint8 or high >= 128:
        return 255.0
    return high


def _checked(pixels: Pixels, source: str) -> Pixels:
    height, width, channels = pixels.shape[1:]
    if channels not in (1, 3) or min(height, width) < SMALLEST or height * width > MOST_PIXELS:
        raise CorpusError(
            f"{source} has images of {width} x {height} pixels and {channels} channels: expected 1 or 3 channels, at "
            f"least {SMALLEST} pixels a side and at most {MOST_PIXELS:,} in all"
        )
    return pixels


def _note(name: str, pixels: Pixels) -> str:
    return f"{name}: {len(pixels):,} images of {_size(pixels[0])} pixels, {'gray' if pixels.shape[3] == 1 else 'color'}"


def _size(image: Pixels) -> str:
    return f"{image.shape[1]} x {image.shape[0]}"


def as_codes(labels: Sequence[str], classes: Sequence[str]) -> "np.ndarray[Any, np.dtype[np.int64]]":
    """Return each label's place among the classes, shape (N,)."""
    index = {own: place for place, own in enumerate(classes)}
    return np.fromiter((index[own] for own in labels), dtype=np.int64, count=len(labels))
