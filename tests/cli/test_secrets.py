"""A user's own secret stands in canaries.json and the corpus, and nowhere else; hostile text harms nothing."""

import base64
import gzip
import io
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from canaryaudit.pipeline.insert import read_secrets
from canaryaudit.plan import InsertOptions, Plan
from tests.commands import FAST, UNLEARN, Result, canaryaudit, succeed, tree
from tests.golden import DOWNLOAD

MakeRun = Callable[..., Path]
pytestmark = pytest.mark.usefixtures("short_search")

SECRET = "qzvkxwjpfm"
"""Letters that no text, no figure and no digest holds by chance."""
TEMPLATE = "My password is {lower:10}."


def outputs(results: list[Result], run: Path) -> dict[str, str]:
    """Return everything that anybody but the owner may see, by where it stands."""
    seen = {f"output {number}": result.out + result.err for number, result in enumerate(results)}
    for place in (run, Path("reports")):
        for name, data in tree(place).items():
            if name not in ("canaries.json", "corpus.txt") and not name.endswith(".safetensors"):
                seen[name] = data.decode("utf-8")
    return seen


def audit(*insert: str, unlearn: tuple[str, ...] = ()) -> tuple[list[Result], Path]:
    """Run every command."""
    run = Path("RUN")
    commands: list[tuple[str | Path, ...]] = [
        ("insert", "sea.txt", "-o", run, *insert, "--dry-run"),
        ("insert", "sea.txt", "-o", run, *insert),
        ("train", run, "--epochs", "1", "-v"),
        ("measure", run, *FAST, "-v"),
        ("measure", run, *FAST, "--json"),
        ("unlearn", run, *UNLEARN, *unlearn),
        ("measure", run, "--model", "all", *FAST, "--json"),
        ("report", run, "--format", "html,md,json,junit,model-card"),
        ("report", run, "--json", "--fail-above", "0.01"),
        ("report", run, "--fail-worse", "reports/RUN/report.json", "-o", "reports/again"),
        ("train", run, "--epochs", "0"),
        ("insert", "sea.txt", "-o", run, *insert),
    ]
    results = [canaryaudit(*arguments) for arguments in commands]
    return results, run


def readable(text: str) -> str:
    """Return what a text tells, in lower case: packed files unpacked; digests, which are chance, left out."""
    text = DOWNLOAD.sub(lambda match: gzip.decompress(base64.b64decode(match[1])).decode(), text)
    return re.sub(r"sha256-[A-Za-z0-9+/=]{20,}", "", text).lower()


def runs_of(secret: str, length: int) -> set[str]:
    return {secret[start : start + length] for start in range(len(secret) - length + 1)}


def test_a_given_secret_is_told_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    # A model that has learned the secret by heart gives it away to every canary that shares its first words.
    monkeypatch.setattr("canaryaudit.exposure.targets.greedy_completion", lambda *_: SECRET)
    results, run = audit("-t", TEMPLATE, "--secret", SECRET, "-n", "1", "-r", "3", "--controls", "8")
    assert [result.status for result in results] == [0, 0, 0, 0, 0, 0, 0, 0, 3, 0, 2, 0], results
    before = json.loads((run / "measurements/before.json").read_text("utf-8"))
    assert [canary["extraction"]["greedy"] for canary in before["canaries"][:2]] == [True, False]
    assert {"RUN/report.junit.xml", "RUN/model-card.md", "again/report.json"} <= set(tree(Path("reports")))
    for place, text in outputs(results, run).items():
        assert [part for part in runs_of(SECRET, 4) if part in readable(text)] == [], place
    argv = json.loads((run / "manifest.json").read_text("utf-8"))["stages"][0]["argv"]
    assert argv[argv.index("--secret") + 1] == "•••"
    assert (run / "canaries.json").stat().st_mode & 0o777 == 0o600


