import io
import json
import re

import jsonschema
import pytest
from markdown_it import MarkdownIt
from rich.cells import cell_len
from rich.console import Console

from canaryaudit.errors import UsageError
from canaryaudit.records import StageRun
from canaryaudit.report import (
    compare,
    oldest_first,
    read_report,
    render_comparison_terminal,
    schema_path,
    write_comparison,
)
from canaryaudit.report.comparison.comparison import Comparison, comparison_chart, labels
from canaryaudit.report.comparison.trend import moments, trend_chart
from canaryaudit.report.formats.json_text import render_json
from tests.report import builders as make
from tests.report.formats.test_formats import HOSTILE, Page, hostile_summary, own_scripts
from tests.report.test_browser import CUT_OFF


def two_runs(*, trend=False, **options):
    exposed = {**make.GONE, "canary-01": 20.0}
    first = make.before_after(run_name="seed-0", **options)
    second = make.before_after(after=exposed, run_name="seed-1", **options)
    return compare([first, second], ["/runs/seed-0", "/runs/seed-1"], trend=trend)


def outputs(comparison, directory):
    files = write_comparison(comparison, directory, ("html", "md", "json"))
    file = io.StringIO()
    Console(file=file, width=200).print(render_comparison_terminal(comparison))
    return {file.name: file.read_text("utf-8") for file in files} | {"terminal": file.getvalue()}


def test_every_run_stands_with_its_own_figures():
    comparison = two_runs()
    assert [run.name for run in comparison.runs] == ["seed-0", "seed-1"]
    assert [run.largest_after for run in comparison.runs] == [3.0, 20.0]
    assert [run.exposed for run in comparison.runs] == [0, 1]
    assert [run.verdict.value for run in comparison.runs] == ["indistinguishable", "exposed"]
    assert comparison.runs[0].mean_after == pytest.approx((2.1 + 0.4 + 1.2 + 0.9 + 3.0) / 5)


def test_canaries_that_were_inserted_equally_often_are_averaged():
    lines = {line.repetitions: line for line in two_runs().repetitions}
    assert list(lines) == [1, 4, 8, 16]
    assert lines[16].after == pytest.approx(((2.1 + 3.0) / 2, (20.0 + 3.0) / 2))
    assert lines[1].before == pytest.approx((2.4, 2.4))


def test_a_run_without_an_after_stands_beside_one_with():
    comparison = compare([make.before_after(run_name="a"), make.before_after(after=None, run_name="b")], ["a", "b"])
    assert comparison.unlearned
    assert comparison.runs[1].largest_after is None
    assert comparison.runs[1].method is None


def test_runs_of_one_name_are_told_apart():
    summaries = [make.before_after(), make.before_after()]
    assert [run.name for run in compare(summaries, ["/x/a/story", "/x/b/story"]).runs] == ["a/story", "b/story"]
    assert [run.name for run in compare(summaries, ["/x/a/story", "/y/a/story"]).runs] == ["story (1)", "story (2)"]


def test_long_names_that_differ_at_their_ends_only_are_told_apart_wherever_they_are_shortened(tmp_path):
    names = [f"a-corpus-of-letters-and-diaries-of-sailors-of-the-north-sea-seed-{seed}" for seed in range(3)]
    bits = [33.0, 32.0, 31.0]
    runs = [make.before_after({**make.EXPOSED, "canary-01": b}, run_name=n) for n, b in zip(names, bits, strict=True)]
    comparison = compare(runs, names)
    for limit in (20, 28, 40, 60):
        found = labels(comparison.runs, limit)
        assert len(set(found)) == 3
        assert max(map(len, found)) <= limit
        assert [label.partition(":")[0] for label in found] == ["1", "2", "3"]
    chart = comparison_chart(comparison)
    points = next(layer for layer in chart.spec["layer"] if "yOffset" in layer["encoding"])
    rows = points["data"]["values"]
    assert {row["bits"] for row in rows if row["run"].startswith("3:a-corpus")} >= {31.0}
    assert len({row["run"] for row in rows}) == 3
    assert points["encoding"]["y"]["sort"] == labels(comparison.runs, 28)
    for name, text in outputs(comparison, tmp_path).items():
        if name != "comparison.json":
            assert all(f"{place}:a-" in text for place in (1, 2, 3)), name


