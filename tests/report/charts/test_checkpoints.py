from canaryaudit.report.charts.checkpoints import checkpoints_chart
from canaryaudit.report.schema import CheckpointFigures
from tests.report import builders as make


def test_every_checkpoint_has_its_largest_and_mean_exposure_and_its_controls():
    series = (
        CheckpointFigures(name="step-5", mean_bits=2.0, max_bits=4.0, controls_bits=1.5),
        CheckpointFigures(name="the measured model", mean_bits=9.0, max_bits=13.3, controls_bits=None),
    )
    chart = checkpoints_chart(make.before_after().model_copy(update={"checkpoints": series}))
    rows = (
        chart.spec["layer"][0]["data"]["values"] if "data" in chart.spec["layer"][0] else chart.spec["data"]["values"]
    )
    assert [(row["checkpoint"], row["line"], row["bits"]) for row in rows] == [
        ("step-5", "largest of a canary", 4.0),
        ("step-5", "mean of canaries", 2.0),
        ("step-5", "mean of controls", 1.5),
        ("the measured model", "largest of a canary", 13.3),
        ("the measured model", "mean of canaries", 9.0),
    ]
    assert chart.alternative == "Step-5: mean 2.0, largest 4.0 bits; the measured model: mean 9.0, largest 13.3 bits."
