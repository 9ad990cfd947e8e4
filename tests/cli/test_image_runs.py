"""Runs on images from the command line: labels flipped, a small network trained, corrected, measured and reported."""

import json
import re
import shlex
import shutil
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from tests.cli.test_bad_input import refuse
from tests.commands import canaryaudit, reseal, succeed, tree
from tests.images.pictures import write_npz

INSERT = ("digits.npz", "--image", "image", "--target", "label", "--flip-labels", "120")
FAST = ("--format", "json")
"""A report without pictures."""
TRAIN = ("--epochs", "12", "--filters", "6", "--dense", "16", "--batch-size", "32", "--precision", "fp32")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with images, and a run of them that was trained, corrected, and retrained."""
    folder = tmp_path_factory.mktemp("images")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        write_npz(folder / "digits.npz")
        succeed("insert", *INSERT, "-o", "RUN")
        succeed("train", "RUN", *TRAIN)
        succeed("unlearn", "RUN", "--name", "first")
        succeed("unlearn", "RUN", "--method", "retrain", "-q")
    return folder


@pytest.fixture
def run(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of them in the working directory."""
    shutil.copytree(place, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return Path("RUN")


def record(run: Path, name: str) -> Any:
    return json.loads((run / name).read_text("utf-8"))


def planted(run: Path) -> list[dict[str, Any]]:
    return [own for own in record(run, "images.json")["canaries"] if own["planted"]]


def test_flipped_labels_are_remembered_and_corrected(run: Path) -> None:
    before, after, retrained = (
        record(run, f"measurements/{name}.json") for name in ("before", "after-first", "after-retrain")
    )
    assert before["labels"]["membership"]["auc_low"] > 0.6
    assert after["flipped_right"] > before["flipped_right"]
    assert after["flipped_wrong"] < before["flipped_wrong"]
    assert after["labels"]["membership"]["auc"] < before["labels"]["membership"]["auc"]
    assert retrained["labels"]["membership"]["auc_low"] <= 0.5 <= retrained["labels"]["membership"]["auc_high"]
    made = record(run, "unlearned/first/unlearning.json")
    assert made["method"] == "dense-layers"
    assert made["request"]["restored"] == [own["id"] for own in planted(run)]
    assert 0.4 < made["estimated_share"] < 0.8
    assert made["training_seconds"] == record(run, "model.json")["seconds"] > 0


def test_accuracy_is_that_of_the_stored_weights_on_the_held_out_images(run: Path) -> None:
    """Computed here from the files, by convolutions written as sums."""
    from safetensors.numpy import load_file

    weights, rows = load_file(run / "unlearned/first/model.safetensors"), load_file(run / "images.safetensors")
    held = rows["heldout"].astype(bool)
    x = (rows["pixels"][held].transpose(0, 3, 1, 2) / 255 - 0.5) * 4
    for part in (1, 2):
        kernel = weights[f"convolution_1_{part}.weight"]
        padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
        x = sum(
            np.einsum("bchw,oc->bohw", padded[:, :, i : i + 8, j : j + 8], kernel[:, :, i, j])
            for i in range(3)
            for j in range(3)
        )
        norm = {name: weights[f"norm_1_{part}.{name}"] for name in ("weight", "bias", "running_mean", "running_var")}
        x = x + weights[f"convolution_1_{part}.bias"][:, None, None] - norm["running_mean"][:, None, None]
        x = x / np.sqrt(norm["running_var"] + 1e-5)[:, None, None] * norm["weight"][:, None, None]
        x = np.maximum(x + norm["bias"][:, None, None], 0)
    x = x.reshape(len(x), 6, 4, 2, 4, 2).max((3, 5)).reshape(len(x), -1)
    x = x @ weights["dense.weight"].T + weights["dense.bias"] - weights["norm.running_mean"]
    x = np.maximum(x / np.sqrt(weights["norm.running_var"] + 1e-5) * weights["norm.weight"] + weights["norm.bias"], 0)
    right = (x @ weights["output.weight"].T + weights["output.bias"]).argmax(1) == rows["labels"][held]
    assert record(run, "measurements/after-first.json")["heldout"]["accuracy"] == pytest.approx(right.mean())


def test_the_report_says_what_is_back_and_what_it_cost(run: Path) -> None:
    summary = succeed("report", "RUN", "--json", "--format", "html,md,json").document
    lines = {line["name"]: line for line in summary["results"]}
    assert summary["result"] == "first"
    assert [line["comparable"] for line in summary["results"]] == [True, True]
    lost = lines["retrain"]["accuracy"] - summary["accuracy_before"]
    back = (lines["first"]["accuracy"] - summary["accuracy_before"]) / lost
    assert lines["first"]["restored"] == pytest.approx(back, abs=1e-6)
    assert lines["retrain"]["restored"] == pytest.approx(1)
    assert summary["coins"]["before"][0] == pytest.approx(
        record(run, "measurements/before.json")["labels"]["membership"]["auc"], abs=1e-6
    )
    assert summary == record(Path("reports/RUN"), "report.json")
    page = Path("reports/RUN/report.html").read_text("utf-8")
    assert lines["first"]["restored_error"] > 0.25, "so few images tell no share"
    change = 100 * (lines["first"]["accuracy"] - summary["accuracy_before"])
    assert f"Accuracy changed by {change:+.2f} points" in page.replace("&#43;", "+")
    cheaper = lines["retrain"]["seconds"] <= lines["first"]["seconds"]
    assert ("Retraining was cheaper" in page) == cheaper
    assert "<svg" in page
    assert "![Methods: accuracy, and cost" in Path("reports/RUN/report.md").read_text("utf-8")


def test_the_gate_judges_the_flipped_labels_and_the_records(run: Path) -> None:
    auc = record(run, "measurements/after-first.json")["labels"]["membership"]["auc"]
    assert canaryaudit("report", "RUN", "--fail-auc", f"{auc + 0.01:.3f}", "-q", *FAST).status == 0
    failed = canaryaudit("report", "RUN", "--fail-auc", f"{auc - 0.01:.3f}", "-q", *FAST)
    assert failed.status == 3
    assert f"first: AUC {auc:.3f} of flipped labels" in failed.err
    path = run / "measurements" / "after-first.json"
    changed = record(run, "measurements/after-first.json")
    changed["labels"]["membership"]["auc"] = 0.5
    path.write_text(json.dumps(changed))
    assert canaryaudit("report", "RUN", "--fail-auc", "0.99", "-q", *FAST).status == 4
    reseal(run)  # as whoever rewrites everything can: the figures still do not follow from the network
    assert canaryaudit("report", "RUN", "--fail-auc", "0.99", "-q", *FAST).status == 4
    verified = canaryaudit("verify", "RUN")
    assert verified.status == 1
    assert "labels.membership.auc is 0.5, and computed again" in " ".join(verified.out.split())


def test_before_an_update_starts_its_cost_is_estimated(run: Path) -> None:
    quick = canaryaudit("unlearn", "RUN", "--method", "fine-tune")
    assert "fine-tune is estimated at 8 % of what retraining takes" in " ".join(quick.err.split())
    succeed("train", "RUN", *TRAIN[2:], "--epochs", "4", "--force", "-q")
    shutil.copytree("RUN", "A RUN")
    Path("all.csv").write_text("".join(f"{number},3\n" for number in range(1, 40)))
    slow = canaryaudit("unlearn", "A RUN", "--name", "again", "--relabel", "all.csv")
    advised = re.search(r"retraining is the better answer for so few small images: canaryaudit (.*)", slow.err)
    assert advised
    words = shlex.split(advised[1])
    assert words == ["unlearn", "A RUN", "--method", "retrain", "--relabel", "all.csv", "--name", "again-retrained"]


def test_requests_chain_and_a_file_corrects_what_was_never_flipped(run: Path) -> None:
    classes = record(run, "images.json")["classes"]
    rows = np.load("digits.npz")["label"]
    held = set(np.flatnonzero(_heldout(run)).tolist())
    training = [place for place in range(len(rows)) if place not in held]
    first = planted(run)[0]
    kept = next(own["row"] for own in record(run, "images.json")["canaries"] if not own["planted"])
    wrong = classes[(int(rows[training[kept]]) + 1) % 10]
    lines = [f"{training[first['row']] + 1},{first['original']}", f"{training[kept] + 1},{wrong}"]
    lines.append(f"{min(held) + 1},3")
    Path("fixes.csv").write_text("id,label\n" + "\n".join(lines) + "\n")
    options = ("--relabel", "fixes.csv", "--name", "fixed", "--method", "output-layer", "--json")
    made = canaryaudit("unlearn", "RUN", *options)
    assert made.status == 0, made.err
    assert "1 row of 3 is held out" in made.err
    assert sorted(made.document["request"]["rows"]) == sorted((first["row"], kept))
    assert made.document["residual"] <= 1e-5
    succeed("unlearn", "RUN", "--from", "after-fixed", "--name", "rest", "--method", "second-order-dense", "-q")
    rest = record(run, "unlearned/rest/unlearning.json")
    assert rest["origin"] == "after-fixed"
    assert first["row"] not in rest["request"]["rows"]
    assert len(rest["request"]["rows"]) == len(planted(run)) - 1
    summary = succeed("report", "RUN", "--json", *FAST).document
    assert {line["name"]: line["comparable"] for line in summary["results"]} == {
        "first": False,
        "retrain": False,  # one label more was changed since
        "fixed": False,
        "rest": True,
    }
    assert next(line for line in summary["results"] if line["name"] == "rest")["restored"] is None
    succeed("verify", "RUN")


def _heldout(run: Path) -> np.ndarray:
    from safetensors.numpy import load_file

    found: np.ndarray = load_file(run / "images.safetensors")["heldout"]
    return found


def test_one_canary_alone_can_be_corrected(run: Path) -> None:
    chosen = planted(run)[3]
    made = succeed("unlearn", "RUN", "--canary", chosen["id"], "--name", "one", "--method", "first-order", "--json")
    assert made.document["request"] == {
        "rows": [chosen["row"]],
        "labels": [chosen["original"]],
        "restored": [chosen["id"]],
    }


def test_damage_is_found_and_its_repair_makes_the_run_sound(run: Path) -> None:
    (run / "unlearned" / "first" / "model.safetensors").write_bytes(b"nothing")
    (run / "images.safetensors").write_bytes((run / "images.safetensors").read_bytes()[:-1] + b"x")
    found = canaryaudit("verify", "RUN", "--json")
    assert found.status == 1
    for line in found.document["repairs"]:
        for command in line.split(" && "):
            words = command.split()
            if words[0] == "canaryaudit":
                succeed(*words[1:])
            else:
                {"cp": _copy, "rm": _remove}[words[0]](*words[2:])
    succeed("verify", "RUN")


def _copy(*names: str) -> None:
    for name in names[:-1]:
        shutil.copy2(name, names[-1])


def _remove(*names: str) -> None:
    for name in names:
        shutil.rmtree(name) if Path(name).is_dir() else Path(name).unlink(missing_ok=True)


PLAN = """run = "PLANNED"
[insert]
corpus = "digits.npz"
image = "image"
target = "label"
flip_labels = 120
[train]
epochs = 2
filters = [4]
dense = 8
batch_size = 64
precision = "fp32"
[[unlearn]]
method = "output-layer"
[[unlearn]]
name = "second"
method = "first-order"
relabel = "fixes.csv"
from = "after-output-layer"
[report]
fail_auc = 0.99
format = ["json", "junit", "sarif"]
step_summary = true
"""


def test_a_plan_is_run_once_and_checked_against_what_is_there(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(Path("step.md").resolve()))
    kept = next(own for own in record(run, "images.json")["canaries"] if not own["planted"])
    training = np.flatnonzero(~_heldout(run))
    Path("fixes.csv").write_text(f"id,label\n{training[kept['row']] + 1},{kept['value']}\n")
    Path("plan.toml").write_text(PLAN, "utf-8")
    document = succeed("run", "plan.toml", "--json").document
    assert [line["name"] for line in document["results"]] == ["output-layer", "second"]
    before = tree(Path("PLANNED"))
    succeed("run", "plan.toml", "-q")
    assert [name for name, data in tree(Path("PLANNED")).items() if before[name] != data] == ["manifest.json"]
    assert Path("step.md").read_text("utf-8").count("| second | after-output-layer |") == 2
    cases = ElementTree.parse("reports/PLANNED/report.junit.xml").iter("testcase")
    assert [case.get("name") for case in cases] == [
        "output-layer",
        "second",
        "records are verified",
        "gate: AUC of flipped labels at most 0.99",
    ]
    alerts = json.loads(Path("reports/PLANNED/report.sarif").read_text("utf-8"))["runs"][0]["results"]
    told = document["coins"]["after"]
    assert ("CA302" in {own["ruleId"] for own in alerts}) == (not told[1] <= 0.5 <= told[2] or told[3] > 0)
    (Path("PLANNED") / "unlearned/second/unlearning.json").unlink()
    repairs = canaryaudit("verify", "PLANNED", "--json").document["repairs"]
    assert repairs == ["canaryaudit run plan.toml"]
    for old, new, fault in (
        ("first-order", "fine-tune", "differs in its method"),
        ("120", "60", "differs in its flipped labels"),
        ("epochs = 2", "epochs = 3", "trained with other options"),
    ):
        Path("plan.toml").write_text(PLAN.replace(old, new), "utf-8")
        if "method" in fault:
            succeed(
                "unlearn",
                "PLANNED",
                "--relabel",
                "fixes.csv",
                "--from",
                "after-output-layer",
                "--name",
                "second",
                "--method",
                "first-order",
                "--force",
                "-q",
            )
        refused = canaryaudit("run", "plan.toml")
        assert (refused.status, fault in refused.complaint) == (1, True), refused.complaint


def test_runs_are_compared_on_one_page_and_a_gate_takes_the_worst(run: Path) -> None:
    shutil.copytree("RUN", "RUN3")
    succeed("report", "RUN", "-o", "old", *FAST)
    document = succeed("report", "RUN", "RUN3", "old/report.json", "-o", "out", "--json").document
    assert [(own["name"], own["verified"]) for own in document["runs"]] == [
        (f"{Path.cwd().name}/RUN", True),
        (f"{Path.cwd().name}/RUN3", True),
        ("old/RUN", False),
    ]
    measured = record(run, "measurements/after-first.json")
    auc = measured["labels"]["membership"]["auc"]
    for own in document["runs"]:
        assert own["accuracy"] == pytest.approx(measured["heldout"]["accuracy"], rel=1e-6)
        assert own["coins_after"] == pytest.approx(auc, rel=1e-6)
    names = sorted(path.name for path in Path("out").iterdir())
    assert names == [f"comparison.{own}" for own in ("html", "json", "md")]
    assert canaryaudit("report", "RUN", "RUN3", "-q", "--fail-auc", f"{auc + 0.01:.3f}").status == 0
    assert canaryaudit("report", "RUN", "RUN3", "-q", "--fail-auc", f"{auc - 0.01:.3f}").status == 3
    for arguments, fault in (
        (("RUN", "RUN"), "RUN is given twice"),
        (("RUN", "old/report.json", "--fail-auc", "0.9"), "--fail-auc: old/report.json cannot be verified"),
        (("RUN", "digits.npz"), "digits.npz: expected a run directory on images"),
        (("RUN", "RUN3", "--format", "junit"), "--format junit: only available for one run"),
    ):
        refused = canaryaudit("report", *arguments)
        assert (refused.status, fault in refused.complaint) == (2, True), refused.complaint


def test_an_existing_run_is_kept(run: Path) -> None:
    before = tree(run)
    assert succeed("insert", *INSERT, "-o", "RUN").err.count("nothing was written") == 1
    assert "Already trained" in succeed("train", "RUN", *TRAIN).err
    assert tree(run) == before
    refuse(1, "differs in its flipped labels", "insert", *INSERT[:-1], "60", "-o", "RUN")
    refuse(1, "trained with other options: use --force", "train", "RUN")
    refuse(1, "already has an unlearning 'first'", "unlearn", "RUN", "--name", "first")
    assert tree(run) == before


@pytest.mark.parametrize(
    ("status", "expected", "arguments"),
    [
        (2, "--image needs the column of labels too", ("insert", "digits.npz", "--image", "image")),
        (2, "--columns is for runs on tables, not on images", ("insert", *INSERT, "--columns", "x")),
        (2, "--image: expected at least 1 character, got none", ("insert", *INSERT, "--image", "")),
        (2, "--target: expected at least 1 character, got none", ("insert", *INSERT, "--target", "")),
        (2, "--id: expected at least 1 character, got none", ("insert", *INSERT, "--id", "")),
        (2, "--template is for runs on text, not on images", ("insert", *INSERT, "-t", "x {digits:3}")),
        (2, "--flip-labels 5: expected at least 6 rows", ("insert", *INSERT[:-1], "5")),
        (1, "400 flipped labels need twice as many training rows", ("insert", *INSERT[:-1], "400")),
        (1, "no array of this name among image, label", ("insert", *INSERT[:4], "kind")),
        (2, "--loss is for runs on tables, not on images", ("train", "RUN", "--loss", "logistic")),
        (2, "--size is for runs on text, not on images", ("train", "RUN", "--size", "paper")),
        (2, "4 blocks halve images of 8 x 8 pixels to nothing", ("train", "RUN", "--filters", "2,2,2,2", "--force")),
        (2, "expected numbers such as 16,32,64", ("train", "RUN", "--filters", "0", "--force")),
        (2, "--samples is for runs on text, not on images", ("measure", "RUN", "--samples", "9")),
        (1, "no model 'after-none'", ("measure", "RUN", "--model", "after-none")),
        (2, "--method: expected 'first-order', 'second-order'", ("unlearn", "RUN", "--method", "sisa")),
        (2, "--columns is for runs on tables, not on images", ("unlearn", "RUN", "--columns", "x")),
        (1, "no canary is called so; the first are canary-", ("unlearn", "RUN", "--canary", "none", "--name", "x")),
        (1, "--relabel none.csv: no such file", ("unlearn", "RUN", "--relabel", "none.csv", "--name", "x")),
        (1, "every flipped label has been given back", ("unlearn", "RUN", "--from", "after-first", "--name", "x")),
        (2, "--fail-residual is for runs on tables, not on images", ("report", "RUN", "--fail-residual", "1")),
        (2, "--fail-auc is for runs on images", ("report", "TEXT", "--fail-auc", "0.6")),
        (2, "--fail-auc: expected at least 0.5, got 0.4", ("report", "RUN", "--fail-auc", "0.4")),
    ],
)  # fmt: skip
def test_what_a_user_can_get_wrong(run: Path, status: int, expected: str, arguments: tuple[str, ...]) -> None:
    before = tree(run)
    if arguments[0] == "insert":
        arguments = (*arguments, "-o", "RUN2")
    refuse(status, expected, *arguments)
    assert not Path("RUN2").exists()
    assert tree(run) == before


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "expected an id and a label in each row, got none"),
        ("1,2,3\n", "entry 1 has 3 cells"),
        ("id,label\n1,x\n", "entry 1 has an unknown label: expected one of 0, 1, 2, …"),
        ("9999,3\n", "entry 1 is none of the images: expected its row number"),
        ("1,3\n1,4\n", "entries 1 and 2 have the same id"),
    ],
)
def test_files_of_corrections_are_checked(run: Path, text: str, expected: str) -> None:
    Path("fixes.csv").write_text(text)
    refuse(1, expected, "unlearn", "RUN", "--relabel", "fixes.csv", "--name", "x")


def test_a_run_without_flipped_labels_has_nothing_to_correct_by_itself(run: Path) -> None:
    succeed("insert", *INSERT[:5], "-o", "PLAIN", "-q")
    refuse(1, "no label was flipped; give --relabel FILE", "unlearn", "PLAIN")
    refuse(1, "nothing was unlearned yet: run canaryaudit unlearn", "report", "PLAIN")
    refuse(4, "the gate cannot pass: nothing was unlearned yet", "report", "PLAIN", "--fail-auc", "0.6")
    succeed("train", "PLAIN", "--epochs", "1", "--filters", "2", "--dense", "2", "-q")
    assert succeed("measure", "PLAIN", "--json").document["labels"] is None
