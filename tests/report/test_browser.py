"""The page in a real browser: what is drawn, what moves, and what never leaves it."""

import importlib.util
import re
from pathlib import Path

import pytest

from canaryaudit.report import write_report
from canaryaudit.report.charts import charts
from canaryaudit.report.formats.html import render_html
from canaryaudit.report.formats.json_text import render_json
from canaryaudit.report.images.files import image_report_files
from canaryaudit.report.rows.files import write_rows_report
from canaryaudit.report.tables.writer import write_tables
from tests.browser import Browser
from tests.report import audits as make_audits
from tests.report import builders as make
from tests.report.audits import SECRETS
from tests.report.formats.test_formats import HOSTILE, hostile_summary
from tests.report.image_builders import images
from tests.report.summary.test_build import several_methods

SAMPLE = Path(__file__).resolve().parents[2] / "reports" / "sample" / "report.html"
WIDTHS = (400, 1000, 1600)

VISIBLE_CHARTS = """[...document.querySelectorAll('figure')].map(figure => {
  const shown = [...figure.querySelectorAll('svg')].filter(svg => svg.getClientRects().length);
  const marks = shown.flatMap(svg => [...svg.querySelectorAll('[data-label]')]);
  const places = marks.map(mark => mark.getBoundingClientRect());
  return [shown.length, marks.length, places.every(box => Number.isFinite(box.left) && box.width + box.height > 0)];
})"""
CUT_OFF = """[...document.querySelectorAll('{} .scroll')].filter(
  box => box.scrollWidth > box.clientWidth).map(box => box.getAttribute('aria-label'))"""
OVERLAPPING_LABELS = """[...document.querySelectorAll('figure svg')].flatMap(svg => {
  const boxes = [...svg.querySelectorAll('.role-axis-label text')].filter(text => text.getClientRects().length &&
    getComputedStyle(text).opacity !== '0').map(text => [text.textContent, text.getBoundingClientRect()]);
  return boxes.flatMap(([name, a], i) => boxes.slice(i + 1).filter(([, b]) =>
    a.left + 1 < b.right && b.left + 1 < a.right && a.top + 2 < b.bottom && b.top + 2 < a.bottom).map(([other]) =>
    `${name} on ${other}`));
})"""
CONTRAST = """(() => {
  const light = color => color.match(/[\\d.]+/g).slice(0, 3).map(Number).map(c => c / 255).map(
    c => c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4).reduce(
    (sum, c, i) => sum + c * [.2126, .7152, .0722][i], 0);
  const behind = element => { for (; element; element = element.parentElement) {
    const color = getComputedStyle(element).backgroundColor;
    if (!/, 0\\)$/.test(color)) return color; } return 'rgb(255, 255, 255)'; };
  return Math.min(...[...document.querySelectorAll('h1, h2, p, li, td, th, caption, .tag, .small, summary, a')].map(
  e => {
    const [a, b] = [light(getComputedStyle(e).color), light(behind(e))].sort();
    return (b + .05) / (a + .05); }));
})()"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Address of a page with every section."""
    write_report(several_methods(), folder := tmp_path_factory.mktemp("page"), ["html"])
    return (folder / "report.html").as_uri()


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_chart_is_drawn_whole_and_nothing_is_wider_than_the_window(
    browser: Browser, page: str, width: int, scheme: str
) -> None:
    browser.show(width, scheme=scheme)
    for address in (page, SAMPLE.as_uri()):
        browser.open(address)
        assert browser.said() == []
        visible = browser.evaluate(VISIBLE_CHARTS)
        assert len(visible) >= 4
        assert all(shown == 1 and marks > 1 and placed for shown, marks, placed in visible), visible
        # On a telephone a table may be scrolled sideways within its frame; a chart never needs it.
        assert browser.evaluate(CUT_OFF.format("figure" if width < 1000 else "body")) == []
        assert browser.evaluate("document.documentElement.scrollWidth") <= width
        assert browser.evaluate(OVERLAPPING_LABELS) == []
        assert browser.evaluate(CONTRAST) >= 4.5


def test_light_and_dark_differ(browser: Browser, page: str) -> None:
    colors = []
    for scheme in ("light", "dark"):
        browser.show(1000, scheme=scheme)
        browser.open(page)
        style = "getComputedStyle(document.{0}).{1}"
        names = (("body", "backgroundColor"), ("body", "color"), ("querySelector('figure svg')", "color"))
        colors.append([browser.evaluate(style.format(*name)) for name in names])
    assert all(light != dark for light, dark in zip(*colors, strict=True))


