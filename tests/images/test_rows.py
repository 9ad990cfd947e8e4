"""Flipped labels of images: by coins, with controls, and what a file of rows holds."""

import numpy as np
import pytest

from canaryaudit.errors import CorpusError
from canaryaudit.image_plan import ImageInsertOptions
from canaryaudit.images.reading import SourceImages
from canaryaudit.images.rows import ImageRows, plan_rows
from canaryaudit.records.images import ImagesRecord
from tests.images.pictures import digits


def source(number: int = 400) -> SourceImages:
    images, labels = digits(number)
    return SourceImages("digits", "digits", images[..., None], tuple(map(str, labels)), None)


def planned(**options: object) -> tuple[ImagesRecord, ImageRows, str]:
    fields = {"corpus": "digits.npz", "image": "image", "target": "label", **options}
    return plan_rows(source(), ImageInsertOptions(**fields))  # type: ignore[arg-type]


def test_labels_change_where_a_coin_says_so_and_nowhere_else() -> None:
    record, rows, before = planned(flip_labels=100, seed=3)
    _, plain, same = planned(seed=3)
    assert before == same == plain.sha256()
    changed = set(np.flatnonzero(rows.labels != plain.labels).tolist())
    planted = [own for own in record.canaries if own.planted]
    assert changed == {int(rows.training[own.row]) for own in planted}
    for own in record.canaries:
        label = record.classes[rows.labels[rows.training[own.row]]]
        assert label == (own.value if own.planted else own.original)
        assert own.value != own.original
        assert record.classes[plain.labels[rows.training[own.row]]] == own.original
    assert len(record.canaries) == 200
    assert 70 <= len(planted) <= 130
    assert len({own.value for own in record.canaries}) == 10
    assert planned(flip_labels=100, seed=3)[0] == record
    assert planned(flip_labels=100, seed=4)[0] != record


def test_coins_are_fair_and_independent_of_the_label_drawn() -> None:
    planted = [own.planted for seed in range(40) for own in planned(flip_labels=150, seed=seed)[0].canaries]
    assert abs(np.mean(planted) - 0.5) < 4 * 0.5 / np.sqrt(len(planted))


def test_a_file_of_rows_is_read_as_it_was_written() -> None:
    record, rows, _ = planned(flip_labels=20)
    again = ImageRows.of(rows.arrays(), record)
    assert again.sha256() == rows.sha256()
    named = ImageRows(rows.pixels, rows.labels, rows.heldout, tuple(f"ü{place}" for place in range(400)))
    assert ImageRows.of(named.arrays(), record).ids == named.ids


@pytest.mark.parametrize("name", ["labels", "heldout", "pixels"])
def test_rows_that_do_not_fit_their_record_are_refused(name: str) -> None:
    record, rows, _ = planned(flip_labels=20)
    for wrong in (rows.arrays()[name][:-1], rows.arrays()[name].astype(np.float32) + 99):
        with pytest.raises(CorpusError, match="verify the run"):
            ImageRows.of({**rows.arrays(), name: wrong}, record)


def test_what_cannot_be_planned_is_refused() -> None:
    with pytest.raises(CorpusError, match="200 flipped labels need twice as many training rows, and there are 320"):
        planned(flip_labels=200)
    one = SourceImages("ones", "ones", source().pixels, ("1",) * 400, None)
    with pytest.raises(CorpusError, match="has one class"):
        plan_rows(one, ImageInsertOptions(corpus="a", image="image", target="label"))
    few = SourceImages("few", "few", source().pixels[:9], ("1", "2") * 4 + ("1",), None)
    with pytest.raises(CorpusError, match="has 9 images: expected at least 20"):
        plan_rows(few, ImageInsertOptions(corpus="a", image="image", target="label"))
