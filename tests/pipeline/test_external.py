"""Models of transformers measured from the command line: a run made by insert needs no train stage."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.commands import Result, canaryaudit
from tests.token_models import make_model, make_tokenizer

pytest.importorskip("transformers")
TEMPLATE = "my code is {digits:3}."
FAST = ("--samples", "200", "--probes", "none")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a run, two checkpoints of a model that memorizes its canary, and a LoRA adapter of it."""
    path = tmp_path_factory.mktemp("external")
    sea = "the sea was calm and the night was long\n\n" * 60
    (path / "sea.txt").write_text(sea, "utf-8")
    inserted = canaryaudit(
        "insert", path / "sea.txt", "-o", path / "run", "-t", TEMPLATE, "-n", "1", "-r", "3", "--controls", "8"
    )
    assert inserted.status == 0, inserted.err
    canaries = json.loads((path / "run" / "canaries.json").read_text("utf-8"))["canaries"]
    secret = next(own["completion"] for own in canaries if not own["control"])
    tokenizer, model = make_tokenizer("merged"), make_model("gpt2", 420, width=32)
    model.resize_token_embeddings(len(tokenizer))
    ids = torch.tensor([tokenizer(f"my code is {secret}.\n" * 2)["input_ids"]])
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for step in range(41):
        if step in (0, 40):
            model.save_pretrained(path / f"out/checkpoint-{step}")
            tokenizer.save_pretrained(path / f"out/checkpoint-{step}")
        optimizer.zero_grad()
        model(ids, labels=ids).loss.backward()
        optimizer.step()
    return path


def measured(place: Path, *options: object) -> Result:
    return canaryaudit("measure", place / "run", *FAST, *options)


def test_a_series_of_checkpoints_shows_exposure_over_training(place: Path) -> None:
    found = measured(place, "--model", f"hf:{place}/out/checkpoint-*", "--json")
    assert found.status == 0, found.err
    record = json.loads(found.out)
    assert record["canaries"][0]["exposure"]["bits"] == pytest.approx(9.97, abs=0.01)
    assert [own["name"] for own in record["checkpoints"]] == ["checkpoint-0"]
    assert record["checkpoints"][0]["exposures_bits"]["canary-01"] < 9
    tokens = record["canaries"][0]["token_bits"]
    assert tokens[-1]["end"] == 3
    assert sum(own["bits"] for own in tokens) == pytest.approx(record["canaries"][0]["log_perplexity_bits"], abs=1e-3)
    verified = canaryaudit("verify", place / "run")
    assert verified.status == 0, verified.out
    report = canaryaudit("report", place / "run", "-o", place / "report", "--format", "md,html,json")
    assert report.status == 0, report.err
    page = (place / "report" / "report.md").read_text("utf-8")
    for words in (
        "GPT2LMHeadModel",
        "Tokenizer",
        "one tokenization of prompt",
        "Other spellings",
        "exposes the secret",
    ):
        assert words in page
    assert "Checkpoint-0: mean " in page
    assert "the measured model: mean 10.0, largest 10.0 bits" in page
    document = json.loads((place / "report" / "report.json").read_text("utf-8"))
    assert [own["name"] for own in document["checkpoints"]] == ["checkpoint-0", "the measured model"]
    shown = document["canaries"][0]["before"]["tokens"]
    assert "".join(own["text"] for own in shown) == document["canaries"][0]["secret"]
    assert "By tokens" in (place / "report" / "report.html").read_text("utf-8")
    again = canaryaudit("measure", place / "run", *FAST, "--json")
    assert json.loads(again.out)["canaries"] == record["canaries"]
    lost = place / "copy"
    shutil.copytree(place / "run", lost)
    (lost / "model.json").unlink()
    assert f"measure {lost} --samples 200" in canaryaudit("verify", lost).out.replace("\n", "")


