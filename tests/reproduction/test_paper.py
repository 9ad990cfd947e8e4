"""The reproduction on a tiny text and model: what it computes by itself, its page, and that it goes on after a kill."""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

from canaryaudit.canaries.template import Template
from canaryaudit.corpus.vocabulary import Vocabulary
from canaryaudit.exposure import effort
from canaryaudit.models.char_lstm import CharLSTM
from canaryaudit.plan import MeasureOptions
from canaryaudit.progress import NullReporter
from canaryaudit.records import ModelId
from canaryaudit.training import loop as training
from tests.commands import ROOT
from tests.reproduction import __main__ as command
from tests.reproduction.laboratory import Laboratory, touched_windows
from tests.reproduction.other_sections import against_controls
from tests.reproduction.page import render, write_page
from tests.reproduction.results import Case, Exposed, Results, collect, read
from tests.reproduction.settings import LENGTHS, TELEPHONE, Settings
from tests.reproduction.stages import CLOSED_FORMS, METHODS, RUN

TINY = MeasureOptions(samples=100, budget=50, max_draws=200, precision_bits=2.0, estimators=("sampled", "skew-normal"))


@pytest.fixture(scope="module", autouse=True)
def tiny_model() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(training.SIZES, "small", (8, 24, 1))
        patch.setattr(effort, "REFERENCES", 63)  # of each of 3,000 probes: what they cost is not the question here
        yield


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    place = tmp_path_factory.mktemp("paper")
    text = (ROOT / "corpora" / "harbour.txt").read_text("utf-8")[:22_000]
    (place / "sea.txt").write_text(text, "utf-8")
    return Settings(
        corpus=str(place / "sea.txt"),
        runs=place / "runs",
        size="small",
        epochs=2,
        target_accuracy=None,
        precision="fp32",
        measure=TINY,
        grid_repetitions=(6,),
        grid_controls=3,
        measured_controls=2,
        sisa={6: (2,)},
        ten_controls=3,
        seeds=(0,),
        seed_controls=3,
        steps=(1,),
        growth_counts=(1, 6),
        growth_controls=2,
        chain=1,
    )


@pytest.fixture(scope="module")
def results(settings: Settings) -> Results:
    for part in RUN.values():
        part(settings, NullReporter(), METHODS)
    return collect(settings.runs / "results")


def test_every_part_finds_every_method_or_says_that_it_was_refused(results: Results) -> None:
    grid = results.of("grid", "grid-6")
    assert {case.method for case in grid} == {"original", *METHODS[1:3], "sisa-2", *CLOSED_FORMS}
    assert {own.length for case in grid if case.method == "text" for own in case.chosen} == set(LENGTHS)
    assert all(case.refused or case.chosen for case in results.cases)
    assert {case.stage for case in results.cases} == set(RUN)
    assert {case.name for case in results.of("growth")} >= {"original", "first-1", "first-6", "at-once", "link-1"}


def test_stale_exposure_is_what_a_hand_calculation_finds(settings: Settings, results: Results) -> None:
    """From the original's fit by SciPy, and the updated model read character by character without states."""
    case = next(case for case in results.of("grid", "grid-6", "text") if case.chosen and case.chosen[0].length == 10)
    own = case.chosen[0]
    original = results.of("grid", "grid-6", "original")[0]
    fit = original.references[own.template].fit
    with Laboratory.open(settings, "grid", NullReporter(), 6) as laboratory:
        model = laboratory.session.model(ModelId(case.name), torch.device("cpu"))
        secret = next(canary.completion for canary in laboratory.inserted if canary.id == own.id)
    assert isinstance(model, CharLSTM)
    vocabulary = Vocabulary(model.architecture.vocabulary)
    forced = greedy = Template.parse(own.template).prefix
    forced_bits = greedy_bits = 0.0
    for character in secret:
        forced_law, greedy_law = _law(model, vocabulary, forced), _law(model, vocabulary, greedy)
        symbol = vocabulary.symbols.index(character)
        forced_bits -= math.log2(forced_law[symbol])
        greedy_bits -= math.log2(greedy_law[symbol])
        forced += character
        greedy += vocabulary.symbols[int(greedy_law.argmax())]
    assert own.greedy_path_bits == pytest.approx(greedy_bits, abs=1e-3)
    assert own.log_perplexity_bits == pytest.approx(forced_bits, abs=1e-3)
    for bits, found in ((greedy_bits, own.stale_bits), (forced_bits, own.stale_forced_bits)):
        by_hand = -stats.skewnorm.logcdf(bits, fit.shape, fit.location, fit.scale) / math.log(2)
        assert found == pytest.approx(min(max(by_hand, 0.0), own.space_bits), abs=0.02)


