import base64
import gzip
import hashlib
import io
import itertools
import json
import re
from html.parser import HTMLParser

import pytest
from markdown_it import MarkdownIt
from rich.cells import cell_len
from rich.console import Console

from canaryaudit.canaries.canary import Canary
from canaryaudit.errors import RunDirectoryError
from canaryaudit.formatting import visible
from canaryaudit.report import Summary, build_summary, compare, render_terminal, write_report
from canaryaudit.report.charts.estimates import estimates_chart
from canaryaudit.report.charts.methods import method_chart
from canaryaudit.report.formats.json_text import render_json
from canaryaudit.report.formats.model_card import render_model_card
from tests.golden import DOWNLOAD
from tests.report import builders as make
from tests.report.summary.test_build import several_methods

HOSTILE = "</script><img src=x onerror=alert(1)>[red]\x1b[31m|`\\\n\u202e\u2066<b>&amp;"


class Page(HTMLParser):
    """Gathers a page's elements."""

    def __init__(self, text):
        super().__init__()
        self.elements = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def names(self):
        return [tag for tag, _ in self.elements]


def on_terminal(summary, width=80, **options):
    file = io.StringIO()
    Console(file=file, width=width, **options).print(render_terminal(summary))
    return file.getvalue()


def every_output(summary, directory):
    """Return the text of every file and of the terminal, by name."""
    files = write_report(summary, directory)
    outputs = {file.name: file.read_text("utf-8") for file in files} | {"terminal": on_terminal(summary)}
    packed = DOWNLOAD.search(outputs["report.html"])
    return outputs | ({"download": gzip.decompress(base64.b64decode(packed[1])).decode()} if packed else {})


def hostile_summary(secret=HOSTILE):
    template = f"say {HOSTILE} {{any:4}}{secret[4:-4]}{{any:4}}"
    canary = Canary(id="canary-01", template=template, completion=secret, repetitions=3)
    symbols = "".join(sorted(set(secret)))
    canaries = make.canary_set([canary], num_controls=0, corpus_symbols=symbols)
    return make.before_after({"canary-01": 40.0}, {"canary-01": 2.0}, canaries, run_name=HOSTILE)


def test_every_format_is_written_with_its_pictures(tmp_path):
    names = [file.name for file in write_report(several_methods(), tmp_path / "new" / "folder")]
    pictures = [
        "exposure.svg",
        "memorization.svg",
        "reference-1.svg",
        "reference-2.svg",
        "estimates.svg",
        "methods.svg",
        "training.svg",
    ]
    others = ["report.json", "report.junit.xml", "report.sarif", "model-card.md"]
    assert names == ["report.html", "report.md", *pictures, *others]


def test_only_the_wanted_formats_are_written(tmp_path):
    assert [file.name for file in write_report(make.before_after(), tmp_path, ["json"])] == ["report.json"]


def test_pictures_of_an_earlier_report_are_removed_and_a_users_own_are_not(tmp_path):
    write_report(several_methods(), tmp_path)
    (tmp_path / "own.svg").write_text("<svg/>")
    fewer = make.canary_set(make.canary_set().inserted[:4])
    write_report(make.before_after({c.id: 1.0 for c in fewer.inserted}, None, fewer), tmp_path, ["md"])
    assert sorted(file.name for file in tmp_path.glob("*.svg")) == [
        "estimates.svg",
        "exposure.svg",
        "memorization.svg",
        "own.svg",
        "reference-1.svg",
        "training.svg",
    ]


def test_a_report_that_cannot_be_written_is_a_one_line_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunDirectoryError, match="cannot write .*: part of the path is a file"):
        write_report(make.before_after(), tmp_path / "file" / "below", ["json"])