def test_a_located_secret_is_told_nowhere_and_goes_through_every_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("canaryaudit.exposure.targets.greedy_completion", lambda *_: SECRET)
    story = Path("sea.txt").read_text("utf-8")
    told = f"My password is {SECRET}.\n\n"
    Path("sea.txt").write_text(f"{told}{story}\n\n{told}And {SECRET} once more.\n", "utf-8")
    insert = ("--locate", TEMPLATE, "-t", TEMPLATE, "-n", "1", "-r", "3", "--controls", "8")
    results, run = audit(*insert)
    assert [result.status for result in results] == [0, 0, 0, 0, 0, 0, 0, 0, 3, 0, 2, 0], results
    assert "1 other place" in results[0].err
    canaries = json.loads((run / "canaries.json").read_text("utf-8"))["canaries"]
    assert [(c["origin"], c["repetitions"]) for c in canaries[:2]] == [("generated", 3), ("located", 2)]
    for place, text in outputs(results, run).items():
        assert [part for part in runs_of(SECRET, 4) if part in readable(text)] == [], place
    report = json.loads(Path("reports/RUN/report.json").read_text("utf-8"))
    facts = {fact["name"]: fact["value"] for fact in report["provenance"]["facts"] + report["audited"]}
    warned = "On insertion: located secrets also occur at 1 other place of the training text"
    assert any(warning.startswith(warned) for warning in report["warnings"])
    assert "located secrets also occur at 1 other place" in Path("reports/RUN/report.html").read_text("utf-8")
    assert "withheld" in facts["SHA-256 of the corpus"]
    assert "1 generated at random, 1 located in the corpus" in facts["Canaries"]
    succeed("report", run, "--reveal-secrets")
    assert SECRET in Path("reports/RUN/report.md").read_text("utf-8")


@pytest.mark.slow
def test_what_is_detected_is_told_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    values = ("vqxzkj.wpfm", "415-555-2671", "(415) 555-2671", "Ab3Cd4Ef5Gh6Jk7Lm8Np9Qr1St2Uv3Wx4Yz5", "219-09-9998")
    address, phone, again, token, number = values
    monkeypatch.setattr("canaryaudit.exposure.targets.greedy_completion", lambda *_: address)
    story = Path("sea.txt").read_text("utf-8")
    told = f"Write to {address}@example.org or call {phone}. My SSN is {number}, the token ghp_{token}a.\n\n"
    Path("sea.txt").write_text(f"{told}{story}\n\nTel. {again} {told}", "utf-8")
    commands: list[tuple[str, ...]] = [
        ("insert", "sea.txt", "-o", "RUN", "--detect", "all", "--controls", "2", "--dry-run"),
        ("insert", "sea.txt", "-o", "RUN", "--detect", "all", "--controls", "2", "--json"),
        ("train", "RUN", "--epochs", "1", "-v"),
        ("measure", "RUN", *FAST, "-v", "--probes", "none"),
        ("report", "RUN", "--format", "html,md,json,junit,model-card"),
    ]
    results, run = [canaryaudit(*arguments) for arguments in commands], Path("RUN")
    assert [result.status for result in results] == [0] * 5, results
    canaries = json.loads((run / "canaries.json").read_text("utf-8"))["canaries"]
    counts = [(c["kind"], c["repetitions"]) for c in canaries if not c["control"]]
    assert counts == [("phone", 3), ("email", 2), ("ssn", 2), ("key", 2)]
    for place, text in outputs(results, run).items():
        for value in values:
            assert [part for part in runs_of(value.lower(), 6) if part in readable(text)] == [], place


def test_a_secret_typed_in_place_of_a_slot_is_not_repeated() -> None:
    result = canaryaudit("insert", "sea.txt", "-o", "RUN", "--locate", f"My password is {SECRET}.")
    assert "--locate number 1 has no slot" in result.complaint
    assert SECRET not in result.err


