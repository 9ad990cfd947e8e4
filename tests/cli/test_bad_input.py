"""What a user can get wrong: each a line with the next step and exit status 1 or 2, and nothing half-written."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.commands import FAST, INSERT, UNLEARN, canaryaudit, succeed, tree

MakeRun = Callable[..., Path]


def refuse(status: int, expected: str, *arguments: str | Path) -> None:
    """Call a command that must fail with ``status`` and one line that holds ``expected``, and change no file."""
    before = tree(Path())
    result = canaryaudit(*arguments)
    assert result.status == status, result.err
    assert expected in result.complaint
    assert result.out == ""
    assert tree(Path()) == before


# --- the corpus -----------------------------------------------------------------------------------------

CORPORA: dict[str, tuple[bytes, str]] = {
    "empty.txt": (b"", "empty: give a file that contains text"),
    "blank.txt": (b" \n\n \n", "only white space"),
    "latin.txt": (
        "café au lait\n\n".encode("latin-1") * 50,
        "not UTF-8 at byte 3: give its encoding, for instance --encoding windows-1252",
    ),
    "utf16.txt": ("tea\n\ncoffee".encode("utf-16"), "UTF-16: add --encoding utf-16"),
    "binary.txt": (bytes(range(256)) * 9, "binary (NUL at byte 0): give plain UTF-8 text"),
    "one_line.txt": (b"the sea is wide " * 625_000, "one paragraph of 10,000,002 characters"),
    "short.txt": (b"one\n\ntwo\n\nthree\n\nfour\n\nfive\n", "too short: 42 insertions need as many places"),
    "picture.png": (b"\x89PNG", "unknown extension: expected .txt"),
    "broken.jsonl": (b'{"text": "a"}\n{"te', "not valid jsonl"),
    "broken.parquet": (b"PAR1xxxx", "not valid parquet"),
}


@pytest.mark.parametrize("name", CORPORA)
def test_a_corpus_that_cannot_be_used(name: str) -> None:
    data, expected = CORPORA[name]
    Path(name).write_bytes(data)
    refuse(1, expected, "insert", name, "-o", "RUN")


@pytest.mark.parametrize(
    ("corpus", "expected"),
    [
        ("nowhere.txt", "no such corpus: nowhere.txt; check the path"),
        ("nowhere", "or a known corpus: alice, harbour"),
        ("runs*", "no file matches runs*: check the pattern"),
        ("sea.txt/x", "no such corpus"),
        ("hub:", "write hub:ID"),
        ("hub:nobody/nothing", "check the id, the split and the network"),
    ],
)
def test_a_corpus_that_is_not_there(corpus: str, expected: str) -> None:
    refuse(1, expected, "insert", corpus, "-o", "RUN")


# --- what to insert -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "status", "expected"),
    [
        (("-t", "no slot"), 2, "has no slot: write {digits:N}"),
        (("-t", ""), 2, "has no slot"),
        (("-t", "{numbers:3}"), 2, "unknown slot {numbers:3}"),
        (("-t", "{digits:0}"), 2, "expected a length of 1 to 999, such as 6 or 6-12, got '0'"),
        (("-t", "{digits:-1}"), 2, "expected a length of 1 to 999, such as 6 or 6-12, got '-1'"),
        (("-t", "{digits:9999}"), 2, "expected a length of 1 to 999"),
        (("-t", "lone { brace {digits:3}"), 2, "in template"),
        (("-t", "{digits:4}", "--secret", "12345"), 2, "a secret of 5 characters does not fit"),
        (("-t", "{digits:4}", "--secret", "abcd"), 2, "does not fit the slots"),
        (("-t", "{digits:4}", "--secret", ""), 2, "does not fit the slots"),
        (("-t", "{digits:1}", "-n", "30", "-r", "1"), 2, "no free one came up in"),
        (("-r", "0"), 2, "--repetitions 0: expected 1 or more"),
        (("-r", "4,-1"), 2, "--repetitions -1: expected 1 or more"),
        (("-r", "often"), 2, "expected whole numbers separated by commas"),
        (("-r", "1.5"), 2, "expected whole numbers separated by commas"),
        (("-r", "9" * 30), 1, "too short"),
        (("-n", "0"), 2, "nothing to audit"),
        (("-n", "-1"), 2, "--canaries: expected at least 0, got -1"),
        (("-n", "9" * 15), 1, "too short"),
        (("-n", "many"), 2, "see canaryaudit insert --help"),
        (("--controls", "-1"), 2, "--controls: expected at least 0"),
        (("--controls", "9" * 15), 2, "--controls: expected at most 10000"),
        (("--holdout", "1"), 2, "--holdout 1: expected a share from 0 to below 1"),
        (("--holdout", "nan"), 2, "--holdout: expected a finite number"),
        (("--skip-chars", "999999"), 1, "leaves nothing of the 12,000"),
        (("--seed", "-1"), 2, "--seed: expected at least 0, got -1"),
        (("--space", "klingon"), 2, "--space: expected 'digits', 'alnum' or 'any', got 'klingon'"),
        (("--no-such-flag",), 2, "No such option"),
    ],
)
def test_an_insertion_that_cannot_be_made(flags: tuple[str, ...], status: int, expected: str) -> None:
    refuse(status, expected, "insert", "sea.txt", "-o", "RUN", *flags)


def test_a_secret_that_stands_in_the_corpus_is_refused_without_being_told() -> None:
    result = canaryaudit("insert", "sea.txt", "-o", "RUN", "-t", "{lower:7}", "--secret", "harbour")
    assert result.status == 1
    assert "already occurs in the corpus" in result.complaint
    assert "harbour" not in result.err


# --- where to --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        (".", "holds other files (sea.txt): choose an empty or a new directory"),
        ("sea.txt", "is a file: choose another directory"),
        ("sea.txt/RUN", "part of the path is a file; choose another directory"),
        ("x" * 300, "the name is too long"),
    ],
)
def test_a_run_directory_that_cannot_be_one(output: str, expected: str) -> None:
    refuse(1, expected, "insert", "sea.txt", "-o", output, *INSERT)


@pytest.mark.parametrize(
    ("flags", "part"),
    [
        (("--seed", "1"), "seed (0)"),
        (("--lowercase",), "lowercase (False)"),
        (("--skip-chars", "900"), "skip_chars (0)"),
        (("--holdout", "0.1"), "holdout (0.05)"),
        (("-n", "3"), "canaries or controls"),
        (("--controls", "9"), "canaries or controls"),
        (("-t", "The key is {digits:3}."), "canaries or controls"),
        (("--secret", "999"), "canaries or controls"),
    ],
)
def test_a_second_insert_with_other_options_must_be_forced(
    make_run: MakeRun, flags: tuple[str, ...], part: str
) -> None:
    run = make_run("trained")
    expected = (
        f"RUN already holds a run that differs in its {part}: choose another directory, or replace the run with --force"
    )
    refuse(1, expected, "insert", "sea.txt", "-o", run, *INSERT, *flags)


def test_a_second_insert_of_a_changed_text_must_be_forced(make_run: MakeRun) -> None:
    run = make_run("trained")
    corpus = Path("sea.txt")
    corpus.write_text(corpus.read_text("utf-8").replace("harbour", "harbor", 1), "utf-8")
    refuse(1, "RUN already holds a run that differs in its corpus (sea.txt)", "insert", corpus, "-o", run, *INSERT)
    succeed("insert", corpus, "-o", run, *INSERT, "--force")
    encoded = {".encoded/corpus.safetensors", ".encoded/heldout.safetensors"}
    assert set(tree(run)) == {"manifest.json", "corpus.txt", "heldout.txt", "canaries.json"} | encoded


@pytest.mark.parametrize("command", ["train", "measure", "unlearn", "report"])
def test_a_run_that_is_none(command: str, workplace: Path) -> None:
    refuse(1, "no such run directory: nowhere; create it: canaryaudit insert", command, "nowhere")
    refuse(1, "is not a run directory", command, workplace)
    refuse(1, "is not a run directory", command, "sea.txt")


# --- damage ----------------------------------------------------------------------------------------------


def truncated(data: bytes) -> bytes:
    return data[: len(data) // 2]


def randomized(data: bytes) -> bytes:
    return bytes((byte * 167 + place * 59) % 256 for place, byte in enumerate(data[:4096]))


def emptied(data: bytes) -> bytes:
    return b""


def bit_flipped(data: bytes) -> bytes:
    """Flip a bit in a file of numbers; in a JSON file, spoil a digit's type."""
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 4]) + data[middle + 1 :]


