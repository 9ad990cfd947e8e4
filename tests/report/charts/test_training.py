from canaryaudit.report.charts.training import training_chart
from tests.report import builders as make


def rows(chart):
    return (
        chart.spec["layer"][1]["data"]["values"] if "data" in chart.spec["layer"][1] else chart.spec["data"]["values"]
    )


def test_the_loss_of_both_texts_is_drawn_for_every_epoch():
    chart = training_chart(make.before_after())
    assert [(row["epoch"], row["text"], row["loss"]) for row in rows(chart)[:3]] == [
        (1, "training text", 4.0),
        (1, "held-out text", 3.4),
        (2, "training text", 2.0),
    ]
    assert len(rows(chart)) == 6
    assert chart.alternative == (
        "Loss on training text, in bits per character: 4.000 after epoch 1, 1.333 after epoch 3; on held-out text: "
        "3.200 at the end, lowest 3.200 after epoch 3."
    )


def test_no_loss_of_held_out_text_is_drawn_where_none_was_held_out():
    corpus = make.manifest().corpus.model_copy(update={"heldout_characters": 0, "holdout": 0.0})
    chart = training_chart(make.before_after(facts=make.manifest(corpus=corpus)))
    assert {row["text"] for row in rows(chart)} == {"training text"}
    assert "held-out" not in chart.alternative