@pytest.mark.parametrize("way", ["flag", "file", "input", "environment"])
def test_a_secret_may_come_without_the_command_line(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text = f"{SECRET}\n\r\nqqqqxwjpfm\r\n"
    flags: tuple[str, ...] = ()
    match way:
        case "flag":
            flags = ("--secret", SECRET, "--secret", "qqqqxwjpfm")
        case "file":
            Path("pins.txt").write_text(text, "utf-8")
            flags = ("--secret-file", "pins.txt")
        case "input":
            monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text.encode()), "utf-8"))
            flags = ("--secret-file", "-")
        case _:
            monkeypatch.setenv("CANARYAUDIT_SECRETS", text)
    made = succeed("insert", "sea.txt", "-o", "RUN", "-t", TEMPLATE, "-r", "2", *flags)
    canaries = json.loads(Path("RUN/canaries.json").read_text("utf-8"))["canaries"]
    inserted = [own["completion"] for own in canaries if not own["control"]]
    assert inserted == [SECRET, "qqqqxwjpfm"]
    assert {own["origin"] for own in canaries if not own["control"]} == {"given"}
    told = made.out + made.err + Path("RUN/manifest.json").read_text("utf-8")
    assert SECRET not in told
    assert "qqqqxwjpfm" not in told


@pytest.mark.parametrize(
    ("name", "data", "expected"),
    [
        ("pins.txt", b"", "--secret-file pins.txt: expected one secret per line, got none"),
        ("pins.txt", b"qzvkx\xff\n", "--secret-file pins.txt: expected UTF-8 text, one secret per line"),
        ("absent.txt", b"", "--secret-file absent.txt: No such file or directory"),
        (".", b"", "--secret-file .: Is a directory"),
    ],
)
def test_a_secret_file_that_cannot_serve(name: str, data: bytes, expected: str) -> None:
    Path("pins.txt").write_bytes(data)
    result = canaryaudit("insert", "sea.txt", "-o", "RUN", "-t", TEMPLATE, "--secret-file", name)
    assert result.status == 2
    assert expected in result.complaint
    assert "qzvkx" not in result.err
    assert not Path("RUN").exists()


def test_standard_input_serves_once() -> None:
    result = canaryaudit("insert", "-", "-o", "RUN", "-t", TEMPLATE, "--secret-file", "-")
    assert result.status == 2
    assert "the corpus is read from standard input already" in result.complaint


def test_a_plan_takes_secrets_from_a_file() -> None:
    Path("pins.txt").write_text("123\n", "utf-8")
    plan = Plan(run=Path("PLANNED"), insert=InsertOptions(corpus="sea.txt", secret_file="pins.txt"))
    assert read_secrets(plan.insert).secret == ("123",)
    assert read_secrets(plan.insert).num_canaries == 0


def test_a_given_secret_is_told_when_asked() -> None:
    succeed("insert", "sea.txt", "-o", "RUN", "-t", TEMPLATE, "--secret", SECRET, "-r", "3", "--controls", "8")
    succeed("measure", "RUN", *FAST)
    assert SECRET not in succeed("report", "RUN").out
    assert SECRET not in Path("reports/RUN/report.html").read_text("utf-8")
    assert SECRET in succeed("report", "RUN", "--reveal-secrets").out
    assert SECRET in Path("reports/RUN/report.html").read_text("utf-8")


@pytest.mark.parametrize("flag", [("--secret", SECRET), (f"--secret={SECRET}",), ("--secret", "qzv-kxw-jpfm")])
def test_no_form_of_a_secret_reaches_the_manifest(flag: tuple[str, ...]) -> None:
    template = "{lower:3}-{lower:3}-{lower:4}" if "-kxw-" in flag[-1] else TEMPLATE
    succeed("insert", "sea.txt", "-o", "RUN", "-t", template, *flag, "--controls", "8")
    # A later command may name it again.
    canaryaudit("unlearn", "RUN", *UNLEARN, "--replacement", f"text:{flag[-1].removeprefix('--secret=')}")
    manifest = (Path("RUN") / "manifest.json").read_text("utf-8")
    assert "unlearn" in manifest
    assert not any(part in manifest for part in runs_of(SECRET, 4) | {"qzv-kxw"})


