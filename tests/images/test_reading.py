"""Reading images: what data scientists keep them in, and what is wrong with them."""

import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from canaryaudit.errors import CorpusError
from canaryaudit.image_plan import ImageInsertOptions
from canaryaudit.images.reading import SourceImages, read_images

PIXELS = np.random.default_rng(0).integers(0, 256, (24, 9, 8, 3)).astype(np.uint8)
LABELS = [number % 3 for number in range(24)]


def read(path: Path, **options: Any) -> SourceImages:
    return read_images(ImageInsertOptions(corpus=str(path), image="image", target="label", **options))


def encoded(pixels: np.ndarray) -> bytes:
    """Return an image as a PNG's bytes."""
    image = pytest.importorskip("PIL.Image")
    stream = io.BytesIO()
    image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def write(path: Path, images: list[Any], labels: list[Any] = LABELS, **columns: Any) -> Path:
    table = pyarrow.table({"image": images, "label": labels[: len(images)], **columns})
    pyarrow.parquet.write_table(table, path)
    return path


def as_bytes(folder: Path) -> Path:
    return write(folder / "a.parquet", [encoded(own) for own in PIXELS])


def as_structs(folder: Path) -> Path:
    """As ``datasets`` writes them; some images lie beside the file."""
    (folder / "one.png").write_bytes(encoded(PIXELS[1]))
    cells = [{"bytes": encoded(own), "path": f"{place}.png"} for place, own in enumerate(PIXELS)]
    cells[1] = {"bytes": None, "path": "one.png"}
    return write(folder / "a.parquet", cells)


def as_dataset(folder: Path) -> Path:
    datasets = pytest.importorskip("datasets")
    images = [{"bytes": encoded(own), "path": None} for own in PIXELS]
    made = datasets.Dataset.from_dict({"image": images, "label": LABELS})
    made.save_to_disk(folder / "saved")
    return folder / "saved"


def as_arrays(folder: Path) -> Path:
    np.savez(folder / "a.npz", image=PIXELS, label=np.array(LABELS))
    return folder / "a.npz"


def as_fractions(folder: Path) -> Path:
    np.savez(folder / "a.npz", image=PIXELS / 255, label=np.array(LABELS, dtype=float))
    return folder / "a.npz"


@pytest.mark.parametrize("keep", [as_bytes, as_structs, as_dataset, as_arrays, as_fractions])
def test_the_same_images_are_read_from_all_that_holds_them(tmp_path: Path, keep: Callable[[Path], Path]) -> None:
    source = read(keep(tmp_path))
    np.testing.assert_array_equal(source.pixels, PIXELS)
    assert source.labels == tuple(map(str, LABELS))
    assert source.ids is None


def test_a_folder_for_each_class_is_read_with_paths_as_ids(tmp_path: Path) -> None:
    for place, own in enumerate(PIXELS):
        folder = tmp_path / "cut" / f"kind {LABELS[place]}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{place:02}.png").write_bytes(encoded(own))
    (tmp_path / "cut" / "kind 0" / "notes.txt").write_text("no image")
    source = read(tmp_path / "cut")
    order = sorted(range(24), key=lambda place: (LABELS[place], place))
    np.testing.assert_array_equal(source.pixels, PIXELS[order])
    assert source.labels == tuple(f"kind {LABELS[place]}" for place in order)
    assert source.ids is not None
    assert source.ids[0] == "kind 0/00.png"


def test_gray_images_stay_gray_unless_others_are_colored(tmp_path: Path) -> None:
    gray = PIXELS[..., 0]
    assert read(write(tmp_path / "a.parquet", [encoded(own) for own in gray])).pixels.shape == (24, 9, 8, 1)
    mixed = [encoded(gray[0]), *(encoded(own) for own in PIXELS[1:])]
    source = read(write(tmp_path / "b.parquet", mixed))
    np.testing.assert_array_equal(source.pixels[0], np.repeat(gray[0][..., None], 3, axis=2))


def test_gray_of_16_bits_is_scaled_and_not_cut_off(tmp_path: Path) -> None:
    deep = (PIXELS[..., 0].astype(np.uint16) * 257).astype(np.uint16)
    source = read(write(tmp_path / "a.parquet", [encoded(own) for own in deep]))
    np.testing.assert_array_equal(source.pixels, PIXELS[..., :1])


