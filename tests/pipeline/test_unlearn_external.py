"""Unlearning from a checkpoint of transformers, as a user does it: a new checkpoint, judged like any other result."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.commands import Result, canaryaudit
from tests.token_models import make_model, make_tokenizer, text_of_words

pytest.importorskip("transformers")
pytestmark = pytest.mark.slow
TEMPLATE = "my code is {digits:4}."
FAST = ("--samples", "200", "--probes", "none")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a run and a tied model in bfloat16 that has learned its text and both canaries."""
    path = tmp_path_factory.mktemp("unlearned")
    words = "\n\n".join(text_of_words(200).split("\n")[::2])  # The lines between hold numbers.
    (path / "words.txt").write_text(words, "utf-8")
    inserted = canaryaudit(
        "insert", path / "words.txt", "-o", path / "run", "-t", TEMPLATE, "-n", "2", "-r", "20", "--controls", "8"
    )
    assert inserted.status == 0, inserted.err
    tokenizer, model = make_tokenizer("triples", 300), make_model("gpt2", 300, width=48)
    model.resize_token_embeddings(len(tokenizer))
    with torch.no_grad():
        for own in model.parameters():
            own.mul_(0.3 if own.ndim > 1 else 1.0)
    ids = torch.tensor(tokenizer((path / "run" / "corpus.txt").read_text("utf-8"))["input_ids"])
    optimizer, generator = torch.optim.AdamW(model.parameters(), lr=4e-3), torch.Generator().manual_seed(0)
    for _ in range(200):
        starts = torch.randint(len(ids) - 49, (8,), generator=generator).tolist()
        batch = torch.stack([ids[start : start + 48] for start in starts])
        optimizer.zero_grad()
        model(input_ids=batch, labels=batch).loss.backward()
        optimizer.step()
    model.bfloat16().save_pretrained(path / "trained")
    tokenizer.save_pretrained(path / "trained")
    return path


def unlearned(place: Path, *options: object) -> Result:
    return canaryaudit("unlearn", place / "run", *FAST, "--max-fidelity-drop", "0.02", *options)


def exposures(place: Path, model: str) -> dict[str, float]:
    record = json.loads((place / "run" / "measurements" / f"{model}.json").read_text("utf-8"))
    return {own["id"]: own["exposure"]["bits"] for own in record["canaries"] if not own["control"]}


@pytest.fixture(scope="module")
def result(place: Path) -> dict[str, Any]:
    """Return the record of unlearning the first canary; the model was not measured before."""
    made = unlearned(place, "--model", f"hf:{place}/trained", "-o", place / "out", "--canary", "canary-01", "--json")
    assert made.status == 0, made.err
    record: dict[str, Any] = json.loads(made.out)
    return record


def test_the_secret_is_found_before_and_gone_after_and_the_other_one_stays(place: Path, result: dict[str, Any]) -> None:
    before, after = exposures(place, "before"), exposures(place, "after-second-order")
    assert before["canary-01"] > 9
    assert after["canary-01"] < 7
    assert after["canary-02"] > before["canary-02"] - 3
    change = result["fidelity"]["heldout_loss_after"] / result["fidelity"]["heldout_loss_before"] - 1
    assert change < 0.02
    assert result["fidelity"]["unit"] == "token"
    assert result["external"]["source"] == f"hf:{place}/out"


