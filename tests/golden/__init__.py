"""Golden copies of everything that a report writes: a change of a format shows in review, file by file.

After a change that is meant, ``make golden`` writes them, and the published JSON Schemas, anew.
"""

import base64
import gzip
import io
import json
import re
from pathlib import Path

from rich.console import Console

from canaryaudit.canaries.canary import Canary
from canaryaudit.report import Summary, build_summary, compare, render_comparison_terminal, render_terminal
from canaryaudit.report.charts import charts
from canaryaudit.report.comparison.comparison import comparison_chart
from canaryaudit.report.comparison.writer import render_comparison_markdown, render_page
from canaryaudit.report.formats.html import render_html
from canaryaudit.report.formats.json_text import render_json
from canaryaudit.report.formats.junit import render_junit
from canaryaudit.report.formats.markdown import render_markdown
from canaryaudit.report.formats.model_card import render_model_card
from canaryaudit.report.formats.sarif import render_sarif
from canaryaudit.report.formats.step_summary import render_step_summary
from canaryaudit.report.images.comparison import IMAGES_VIEW
from canaryaudit.report.images.pipelines import (
    render_images_junit,
    render_images_sarif,
    render_images_step_summary,
)
from canaryaudit.report.images.terminal import render_images_terminal
from canaryaudit.report.images.writer import render_images_markdown, render_images_page
from canaryaudit.report.summary.build import SummaryOptions
from canaryaudit.report.summary.gate import EarlierReport
from canaryaudit.report.tables.comparison import TABLES_VIEW
from canaryaudit.report.tables.pipelines import (
    render_tables_junit,
    render_tables_sarif,
    render_tables_step_summary,
)
from canaryaudit.report.tables.terminal import render_tables_terminal
from canaryaudit.report.tables.writer import render_tables_markdown, render_tables_page
from tests.report import builders as make
from tests.report.image_builders import compared_images, images

FILES = Path(__file__).parent / "files"
DOWNLOAD = re.compile(r"data:application/gzip;base64,([A-Za-z0-9+/=]+)")
_OWN = re.compile(r"(<style>|<script>)(.*?)(</style>|</script>)", re.DOTALL)


def golden_summary(seed: int = 0) -> Summary:
    """Return a summary with something in every section: a hidden secret, several methods, a gate that fails."""
    canaries = make.canary_set(
        [
            make.given("0123456789").model_copy(update={"places": (17,)}),
            Canary(id="canary-02", template=make.PHONE, completion="7291048365", repetitions=16, places=(4, 4093)),
            Canary(id="canary-03", template=make.PLATE, completion="QXZ-4417", repetitions=1),
        ],
        num_controls=12,
    )
    ids = [canary.id for canary in canaries.inserted]
    before = make.measurement(canaries, {"canary-01": 33.3, "canary-02": 30.1, "canary-03": 12.0 + seed})
    costs = {"canary-02": (0.1, 0.2, 1.4, 2.9, 3.5, 0.0, 0.3, 0.6, 4.2, 0.9), "canary-03": (0.5,) * 8}
    before = before.model_copy(
        update={
            "canaries": tuple(m.model_copy(update={"character_bits": costs.get(m.id)}) for m in before.canaries),
        }
    )
    after = make.measurement(
        canaries, {"canary-01": 2.1, "canary-02": 6.4, "canary-03": 0.4}, "after-second", sha=make.UPDATED_SHA
    )
    before = make.probed(before, {}, joint_pvalue=1e-4).model_copy(update={"privacy": make.privacy(35)})
    after = make.probed(after, {"canary-02": 0.004, "canary-03": 0.2}, joint_pvalue=0.003)
    after = after.model_copy(update={"privacy": make.privacy(22)})
    runs = [
        (
            make.unlearning("first", ids, drop=0.02, method="first-order", seconds=1.2),
            make.measurement(canaries, {"canary-01": 30.0, "canary-02": 8.0, "canary-03": 0.4}, "after-first"),
        ),
        (make.unlearning("second", ids, notes=("A note.",)), after),
        (
            make.unlearning("retrain", ids, drop=0.004, method="retrain", seconds=152.0),
            make.measurement(canaries, {"canary-01": 1.4, "canary-02": 0.9, "canary-03": 0.2}, "after-retrain"),
        ),
    ]
    earlier = make.before_after(
        {"canary-02": 30.0}, {"canary-02": 1.0}, make.canary_set([canaries.canaries[1]]), run_name="nightly"
    )
    return build_summary(
        make.manifest(),
        canaries,
        make.model_record(),
        before,
        runs,
        f"golden-{seed}",
        SummaryOptions(fail_above=5.0, baseline=EarlierReport.model_validate_json(render_json(earlier))),
    )