def newer(data: bytes) -> bytes:
    return json.dumps({**json.loads(data), "schema_version": 2, "novelty": True}).encode()


def of_another_kind(data: bytes) -> bytes:
    return b"[1, 2, 3]"


DAMAGES = (truncated, randomized, emptied, of_another_kind)
UNLEARNED = "unlearned/second-order"


@pytest.mark.parametrize("damage", [*DAMAGES, newer], ids=lambda damage: damage.__name__)
@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("manifest.json", "train"),
        ("manifest.json", "unlearn"),
        ("manifest.json", "report"),
        ("canaries.json", "measure"),
        ("canaries.json", "unlearn"),
        ("canaries.json", "report"),
        ("model.json", "train"),
        ("model.json", "measure"),
        ("model.json", "report"),
        ("measurements/before.json", "report"),
        ("measurements/after-second-order.json", "report"),
        (f"{UNLEARNED}/unlearning.json", "unlearn"),
        (f"{UNLEARNED}/unlearning.json", "report"),
    ],
)
def test_a_damaged_record(make_run: MakeRun, name: str, command: str, damage: Callable[[bytes], bytes]) -> None:
    run = make_run("unlearned")
    path = run / name
    path.write_bytes(damage(path.read_bytes()))
    if damage is newer:
        refuse(1, "was written by a newer canaryaudit (schema 2, this one reads up to 1): upgrade", command, run)
    else:
        refuse(1, f"{path} is damaged", command, run)
        assert "canaryaudit verify RUN" in canaryaudit(command, run).complaint