def _law(model: CharLSTM, vocabulary: Vocabulary, text: str) -> np.ndarray:
    with torch.no_grad():
        logits = model(torch.from_numpy(vocabulary.encode(text))[None].long())[0, -1].double()
    return torch.softmax(logits, 0).numpy()


def test_a_secret_touches_as_many_published_windows_as_it_and_a_window_have_characters() -> None:
    mask = np.zeros(300, dtype=bool)
    mask[100:110] = True
    assert touched_windows(mask, 24) == 24 + 10
    by_hand = sum(bool(mask[start : start + 25].any()) for start in range(300 - 24))
    assert touched_windows(mask, 24) == by_hand
    mask[:5] = True  # At the text's beginning no window starts before the secret.
    assert touched_windows(mask, 24) == 24 + 10 + 5


def test_a_case_is_run_once_and_after_a_kill_only_what_is_missing(
    settings: Settings, results: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = results.of("grid", "grid-6", "retrain")[0]
    path = settings.runs / "results" / "grid-6" / "cases" / "retrain.json"
    before = {own: own.stat().st_mtime_ns for own in settings.runs.glob("results/*/cases/*.json")}
    path.unlink()  # as if killed between the training and its measurement's end

    def refuse(*_: object) -> None:
        raise AssertionError("trained again although it was trained")

    monkeypatch.setattr("tests.reproduction.laboratory.run_unlearning", refuse)
    RUN["grid"](settings, NullReporter(), METHODS)
    again = collect(settings.runs / "results").of("grid", "grid-6", "retrain")[0]
    assert again.model_copy(update={"made": case.made}) == case
    assert {own for own, time in before.items() if own.stat().st_mtime_ns != time} == {path}


def test_other_settings_do_not_go_on_with_a_run(settings: Settings, results: Results) -> None:
    with pytest.raises(SystemExit, match="was made with other settings"):
        RUN["ten"](settings.with_(ten_controls=4), NullReporter(), METHODS)


def test_the_page_has_every_part_and_says_what_was_not_run(results: Results, tmp_path: Path) -> None:
    page = render(results)
    assert page.index("## However it is asked") < page.index("## Means over all")
    assert "Kolmogorov-Smirnov against the controls' worst cases" in page
    assert "### 6 repetitions" in page
    assert "15 repetitions; 30 repetitions; 60 repetitions" in page
    assert "SISA, 5 shards, SISA, 10 shards and SISA, 20 shards at 6 repetitions" in page
    tables = [block for block in page.split("\n\n") if block.startswith("|")]
    for block in tables:
        assert len({line.replace("\\|", "").count("|") for line in block.splitlines()}) == 1
    assert "0123456789" not in page
    without = render(Results(runs=results.runs, cases=tuple(case for case in results.cases if case.stage == "grid")))
    assert without.count("Not run.\n") == 3
    written = write_page(results, tmp_path / "page")
    assert read(written[1]) == results


def test_means_leave_out_what_was_refused_and_claims_say_by_how_much_they_are_missed() -> None:
    cases = [_case("seeds-0", "original", 33.2, 0.97, 2.4, 100.0), _case("seeds-0", "retrain", 1.0, 0.97, 2.4, 100.0)]
    default = _case("seeds-0", "default", 3.0, 0.969, 2.412, 4.0)
    page = render(Results(runs=(), cases=(*cases, default)))
    assert "| exposure against fresh references, mean | at most 2.5 bits | 3.00 | **missed** by 0.50 |" in page
    assert "| accuracy lost outside the secret, largest | at most 0.2 points | 0.10 | met by 0.10 |" in page
    assert "| held-out loss up, largest | at most 1 % | 0.50 | met by 0.50 |" in page
    assert "smallest | at least 50 times | 25.00 | **missed** by 25.00 |" in page
    refused = default.model_copy(update={"refused": "no", "exposed": ()})
    assert "The default was not run." in render(Results(runs=(), cases=(*cases, refused)))


def test_the_page_opens_with_worst_cases_counted_by_hand() -> None:
    found = _case("seeds-0", "default", 0.0, 0.9, 2.0, 1.0, (1.0, 2.0, 3.0, 6.0))
    asked = (("bare", 0.04, 8.0), ("bare", 0.03, 9.0), ("context", 2**-10, 20.0), ("template", 0.06, 3.0))
    exposed = tuple(
        own.model_copy(update={"worst_family": family, "worst_p_value": p_value, "worst_bits": bits})
        for own, (family, p_value, bits) in zip(found.exposed, asked, strict=True)
    )
    known = found.model_copy(update={"exposed": exposed})
    unknown = _case("seeds-0", "retrain", 1.5, 0.9, 2.0, 1.0)
    page = render(Results(runs=(), cases=(known, unknown)))
    assert "| **the default** | 4 | 1.0 | 3.0 | 10.0 | 3 of 4 | 1 of 4 | bare 2, context 1 |" in page
    assert "| retraining | 1 | 1.0 | 1.5 | – | – | – | – |" in page


def test_secrets_that_came_back_are_told_from_controls() -> None:
    rng = np.random.default_rng(0)
    controls = tuple(rng.exponential(1 / math.log(2), 200).tolist())
    unseen = _case("ten", "default", 1.0, 0.9, 2.0, 1.0, tuple(rng.exponential(1 / math.log(2), 10).tolist()))
    back = _case("ten", "default", 1.0, 0.9, 2.0, 1.0, tuple(8 + rng.random(10)))
    assert min(against_controls(unseen.model_copy(update={"control_bits": controls}))) > 0.05
    assert max(against_controls(back.model_copy(update={"control_bits": controls}))) < 1e-6


def _case(
    run: str, name: str, bits: float, accuracy: float, loss: float, seconds: float, all_bits: tuple[float, ...] = ()
) -> Case:
    exposed = tuple(
        Exposed(
            id=f"canary-{number}",
            template=TELEPHONE.format(10),
            length=10,
            repetitions=6,
            chosen=True,
            space_bits=33.2,
            log_perplexity_bits=30.0,
            greedy_path_bits=30.0,
            exposure_bits=own,
            low=own,
            high=own,
            method="exact",
            stale_bits=1.0,
            stale_forced_bits=1.0,
            greedy=False,
            completion="12",
        )
        for number, own in enumerate(all_bits or (bits,))
    )
    return Case(
        stage=run.split("-")[0],
        run=run,
        name=name,
        method=name,
        exposed=exposed,
        train_accuracy=accuracy,
        heldout_loss=loss,
        seconds=seconds,
    )


def test_a_known_text_is_cut_as_its_card_says_under_whatever_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "corpora").mkdir()
    assert Settings(corpus="harbour").cut() == Settings(corpus="harbour")
    text = Path("story.txt")
    text.write_text("HEAD\n\nOnce upon a time.\n\nThe end.\n", "utf-8")
    from canaryaudit.corpus.corpus import read_corpus

    card = (ROOT / "corpora" / "alice.toml").read_text("utf-8").replace("skip-chars 265", "skip-chars 6")
    lines = [line for line in card.splitlines() if not line.startswith("sha256")]
    sha256 = read_corpus(str(text)).sha256
    Path("corpora/alice.toml").write_text("\n".join([f'sha256 = "{sha256}"', *lines]), "utf-8")
    cut = Settings(corpus=str(text)).cut()
    assert (cut.lowercase, cut.skip_chars) == (True, 6)


def test_the_page_in_the_repository_is_made_from_the_results_beside_it() -> None:
    published = ROOT / "reports" / "paper"
    results = read(published / "results.json.xz")
    assert len(results.cases) > 50
    assert (published / "README.md").read_text("utf-8") == render(results)


def test_the_command_writes_the_page_and_refuses_unknown_methods(
    settings: Settings, results: Results, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["page", "--corpus", settings.corpus, "--runs", str(settings.runs), "-o", str(tmp_path)]
    command.main(arguments)
    assert (tmp_path / "README.md").read_text("utf-8") == render(results)
    assert read(tmp_path / "results.json.xz") == collect(settings.runs / "results")
    with pytest.raises(SystemExit):
        command.main([*arguments, "--methods", "magic"])
    assert "no method is called magic" in capsys.readouterr().err
