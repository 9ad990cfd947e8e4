"""The files of the report of a run on images."""

from canaryaudit.report.charts.images import images_charts
from canaryaudit.report.formats.json_text import render_json
from canaryaudit.report.images.pipelines import render_images_junit, render_images_sarif
from canaryaudit.report.images.schema import ImagesSummary
from canaryaudit.report.images.writer import render_images_markdown, render_images_page
from canaryaudit.report.rows.files import ROWS_FILES, Makers


def image_report_files(summary: ImagesSummary) -> Makers:
    """Return what makes each format's files."""

    def markdown() -> dict[str, str]:
        drawn = images_charts(summary)
        text = render_images_markdown(summary, drawn)
        return {ROWS_FILES["md"]: text, **{chart.file_name: chart.svg() for chart in drawn}}

    return {
        "html": lambda: {ROWS_FILES["html"]: render_images_page(summary, images_charts(summary))},
        "md": markdown,
        "json": lambda: {ROWS_FILES["json"]: render_json(summary)},
        "junit": lambda: {ROWS_FILES["junit"]: render_images_junit(summary)},
        "sarif": lambda: {ROWS_FILES["sarif"]: render_images_sarif(summary)},
    }