def test_checkpoints_of_one_name_are_told_by_what_differs_in_their_paths(place: Path, tmp_path: Path) -> None:
    for earlier, later in (("checkpoint-0", "seed-2"), ("checkpoint-40", "seed-10")):
        shutil.copytree(place / "out" / earlier, tmp_path / "runs" / later / "final")
    found = measured(place, "--model", f"hf:{tmp_path}/runs/*/final", "--json")
    assert found.status == 0, found.err
    assert [own["name"] for own in json.loads(found.out)["checkpoints"]] == ["seed-2"]


def test_a_prompt_that_does_not_fit_is_left_out_and_told(place: Path) -> None:
    model = f"hf:{place}/out/checkpoint-40"
    long, short = "the sea was calm and the night was long " * 9, "the night "
    options = ("--samples", "200", "--prompt", long, "--prompt", short)
    found = canaryaudit("measure", place / "run", "--probes", "none", *options, "--model", model, "--json")
    assert found.status == 0, found.err
    record = json.loads(found.out)
    unread = [own for own in record["prompts"] if own["unread"]]
    assert [own["id"] for own in unread] == ["given-1"]
    assert "do not fit into the 128" in unread[0]["unread"]
    assert {own["prompt"] for own in record["canaries"][0]["probes"]} == {"template", "given-2"}
    without = canaryaudit("measure", place / "run", "--probes", "none", *options[:2], *options[4:], "--json")
    alone = json.loads(without.out)["canaries"]
    assert [own["bits"] for own in record["canaries"][0]["probes"]] == [own["bits"] for own in alone[0]["probes"]]
    again = canaryaudit("measure", place / "run", "--probes", "none", *options)
    assert "could not read 1 prompt of 3" in " ".join(again.err.split())
    report = canaryaudit("report", place / "run", "-o", place / "report-unread", "--format", "md")
    assert report.status == 0, report.err
    assert "could not read 1 prompt of 3" in (place / "report-unread" / "report.md").read_text("utf-8")


def test_a_prompt_that_cannot_be_asked_is_refused_before_a_series_is_measured(place: Path) -> None:
    refused = measured(place, "--model", f"hf:{place}/out/checkpoint-*", "--prompt", "my § is ")
    assert refused.status == 1
    assert refused.complaint.startswith("--prompt 1: the corpus has no '§' (U+00A7)")
    assert "checkpoint-0" not in refused.err


def test_what_needs_a_trained_model_is_refused(place: Path) -> None:
    assert measured(place, "--model", f"hf:{place}/out/checkpoint-40").status == 0
    refused = canaryaudit("train", place / "run")
    assert refused.status == 1
    assert "which canaryaudit did not train" in refused.err


@pytest.mark.filterwarnings("ignore::FutureWarning")  # peft asks for what transformers calls otherwise now
def test_adapters_are_merged(place: Path) -> None:
    peft = pytest.importorskip("peft")
    from transformers import AutoModelForCausalLM

    base = place / "out/checkpoint-40"
    config = peft.LoraConfig(target_modules=["c_attn"], init_lora_weights=False, fan_in_fan_out=True)
    model = peft.get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
    model.save_pretrained(place / "adapter")
    plain = json.loads(measured(place, "--model", f"hf:{base}", "--json").out)
    strange = shutil.copytree(place / "adapter", place / "strange")
    weights = load_file(strange / "adapter_model.safetensors")
    save_file({f"module.{name}": own for name, own in weights.items()}, strange / "adapter_model.safetensors")
    assert "does not fit the model" in measured(place, "--model", f"hf:{strange}").err
    adapted = measured(place, "--model", f"hf:{base}", "--adapter", place / "adapter", "--json")
    assert adapted.status == 0, adapted.err
    alone = json.loads(measured(place, "--model", f"hf:{place}/adapter", "--json").out)
    costs = [
        [own["log_perplexity_bits"] for own in record["canaries"]] for record in (plain, json.loads(adapted.out), alone)
    ]
    assert costs[0] != costs[1] == costs[2]