def test_before_only_reports_have_no_after(tmp_path):
    outputs = every_output(make.before_after(after=None), tmp_path)
    for name in ("report.html", "report.md"):
        assert "after, bits" not in outputs[name].replace("<br>", " ")
        assert "Completion after" not in outputs[name]
        assert ">Fidelity</h2>" not in outputs[name]
        assert "## Fidelity" not in outputs[name]
    assert ">After</a></th>" not in outputs["report.html"]
    assert "→" not in outputs["terminal"]
    assert ">after<" not in outputs["exposure.svg"]


def test_no_format_gives_figures_of_held_out_text_where_none_was_held_out(tmp_path):
    corpus = make.manifest().corpus.model_copy(update={"heldout_characters": 0, "holdout": 0.0})
    summary = make.before_after(facts=make.manifest(corpus=corpus))
    assert summary.method is not None
    assert summary.method.heldout_loss_change_bits is None
    assert [line.key for line in summary.method.fidelity] == ["train_accuracy", "train_accuracy_all", "train_loss"]
    assert json.loads(render_json(summary))["methods"][0]["heldout_loss_change_bits"] is None
    outputs = every_output(summary, tmp_path) | {"model card": render_model_card(summary)}
    for name in ("report.html", "report.md", "terminal", "model card"):
        said = outputs[name].lower()
        assert "no text was held out" in said, name
        for untrue in ("0 characters held out", "on held-out text", "held-out accuracy", "held-out loss, bits"):
            assert untrue not in said, name
    (run,) = compare([summary], ["story"]).runs
    assert run.heldout_loss_change_bits is None


def test_every_format_gives_figures_of_held_out_text(tmp_path):
    outputs = every_output(make.before_after(), tmp_path) | {"model card": render_model_card(make.before_after())}
    for name in ("report.html", "report.md", "terminal", "model card"):
        assert "held-out" in outputs[name].lower(), name
        assert "no text was held out" not in outputs[name].lower(), name


def test_methods_are_compared_where_there_are_several(tmp_path):
    outputs = every_output(several_methods(), tmp_path)
    for name in ("report.html", "report.md"):
        assert "Comparison of methods" in outputs[name]
        assert "third" in outputs[name]


def test_no_masked_secret_is_in_any_output(tmp_path):
    canaries = make.canary_set([make.given("0123456789"), make.given("8675309244", name="canary-02")])
    insert = make.manifest().stages[0]
    leaky = insert.model_copy(update={"argv": (*insert.argv, "--secret", "0123456789")})
    summary = make.before_after(
        {"canary-01": 33.3, "canary-02": 20.0},
        {"canary-01": 2.0, "canary-02": 2.0},
        canaries,
        run_name="of 0123456789",
        facts=make.manifest(stages=(leaky,)),
    )
    assert summary.provenance.commands[0].endswith("--secret '••••••••••'")
    hashes = [
        getattr(hashlib, kind)((before + secret + after).encode()).hexdigest()[:16]
        for kind in ("md5", "sha1", "sha256", "sha512")
        for secret in ("0123456789", "8675309244")
        for before, after in (("", ""), ("", "\n"), ("my telephone number is ", "!"))
    ]
    for name, text in every_output(summary, tmp_path).items():
        for secret in ("0123456789", "8675309244", "01234", "56789", "86753", *hashes):
            assert secret not in text, name


def test_revealed_secrets_are_shown_and_every_format_says_so(tmp_path):
    canaries = make.canary_set([make.given("0123456789")])
    summary = make.before_after({"canary-01": 33.3}, None, canaries, reveal_secrets=True)
    outputs = every_output(summary, tmp_path)
    for name in ("report.html", "report.md", "terminal"):
        assert "0123456789" in outputs[name]
        assert "--reveal-secrets" in outputs[name]
    assert "0123456789" not in outputs["model-card.md"] + outputs["report.junit.xml"]
    assert json.loads(outputs["report.json"])["reveal_secrets"] is True
    assert "0123456789" not in outputs["exposure.svg"] + outputs["reference-1.svg"]