def produce() -> dict[str, str]:
    """Return every golden file's text by its name; style sheet and script, which are no format, are left out."""
    summary = golden_summary()
    drawn = charts(summary)
    comparison = compare([summary, golden_summary(seed=1)], ["a", "b"])
    chart = comparison_chart(comparison)
    return {
        "report.html": _without_own(render_html(summary, ())),
        "report.md": render_markdown(summary, drawn),
        "report.json": render_json(summary),
        "report.junit.xml": render_junit(summary),
        "report.sarif": _indented(render_sarif(summary)),
        "step-summary.md": render_step_summary(summary),
        "model-card.md": render_model_card(summary),
        "terminal.txt": _printed(render_terminal(summary)),
        **{chart.file_name: chart.svg() + "\n" for chart in drawn},
        "comparison.html": _without_own(render_page(comparison, chart)),
        "comparison.md": render_comparison_markdown(comparison, [chart]),
        "comparison.json": render_json(comparison),
        "comparison.txt": _printed(render_comparison_terminal(comparison)),
        "tables.html": _without_own(render_tables_page(make.tables(), ())),
        "tables.md": render_tables_markdown(make.tables(), ()),
        "tables.json": render_json(make.tables()),
        "tables.txt": _printed(render_tables_terminal(make.tables())),
        "tables.junit.xml": render_tables_junit(make.tables()),
        "tables.sarif": render_tables_sarif(make.tables()),
        "tables-step-summary.md": render_tables_step_summary(make.tables()),
        "tables-comparison.html": _without_own(TABLES_VIEW.page(make.compared_tables())),
        "tables-comparison.md": TABLES_VIEW.markdown(make.compared_tables()),
        "tables-comparison.json": render_json(make.compared_tables()),
        "tables-comparison.txt": _printed(TABLES_VIEW.terminal(make.compared_tables())),
        "images.html": _without_own(render_images_page(images(), ())),
        "images.md": render_images_markdown(images(), ()),
        "images.json": render_json(images()),
        "images.txt": _printed(render_images_terminal(images())),
        "images.junit.xml": render_images_junit(images()),
        "images.sarif": render_images_sarif(images()),
        "images-step-summary.md": render_images_step_summary(images()),
        "images-comparison.html": _without_own(IMAGES_VIEW.page(compared_images())),
        "images-comparison.md": IMAGES_VIEW.markdown(compared_images()),
        "images-comparison.txt": _printed(IMAGES_VIEW.terminal(compared_images())),
    }


def _without_own(page: str) -> str:
    page = re.sub(r"'sha256-[^']*'", "'sha256-…'", _OWN.sub(r"\1…\3", page))
    # The same figures are compressed otherwise where the last digit is another one.
    return DOWNLOAD.sub(lambda match: gzip.decompress(base64.b64decode(match[1])).decode(), page)


def _indented(document: str) -> str:
    return json.dumps(json.loads(document), indent=1, ensure_ascii=False) + "\n"


def _printed(view: object) -> str:
    file = io.StringIO()
    Console(file=file, width=80, highlight=False).print(view)
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines()) + "\n"