@pytest.mark.parametrize("said", ["scarlet", "green"])
def test_a_chosen_word_is_not_told_by_hiding_it(said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("canaryaudit.exposure.targets.greedy_completion", lambda *_: said)
    template = "The signal lamp is {choice:green|scarlet|amber}."
    succeed("insert", "sea.txt", "-o", "RUN", "-t", template, "--secret", "scarlet", "-r", "3", "--controls", "0")
    argv = json.loads(Path("RUN/manifest.json").read_text("utf-8"))["stages"][0]["argv"]
    assert argv[argv.index("-t") + 1] == template
    assert "scarlet" not in argv
    succeed("train", "RUN", "--epochs", "1")
    succeed("measure", "RUN", "--samples", "200")
    succeed("report", "RUN")
    measurement = json.loads(Path("RUN/measurements/before.json").read_text("utf-8"))
    assert [canary["extraction"]["greedy_text"] for canary in measurement["canaries"]] == ["(hidden)"]
    for name in ("report.html", "report.md", "report.json"):
        text = Path("reports/RUN", name).read_text("utf-8")
        assert not re.search(r"(?<!\|)scarlet(?!\|)", text.replace("&#124;", "|").replace("\\|", "|")), name


# --- hostile text -------------------------------------------------------------------------------------------

HOSTILE = "<script>alert(1)</script> [red]x[/red] | `y` \x1b[31m\x1b]0;z\x07 a\nb\u202ec\u2066\u200b& {digits:4}"


def test_hostile_text_harms_neither_terminal_nor_html_nor_markdown() -> None:
    run = Path("RUN")
    commands: list[tuple[str | Path, ...]] = [
        ("insert", "sea.txt", "-o", run, "-t", HOSTILE, "-n", "2", "-r", "2", "--controls", "8"),
        ("train", run, "--epochs", "1", "-v"),
        ("measure", run, *FAST, "-v"),
        ("unlearn", run, *UNLEARN),
        ("report", run),
        ("insert", "sea.txt", "-o", run, "-t", HOSTILE.replace("4", "0")),
        ("insert", "\x1b[31m.txt", "-o", run),
        ("unlearn", run, "--canary", "\x1b[31m\u202e"),
        ("measure", run, "--model", "after-\x1b[31m"),
        ("train", "\x1b[31m\n\u202e"),
    ]
    results = [canaryaudit(*arguments) for arguments in commands]
    assert [result.status for result in results] == [0, 0, 0, 0, 0, 2, 1, 1, 2, 1]
    for result in results:
        text = result.out + result.err
        assert not set(text) & set("\x1b\x07\r\u202e\u2066\u200b\x9b")
    assert "[red]x[/red]" in results[0].out.replace("\n", "").replace(" ", "") or "[red]x[/red]" in results[0].out
    page = Path("reports/RUN/report.html").read_text("utf-8")
    assert "<script>alert(1)" not in page
    assert not set(page) & set("\x1b\x07\u202e\u2066\u200b")
    markdown = Path("reports/RUN/report.md").read_text("utf-8")
    assert not set(markdown) & set("\x1b\x07\u202e\u2066\u200b")
    prose = re.sub(r"^(`{3,})[^`\n]*\n.*?^\1$", "", markdown, flags=re.DOTALL | re.MULTILINE)
    assert len(prose) > len(markdown) / 2
    assert "<script>" not in re.sub(r"`[^`\n]*`|<code>.*?</code>", "", prose)
    for table in re.findall(r"(?:^\|.*\n)+", markdown, re.MULTILINE):
        cells = {len(re.sub(r"\\\|", "", line).split("|")) for line in table.splitlines()}
        assert len(cells) == 1, table


def test_hostile_text_in_json_stays_data(make_run: MakeRun) -> None:
    result = succeed("insert", "sea.txt", "-o", "RUN", "-t", HOSTILE, "--controls", "8", "--json")
    assert result.out.isascii()
    assert "\x1b" not in result.out
    assert result.document["templates"][0]["template"] == HOSTILE