@pytest.mark.parametrize(
    ("array", "factor"),
    [
        (PIXELS // 128, 255.0),  # black and white, as bytes
        ((PIXELS // 128).astype(bool), 255.0),
        ((PIXELS // 128).astype(np.int64), 255.0),
        (PIXELS // 16, 1.0),  # dark bytes
        ((PIXELS // 16).astype(np.float64), 255 / 15),
        ((PIXELS * 0.999).astype(np.float64), 1),  # rounded, not cut off
        (PIXELS.astype(np.int64), 1.0),
        (PIXELS.astype(np.uint16) * 257, 1 / 257),
        (PIXELS.astype(np.uint16), 1.0),
    ],
)
def test_type_and_largest_value_tell_the_brightest(tmp_path: Path, array: np.ndarray, factor: float) -> None:
    np.savez(tmp_path / "a.npz", image=array, label=np.array(LABELS))
    source = read(tmp_path / "a.npz")
    np.testing.assert_array_equal(source.pixels, np.rint(array.astype(float) * factor))
    assert ("stretched to 255" in source.note) == (factor != 1)


def as_tiff(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    pytest.importorskip("PIL.Image").fromarray(pixels).save(stream, "TIFF")
    return stream.getvalue()


def npz(**changes: Any) -> Callable[[Path], Path]:
    def keep(folder: Path) -> Path:
        arrays = {"image": PIXELS, "label": np.array(LABELS)} | changes
        np.savez(folder / "a.npz", **{name: own for name, own in arrays.items() if own is not None})
        return folder / "a.npz"

    return keep


def parquet(change: Callable[[list[Any], list[Any]], None], *, column: str = "image") -> Callable[[Path], Path]:
    def keep(folder: Path) -> Path:
        images, labels = [encoded(own) for own in PIXELS], list[Any](LABELS)
        change(images, labels)
        table = pyarrow.table({column: images, "label": labels})
        pyarrow.parquet.write_table(table, folder / "a.parquet")
        return folder / "a.parquet"

    return keep


NAN = PIXELS / 255
NAN[3, 0, 0, 0] = np.nan
FRACTIONS = (PIXELS[0, ..., 0] / 255).astype(np.float32)
LARGE = np.zeros((300, 300), np.uint8)


@pytest.mark.parametrize(
    ("keep", "expected"),
    [
        (npz(image=None), "no array of this name among label"),
        (npz(label=np.array(LABELS)[:9]), "24 images and 'label' of shape"),
        (npz(image=NAN), "row 4 of a.npz has values that are missing or not finite"),
        (npz(image=PIXELS * 2.0), "expected 0 to 255, or 0 to 1"),
        (npz(image=PIXELS[:, :4, :4]), "at least 8 pixels a side"),
        (npz(image=PIXELS[..., :2]), "2 channels: expected 1 or 3"),
        (npz(image=PIXELS.reshape(24, -1)), "expected numbers of shape"),
        (npz(label=np.array([*map(float, LABELS[:5]), np.nan, *LABELS[6:]])), "row 6 has no 'label'"),
        (parquet(lambda images, _: images.__setitem__(4, b"text")), "row 5 is not an image that can be read"),
        (parquet(lambda images, _: images.__setitem__(4, None)), "row 5 has nothing in 'image'"),
        (parquet(lambda images, _: images.__setitem__(4, encoded(PIXELS[4, :8]))), "row 5 is 8 x 8 pixels and row 1"),
        (parquet(lambda images, _: images.__setitem__(4, encoded(LARGE))), "at most 65,536 in all"),
        (parquet(lambda images, _: images.__setitem__(4, as_tiff(FRACTIONS))), "row 5 holds fractions"),
        (parquet(lambda _, labels: labels.__setitem__(4, None)), "row 5 has no 'label'"),
        (parquet(lambda *_: None, column="picture"), "--image image: a.parquet has no column of this name"),
        (lambda folder: write(folder / "a.parquet", [*map(float, LABELS)]), "a value of type float in 'image'"),
        (lambda folder: folder, "has no folders of images"),
        (lambda folder: folder / "none.parquet", "no such images"),
        (lambda folder: write(folder / "a.parquet", []), "has no rows"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_refused(tmp_path: Path, keep: Callable[[Path], Path], expected: str) -> None:
    with pytest.raises(CorpusError, match=expected.replace("(", r"\(")):
        read(keep(tmp_path))


def test_a_truncated_image_is_named_by_its_row(tmp_path: Path) -> None:
    images = [encoded(own) for own in PIXELS]
    images[7] = images[7][:40]
    with pytest.raises(CorpusError, match="row 8 is not an image"):
        read(write(tmp_path / "a.parquet", images))


def test_columns_of_ids_are_kept_and_checked(tmp_path: Path) -> None:
    names = [f"p{place}" for place in range(24)]
    assert read(as_bytes(tmp_path)).ids is None
    source = read(write(tmp_path / "b.parquet", [encoded(own) for own in PIXELS], key=names), id="key")
    assert source.ids == tuple(names)
    path = write(tmp_path / "c.parquet", [encoded(own) for own in PIXELS], key=[*names[:-1], "p0"])
    with pytest.raises(CorpusError, match="rows 1 and 24 have the same 'key'"):
        read(path, id="key")


def test_without_pillow_the_message_says_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.parquet", [b"any bytes"] * 24)
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(CorpusError, match=r"pip install 'canaryaudit\[images\]'"):
        read(path)