def test_the_page_asks_for_nothing_but_itself(browser: Browser, page: str) -> None:
    browser.show(1000)
    browser.open(page)
    browser.hover(300, 300)
    browser.evaluate("new Promise(done => setTimeout(done, 300))")
    assert browser.requests() == [page]


def test_a_mark_speaks_when_it_is_pointed_at(browser: Browser, page: str) -> None:
    browser.show(1000, 2000)
    browser.open(page)
    place = "document.querySelector('figure .wide [data-label^=\"canary-02, before\"]')"
    browser.evaluate(f"{place}.scrollIntoView({{block: 'center'}})")
    browser.evaluate("new Promise(done => setTimeout(done, 100))")
    box = browser.evaluate(f"(b => [b.left + b.width / 2, b.top + b.height / 2])({place}.getBoundingClientRect())")
    tip = "(t => t.hidden ? '' : t.textContent)(document.querySelector('.tip'))"
    assert browser.evaluate(tip) == ""
    browser.hover(*box)
    assert browser.evaluate(tip) == "canary-02, before: 33.2 bits (exact)"
    place = "(b => [b.left, b.top, innerWidth - b.right])(document.querySelector('.tip').getBoundingClientRect())"
    assert min(browser.evaluate(place)) >= 0
    browser.hover(2, 2)
    assert browser.evaluate(tip) == ""


def test_the_keyboard_steps_through_the_marks(browser: Browser, page: str) -> None:
    browser.show(1000)
    browser.open(page)
    browser.evaluate("document.querySelector('figure .scroll').focus()")
    said = []
    for key, code in (("ArrowRight", 39), ("ArrowRight", 39), ("ArrowLeft", 37)):
        browser.key(key, code)
        said.append(browser.evaluate("document.querySelector('.tip').textContent"))
    assert said[0] == said[2] != said[1]
    assert re.match(r"canary-\d\d, (before|after): ", said[0])
    browser.key("Escape", 27)
    assert browser.evaluate("document.querySelector('.tip').hidden")


def test_without_scripts_everything_but_the_notes_is_there(browser: Browser, page: str) -> None:
    count = "[...document.querySelectorAll('{}')].filter(e => e.getClientRects().length).length"
    browser.show(1000)
    browser.open(page)
    usual = [browser.evaluate(count.format(tag)) for tag in ("table", "tr", "svg", "h2")]
    try:
        browser.allow_scripts(False)
        browser.open(page)
        assert browser.said() == []
        assert browser.evaluate("document.querySelector('.tip')") is None
        assert [browser.evaluate(count.format(tag)) for tag in ("table", "tr", "svg", "h2")] == usual
        assert min(usual) > 4
    finally:
        browser.allow_scripts(True)


def test_a_script_that_is_not_the_pages_own_is_refused(browser: Browser, tmp_path: Path) -> None:
    text = render_html(make.before_after(), [])
    injected = "<script>window.taken = 1</script><img src=x onerror='window.taken = 2'><style>body{color:red}</style>"
    (tmp_path / "page.html").write_text(text.replace("</nav>", f"</nav>{injected}"), "utf-8")
    browser.open((tmp_path / "page.html").as_uri())
    assert browser.evaluate("window.taken") is None
    assert len([line for line in browser.said() if "Content Security Policy" in line]) >= 3


@pytest.mark.parametrize("secret", [HOSTILE, "ab" * 2_000], ids=["hostile", "long"])
def test_hostile_text_does_nothing_in_the_browser(browser: Browser, tmp_path: Path, secret: str) -> None:
    write_report(hostile_summary(secret), tmp_path, ["html"])
    address = (tmp_path / "report.html").as_uri()
    for width in WIDTHS:
        browser.show(width)
        browser.open(address)
        assert browser.said() == []
        assert browser.requests() == [address]
        assert browser.evaluate("document.querySelectorAll('img, iframe, object, b').length") == 0
        assert browser.evaluate("document.documentElement.scrollWidth") <= width


def test_the_page_prints_on_paper_without_loss(browser: Browser, page: str) -> None:
    browser.show(1000, medium="print")
    browser.open(page)
    assert browser.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert browser.evaluate("document.querySelector('nav').getClientRects().length") == 0
    browser.show(680, medium="print")  # A4 less its margins, in CSS pixels
    wide = "[...document.querySelectorAll('table, svg')].filter(e => e.getBoundingClientRect().right > innerWidth + 1)"
    assert browser.evaluate(f"{wide}.map(e => e.outerHTML.slice(0, 200))") == []
    browser.show(1000)
    data = browser.pdf()
    assert data.startswith(b"%PDF")
    assert 3 < data.count(b"/Type /Page\n") < 30