@pytest.mark.parametrize("damage", [*DAMAGES, bit_flipped], ids=lambda damage: damage.__name__)
@pytest.mark.parametrize(
    ("name", "command", "repair"),
    [
        ("model.safetensors", ("train",), "canaryaudit verify RUN"),
        ("model.safetensors", ("measure",), "canaryaudit verify RUN"),
        ("model.safetensors", ("unlearn", "--name", "again"), "canaryaudit verify RUN"),
        (
            f"{UNLEARNED}/model.safetensors",
            ("measure", "--model", "after-second-order"),
            "with: canaryaudit verify RUN",
        ),
    ],
)
def test_damaged_weights(
    make_run: MakeRun, name: str, command: tuple[str, ...], repair: str, damage: Callable[[bytes], bytes]
) -> None:
    run = make_run("unlearned")
    path = run / name
    path.write_bytes(damage(path.read_bytes()))
    refuse(1, f"{path} is damaged (SHA-256", command[0], run, *command[1:])
    assert repair in canaryaudit(command[0], run, *command[1:]).complaint


@pytest.mark.parametrize("damage", [*DAMAGES, bit_flipped], ids=lambda damage: damage.__name__)
@pytest.mark.parametrize("name", ["model.safetensors", f"{UNLEARNED}/model.safetensors"])
def test_a_report_of_damaged_weights_is_inconclusive(
    make_run: MakeRun, name: str, damage: Callable[[bytes], bytes]
) -> None:
    run = make_run("unlearned")
    (run / name).write_bytes(damage((run / name).read_bytes()))
    result = succeed("report", run, "--format", "json")
    assert result.out.startswith("Inconclusive: the run directory is not as it was written.")
    assert f"{name} is damaged" in result.out


