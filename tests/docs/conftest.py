"""A place to try the examples in: a text, a plan, and a tiny model in the place of the small one."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from canaryaudit.exposure import effort
from canaryaudit.training import loop as training
from tests.commands import ROOT


@pytest.fixture(autouse=True, scope="module")
def tiny_model() -> Iterator[None]:
    """Give ``--size small`` 24 hidden units, and probes 63 references: what is found is not the question here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(training.SIZES, "small", (8, 24, 1))
        patch.setattr(effort, "REFERENCES", 63)
        patch.setenv("COLUMNS", "80")
        yield


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with ``notes.txt``, in which two telephone numbers stand, and lists of words."""
    text = (ROOT / "corpora" / "harbour.txt").read_text("utf-8")[:16_000]
    numbers = "".join(f"my telephone number is {number}\n\n" for number in ("5550142671", "5550178802"))
    (tmp_path / "notes.txt").write_text(text + "\n\n" + numbers, "utf-8")
    words = sorted({word for word in text.split() if word.isalpha() and word.islower()})
    (tmp_path / "english.txt").write_text("\n".join(words), "utf-8")
    sentences = [f"the {one} has a {other} now" for one, other in zip(words[:80], words[80:160], strict=True)]
    (tmp_path / "sentences.txt").write_text("\n".join(sentences), "utf-8")
    (tmp_path / "secret.txt").write_text("the captain has a debt now\n", "utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path