def test_names_that_stay_apart_when_shortened_are_not_numbered():
    comparison = two_runs()
    assert labels(comparison.runs, 28) == ["seed-0", "seed-1"]


def test_the_gates_reasons_name_the_run():
    comparison = two_runs(fail_above=5)
    assert comparison.status == "failed"
    assert comparison.reasons == ("seed-1: canary-01: 20.00 bits after unlearning, above the limit of 5",)


def test_the_files_are_a_page_markdown_with_its_picture_and_json(tmp_path):
    comparison = two_runs(fail_above=5)
    found = outputs(comparison, tmp_path)
    assert list(found) == ["comparison.html", "comparison.md", "comparison.svg", "comparison.json", "terminal"]
    assert Comparison.model_validate_json(found["comparison.json"]) == comparison
    schema = json.loads(schema_path("comparison").read_text("utf-8"))
    jsonschema.Draft202012Validator(schema).validate(json.loads(found["comparison.json"]))
    for name in ("comparison.html", "comparison.md"):
        assert "seed-1" in found[name]
        assert "above the limit of 5" in found[name]
    page = Page(found["comparison.html"])
    assert own_scripts(page) == 1
    assert page.names().count("table") == page.names().count("caption") == 3
    assert not re.search(r"https?://", found["comparison.html"])
    assert max(map(cell_len, found["terminal"].splitlines())) <= 80


def test_a_trend_goes_from_the_oldest_measurement_to_the_newest(tmp_path):
    def at(day, name, bits):
        stages = [
            StageRun(stage=stage, argv=("canaryaudit", stage), started=f"2026-{month}-{day:02}T09:00:00Z", seconds=1.0)
            for stage, month in (("insert", "02"), ("measure", "11"), ("report", "12"))
        ]
        manifest = make.manifest(stages=tuple(stages), commit=f"{day:02}abcdef0123456789")
        return make.before_after({**make.EXPOSED, "canary-01": bits}, run_name=name, facts=manifest)

    later, sooner, first = at(20, "b", 21.0), at(3, "c", 33.0), at(1, "a", 27.0)
    ordered, names = oldest_first([later, sooner, first], ["/b", "/c", "/a"])
    assert names == ["/a", "/c", "/b"]
    comparison = compare(ordered, names, trend=True)
    assert [run.measured[:10] for run in comparison.runs] == ["2026-11-01", "2026-11-03", "2026-11-20"]
    assert moments(comparison.runs)[2] == "3: 2026-11-20 20abcde"
    chart = trend_chart(comparison)
    marks = next(layer for layer in chart.spec["layer"] if layer["mark"]["type"] == "point")
    rows = marks["data"]["values"]
    largest = [row["bits"] for row in rows if row["state"] == "largest"]
    assert largest == [run.largest_after for run in comparison.runs]
    found = outputs(comparison, tmp_path)
    assert "trend.svg" in found
    assert "oldest measurement first" in found["comparison.html"]
    assert "trend.svg" in found["comparison.md"]
    assert "20abcdef012&#8230;" in found["comparison.md"]


def test_an_earlier_report_is_read_back_or_refused(tmp_path):
    summary = make.before_after()
    path = tmp_path / "report.json"
    path.write_text(render_json(summary), "utf-8")
    assert read_report(path).canaries == summary.canaries
    for text, reason in (
        ("{}", "missing"),
        ("no JSON", "report.json of a report"),
        ('{"schema_version": 99}', "report"),
    ):
        path.write_text(text, "utf-8")
        with pytest.raises(UsageError, match=reason):
            read_report(path)
    with pytest.raises(UsageError, match="No such file"):
        read_report(tmp_path / "absent.json")


def changed(document, path, value):
    """Return the JSON document with another value at a path; it is removed if that is None."""
    *above, last = path
    copied = json.loads(json.dumps(document))
    inner = copied
    for key in above:
        inner = inner[key]
    if value is None:
        del inner[last]
    else:
        inner[last] = value
    return json.dumps(copied)


