"""Files of corrections: what is a header, and what is said of rows that no model was trained on."""

from pathlib import Path

import pytest

from canaryaudit.errors import UnlearningError
from canaryaudit.pipeline.corrections import heldout_words, nothing_to_relabel, read_corrections

IDS = {"k1": 0, "k2": -1}


@pytest.mark.parametrize("text", ["id,label\nk1,yes\n", "k1,yes\n"])
def test_a_header_is_left_out(tmp_path: Path, text: str) -> None:
    path = tmp_path / "fixes.csv"
    path.write_text(text)
    assert read_corrections(path, ["no", "yes"], IDS) == [("k1", "yes")]


def test_a_first_row_with_an_unknown_label_is_no_header(tmp_path: Path) -> None:
    path = tmp_path / "fixes.csv"
    path.write_text("k1,yess\nk2,no\n")
    with pytest.raises(UnlearningError, match="entry 1 has an unknown label: expected no or yes"):
        read_corrections(path, ["no", "yes"], IDS)


def test_rows_held_out_are_not_said_to_have_their_label() -> None:
    path = Path("fixes.csv")
    assert "1 row of 2 is held out" in heldout_words(path, 1, 2)
    assert "2 rows of 2 are held out" in heldout_words(path, 2, 2)
    assert "every row in it is held out" in str(nothing_to_relabel(path, all_heldout=True))
    assert "has its label already" in str(nothing_to_relabel(path, all_heldout=False))