@pytest.mark.slow
def test_a_page_of_500_canaries_is_below_2_megabytes_and_opens(browser: Browser, tmp_path: Path) -> None:
    write_report(make_audits.many(500), tmp_path, ["html"])
    assert (tmp_path / "report.html").stat().st_size <= 2_000_000
    browser.show(1000)
    browser.open((tmp_path / "report.html").as_uri())
    seconds = browser.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd / 1000")
    assert seconds > 0, "it was loaded whole; how fast is for a benchmark"
    assert browser.said() == []
    assert browser.evaluate("document.querySelectorAll('.more details').length") == 500
    assert len(browser.evaluate(ROWS)) == 40
    browser.evaluate("document.querySelector('details.all').open = true")
    assert len(browser.evaluate(ROWS)) == 500
    browser.show(400)
    assert browser.evaluate("document.documentElement.scrollWidth") <= 400


def axe_source() -> str:
    """Return axe-core, which the package carries beside its driver for another browser."""
    found = importlib.util.find_spec("axe_playwright_python")
    if found is None or found.origin is None:
        pytest.skip("no axe-core is installed: pip install axe-playwright-python")
    return (Path(found.origin).parent / "axe.min.js").read_text("utf-8")


AXE_RUN = """axe.run(document, {runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'],
  resultTypes: ['violations']}).then(result => result.violations.map(violation => [violation.id,
  violation.nodes.slice(0, 5).map(node => node.html.slice(0, 160) + ' ' + node.failureSummary.slice(0, 200))]))"""