@pytest.mark.parametrize("secret", [HOSTILE, "ab" * 2_000], ids=["hostile", "long"])
def test_hostile_text_does_nothing_in_any_format(tmp_path, secret):
    summary = hostile_summary(secret)
    outputs = every_output(summary, tmp_path)
    for name, text in outputs.items():
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u200b]", text), name
    page = Page(outputs["report.html"])
    assert not {"img", "b", "iframe", "object", "link"} & set(page.names())
    assert own_scripts(page) == 1
    rendered = Page(MarkdownIt("commonmark").enable("table").render(outputs["report.md"]))
    images = [attributes["src"] for tag, attributes in rendered.elements if tag == "img"]
    assert images == ["exposure.svg", "training.svg", "reference-1.svg", "estimates.svg"]
    assert Summary.model_validate_json(outputs["report.json"]) == summary
    assert "[red]" in outputs["report.json"]
    assert len(outputs["report.html"]) < 1_000_000


def test_every_markdown_row_has_as_many_cells_as_its_heading(tmp_path):
    text = every_output(hostile_summary(), tmp_path)["report.md"]
    tables = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    assert len(tables) > 5
    for table in tables:
        assert len({line.count("|") for line in table}) == 1


def own_scripts(page):
    """Return the number of scripts that would run; what is marked as data does not."""
    return sum(tag == "script" and a.get("type") != "application/json" for tag, a in page.elements)


