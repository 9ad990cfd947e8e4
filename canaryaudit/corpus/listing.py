"""Which files make up a corpus: one file, a folder or a pattern, in a fixed order."""

import glob
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from canaryaudit.corpus.arrow_rows import is_saved_dataset
from canaryaudit.corpus.raw_text import COMPRESSIONS
from canaryaudit.errors import CorpusError
from canaryaudit.plan import CorpusFormat

FORMATS: dict[str, CorpusFormat] = {
    ".txt": "text",
    ".text": "text",
    ".md": "text",
    ".log": "text",
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".parquet": "parquet",
    ".mbox": "mbox",
    ".eml": "eml",
}
ENDINGS = ", ".join(ending for ending in FORMATS if ending not in (".text", ".tab", ".ndjson"))
_ROTATED = re.compile(r"\.log[.-][\d._-]+$", re.IGNORECASE)
_NUMBERED = re.compile(r"[.-]\d+$")
_PATTERN = frozenset("*?[")
assert set(FORMATS.values()) == set(get_args(CorpusFormat))  # noqa: S101


@dataclass(frozen=True)
class Listing:
    """The files of a corpus.

    Attributes:
        files: Their paths, in order.
        skipped: What was left out, in a sentence; empty if nothing was.
    """

    files: Sequence[Path]
    skipped: str = ""


def format_of(path: Path) -> CorpusFormat | None:
    """Return the format that a file's name says; ``text`` for logs of any number and None for unknown endings."""
    name = path.name
    if Path(name).suffix.lower() in COMPRESSIONS:
        name = Path(name).stem
    if _ROTATED.search(name):
        return "text"
    ending = Path(name).suffix.lower()
    return FORMATS.get(ending)


def has_ending(path: Path) -> bool:
    """Return whether a file's name has an ending, apart from a compression's and a number."""
    name = path.name
    if Path(name).suffix.lower() in COMPRESSIONS:
        name = Path(name).stem
    return Path(_NUMBERED.sub("", name)).suffix != ""


def is_pattern(spec: str) -> bool:
    """Return whether ``spec`` is a pattern of file names rather than a file's."""
    return bool(_PATTERN & set(spec)) and not os.path.lexists(spec)


def list_pattern(pattern: str, *, any_ending: bool) -> Listing:
    """List the files that match a pattern, sorted; ``**`` matches any folders.

    Raises:
        CorpusError: None does.
    """
    every = map(Path, glob.iglob(pattern, recursive=True))  # noqa: PTH207 - ``Path.glob`` takes no absolute pattern
    found = [path for path in sorted(every) if not path.is_dir()]
    if not found:
        raise CorpusError(f"no file matches {pattern}: check the pattern and its quotation marks")
    return _sift(found, f"pattern {pattern}", any_ending=any_ending)


def list_folder(folder: Path, *, any_ending: bool) -> Listing:
    """List the files of a folder and the folders in it, sorted; hidden ones and run directories are left out.

    Raises:
        CorpusError: It is a run directory, or holds no file that can be read.
    """
    if _is_run(folder):
        raise CorpusError(f"corpus {folder} is a run directory: give the text that it was made from")
    return _sift(list(_walk(folder)), f"folder {folder}", any_ending=any_ending)


def _walk(folder: Path) -> Iterator[Path]:
    for own in sorted(folder.iterdir(), key=lambda path: path.name):
        if own.name.startswith("."):
            continue
        if not own.is_dir() or is_saved_dataset(own):
            yield own
        elif not own.is_symlink() and not _is_run(own):  # A link may lead back here.
            yield from _walk(own)


def _is_run(folder: Path) -> bool:
    return (folder / "manifest.json").is_file() and (folder / "canaries.json").is_file()


def _sift(found: Sequence[Path], where: str, *, any_ending: bool) -> Listing:
    files: dict[Path, Path] = {}
    skipped: Counter[str] = Counter()
    for path in sorted(found, key=Path.is_symlink):  # a file before the links to it
        if not (path.is_dir() or any_ending or format_of(path) or not has_ending(path)):
            skipped[path.suffix.lower()] += 1
        elif not path.exists():
            skipped["broken link"] += 1
        elif not (path.is_dir() or path.is_file()):
            skipped["no regular file"] += 1
        elif path.is_file() and not path.stat().st_size:
            skipped["empty"] += 1
        else:
            files.setdefault(path.resolve(), path)  # Links may lead to a file twice.
    kept = {*files.values()}
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in sorted(skipped.items()))
    if not files:
        raise CorpusError(
            f"{where} has no file that can be read ({kinds or 'it is empty'}): expected {ENDINGS}, or give --format"
        )
    return Listing(
        [path for path in found if path in kept],
        f"{where}: skipped {skipped.total():,} of {len(files) + skipped.total():,} files ({kinds})" if skipped else "",
    )