@pytest.mark.usefixtures("result")
def test_the_checkpoint_loads_with_its_tokenizer_in_its_own_type(place: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(place / "out", dtype="auto")
    assert model.dtype == torch.bfloat16
    assert model.lm_head.weight.data_ptr() == model.get_input_embeddings().weight.data_ptr()
    text = "my code is 0123."
    own, other = (AutoTokenizer.from_pretrained(place / name)(text)["input_ids"] for name in ("out", "trained"))
    assert own == other
    assert [path.name for path in place.iterdir() if path.name.startswith(".")] == []


@pytest.mark.usefixtures("result")
def test_verify_and_report_judge_it(place: Path) -> None:
    verified = canaryaudit("verify", place / "run")
    assert verified.status == 0, verified.out
    report = canaryaudit("report", place / "run", "-o", place / "report", "--format", "md,json,model-card")
    assert report.status == 0, report.err
    page = (place / "report" / "report.md").read_text("utf-8")
    for words in ("GPT2LMHeadModel", "bits per token", "not known", "Exposure of the other canary"):
        assert words in page
    document = json.loads((place / "report" / "report.json").read_text("utf-8"))
    (canary,) = (own for own in document["canaries"] if own["id"] == "canary-01")
    assert canary["before"]["exposure"]["bits"] > 9
    assert canary["after"]["exposure"]["bits"] < 7
    assert document["methods"][0]["speedup"] is None


@pytest.mark.usefixtures("result")
def test_requests_chain_and_earlier_ones_are_applied_again(place: Path) -> None:
    chained = ("--from", "after-second-order", "--name", "both", "-o", place / "both", "--canary", "canary-02")
    made = unlearned(place, *chained, "--max-fidelity-drop", "0.05")
    assert made.status == 0, made.err
    assert "Using the curvature stored in" in made.err
    assert max(exposures(place, "after-both").values()) < 8
    record = json.loads((place / "run" / "unlearned" / "both" / "unlearning.json").read_text("utf-8"))
    first = json.loads((place / "run" / "unlearned" / "second-order" / "unlearning.json").read_text("utf-8"))
    assert record["fidelity"]["train_loss_before"] == first["fidelity"]["train_loss_before"]


@pytest.mark.usefixtures("result")
def test_a_checkpoint_that_was_retrained_is_a_baseline(place: Path) -> None:
    made = unlearned(place, "--method", "retrain", "--model", f"hf:{place}/trained", "--json")
    assert made.status == 0, made.err
    record = json.loads(made.out)
    assert record["fidelity"]["train_loss_before"] == pytest.approx(record["fidelity"]["train_loss_after"])
    assert exposures(place, "after-retrain")["canary-01"] > 9


def copied(place: Path, to: Path, *, without: str) -> Path:
    """Return a copy of the run that lacks some unlearnings."""
    shutil.copytree(place / "run", to / "run")
    for path in (to / "run").glob(f"unlearned/{without}"):
        shutil.rmtree(path)
    return to / "run"


@pytest.mark.usefixtures("result")
def test_the_result_is_attacked_beside_the_retrained_checkpoint(place: Path) -> None:
    if not (place / "run" / "unlearned" / "retrain").exists():
        assert unlearned(place, "--method", "retrain", "--model", f"hf:{place}/trained").status == 0
    weights = {name: (place / name / "model.safetensors").read_bytes() for name in ("out", "trained")}
    attack = ("attack", place / "run", "--name", "second-order", "--canary", "canary-01", "--steps", "1,4", "--json")
    made, again = canaryaudit(*attack), canaryaudit(*attack)
    assert made.status == 0, made.err
    found = json.loads(made.out)["relearning"]
    assert found["curves"] == json.loads(again.out)["relearning"]["curves"]
    assert (found["unit"], found["window"], found["retrained_name"]) == ("token", 128, "retrain")
    curve = next(own for own in found["curves"] if own["attack"] == "canary-window")
    start = curve["unlearned"][0]["exposure"]["bits"]
    assert start == pytest.approx(exposures(place, "after-second-order")["canary-01"], abs=0.5)
    assert curve["unlearned"][-1]["exposure"]["bits"] > start
    assert curve["retrained"][0]["exposure"]["bits"] > 9
    assert {name: (place / name / "model.safetensors").read_bytes() for name in weights} == weights
    assert canaryaudit("verify", place / "run").status == 0
    report = canaryaudit(
        "report", place / "run", "-o", place / "attacked", "--format", "md,html,json", "--fail-above", "13"
    )
    assert report.status in (0, 3), report.err
    for name in ("report.md", "report.html"):
        page = (place / "attacked" / name).read_text("utf-8")
        assert "Relearning attacks" in page
        assert "windows of 128 tokens per step" in page


@pytest.mark.usefixtures("result")
@pytest.mark.parametrize(
    ("without", "options", "message"),
    [
        ("*", (), "has no unlearned checkpoint to attack: run canaryaudit unlearn"),
        ("retrain", (), "retrain without them, and add that checkpoint with canaryaudit unlearn"),
        ("none", ("--name", "nobody"), "no unlearning is called 'nobody'"),
        ("none", ("--canary", "canary-77"), "does not include 'canary-77'"),
    ],
)
def test_attacks_that_lack_something_say_how_to_go_on(
    place: Path, tmp_path: Path, without: str, options: tuple[str, ...], message: str
) -> None:
    refused = canaryaudit("attack", copied(place, tmp_path, without=without), *options)
    assert refused.status == 1
    assert message in " ".join(refused.err.split())


@pytest.mark.usefixtures("result")
def test_another_model_does_not_take_the_runs_place_unasked(place: Path, tmp_path: Path) -> None:
    run = copied(place, tmp_path, without="none")
    before = (run / "model.json").read_bytes()
    words = ("unlearn", run, *FAST, "--model", f"hf:{place}/out", "-o", tmp_path / "new", "--name", "other")
    refused = canaryaudit(*words)
    assert refused.status == 1
    assert "make a run of its own with canaryaudit insert, or use --force" in " ".join(refused.err.split())
    assert (run / "model.json").read_bytes() == before
    assert not (tmp_path / "new").exists()
    canaryaudit(*words, "--force", "--max-fidelity-drop", "0.05")
    assert json.loads((run / "model.json").read_text("utf-8"))["external"]["source"] == f"hf:{place}/out"


@pytest.mark.usefixtures("result")
@pytest.mark.parametrize(
    ("options", "status", "message"),
    [
        (("-o", "{place}/out", "--name", "x"), 1, "exists: choose another -o"),
        (("-o", "{place}/run/out", "--name", "x"), 1, "lies in the run directory"),
        (("--name", "x"), 1, "Give the folder for the updated checkpoint with -o"),
        (("-o", "{place}/new", "--name", "x", "--solver", "cg"), 2, "--solver only applies to the model that"),
        (("-o", "{place}/new", "--name", "x", "--method", "fine-tune"), 2, "--method fine-tune only applies"),
        (("-o", "{place}/new", "--name", "x", "--method", "retrain"), 2, "give the checkpoint that you retrained"),
        (("-o", "{place}/new", "--name", "x", "--model", "hf:{place}/none"), 1, "no such model folder"),
        (("-o", "{place}/new", "--name", "x", "--model", "{place}/trained"), 2, "expected hf: and the folder"),
        (("-o", "{place}/new", "--adapter", "{place}/a"), 2, "--adapter belongs to a model of transformers"),
        (("-o", "{place}/new", "--name", "x", "--canary", "canary-77"), 1, "no inserted canary is called"),
        (("-o", "{place}/new"), 1, "already has an unlearning 'second-order'"),
    ],
)
def test_bad_requests_are_refused_in_one_line(place: Path, options: tuple[str, ...], status: int, message: str) -> None:
    refused = unlearned(place, *(own.replace("{place}", str(place)) for own in options))
    assert refused.status == status, refused.err
    assert message in " ".join(refused.err.split())
    assert not (place / "new").exists()


def test_a_model_that_was_written_anew_since_is_not_updated(place: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "run", tmp_path / "run")
    shutil.copytree(place / "trained", tmp_path / "moving")
    assert canaryaudit("measure", tmp_path / "run", *FAST, "--model", f"hf:{tmp_path}/moving").status == 0
    config = json.loads((place / "trained" / "config.json").read_text("utf-8"))
    (tmp_path / "moving" / "config.json").write_text(json.dumps(config | {"use_cache": False}), "utf-8")
    refused = canaryaudit("unlearn", tmp_path / "run", *FAST, "-o", tmp_path / "out", "--name", "x")
    assert refused.status == 1
    assert "has changed since it was recorded: measure it again" in " ".join(refused.err.split())
    assert not (tmp_path / "out").exists()


def test_fidelity_is_that_of_the_written_weights(place: Path, tmp_path: Path, result: dict[str, Any]) -> None:
    shutil.copytree(place / "run", tmp_path / "run")
    made = canaryaudit(
        "unlearn", tmp_path / "run", *FAST, "--method", "retrain", "--model", f"hf:{place}/out", "--json", "--force"
    )
    assert made.status == 0, made.err
    again = json.loads(made.out)["fidelity"]
    for name in ("train_loss_after", "heldout_loss_after", "train_accuracy_after"):
        assert again[name] == pytest.approx(result["fidelity"][name], abs=1e-6)


@pytest.mark.usefixtures("result")
def test_a_result_that_was_changed_is_not_measured(place: Path) -> None:
    shutil.copytree(place / "out", place / "kept")
    config = json.loads((place / "out" / "config.json").read_text("utf-8"))
    (place / "out" / "config.json").write_text(json.dumps(config | {"use_cache": False}), "utf-8")
    verified = canaryaudit("verify", place / "run")
    refused = canaryaudit("measure", place / "run", *FAST, "--model", "after-second-order")
    unattacked = canaryaudit("attack", place / "run", "--name", "second-order", "--steps", "1")
    shutil.rmtree(place / "out")
    (place / "kept").rename(place / "out")
    assert verified.status == 1
    assert "out is not the checkpoint that it wrote" in " ".join(verified.out.split())
    assert f"mv {place}/out {place}/out.old && " in verified.out.replace("\n", "")
    assert refused.status == 1
    changed = "has changed since it was recorded: unlearn 'second-order' again with --force"
    assert changed in " ".join(refused.err.split())
    assert unattacked.status == 1
    assert changed in " ".join(unattacked.err.split())


def test_a_run_without_a_model_asks_for_one(place: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "run", tmp_path / "run")
    for name in ("model.json", "measurements", "unlearned"):
        path = tmp_path / "run" / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    refused = canaryaudit("unlearn", tmp_path / "run", "-o", tmp_path / "out")
    assert refused.status == 1
    assert "has no model of transformers yet" in " ".join(refused.err.split())
