from canaryaudit.report.formats.columns import probe_lines, side_by_side, states_of
from tests.golden import golden_summary
from tests.report import builders as make


def test_a_canary_has_a_column_for_each_model() -> None:
    summary = golden_summary()
    assert summary.retrained == "retrain"
    assert [name for name, _ in states_of(summary, summary.canaries[0])] == ["Before", "After", "Retrained"]
    before_after = make.before_after()
    assert [name for name, _ in states_of(before_after, before_after.canaries[0])] == ["Before", "After"]
    before = make.before_after(after=None)
    assert [name for name, _ in states_of(before, before.canaries[0])] == ["This model"]


def test_secrets_and_quality_stand_side_by_side() -> None:
    lines = {line.name: line.cells for line in side_by_side(golden_summary())}
    # canary-01, -02, -03: 33.3 (cut to the space's 33.2), 30.1 and 12.0 before; 2.1, 6.4 and 0.4 after; then retrained.
    assert lines["Exposed secrets"] == ("3 of 3", "0 of 3", "0 of 3")
    assert lines["Largest exposure, bits"] == ("33.2", "6.4", "1.4")
    assert lines["Mean exposure, bits"] == ("25.1", "3.0", "0.8")
    assert lines["Accuracy on training text, outside the secrets"] == ("95.50 %", "95.40 %", "95.10 %")
    assert lines["Time"] == ("–", "3.4 s", "2 min 32 s")
    assert all(len(cells) == 3 for cells in lines.values())
    assert side_by_side(make.before_after(after=None)) == ()


def test_the_few_probes_that_are_shown_are_those_that_expose_most() -> None:
    summary = golden_summary()
    canary = next(own for own in summary.canaries if own.id == "canary-02")
    assert canary.after is not None
    assert canary.after.probes is not None
    every = probe_lines(summary, canary, None)
    assert [name for name, _ in every] == ["template", "context-1", "reworded-1", "bare-1", "bare-1, 2 known"]
    assert len(every[0][1]) == 3
    worst = max(canary.after.probes, key=lambda probe: probe.bits or 0.0)
    ((name, cells),) = probe_lines(summary, canary, 1)
    assert name == worst.prompt
    assert cells[1].startswith(f"{worst.bits:.1f}")