@pytest.fixture
def model(place: Path, tmp_path: Path) -> Path:
    """Return a copy of a checkpoint, to be spoiled."""
    return Path(shutil.copytree(place / "out/checkpoint-0", tmp_path / "model"))


def spoiled(model: Path, how: str) -> tuple[str, ...]:
    """Spoil a model; return further options."""
    config: dict[str, Any] = json.loads((model / "config.json").read_text("utf-8"))
    if how == "pickled":
        (model / "model.safetensors").rename(model / "pytorch_model.bin")
    elif how == "code":
        (model / "config.json").write_text(json.dumps(config | {"auto_map": {"AutoModel": "x.Y"}}), "utf-8")
    elif how == "tokenizer":
        (model / "tokenizer.json").unlink()
    elif how == "config":
        (model / "config.json").write_text("{", "utf-8")
    elif how == "architecture":
        (model / "config.json").write_text(json.dumps(config | {"model_type": "unheard-of"}), "utf-8")
    elif how == "weights":
        (model / "model.safetensors").write_bytes(b"1" * 100)
    elif how in ("wrapped", "fewer layers", "more layers"):
        weights = load_file(model / "model.safetensors")
        if how == "wrapped":
            weights = {f"module.{name}": own for name, own in weights.items()}
        layers = {"fewer layers": 1, "more layers": 3}.get(how, 2)
        save_file(weights, model / "model.safetensors", {"format": "pt"})
        (model / "config.json").write_text(json.dumps(config | {"n_layer": layers}), "utf-8")
    elif how == "vocabulary":
        make_model("gpt2", 300).save_pretrained(model)
    elif how == "not causal":
        from transformers import BertConfig, BertLMHeadModel

        sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 16}
        BertLMHeadModel(BertConfig(vocab_size=420, **sizes)).save_pretrained(model)
    elif how == "adapter":
        return ("--adapter", str(model))
    elif how == "dtype":
        return ("--dtype", "int3")
    else:
        shutil.rmtree(model)
    return ()


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("pickled", "has only pickled weights (pytorch_model.bin), which can run code"),
        ("code", "asks for code of its own (auto_map in config.json), which is never run"),
        ("tokenizer", "has no tokenizer.json"),
        ("config", "config.json is damaged"),
        ("architecture", "is no causal model that transformers can load"),
        ("weights", "is no causal model that transformers can load"),
        ("wrapped", "weights are missing ("),
        ("more layers", "such as transformer.h.2."),
        ("fewer layers", "weights have no place in the model ("),
        ("vocabulary", "and the model knows only 300"),
        ("not causal", "is no causal model: what it reads later changes its predictions"),
        ("adapter", "has no adapter_config.json: it holds no adapter"),
        ("dtype", "--dtype int3: expected one of auto, float32"),
        ("gone", "no such model folder"),
    ],
)
def test_bad_models_are_refused_in_one_line(place: Path, model: Path, how: str, message: str) -> None:
    options = spoiled(model, how)
    refused = measured(place, "--model", f"hf:{model}", *options)
    assert refused.status == 1
    assert message in refused.err
    assert len(refused.err.strip().splitlines()) == 1


def test_options_of_a_model_need_one(place: Path) -> None:
    assert "add --model hf:PATH" in measured(place, "--dtype", "float32").err
    assert "no folder fits" in measured(place, "--model", f"hf:{place}/none-*").err


def test_a_missing_folder_beside_others_is_no_hub_id(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(*_: object, **__: object) -> str:
        raise AssertionError("the hub was asked")

    monkeypatch.setattr("huggingface_hub.snapshot_download", asked)
    monkeypatch.chdir(place)
    refused = measured(place, "--model", "hf:out/checkpoint-41")
    assert refused.status == 1
    assert "no such model folder: out/checkpoint-41" in refused.err
