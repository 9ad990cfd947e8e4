"""--json: one document on standard output, with the contract's fields, and nothing else."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.commands import FAST, INSERT, UNLEARN, Result, canaryaudit, succeed

MakeRun = Any

MEASUREMENT = {"schema_version", "model", "canaries", "calibration", "cost"}
CANARY = {
    "id",
    "template",
    "repetitions",
    "control",
    "space_bits",
    "log_perplexity_bits",
    "exposure",
    "estimates",
    "extraction",
}
UNLEARNING = {
    "schema_version",
    "method",
    "scope",
    "replacement",
    "canaries",
    "updates",
    "fidelity",
    "cost",
    "relearning",
}
UPDATE = {"step_norm", "damping", "residual", "curvature_min"}
FIDELITY = {
    "train_accuracy_before",
    "train_accuracy_after",
    "train_accuracy_all_before",
    "train_accuracy_all_after",
    "heldout_loss_before",
    "heldout_loss_after",
}
COST = {
    "seconds",
    "gradients",
    "curvature_products",
    "retraining_seconds",
    "retraining_gradients",
    "preparation_seconds",
    "preparation_gradients",
    "speedup",
}


def only_json(result: Result) -> Any:
    """Return the document, after checking that it is all there is on standard output, in plain ASCII."""
    assert result.status == 0, result.err
    assert result.out[0] in "[{"
    assert result.out.isascii()
    assert "\x1b" not in result.out + result.err
    return result.document


def check_measurement(document: dict[str, Any]) -> None:
    assert document.keys() >= MEASUREMENT
    assert document["schema_version"] == 1
    assert document["calibration"].keys() >= {"controls", "mean_bits", "ks_pvalue"}
    for canary in document["canaries"]:
        assert canary.keys() >= CANARY
        assert canary["exposure"].keys() == {"bits", "low", "high", "method"}
        assert canary["extraction"].keys() >= {"greedy", "beam_rank", "guesses_log2"}


@pytest.mark.parametrize("flags", [(), ("--dry-run",)])
def test_insert(flags: tuple[str, ...]) -> None:
    document = only_json(canaryaudit("insert", "sea.txt", "-o", "RUN", *INSERT, "--json", *flags))
    assert document["schema_version"] == 1
    assert document["run"] == (None if flags else "RUN")
    assert Path("RUN").exists() is not bool(flags)
    assert [canary["repetitions"] for canary in document["canaries"]] == [1, 5]
    assert [len(canary["places"]) for canary in document["canaries"]] == [1, 5]
    assert document["templates"][0]["space_size"] == "1000"
    assert (document["expected_training_seconds"] is not None) is bool(flags)


def test_train(make_run: MakeRun) -> None:
    result = canaryaudit("train", make_run("inserted"), "--epochs", "1", "--json")
    document = only_json(result)
    assert document.keys() >= {"schema_version", "architecture", "sha256", "training"}
    assert document["training"]["epochs"] == 1
    assert "Trained in" in result.err


def test_measure(make_run: MakeRun) -> None:
    run = make_run("trained")
    estimators = "exact,importance,sampled,skew-normal"
    result = canaryaudit("measure", run, "--json", "--estimators", estimators, *FAST)
    check_measurement(only_json(result))
    assert result.document["model"] == "before"
    assert result.document["canaries"][0]["estimates"].keys() >= {"exact", "sampled", "skew_normal"}
    assert "Measured before" in result.err


def test_measure_all_is_a_list_of_measurements(make_run: MakeRun) -> None:
    documents = only_json(canaryaudit("measure", make_run("unlearned"), "--model", "all", "--json", *FAST))
    assert [document["model"] for document in documents] == ["before", "after-second-order"]
    for document in documents:
        check_measurement(document)


@pytest.mark.parametrize("method", ["second-order", "first-order"])
def test_unlearn(make_run: MakeRun, method: str) -> None:
    document = only_json(canaryaudit("unlearn", make_run("measured"), "--method", method, "--json", *UNLEARN))
    assert document.keys() >= UNLEARNING
    assert document["method"] == method
    assert document["canaries"] == ["canary-01", "canary-02"]
    assert document["fidelity"].keys() >= FIDELITY
    assert document["cost"].keys() == COST
    assert all(update.keys() >= UPDATE for update in document["updates"])


def test_report_prints_what_it_writes(make_run: MakeRun) -> None:
    document = only_json(canaryaudit("report", make_run("unlearned"), "--json", "--fail-above", "9.9"))
    assert document["gate"]["status"] == "passed"
    assert Path("reports/RUN/report.html").exists()
    written = succeed("report", "RUN", "--json", "--format", "json", "-o", "again").document
    assert written.keys() == document.keys()


def test_run(workplace: Path) -> None:
    Path("audit.toml").write_text(
        '[insert]\ncorpus = "sea.txt"\ntemplate = ["The code is {digits:3}."]\ncontrols = 8\n'
        "canaries = 2\nrepetitions = [1, 5]\n[train]\nepochs = 1\n[measure]\nsamples = 200\n"
        "[[unlearn]]\nmax_fidelity_drop = 0.5\n",
        "utf-8",
    )
    document = only_json(canaryaudit("run", "audit.toml", "--json"))
    assert document["canaries"]
    assert Path("reports/audit/report.json").exists()


def test_the_file_and_the_output_are_one_document(make_run: MakeRun) -> None:
    run = make_run("measured")
    record = succeed("unlearn", run, "--json", *UNLEARN).document
    assert record == json.loads(Path(run, "unlearned/second-order/unlearning.json").read_text("utf-8"))
    measured = succeed("measure", run, "--json", *FAST).document
    assert measured == json.loads(Path(run, "measurements/before.json").read_text("utf-8"))