@pytest.fixture(scope="module")
def audits(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Addresses of the pages of a clean, an exposed and an inconclusive audit."""
    folder = tmp_path_factory.mktemp("audits")
    pages = {"clean": make_audits.clean(), "exposed": make_audits.exposed(), "inconclusive": make_audits.inconclusive()}
    addresses = {}
    for name, summary in pages.items():
        # Every chart is drawn in one of them: drawing takes most of the time.
        drawn = charts(summary)[: None if name == "clean" else 1]
        (folder / f"{name}.html").write_text(render_html(summary, drawn), "utf-8")
        addresses[name] = (folder / f"{name}.html").as_uri()
    return addresses


@pytest.fixture(scope="module")
def other_kinds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Addresses of the pages on requests to a linear model, and on corrected labels of images."""
    folder = tmp_path_factory.mktemp("pages")
    write_tables(make.tables(), folder / "tables.html")
    write_rows_report(image_report_files(images()), folder / "images", ["html"])
    return {
        "tables": (folder / "tables.html").as_uri(),
        "images": (folder / "images" / "report.html").as_uri(),
    }


@pytest.mark.parametrize(
    ("kind", "charts", "width", "scheme"),
    [
        ("tables", 2, 400, "dark"),
        ("tables", 2, 1000, "light"),
        ("images", 1, 400, "light"),
        ("images", 1, 1000, "dark"),
    ],
)
def test_the_pages_on_other_kinds_are_drawn_whole_and_axe_finds_nothing(
    browser: Browser, other_kinds: dict[str, str], kind: str, charts: int, width: int, scheme: str
) -> None:
    source = axe_source()
    browser.show(width, scheme=scheme)
    browser.open(other_kinds[kind])
    assert browser.said() == []
    visible = browser.evaluate(VISIBLE_CHARTS)
    assert len(visible) == charts
    assert all(shown == 1 and marks > 1 and placed for shown, marks, placed in visible), visible
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    assert browser.evaluate(CONTRAST) >= 4.5
    browser.evaluate("for (const part of document.querySelectorAll('details')) part.open = true")
    browser.evaluate(source + "; 0")
    assert browser.evaluate(AXE_RUN) == []
    assert browser.requests() == [other_kinds[kind]]


@pytest.mark.parametrize(("name", "width", "scheme"), [("clean", 400, "dark"), ("exposed", 1000, "light")])
def test_axe_finds_nothing(browser: Browser, audits: dict[str, str], name: str, width: int, scheme: str) -> None:
    source = axe_source()
    browser.show(width, scheme=scheme)
    browser.open(audits[name])
    browser.evaluate("for (const part of document.querySelectorAll('details:not(.all)')) part.open = true")
    browser.evaluate(source + "; 0")
    assert browser.evaluate(AXE_RUN) == []
    browser.evaluate("document.querySelector('main').insertAdjacentHTML('beforeend', '<img src=\"data:,\"><input>')")
    assert {violation for violation, _ in browser.evaluate(AXE_RUN)} >= {"image-alt", "label"}


FIRST_SCREEN = """(() => {
  const bottom = document.querySelector('#next').getBoundingClientRect().bottom;
  const tiles = [...document.querySelectorAll('.tile')].map(tile => [tile.querySelector('a').textContent,
    tile.querySelector('strong').textContent]);
  const figure = document.querySelector('figure').getBoundingClientRect().top;
  const words = document.querySelector('#definitions').getBoundingClientRect().top;
  return [bottom, tiles, document.querySelector('#next code').textContent, figure < words];
})()"""


@pytest.mark.parametrize(
    ("name", "tiles", "command"),
    [
        ("clean", "Pass Pass Pass Pass Pass", "canaryaudit attack runs/story"),
        ("exposed", "Fail Not tested Not tested Pass Fail", "canaryaudit unlearn runs/story"),
        (
            "inconclusive",
            "Inconclusive Pass Pass Fail Not tested",
            "canaryaudit measure runs/story --model all --samples 100000",
        ),
    ],
)
def test_the_first_screen_holds_verdict_tiles_and_what_to_do_next(
    browser: Browser, audits: dict[str, str], name: str, tiles: str, command: str
) -> None:
    browser.show(1000, 900)
    browser.open(audits[name])
    assert browser.said() == []
    bottom, found, shown, figure_first = browser.evaluate(FIRST_SCREEN)
    assert bottom <= 900
    assert " ".join(status[2:] for _, status in found) == tiles
    assert shown == command
    assert figure_first, "definitions stand after the first figure"
    for width in (400, 1600):
        browser.show(width)
        assert browser.evaluate("document.documentElement.scrollWidth") <= width


ROWS = """[...document.querySelectorAll('table.canaries > tbody')].filter(row => row.getClientRects().length).map(
  row => row.rows[0].cells[0].textContent.trim())"""
FOCUS = "(e => e.id || e.ariaLabel || e.textContent.trim().slice(0, 40))(document.activeElement)"
HIDDEN_FOCUS = """(() => {
  const box = document.activeElement.getBoundingClientRect();
  const nav = document.querySelector('body > nav').getBoundingClientRect();
  const own = document.activeElement.closest('nav');
  return !own && box.top < nav.bottom - 1 && box.bottom > nav.top && nav.top <= 0;
})()"""


def test_a_keyboard_walk_reaches_every_part_of_the_page(browser: Browser, audits: dict[str, str]) -> None:
    browser.show(1000)
    browser.open(audits["clean"])
    walk, hidden = [], []
    for _ in range(70):
        browser.key("Tab", 9)
        walk.append(browser.evaluate(FOCUS))
        if browser.evaluate(HIDDEN_FOCUS):
            hidden.append(walk[-1])
    assert walk[0] == "Skip to the canaries"
    wanted = ["Efficacy", "Gate", "Command", "Verdict", "Data", "search", "choice", "Download as CSV", "Sort by Canary"]
    places = [walk.index(name) for name in wanted]
    assert places == sorted(places)
    assert any(name.startswith("Chart: Exposure") for name in walk)
    summary = next(name for name in walk if name.startswith("canary-0") and ":" in name)
    assert hidden == [], "the sticky navigation covers nothing that has the focus"
    # Enter opens a canary; opening another one closes it.
    browser.evaluate("[...document.querySelectorAll('.more summary')][0].focus()")
    assert browser.evaluate(FOCUS) == summary
    opened = "[...document.querySelectorAll('.more details')].map(part => part.open)"
    browser.key("Enter", 13, "\r")
    assert browser.evaluate(opened) == [True, False, False, False, False]
    browser.evaluate("[...document.querySelectorAll('.more summary')][2].focus()")
    browser.key("Enter", 13, "\r")
    assert browser.evaluate(opened) == [False, False, True, False, False]
    # The skip link leads past navigation and verdict.
    browser.evaluate("document.querySelector('.skip').focus()")
    browser.key("Enter", 13, "\r")
    assert browser.evaluate("document.activeElement.id") == "content"


def test_the_table_of_canaries_sorts_filters_and_opens(browser: Browser, audits: dict[str, str]) -> None:
    browser.show(1000)
    browser.open(audits["clean"])
    worst_first = browser.evaluate(ROWS)
    assert len(worst_first) == 5
    heads = browser.evaluate("[...document.querySelectorAll('table.canaries > thead th')].map(h => h.textContent)")
    assert " ".join(heads) == "Canary Verdict Before After Retrained Worst case Secret Repetitions Space"
    press = "document.querySelector('[aria-label=\"Sort by {}\"]').click()"
    browser.evaluate(press.format("After"))
    rows = "[...document.querySelectorAll('table.canaries > tbody')]"
    column = f"{rows}.map(row => parseFloat(row.rows[0].cells[3].textContent))"
    for direction, reverse in (("descending", True), ("ascending", False)):
        assert browser.evaluate("document.querySelector('[aria-sort]').ariaSort") == direction
        figures = browser.evaluate(column)
        assert figures == sorted(figures, reverse=reverse)
        browser.evaluate(press.format("After"))
    browser.evaluate(press.format("Canary"))
    assert browser.evaluate(ROWS) == sorted(worst_first)
    browser.evaluate("document.querySelector('#search').focus()")
    browser.type("QXZ")
    assert browser.evaluate(ROWS) == ["canary-05"]
    assert browser.evaluate("document.querySelector('.count').textContent") == "1 of 5 canaries"
    browser.evaluate("location.hash = '#canary-row-1'")
    browser.evaluate("new Promise(done => setTimeout(done, 200))")
    assert worst_first[0] in browser.evaluate(ROWS), "a link shows the canary, whatever the filter"
    detail = browser.evaluate("document.querySelector('.more details[open]').textContent")
    assert worst_first[0] in detail


def test_an_opened_canary_shows_probes_estimates_completions_likelihoods_and_places(
    browser: Browser, audits: dict[str, str]
) -> None:
    browser.show(1000)
    browser.open(audits["clean"])
    opened = """Object.fromEntries([...document.querySelectorAll('table.canaries > tbody')].map(row => {
      row.querySelector('details').open = true;
      const text = row.querySelector('.detail').innerText.replace(/\\s+/g, ' ');
      return [row.rows[0].cells[0].textContent.trim(), text]; }))"""
    texts = browser.evaluate(opened)
    shown, hidden, dashed = texts["canary-01"], texts["canary-02"], texts["canary-05"]
    assert "6 of 10 digits predicted" in shown
    assert "5 of 7 characters predicted" in dashed, "the dash is the template's"
    for words in (
        "Before After Retrained",
        "the secret",
        "Exact",
        "Sampled",
        "in 10,000 samples",
        "bare-1, 2 known",
        "Places, in characters from the start of the text: 100; 150; 200",
        "3 other secrets have the same prompt and are not counted in its guesses",
    ):
        assert words in shown, words
    assert "Place" not in hidden
    assert "bare-1, 2 known" not in hidden
    assert "its exposure under each probe is not shown" in hidden.lower()
    assert SECRETS[1] not in browser.evaluate("document.documentElement.outerHTML")


def test_without_scripts_a_canary_opens_and_the_tools_are_gone(browser: Browser, audits: dict[str, str]) -> None:
    browser.show(1000)
    try:
        browser.allow_scripts(False)
        browser.open(audits["clean"])
        visible = "[...document.querySelectorAll('{}')].filter(e => e.checkVisibility()).length"
        assert browser.evaluate(visible.format(".tools, .sort")) == 0
        assert browser.evaluate(visible.format(".detail table")) == 0
        summary = "document.querySelector('.more summary')"
        browser.evaluate(f"{summary}.focus()")
        browser.key("Enter", 13, "\r")
        assert browser.evaluate(visible.format(".detail table")) >= 2
        start = browser.evaluate("document.querySelector('#download').href.slice(0, 29)")
        assert start == "data:application/gzip;base64,"
        assert browser.evaluate("document.querySelector('#download').download") == "report.json.gz"
    finally:
        browser.allow_scripts(True)


CATCH = """window.saved = new Promise(done => {
  URL.createObjectURL = blob => { blob.text().then(done); return '#'; }; })"""


def test_the_download_is_the_report(browser: Browser, audits: dict[str, str]) -> None:
    browser.open(audits["clean"])
    # What the page would save: its own script makes it, and only the saving itself is caught.
    browser.evaluate(f"HTMLAnchorElement.prototype.click = () => {{}}; {CATCH}; 0")
    press = "{}.dispatchEvent(new MouseEvent('click', {{cancelable: true}})); 0"
    browser.evaluate(press.format("document.querySelector('#download')"))
    assert browser.evaluate("window.saved") == render_json(make_audits.clean())
    browser.evaluate(f"{CATCH}; 0")
    browser.evaluate(press.format("document.querySelector('.tools button')"))
    lines = browser.evaluate("window.saved").splitlines()
    assert lines[0].startswith('"Canary","Verdict","Before"')
    assert len(lines) == 6
    assert SECRETS[1] not in "".join(lines)