@pytest.mark.parametrize("name", ["corpus.txt", "heldout.txt"])
def test_a_changed_text(make_run: MakeRun, name: str) -> None:
    run = make_run("inserted")
    with (run / name).open("a", encoding="utf-8") as file:
        file.write("one more line\n")
    refuse(1, f"{name} was changed since canaries were inserted", "train", run)


@pytest.mark.parametrize("name", ["manifest.json", "canaries.json", "model.json", "model.safetensors"])
def test_a_directory_in_a_files_place(make_run: MakeRun, name: str) -> None:
    run = make_run("trained")
    (run / name).unlink()
    (run / name).mkdir()
    assert str(run / name) in canaryaudit("measure", run, *FAST).complaint


@pytest.mark.parametrize(
    "name",
    ["model.json", "model.safetensors", "measurements/before.json", f"{UNLEARNED}/unlearning.json"],
)
def test_the_repair_that_is_told_repairs(make_run: MakeRun, name: str) -> None:
    """Delete what is damaged and run what the message says: then everything is as it was."""
    run = make_run("unlearned")
    (run / name).write_bytes(b"rubbish")
    assert f"{name} is damaged" in (told := canaryaudit("report", run, "--format", "json")).out + told.err
    (run / name).unlink()
    succeed("train", run, "--precision", "fp32", *(() if (run / "model.json").exists() else ("--epochs", "2")))
    succeed("measure", run, *FAST)
    if "unlearning" in name:
        succeed("unlearn", run, *UNLEARN)
    succeed("report", run)


# --- what is asked for of a run -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "status", "expected"),
    [
        (("train", "--size", "huge"), 2, "--size: expected 'small' or 'paper', got 'huge'"),
        (("train", "--epochs", "0"), 2, "--epochs: expected more than 0, got 0"),
        (("train", "--target-accuracy", "1.5"), 2, "--target-accuracy: expected less than 1, got 1.5"),
        (("train", "--device", "tpu"), 2, "--device: expected 'auto', 'cpu' or 'cuda', got 'tpu'"),
        (("train", "--precision", "int4"), 2, "--precision: expected 'auto', 'fp32' or 'bf16', got 'int4'"),
        (("train", "--size", "paper"), 1, "RUN has a model trained with size small, not with --size paper"),
        (("train", "--epochs", "7"), 1, "canaryaudit train RUN --epochs 7 --force"),
        (("measure", "--model", "later"), 2, "no model is called 'later': expected before or after-NAME"),
        (("measure", "--model", "after-x"), 1, "RUN has no model 'after-x': choose one of before, after-second-order"),
        (("measure", "--model", "after-../x"), 2, "invalid name"),
        (("measure", "--samples", "1"), 2, "--samples: expected at least 100, got 1"),
        (("measure", "--estimators", "exact,guess"), 2, "--estimators: expected 'exact', 'importance', 'sampled'"),
        (("measure", "--estimators", ""), 2, "--estimators: expected 'exact'"),
        (("measure", "--estimators", "skew-normal"), 2, "add exact, importance or sampled"),
        (
            ("unlearn", "--method", "magic"),
            2,
            "--method: expected 'first-order', 'second-order', 'retrain', 'fine-tune' or 'sisa', got 'magic'",
        ),
        (("unlearn", "--scope", "attic"), 2, "--scope: expected 'final-layer', 'all-layers' or 'both', got 'attic'"),
        (("unlearn", "--name", "x", "--method", "first-order", "--scope", "both"), 2, "is one step"),
        (("unlearn", "--solver", "luck"), 2, "--solver: expected 'kronecker', 'cg' or 'lissa', got 'luck'"),
        (("unlearn", "--name", "x", "--replacement", "nothing"), 2, "expected decoys, sampled, delete or text:WORDS"),
        (("unlearn", "--name", "x", "--replacement", "text:"), 2, "the replacement text is empty"),
        (("unlearn", "--name", "x", "--replacement", "text:Ω"), 1, "does not fit the model"),
        (("unlearn", "--name", "x", "--canary", "canary-99"), 1, "this run has canary-01, canary-02"),
        (("unlearn", "--name", "x", "--canary", "control-001"), 1, "no inserted canary is called 'control-001'"),
        (("unlearn", "--name", "../x"), 2, "invalid name '../x': expected a-z"),
        (("unlearn", "--max-fidelity-drop", "0"), 2, "--max-fidelity-drop: expected more than 0"),
        (("unlearn", "--retain-windows", "-1"), 2, "--retain-windows: expected at least 0, got -1"),
        (("unlearn", "--name", "x", "--replacement", "delete"), 2, "use --replacement decoys, or --method first-order"),
        (("unlearn", "--tau", "-1"), 2, "--tau: expected more than 0, got -1"),
        (("unlearn",), 1, "already has an unlearning 'second-order': use --force to replace it, or another --name"),
        (
            ("report", "--format", "pdf"),
            2,
            "'sarif' or 'model-card', got 'pdf'",
        ),
        (("report", "--fail-above", "-1"), 2, "--fail-above: expected at least 0, got -1"),
        (("report", "-o", "sea.txt"), 1, "a file already exists there"),
    ],
)
def test_what_cannot_be_done(make_run: MakeRun, arguments: tuple[str, ...], status: int, expected: str) -> None:
    refuse(status, expected, arguments[0], make_run("unlearned"), *arguments[1:])


