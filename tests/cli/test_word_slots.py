"""Secrets that are words of a list, through every command; the run needs no list afterward."""

import json
import math
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.cli.test_secrets import outputs, runs_of
from tests.commands import FAST, UNLEARN, canaryaudit, succeed

pytestmark = pytest.mark.usefixtures("short_search")

WORDS = ("qzvk", "xwjpf", "qzvkxw", "vqjx", "zzxqv", "jqqzw", "wvzq", "pqxzj", "kvvqx", "xqzw", "jvqzk", "zwqvj")
"""Words that no text, no figure and no digest holds by chance; some begin others."""
PHRASE = "vqjx qzvkxw jqqzw"


@pytest.fixture(autouse=True)
def word_file(workplace: Path) -> Path:
    path = workplace / "Words.txt"
    path.write_text("\n".join((*WORDS, "", WORDS[0])), "utf-8")
    return path


def three_words(secret: str) -> tuple[str, ...]:
    return ("-t", "My seed is {words:Words.txt} {words:Words.txt} {words:Words.txt}.", "--secret", secret)


def among_references(secret: str) -> tuple[str, ...]:
    return ("--references", "Words.txt", "--secret", secret)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "size"),
    [(three_words(PHRASE), 12**3), (among_references("Zqv: jqx!"), 13)],
    ids=["slots", "references"],
)
def test_every_command_takes_words_and_tells_none_of_them(
    word_file: Path, arguments: Sequence[str], size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret, run = arguments[-1], Path("RUN")
    # A model that has learned the secret by heart gives it away.
    monkeypatch.setattr("canaryaudit.exposure.targets.greedy_completion", lambda *_: secret)
    insert = ("insert", "sea.txt", "-o", run, *arguments, "-r", "3", "--controls", "5", "--extend-vocabulary")
    results = [canaryaudit(*insert), canaryaudit(*insert)]
    assert "already exists" in results[1].err
    word_file.unlink()
    results += [
        canaryaudit("train", run, "--epochs", "1", "-v"),
        canaryaudit("measure", run, *FAST, "--json"),
        canaryaudit("unlearn", run, *UNLEARN),
        canaryaudit("report", run, "--format", "html,md,json,junit,model-card"),
        canaryaudit("verify", run),
    ]
    assert [result.status for result in results] == [0] * 7, results
    bits = math.log2(size)
    canary = json.loads(results[3].out)["canaries"][0]
    assert canary["space_bits"] == pytest.approx(bits)
    assert 0 <= canary["exposure"]["bits"] <= bits
    report = json.loads(Path("reports/RUN/report.json").read_text("utf-8"))
    assert report["templates"][0]["space_bits"] == pytest.approx(bits)
    words = len(WORDS) + (size == len(WORDS) + 1)
    assert f"as {words} words (1 empty line skipped, 1 repeated line skipped" in (run / "manifest.json").read_text(
        "utf-8"
    )
    for place, text in outputs(results, run).items():
        assert [part for part in runs_of(secret.lower(), 8) if part in text.lower()] == [], place


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("-t", "It is {words:none.txt}."), "word list none.txt: No such file or directory; give the path"),
        (("--references", "Words.txt", "-t", "It is {digits:3}."), "no template has its slot: write {words:Words.txt}"),
        (("--references", "{x}"), "a template cannot name a file with braces"),
        (("-t", "It is {words:Words.txt}."), "words have symbols that the corpus lacks"),
        (("-t", "It is {words:Words.txt}"), "write the character after the secret too"),
        (("-t", "It is {word}.", "--space", "any"), "a choice of words has no wider space"),
    ],
)
def test_lists_that_cannot_be_used_are_refused_in_one_line(arguments: tuple[str, ...], complaint: str) -> None:
    extend = () if "lacks" in complaint else ("--extend-vocabulary",)
    result = canaryaudit("insert", "sea.txt", "-o", "RUN", *arguments, *extend)
    assert complaint in result.complaint
    assert not Path("RUN").exists()


def test_the_report_of_an_insertion_counts_the_list(workplace: Path) -> None:
    (workplace / "pets.txt").write_text("cat\ndog\nhen\ncow\n", "utf-8")
    result = succeed("insert", "sea.txt", "-o", "RUN", "-t", "A {words:pets.txt}, a {word}.", "-n", "2", "--json")
    (template,) = json.loads(result.out)["templates"]
    assert template["template"] == "A {words:pets.txt}, a {word}."
    lists = json.loads(Path("RUN/canaries.json").read_text("utf-8"))["word_lists"]
    assert [own["name"] for own in lists] == ["pets.txt", ""]
    assert int(template["space_size"]) == 4 * len(lists[1]["words"])
    assert Path("RUN/canaries.json").stat().st_mode & 0o777 == 0o600