def test_the_page_needs_no_network_and_runs_only_the_script_that_its_policy_names(tmp_path):
    text = every_output(several_methods(), tmp_path)["report.html"]
    page = Page(text)
    policy = next(a["content"] for tag, a in page.elements if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy
    assert own_scripts(page) == 1
    for element, directive in (("style", "style-src"), ("script", "script-src")):
        (source,) = re.findall(rf"<{element}>(.*?)</{element}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()
        assert f"{directive} 'sha256-{digest}'" in policy
    for tag, attributes in page.elements:
        assert "style" not in attributes, tag
        assert not any(name.startswith("on") for name in attributes), tag
        for name in ("src", "href", "xlink:href", "data", "action", "srcset"):
            # The page's own data, which a browser saves and never opens.
            start = "data:application/gzip;base64," if attributes.get("id") == "download" else "#"
            assert attributes.get(name, start).startswith(start), (tag, attributes)
    assert not re.search(r"url\((?!#)|@import|https?://", text)


def test_the_page_reads_in_order_and_names_its_parts(tmp_path):
    text = every_output(several_methods(), tmp_path)["report.html"]
    page = Page(text)
    levels = [int(tag[1]) for tag in page.names() if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    assert page.names().count("table") == page.names().count("caption")
    identities = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(identities) == len(set(identities))
    links = [a["href"][1:] for tag, a in page.elements if tag == "a" and "download" not in a]
    assert set(links) <= set(identities)
    for tag, attributes in page.elements:
        if tag == "svg":
            assert attributes["role"] == "img"
            assert attributes["aria-labelledby"] in identities


def test_pictures_hold_numbers_and_names_only(tmp_path):
    outputs = every_output(make.before_after(), tmp_path)
    pictures = "".join(text for name, text in outputs.items() if name.endswith(".svg"))
    assert "canary-01" in pictures
    for canary in make.canary_set().canaries:
        assert canary.completion not in pictures
    assert "telephone" not in pictures


@pytest.mark.parametrize("width", [80, 200])
def test_the_terminal_gets_at_most_80_columns_and_no_escape_codes_when_it_is_none(width):
    for summary in (
        make.before_after(fail_above=1),
        make.before_after(after=None),
        several_methods(),
        hostile_summary(),
    ):
        text = on_terminal(summary, width)
        assert "\x1b" not in text
        assert max(cell_len(line) for line in text.splitlines()) <= 80


def test_the_terminal_takes_no_text_for_markup():
    summary = hostile_summary("[red]x[/red][/]")
    text = on_terminal(summary, force_terminal=True, no_color=True)
    assert "[red]x[/red][/]" in text


def test_the_terminal_says_verdict_cost_and_controls():
    text = on_terminal(make.before_after())
    for words in (
        "No memorization detected",
        "33.2 → 2.1",
        "indistinguishable",
        "retraining 2 min 32 s (45x slower)",
        "Controls after",
        "95.50 % → 95.40 %",
    ):
        assert words in text


def test_many_canaries_stay_readable(tmp_path):
    canaries = make.canary_set(
        [
            Canary(id=f"canary-{i:05}", template=make.PHONE, completion=f"{i * 7919:010}", repetitions=1)
            for i in range(2_000)
        ],
        num_controls=0,
    )
    bits = {canary.id: 2.0 for canary in canaries.inserted}
    outputs = every_output(make.before_after(bits, bits, canaries), tmp_path)
    assert "Show all 2,000 canaries, not only the 40 worst" in outputs["report.html"]
    assert outputs["report.html"].count("<details name=canary>") > 200
    assert all(canary.id in outputs["report.html"] for canary in canaries.inserted)
    assert "and 1,980 canaries more" in outputs["terminal"]
    assert len(outputs["exposure.svg"]) < 200_000


def test_distributions_that_are_not_drawn_are_said_to_be_elsewhere(tmp_path):
    canaries = make.canary_set(
        [
            Canary(id=f"canary-{i}", template=f"word {i} is {{digits:4}}!", completion=f"{i * 7:04}", repetitions=1)
            for i in range(8)
        ],
        num_controls=0,
    )
    bits = {canary.id: 2.0 for canary in canaries.inserted}
    outputs = every_output(make.before_after(bits, None, canaries), tmp_path)
    assert "report.json holds the distributions of the other 2 templates." in outputs["report.html"]
    assert "report.json holds the distributions of 2 more templates." in outputs["report.md"]
    assert "reference-6.svg" in outputs
    assert "reference-7.svg" not in outputs


def test_the_page_shows_visible_signs_for_what_cannot_be_seen(tmp_path):
    text = every_output(hostile_summary(), tmp_path)["report.html"]
    assert "⟨U+202E⟩" in text
    assert "↵" in text
    assert visible(text.replace("\n", "")) == text.replace("\n", "")


@pytest.mark.slow
def test_ten_thousand_canaries_are_reported_in_files_of_a_few_megabytes(tmp_path):
    inserted = [
        Canary(id=f"canary-{i:05}", template=make.PHONE, completion=f"{i * 7919:010}", repetitions=1 + i % 16)
        for i in range(10_000)
    ]
    canaries = make.canary_set(inserted, num_controls=64)
    before = {canary.id: 33.2 - 0.003 * i for i, canary in enumerate(inserted)}
    after = {canary.id: 4.3 - 0.0004 * i for i, canary in enumerate(inserted)}
    files = write_report(make.before_after(before, after, canaries, fail_above=1), tmp_path)
    assert sum(file.stat().st_size for file in files) < 30_000_000
    assert (tmp_path / "report.html").stat().st_size < 4_000_000


def test_certified_bounds_are_called_bounds_and_compared_with_no_figure(tmp_path):
    canaries = make.canary_set([make.canary_set().canaries[0]])
    before = make.with_bounds(make.measurement(canaries, {"canary-01": 3.9}), 0.0, 15.8)
    summary = build_summary(make.manifest(), canaries, make.model_record(), before, [], "story")
    said = estimates_chart(summary).alternative
    assert said == (
        "Exposure of 1 canary by each estimator: in this model they differ most for canary-01, importance 3.9, "
        "sampled 4.1, exact between 0.0 and 15.8."
    )
    out = every_output(summary, tmp_path)
    assert "| bounds 0.0 to 15.8 |" in out["report.md"]
    assert "bounds: the search ran out of budget, so it only certifies bounds." in out["report.md"]
    assert "0.0 to 15.8 <small>bounds: the search ran out of budget</small>" in out["report.html"]


def test_a_single_estimate_differs_from_none():
    canaries = make.canary_set([make.canary_set().canaries[0]])
    before = make.measurement(canaries, {"canary-01": 3.9})
    alone = {"exact": before.canaries[0].estimates["exact"]}
    first = before.canaries[0].model_copy(update={"estimates": alone})
    before = before.model_copy(update={"canaries": (first, *before.canaries[1:])})
    summary = build_summary(make.manifest(), canaries, make.model_record(), before, [], "story")
    assert estimates_chart(summary).alternative == "Exposure of 1 canary by each estimator."


def rounded_away():
    """Return two unlearnings whose figures, as they are shown, lie apart otherwise than their unrounded ones."""
    canaries = make.canary_set()
    ids = [canary.id for canary in canaries.inserted]
    found = {"train_accuracy_before": 0.687849, "train_accuracy_after": 0.685451}
    found |= {"heldout_loss_before": 3.59648, "heldout_loss_after": 3.59552}
    runs = []
    for name, changed in (("first", {"train_accuracy_after": 0.687848}), ("second", {})):
        record = make.unlearning(name, ids)
        record = record.model_copy(update={"fidelity": record.fidelity.model_copy(update=found | changed)})
        runs.append((record, make.measurement(canaries, make.GONE, f"after-{name}", sha=make.UPDATED_SHA)))
    before = make.measurement(canaries, make.EXPOSED)
    return build_summary(make.manifest(), canaries, make.model_record(), before, runs, "story")


def test_a_readers_subtraction_agrees_with_every_change_that_is_shown(tmp_path):
    summary = rounded_away()
    out = every_output(summary, tmp_path)
    assert "68.78 % → 68.55 % (−0.23 points)" in out["terminal"]
    assert "3.596 → 3.596 (0.000)" in out["terminal"]
    assert "| 68.78 % | 68.55 % | −0.23 points |" in out["report.md"]
    assert "| 3.596 | 3.596 | 0.000 |" in out["report.md"]
    assert '68.78 %</td><td class="number">68.55 %</td><td class="number">−0.23 points</td>' in out["report.html"]
    assert "fell by 0.23 percentage points" in out["report.md"]
    assert "accuracy outside the secrets −0.23 points" in out["model-card.md"]
    assert (
        "first (3.4 s): 3.0 bits left, 0.00 points lost; second (3.4 s): 3.0 bits left, 0.23 points lost"
        in (out["report.html"])
    )
    for name in ("report.md", "report.html", "model-card.md", "terminal"):
        assert "0.24 points" not in out[name]
        assert "-0.0" not in re.sub(
            "<svg.*?</svg>|<style>.*?</style>|<script.*?</script>", "", out[name], flags=re.DOTALL
        )
    fidelity = json.loads(out["report.json"])["methods"][1]["fidelity"][0]
    assert fidelity["change"] == pytest.approx(-0.002398)


def test_accuracy_gained_is_a_loss_with_a_true_minus_sign():
    summary = rounded_away()
    gained = summary.methods[0].fidelity[0].model_copy(update={"after": 0.687851})
    method = summary.methods[0].model_copy(update={"fidelity": (gained,), "accuracy_change": 2e-6})
    alternative = method_chart(summary.model_copy(update={"methods": (method, summary.methods[1])})).alternative
    assert ": 3.0 bits left, −0.01 points lost;" in alternative


def test_the_terminal_tells_the_gates_result_and_leaves_the_reasons_to_standard_error():
    file = io.StringIO()
    Console(file=file, width=80).print(render_terminal(make.three_digits(fail_above=10)), soft_wrap=True)
    said = file.getvalue()
    assert "Gate, at most 10 bits, none exposed: FAILED" in said
    assert all(len(line) <= 80 for line in said.splitlines())