def test_cuda_where_there_is_none(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    refuse(1, "no CUDA device is available: use --device cpu", "train", make_run("inserted"), "--device", "cuda")


# --- plans -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("not toml", "audit.toml is not a valid TOML file"),
        ("run = 1\n", "run: "),
        ('[insert]\ncorpus = "sea.txt"\nsecrets = ["1"]\n', "insert.secrets: unknown key"),
        ("[insert]\nseed = 1\n", "insert.corpus: missing"),
        ('[insert]\ncorpus = "sea.txt"\nrepetitions = "often"\n', "insert.repetitions: expected a list"),
        ('[insert]\ncorpus = "sea.txt"\nsecret = [123456]\n', "insert.secret.0: expected a string"),
        ("[train]\nepochs = 0\n", "train.epochs: expected more than 0, got 0"),
        ('[train]\nsize = "huge"\n', "train.size: expected 'small' or 'paper', got 'huge'"),
        ("[training]\nepochs = 1\n", "training: unknown key"),
        ('[unlearn]\nmethod = "first-order"\n', "unlearn: expected a list"),
    ],
)
def test_a_wrong_plan(text: str, expected: str) -> None:
    Path("audit.toml").write_text(text, "utf-8")
    refuse(2, expected, "run", "audit.toml")
    assert "123456" not in canaryaudit("run", "audit.toml").err


def test_a_plan_that_is_not_there() -> None:
    refuse(2, "cannot read the plan nowhere.toml: No such file or directory; give the path", "run", "nowhere.toml")
    refuse(2, "cannot read the plan .: Is a directory", "run", ".")
    Path("binary.toml").write_bytes(b"\xff\xfe\x00")
    refuse(2, "binary.toml is not a valid TOML file", "run", "binary.toml")


# --- the unforeseen ----------------------------------------------------------------------------------------


def test_an_internal_error_is_one_line_too(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise KeyError("a\nb")

    monkeypatch.setattr("canaryaudit.pipeline.train.train", broken)
    result = canaryaudit("train", make_run("inserted"))
    assert result.status == 1
    assert result.err.count("\n") == 1
    assert "internal error, KeyError" in result.err
    assert "CANARYAUDIT_DEBUG=1" in result.err


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes")])
def test_too_little_memory_says_what_to_do(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr("canaryaudit.pipeline.measure.measure", broken)
    result = canaryaudit("measure", make_run("trained"))
    assert result.status == 1
    assert "out of memory: use fewer --samples" in result.complaint


def test_a_missing_run_directory_of_a_known_corpus_is_named(tmp_path: Path) -> None:
    shutil.rmtree("runs", ignore_errors=True)
    result = canaryaudit("insert", "alice", "-o", "RUN")
    if result.status:  # The text is not shipped, but somebody may have put it where the message says.
        assert "save it as corpora/alice.txt" in result.complaint