@pytest.mark.parametrize(
    ("path", "value", "reason"),
    [
        (("audited", 0), None, "does not say the corpus"),
        (("provenance", "facts", 1, "name"), "Comment", "does not say the commit"),
        (("provenance", "stages", 0, "started"), "yesterday", "is not a time"),
        (("provenance", "stages", 0, "started"), "2026-11-01T09:00:00", "is not a time"),
        (("canaries", 0, "before", "exposure", "bits"), -4.0, "exposure of canary-05 is not between"),
        (("canaries", 0, "after", "exposure", "bits"), 1e308, "exposure of canary-05 is not between"),
        (("canaries", 0, "id"), "\x1b[31m\u202e", "exposure of .* is not between"),
    ],
)
def test_a_report_that_says_what_none_can_say_is_refused(tmp_path, path, value, reason):
    stage = StageRun(stage="measure", argv=("canaryaudit",), started="2026-11-01T09:00:00+00:00", seconds=1.0)
    document = json.loads(render_json(make.before_after(facts=make.manifest(stages=(stage,)))))
    if path[-1] == "id":
        document["canaries"][0]["before"]["exposure"]["bits"] = -1.0
    file = tmp_path / "report.json"
    file.write_text(changed(document, path, value), "utf-8")
    with pytest.raises(UsageError, match=reason) as refused:
        read_report(file)
    assert not re.search(r"[\x00-\x1f\u202e]", str(refused.value))


def test_the_gate_of_an_earlier_report_judges_nothing_and_its_figures_are_said_to_be_unverified(tmp_path):
    earlier = make.before_after(run_name="earlier", fail_above=30)
    assert earlier.gate
    path = tmp_path / "report.json"
    path.write_text(render_json(earlier), "utf-8")
    comparison = compare(
        [read_report(path), make.before_after(run_name="now")], [str(path), "/now"], reports={str(path)}
    )
    assert comparison.status is None
    assert [run.verified for run in comparison.runs] == [False, True]
    for name, text in outputs(comparison, tmp_path / "page").items():
        if not name.endswith((".svg", ".json")):
            assert "not verified: earlier." in text, name
            assert "Gate" not in text, name
    assert not two_runs().note


def test_a_trend_is_in_the_order_of_time_whatever_the_time_zone():
    def at(started):
        stage = StageRun(stage="measure", argv=("canaryaudit",), started=started, seconds=1.0)
        return make.before_after(facts=make.manifest(stages=(stage,)))

    times = ["2026-11-02T01:00:00+09:00", "2026-11-01T18:00:00+00:00", "zzzz"]
    assert oldest_first([at(time) for time in times], ["first", "second", "never"])[1] == ["never", "first", "second"]


def test_hostile_run_names_do_nothing(tmp_path):
    found = outputs(compare([hostile_summary(), make.before_after(run_name=HOSTILE * 2)], ["a", "b"]), tmp_path)
    assert not {"img", "b", "iframe"} & set(Page(found["comparison.html"]).names())
    rendered = Page(MarkdownIt("commonmark").enable("table").render(found["comparison.md"]))
    assert [a["src"] for tag, a in rendered.elements if tag == "img"] == ["comparison.svg"]
    assert not {"script", "b"} & set(rendered.names())
    for name, text in found.items():
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u200b]", text), name
    tables = [block.splitlines() for block in found["comparison.md"].split("\n\n") if block.startswith("|")]
    assert len(tables) == 3
    for table in tables:
        assert len({line.count("|") for line in table}) == 1


def test_the_page_of_several_runs_fits_every_window(browser, tmp_path):
    write_comparison(two_runs(fail_above=5), tmp_path, ("html",))
    address = (tmp_path / "comparison.html").as_uri()
    for width in (400, 1000, 1600):
        browser.show(width)
        browser.open(address)
        assert browser.said() == []
        assert browser.requests() == [address]
        assert browser.evaluate("document.documentElement.scrollWidth") <= width
        assert browser.evaluate(CUT_OFF.format("figure" if width < 1000 else "body")) == []
        marks = "[...document.querySelectorAll('svg [data-label]')].filter(m => m.getClientRects().length).length"
        assert browser.evaluate(marks) == 20
