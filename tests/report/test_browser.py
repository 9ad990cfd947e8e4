"""The page in a real browser: what is drawn, what moves, and what never leaves it."""

import json
import re
from pathlib import Path

import pytest

from canaryaudit.canaries.canary import Canary
from canaryaudit.report import write_report
from canaryaudit.report.formats.html import render_html
from tests.browser import Browser
from tests.report import builders as make
from tests.report.formats.test_formats import HOSTILE, hostile_summary
from tests.report.summary.test_build import several_methods

SAMPLE = Path(__file__).resolve().parents[2] / "reports" / "sample" / "report.html"
WIDTHS = (400, 1000, 1600)

VISIBLE_CHARTS = """[...document.querySelectorAll('figure')].map(figure => {
  const shown = [...figure.querySelectorAll('svg')].filter(svg => svg.getClientRects().length);
  const marks = shown.flatMap(svg => [...svg.querySelectorAll('[aria-label]')]);
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
        charts = browser.evaluate(VISIBLE_CHARTS)
        assert len(charts) >= 4
        assert all(shown == 1 and marks > 1 and placed for shown, marks, placed in charts), charts
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
    place = "document.querySelector('figure .wide [aria-label^=\"canary-02, before\"]')"
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
    (tmp_path / "page.html").write_text(text.replace("<main>", f"<main>{injected}"), "utf-8")
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


def many(number: int) -> list[Canary]:
    """Return canaries on eight templates."""
    templates = [f"word {i} of my number is {{digits:10}}!" for i in range(8)]
    return [
        Canary(id=f"canary-{i:05}", template=templates[i % 8], completion=f"{i * 7919:010}", repetitions=1 + i % 16)
        for i in range(number)
    ]


def test_a_page_of_500_canaries_is_below_2_megabytes_and_opens(browser: Browser, tmp_path: Path) -> None:
    canaries = make.canary_set(many(500), num_controls=256)
    before = {canary.id: 33.2 - 0.06 * i for i, canary in enumerate(canaries.inserted)}
    after = {canary.id: 4.0 - 0.008 * i for i, canary in enumerate(canaries.inserted)}
    write_report(make.before_after(before, after, canaries), tmp_path, ["html"])
    assert (tmp_path / "report.html").stat().st_size <= 2_000_000
    browser.show(1000)
    browser.open((tmp_path / "report.html").as_uri())
    seconds = browser.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd / 1000")
    assert seconds > 0, "it was loaded whole; how fast is for a benchmark"
    assert browser.said() == []


def test_the_specifications_are_data_that_draw_the_same_chart(browser: Browser, page: str) -> None:
    browser.open(page)
    blocks = browser.evaluate(
        "Object.fromEntries([...document.querySelectorAll('script[type=\"application/json\"]')].map("
        "s => [s.id.replace(/-specification$/, ''), s.textContent]))"
    )
    from canaryaudit.report.charts import charts

    expected = {chart.name: chart.spec for chart in charts(several_methods())}
    assert {name: json.loads(text) for name, text in blocks.items()} == expected
