"""Runs on tables from the command line: the commands for text, on columns, values, labels and rows."""

import csv
import json
import shutil
import stat
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from scipy import optimize, sparse
from scipy.stats import norm

from tests.commands import canaryaudit, reseal, succeed, tree

CITIES = ("Bern", "Linz", "Oslo")
INSERT = ("people.csv", "--target", "income", "--id", "key", "--columns", "city", "--flip-labels", "60")
ROWS = 400


def people() -> list[dict[str, Any]]:
    """Return a table whose labels follow age and hours, with noise; a tenth of the rows is odd."""
    rng = np.random.default_rng(5)
    found = []
    for number in range(ROWS):
        age, hours, city = int(rng.integers(16, 80)), round(float(rng.uniform(5, 60)), 1), str(rng.choice(CITIES))
        rich = age / 80 + hours / 60 + 0.3 * (city == "Oslo") + rng.normal(0, 0.15) > 1.15
        found.append(
            {"key": f"k{number:03}", "age": age, "hours": hours, "city": city, "income": "high" if rich else "low"}
        )
    return found


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a table, and a run of it that was trained and of which what was planted was unlearned."""
    folder = tmp_path_factory.mktemp("tables")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        write(folder / "people.csv", people())
        succeed("insert", *INSERT, "-o", "RUN")
        succeed("unlearn", "RUN", "--name", "first")
    return folder


@pytest.fixture
def run(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of them in the working directory."""
    shutil.copytree(place, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return Path("RUN")


def record(run: Path, name: str) -> Any:
    return json.loads((run / name).read_text("utf-8"))


# --- an independent solution ----------------------------------------------------------------------------


def naive_losses(run: Path, rows: list[dict[str, Any]], columns: tuple[str, ...]) -> np.ndarray:
    """Fit logistic regression by L-BFGS on encoded rows, written here anew; return every row's loss."""
    groups = {group["name"]: group for group in record(run, "table.json")["groups"]}
    parts = []
    for name in columns:
        if name == "city":
            parts += [[float(row["city"] == city) for row in rows] for city in CITIES]
        else:
            low, width = groups[name]["offset"], groups[name]["width"]
            parts.append([(float(row[name]) - low) / width for row in rows])
    matrix = np.array([*parts, np.ones(len(rows))]).T
    signs = np.array([1.0 if row["income"] == "low" else -1.0 for row in rows])

    def value(theta: np.ndarray) -> tuple[float, np.ndarray]:
        margins = signs * (matrix @ theta)
        slopes = -signs / (1 + np.exp(margins))
        return float(np.logaddexp(0, -margins).sum() + theta @ theta / 2), matrix.T @ slopes + theta

    options = {"ftol": 1e-16, "gtol": 1e-9, "maxiter": 5000}
    theta = optimize.minimize(value, np.zeros(matrix.shape[1]), jac=True, method="L-BFGS-B", options=options).x
    return np.logaddexp(0, -signs * (matrix @ theta))


def training(run: Path) -> list[dict[str, Any]]:
    """Return the training rows as they were planted, from the run's own files."""
    import safetensors.numpy

    arrays = safetensors.numpy.load_file(run / "table.safetensors")
    kept = [row for row, out in zip(people(), arrays["heldout"], strict=True) if not out]
    labels = [own for own, out in zip(arrays["codes"], arrays["heldout"], strict=True) if not out]
    return [row | {"income": "low" if positive else "high"} for row, positive in zip(kept, labels, strict=True)]


def test_a_chain_of_requests_ends_where_a_fit_by_other_code_does(run: Path) -> None:
    planted = {own["row"]: own["original"] for own in record(run, "table.json")["canaries"] if own["planted"]}
    rows = [row | {"income": planted.get(index, row["income"])} for index, row in enumerate(training(run))]
    assert record(run, "measurements/after-first.json")["train"]["rows"] == len(rows)
    Path("gone.txt").write_text("".join(f"{row['key']}\n" for row in rows[10:30]), "utf-8")
    Path("fixes.csv").write_text("key,income\n" + "".join(f"{row['key']},low\n" for row in rows[40:60]), "utf-8")
    more = ("--rows", "gone.txt", "--relabel", "fixes.csv", "--replace", "hours=20", "--where", "age<25")
    made = succeed("unlearn", "RUN", "--from", "after-first", "--name", "second", *more, "--json").document
    for index, row in enumerate(rows):
        row["hours"] = 20 if row["age"] < 25 else row["hours"]
        row["income"] = "low" if 40 <= index < 60 else row["income"]
    left = rows[:10] + rows[30:]
    losses = naive_losses(run, left, ("age", "hours"))
    from canaryaudit.pipeline.tables.session import TableSession
    from canaryaudit.progress import NullReporter
    from canaryaudit.records import ModelId
    from canaryaudit.runs.table_directory import TableDirectory

    point = TableSession(TableDirectory(run), (), NullReporter()).model(ModelId("second")).solved.point
    present = point.objective.rows
    ours = np.logaddexp(0, -point.margins)[present.positions[present.present]]
    assert np.abs(ours - losses).max() < 1e-6
    assert made["residual"] <= 1e-6
    assert made["words"].startswith(f"{sum(row['age'] < 25 for row in rows)} values replaced, ")
    assert made["words"].endswith(" labels changed, 20 rows deleted")
    assert made["origin"] == "after-first"


def test_flipped_labels_are_told_before_and_not_after(run: Path) -> None:
    """With as many columns of noise as rows, a model learns every row by heart."""
    rng = np.random.default_rng(1)
    matrix = rng.normal(size=(250, 200))
    np.savez("noise.npz", X=matrix, y=(matrix[:, 0] > 0).astype(int))
    succeed("insert", "noise.npz", "--target", "y", "--flip-labels", "80", "--holdout", "0.1", "-o", "NOISE")
    succeed("train", "NOISE", "--c", "0.1")
    succeed("unlearn", "NOISE")
    before, after = (
        record(Path("NOISE"), f"measurements/{name}.json")["labels"] for name in ("before", "after-second-order")
    )
    assert before["candidates"] == after["candidates"] == 160
    assert before["membership"]["auc_low"] > 0.9
    assert after["membership"]["auc_low"] <= 0.5 <= after["membership"]["auc_high"]
    assert before["epsilon_low"] > 1 > after["epsilon_low"]


def test_a_run_is_private_and_the_same_insertion_changes_nothing(run: Path) -> None:
    files = [path for path in run.rglob("*") if path.is_file()]
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    before = tree(run)
    assert "nothing was written" in succeed("insert", *INSERT, "-o", "RUN").err
    assert tree(run) == before
    again = canaryaudit("insert", *INSERT, "--seed", "1", "-o", "RUN")
    assert (again.status, "differs in its seed (0)" in again.complaint) == (1, True)
    assert tree(run) == before


def test_training_again_with_other_options_needs_force(run: Path) -> None:
    assert "Already trained" in succeed("train", "RUN").err
    refused = canaryaudit("train", "RUN", "--loss", "squared-hinge")
    assert (refused.status, "use --force" in refused.complaint) == (1, True)
    assert succeed("train", "RUN", "--loss", "squared-hinge", "--force", "--json").document["loss"] == "squared-hinge"
    assert "stale" in canaryaudit("verify", "RUN").out


def test_the_report_says_what_was_achieved_and_hides_categories(run: Path) -> None:
    result = succeed("report", "RUN", "--against", "retrain", "--certify", "0.1,1e-5", "--json", "-o", "out")
    document = result.document
    assert document == record(Path("out"), "report.json")
    assert document["run"]["gate"] is None
    assert document["removed"] == ["city, value 1", "city, value 2", "city, value 3"]
    assert document["residual"] <= document["tolerance"]
    assert document["certificate"]["accuracy"] == document["methods"][0]["accuracy"]
    assert document["run"]["coins"][0]["what"] == "flipped labels"
    written = {path.name: path.read_text("utf-8") for path in Path("out").iterdir()}
    assert {"report.html", "report.md", "report.json"} <= set(written)
    for name, text in written.items():
        assert not any(city in text for city in CITIES), name
        assert "k017" not in text
    succeed("report", "RUN", "--against", "left-out", "--reveal-secrets", "-q", "--format", "html", "-o", "out")
    assert "city=Oslo" in Path("out/report.html").read_text("utf-8")
    assert stat.S_IMODE(Path("out/report.html").stat().st_mode) == 0o600


@pytest.mark.parametrize("contents", ["other", "cut", "empty"])
@pytest.mark.parametrize("name", ["model.safetensors", "unlearned/first/model.safetensors"])
def test_damaged_weights_make_the_gate_inconclusive_and_leave_no_earlier_report(
    run: Path, name: str, contents: str
) -> None:
    succeed(*GATE, "1e-6")
    path, data = run / name, (run / name).read_bytes()
    path.write_bytes({"other": data[:-8] + bytes(8), "cut": data[:40], "empty": b""}[contents])
    result = canaryaudit(*GATE, "1e-6")
    assert (result.status, "the gate cannot pass: " in result.err, name in result.err) == (4, True, True)
    assert not Path("reports/RUN/report.json").exists()
    ungated = canaryaudit(*GATE[:-1])
    assert (ungated.status, name in ungated.err) == (1, True)


GATE = ("report", "RUN", "--against", "left-out", "-q", "--format", "json", "--fail-residual")


def test_a_gate_passes_fails_or_is_inconclusive(run: Path) -> None:
    assert succeed(*GATE, "1e-6").status == 0
    failed = canaryaudit(*GATE, "1e-15")
    assert (failed.status, "above 1e-15" in failed.err) == (3, True)
    path = run / "measurements" / "after-first.json"
    path.write_text(path.read_text("utf-8").replace('"residual": ', '"residual":  '), "utf-8")
    assert canaryaudit(*GATE, "1e-6").status == 4
    reseal(run)  # whoever rewrites every checksum, but leaves the figures
    assert canaryaudit(*GATE, "1e-6").status == 0
    assert Path("reports/RUN/report.json").exists()
    shutil.rmtree(run / "unlearned")
    assert canaryaudit(*GATE, "1e-6").status == 4
    assert not Path("reports/RUN/report.json").exists()  # which said that the gate passed


BEFORE = "measurements/before.json"


@pytest.mark.parametrize(
    ("file", "old", "new", "fault"),
    [
        ("measurements/after-first.json", '"accuracy": 0', '"accuracy": 1', "do not follow from the model"),
        ("measurements/after-first.json", '"residual": ', '"residual": 0.5e-7, "old": ', "not a JSON record|old"),
        (
            BEFORE,
            '"mean_loss_difference": 0',
            '"mean_loss_difference": 2',
            "its mean loss difference is 2, and computed",
        ),
        (BEFORE, '"max_loss_difference": 0', '"max_loss_difference": 2', "its largest loss difference is 2, and"),
        (
            "unlearned/first/unlearning.json",
            '"tolerance": 1e-6',
            '"tolerance": 1e-3',
            "its tolerance is not the model's",
        ),
        ("unlearned/first/unlearning.json", '"labels": [', '"labels": ["low", ', "must be as many"),
        ("model.json", '"C": 1.0', '"C": "x"', "does not take"),
        ("unlearned/first/unlearning.json", '"relabeled": [', '"relabeled": [99999999999999999999, ', "less than"),
        ("table.json", '"target": "income"', '"target": "x"', ""),
    ],
)
def test_edited_records_are_found_though_every_checksum_was_rewritten(
    run: Path, file: str, old: str, new: str, fault: str
) -> None:
    path = run / file
    text = path.read_text("utf-8").replace("1e-06", "1e-6")
    assert old in text
    path.write_text(text.replace(old, new, 1), "utf-8")
    assert canaryaudit("verify", "RUN").status == 1  # its checksum
    reseal(run)
    result = canaryaudit("verify", "RUN", "--json")
    if not fault:  # a name that no figure depends on: only a signature shows it
        assert result.document["sound"]
        return
    assert result.status == 1
    found = [own for own in result.document["findings"] if own["state"] == "damaged"]
    assert any(part in own["detail"] for own in found for part in fault.split("|")), result.out


def test_coefficients_of_another_model_are_no_result(run: Path) -> None:
    shutil.copy(run / "model.safetensors", run / "unlearned" / "first" / "model.safetensors")
    assert "damaged" in canaryaudit("verify", "RUN").out
    refused = canaryaudit("unlearn", "RUN", "--from", "after-first", "--name", "second", "--columns", "age")
    assert (refused.status, "is damaged" in refused.complaint) == (1, True)
    assert not (run / "unlearned" / "second").exists()


def test_lost_files_are_made_again_by_the_commands_that_verify_names(run: Path) -> None:
    before = {name: data for name, data in tree(run).items() if name.endswith(".safetensors")}
    for name in ("table.safetensors", "unlearned/first/unlearning.json", "measurements/before.json"):
        (run / name).unlink()
    (run / "curvature.safetensors").write_bytes(b"nothing")
    document = canaryaudit("verify", "RUN", "--json").document
    assert not document["sound"]
    import shlex

    for line in document["repairs"]:
        for part in line.split(" && "):
            words = shlex.split(part)
            if words[0] == "canaryaudit":
                succeed(*words[1:])
            elif words[0] == "cp":
                shutil.copy2(words[-2], words[-1])
            elif words[:2] == ["rm", "-f"]:
                Path(words[-1]).unlink(missing_ok=True)
            else:
                shutil.rmtree(words[-1])
    assert canaryaudit("verify", "RUN").status == 0
    after = tree(run)
    assert {name: after.get(name) for name in before if "curvature" not in name} == {
        name: data for name, data in before.items() if "curvature" not in name
    }


def test_a_signature_is_checked_and_a_changed_name_breaks_it(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEY", "k" * 32)
    succeed("verify", "RUN", "--sign", "env:KEY")
    assert succeed("verify", "RUN", "--key", "env:KEY", "--json").document["signature"] == "valid"
    path = run / "table.json"
    path.write_text(path.read_text("utf-8").replace('"target": "income"', '"target": "x"'), "utf-8")
    reseal(run)
    assert canaryaudit("verify", "RUN", "--key", "env:KEY", "--json").document["signature"] == "invalid"


PUBLISH = ("publish", "RUN", "--certify", "0.1,1e-5", "--releases", "3")


def test_published_coefficients_have_the_certificates_noise_and_nothing_else_of_the_data(run: Path) -> None:
    skops = pytest.importorskip("skops.io")
    first, second = (succeed(*PUBLISH, "-o", f"{name}.skops", "--json").document for name in ("one", "two"))
    sigma = first["certificate"]["sigma"]
    kappa = sigma / (3**0.5 * 2e-6)  # three releases, penalty 1; of one release delta must be 1e-5
    given = norm.cdf(0.5 / kappa - 0.1 * kappa) - np.exp(0.1) * norm.cdf(-0.5 / kappa - 0.1 * kappa)
    assert given == pytest.approx(1e-5, rel=1e-3)
    assert (first["release"], second["release"]) == (1, 2)
    published = [skops.load(f"{name}.skops", trusted=[]) for name in ("one", "two")]
    from safetensors.numpy import load_file

    secret = load_file(run / "unlearned" / "first" / "model.safetensors")["theta"]
    for own in published:
        theta = np.append(own.coef_.ravel(), own.intercept_)
        assert (theta == 0).tolist() == (secret == 0).tolist() == [False, False, True, True, True, False]
        assert 0 < np.abs(theta - secret).max() < 6 * sigma
        assert {*vars(own)} - {*own.get_params()} <= {"coef_", "intercept_", "classes_", "n_features_in_", "n_iter_"}
    assert (published[0].coef_ != published[1].coef_).sum() == 2
    assert stat.S_IMODE(Path("one.skops").stat().st_mode) & 0o044  # to be shared, unlike the run
    report = succeed("report", "RUN", "--against", "left-out", "--certify", "0.1,1e-5", "--format", "json", "--json")
    assert report.document["certificate"]["sigma"] == pytest.approx(sigma, rel=1e-6)
    assert report.document["run"]["releases"] == {"epsilon": 0.1, "delta": 1e-5, "made": 2, "planned": 3}


def test_releases_are_counted_and_the_plan_cannot_change(run: Path) -> None:
    pytest.importorskip("skops.io")

    def refused(expected: str, *arguments: str, status: int = 1) -> None:
        result = canaryaudit(*arguments)
        assert (result.status, expected in result.complaint) == (status, True), result.complaint

    refused("cannot be written: ", *PUBLISH, "-o", "people.csv/model.skops", status=2)
    assert not (run / "releases.json").exists()  # what was not written is no release
    succeed(*PUBLISH, "-o", "one.skops")
    refused("one.skops is there already", *PUBLISH, "-o", "one.skops", status=2)
    refused("give --certify 0.1,1e-05 --releases 3", *PUBLISH[:-1], "4", "-o", "two.skops")
    refused("give --certify 0.1,1e-05 --releases 3", *PUBLISH, "--certify", "1,1e-5", "-o", "two.skops")
    succeed(*PUBLISH, "-o", "one.skops", "--force")
    assert "compare them" in succeed(*PUBLISH, "-o", "two.skops", "--model", "before").err
    for again in (PUBLISH, (*PUBLISH[:-1], "4")):  # no advice that would be refused next
        refused("all 3 planned releases of RUN were made", *again, "-o", "three.skops")
    assert canaryaudit("verify", "RUN").status == 0
    whole = (run / "releases.json").read_text("utf-8")
    (run / "releases.json").write_text(whole.replace('"planned": 3', '"planned": 9'), "utf-8")
    refused("it was changed, so nothing says how much was published", *PUBLISH, "-o", "three.skops")
    assert "releases.json" in canaryaudit("verify", "RUN").out
    (run / "releases.json").unlink()
    refused("it is missing, so nothing says how much was published", *PUBLISH, "-o", "three.skops")
    assert canaryaudit("verify", "RUN").status == 1
    assert not Path("three.skops").exists()


PLAN = """run = "PLANNED"
[insert]
corpus = "people.csv"
target = "income"
id = "key"
columns = ["city"]
flip_labels = 60
[train]
loss = "squared-hinge"
[[unlearn]]
[[unlearn]]
name = "second"
from = "after-second-order"
replace = ["age=0"]
where = ["age<18"]
[report]
fail_residual = 1e-6
against = ["left-out"]
format = ["json", "junit", "sarif"]
step_summary = true
"""


def test_a_plan_is_run_once_and_checked_against_what_is_there(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(Path("step.md").resolve()))
    Path("plan.toml").write_text(PLAN, "utf-8")
    document = succeed("run", "plan.toml", "--json").document
    assert [line["name"] for line in document["run"]["results"]] == ["second-order", "second"]
    assert record(Path("PLANNED"), "model.json")["loss"] == "squared-hinge"
    models = {name: data for name, data in tree(Path("PLANNED")).items() if name.endswith("model.safetensors")}
    succeed("run", "plan.toml", "-q")
    assert models == {name: tree(Path("PLANNED"))[name] for name in models}
    assert Path("step.md").read_text("utf-8").count("| second | after-second-order |") == 2
    Path("PLANNED/unlearned/second/unlearning.json").unlink()
    repairs = canaryaudit("verify", "PLANNED", "--json").document["repairs"]
    assert repairs == ["canaryaudit run plan.toml"]
    succeed("run", "plan.toml", "-q")
    assert canaryaudit("verify", "PLANNED").status == 0
    for old, new, fault in (("age<18", "age<19", "differs in its request"), ("60", "61", "differs in its columns or")):
        Path("plan.toml").write_text(PLAN.replace(old, new), "utf-8")
        refused = canaryaudit("run", "plan.toml")
        assert (refused.status, fault in refused.complaint) == (1, True), refused.complaint
    Path("plan.toml").write_text(PLAN.replace("loss", "size"), "utf-8")
    assert "train.size: unknown key" in canaryaudit("run", "plan.toml").complaint


def test_pipelines_are_told_of_results_and_of_gates_that_did_not_pass(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(Path("step.md").resolve()))
    gate = ("report", "RUN", "--against", "left-out", "-q", "--format", "junit,sarif,json", "--step-summary")
    folder = Path("reports/RUN")

    def outcomes() -> dict[str | None, str]:
        cases = ElementTree.parse(folder / "report.junit.xml").iter("testcase")
        found = {case.get("name"): [own.tag for own in case if own.tag != "system-out"] for case in cases}
        return {name: tags[0] if tags else "passed" for name, tags in found.items()}

    def alerts() -> list[str]:
        document = json.loads((folder / "report.sarif").read_text("utf-8"))["runs"][0]
        rules = [own["id"] for own in document["tool"]["driver"]["rules"]]
        assert all(rules[own["ruleIndex"]] == own["ruleId"] for own in document["results"])
        return [own["ruleId"] for own in document["results"]]

    succeed(*gate, "--fail-residual", "1e-6")
    assert {*outcomes().values()} == {"passed"}
    assert not [own for own in alerts() if own.startswith("CA1")]
    assert canaryaudit(*gate, "--fail-residual", "1e-15").status == 3
    assert outcomes() == {
        "first": "failure",
        "records are verified": "passed",
        "gate: residual at most 1e-15": "failure",
    }
    assert "CA101" in alerts()
    assert canaryaudit("report", "RUN", "--against", "left-out", "-q", "--format", "json").status == 0
    assert [*outcomes()] == ["first", "records are verified"]  # formats of an earlier report agree with the new one
    path = run / "measurements" / "after-first.json"
    path.write_text(path.read_text("utf-8").replace('"residual": ', '"residual":  '), "utf-8")
    assert canaryaudit(*gate, "--fail-residual", "1e-6").status == 4
    assert outcomes() == {
        "first": "passed",
        "records are verified": "error",
        "gate: residual at most 1e-06": "error",
    }
    assert "CA102" in alerts()
    shutil.rmtree(run / "unlearned")
    assert canaryaudit(*gate[:-2], "html", "--step-summary", "--fail-residual", "1e-6").status == 4
    assert outcomes() == {"gate": "error"}
    assert alerts() == ["CA102"]
    assert not (folder / "report.json").exists()
    assert Path("step.md").read_text("utf-8").count("## ") == 4


def test_planted_values_are_given_back(run: Path) -> None:
    plant = ("--plant", "hours=200:40", "--plant", "city=Atlantis:20")
    succeed("insert", "people.csv", "--target", "income", "--id", "key", *plant, "--scale", "none", "-o", "PLANTED")
    table = record(Path("PLANTED"), "table.json")
    assert table["groups"][2]["categories"] == [*CITIES, "Atlantis"]
    succeed("unlearn", "PLANTED")
    before, after = (
        record(Path("PLANTED"), f"measurements/{name}.json")["values"] for name in ("before", "after-second-order")
    )
    assert before["candidates"] == 120
    assert after["membership"]["auc_low"] <= 0.5 <= after["membership"]["auc_high"]
    own = record(Path("PLANTED"), "unlearned/second-order/unlearning.json")
    assert sum(len(part["rows"]) for part in own["request"]["replacements"]) == before["inserted"]
    assert succeed("verify", "PLANTED").status == 0


def test_one_canary_or_several_are_unlearned_and_the_rest_later(run: Path) -> None:
    ids = [own["id"] for own in record(run, "table.json")["canaries"] if own["planted"]][:2]
    succeed("unlearn", "RUN", "--canary", ids[0], "--canary", ids[1], "--name", "two")
    assert record(run, "unlearned/two/unlearning.json")["request"]["restored"] == ids
    succeed("unlearn", "RUN", "--from", "after-two", "--name", "rest")
    first, rest = (record(run, f"unlearned/{name}/unlearning.json") for name in ("first", "rest"))
    assert set(rest["request"]["restored"]) == {*first["request"]["restored"]} - {*ids}
    assert record(run, "measurements/after-rest.json")["train"] == record(run, "measurements/after-first.json")["train"]


def test_retraining_is_a_result_too(run: Path) -> None:
    made = succeed("unlearn", "RUN", "--method", "retrain", "--columns", "city", "--json").document
    assert (made["name"], made["path"]) == ("retrain", "fit from nothing")
    assert made["retraining_work"] > 0


@pytest.mark.parametrize("ending", ["tsv", "parquet", "folder", "npz"])
def test_the_same_table_in_other_formats_gives_the_same_rows(run: Path, ending: str) -> None:
    import pandas as pd
    from safetensors.numpy import load_file

    rows = [{name: own for name, own in row.items() if name != "key"} for row in people()]
    frame, name = pd.DataFrame(rows), f"table.{ending}"
    if ending == "tsv":
        frame.to_csv(name, sep="\t", index=False)
    elif ending == "parquet":
        frame.to_parquet(name)
    elif ending == "folder":
        import datasets

        datasets.Dataset.from_pandas(frame).save_to_disk(name)
    else:
        encoded = np.c_[frame[["age", "hours"]], *(frame["city"] == city for city in CITIES)].astype(float)
        matrix = sparse.csr_matrix(encoded)
        parts = {part: getattr(matrix, part) for part in ("data", "indices", "indptr")}
        np.savez(name, y=frame["income"].to_numpy(str), shape=np.array(matrix.shape), **parts)
    succeed("insert", name, "--target", "y" if ending == "npz" else "income", "-o", "OTHER")
    write(Path("plain.csv"), rows)
    succeed("insert", "plain.csv", "--target", "income", "-o", "PLAIN")
    first, second = (load_file(Path(own) / "table.safetensors") for own in ("PLAIN", "OTHER"))
    assert first.keys() == second.keys()
    for part in first:
        np.testing.assert_array_equal(first[part], second[part])


def test_an_estimator_of_ones_own_is_taken_from_a_skops_file(run: Path) -> None:
    skops = pytest.importorskip("skops.io")
    dump, load = skops.dump, skops.load
    from safetensors.numpy import load_file
    from sklearn.linear_model import LogisticRegression

    write(Path("plain.csv"), [{name: own for name, own in row.items() if name != "key"} for row in people()])
    succeed("insert", "plain.csv", "--target", "income", "--scale", "none", "-o", "OWN")
    arrays = load_file(Path("OWN/table.safetensors"))
    kept = arrays["heldout"] == 0
    labels = np.where(arrays["codes"] == 1, "low", "high")[kept]
    fitted = LogisticRegression(C=0.2, max_iter=5000, tol=1e-10).fit(arrays["dense"][kept], labels)
    dump(fitted, "own.skops")
    made = succeed("train", "OWN", "--model", "own.skops", "--tolerance", "1e-5", "--json").document
    assert (made["given"], made["penalty"], made["intercept_penalty"]) == (True, 5.0, 0.0)
    succeed("unlearn", "OWN", "--columns", "age", "--save", "new.skops")
    assert succeed("verify", "OWN").status == 0
    new = load("new.skops")
    assert (type(new), new.coef_[0, 0], stat.S_IMODE(Path("new.skops").stat().st_mode)) == (type(fitted), 0, 0o600)
    without = LogisticRegression(C=0.2, max_iter=5000, tol=1e-10).fit(arrays["dense"][kept, 1:], labels)
    np.testing.assert_allclose(new.coef_[0, 1:], without.coef_[0], atol=1e-4)
    for place in ("new.skops", "OWN/new.skops"):
        refused = canaryaudit("unlearn", "OWN", "--name", "again", "--columns", "age", "--save", place)
        assert (refused.status, f"--save {place} is" in refused.complaint) == (2, True)
    made = ("--against", "left-out", "--certify", "1,1e-5", "--format", "json", "--json")
    result = succeed("report", "OWN", *made).document
    assert "the intercept is not regularized" in result["refused"]
    dump(LogisticRegression().fit(arrays["dense"][:, :2], np.where(arrays["codes"] == 1, "low", "high")), "few.skops")
    refused = canaryaudit("train", "OWN", "--model", "few.skops", "--force")
    assert (refused.status, "was fitted on 2 columns, X has 5" in refused.complaint) == (1, True)


def test_a_target_of_three_classes_is_audited_and_unlearned_like_one_of_two(run: Path) -> None:
    skops = pytest.importorskip("skops.io")
    from safetensors.numpy import load_file
    from sklearn.linear_model import LogisticRegression

    rows = [row | {"income": ("low", "middle", "high")[(row["age"] > 40) + (row["hours"] > 40)]} for row in people()]
    write(Path("three.csv"), rows)
    target = ("--target", "income", "--id", "key")
    succeed("insert", "three.csv", *target, "--columns", "city", "--flip-labels", "60", "-o", "THREE")
    succeed("unlearn", "THREE", "--name", "first")
    ids = [f"k{number:03}" for number in range(40)]
    Path("ids.txt").write_text("\n".join(ids), "utf-8")
    Path("fixes.csv").write_text("k100,low\nk101,high\n", "utf-8")
    second = ("--name", "second", "--from", "after-first", "--rows", "ids.txt", "--relabel", "fixes.csv")
    succeed("unlearn", "THREE", *second, "--save", "new.skops")
    assert succeed("verify", "THREE").status == 0
    # The same by scikit-learn, from the file itself: the canaries' labels are their own again.
    table, arrays = record(Path("THREE"), "table.json"), load_file(Path("THREE/table.safetensors"))
    assert (table["classes"], record(Path("THREE"), "model.json")["loss"]) == (["high", "low", "middle"], "multinomial")
    scale = {own["name"]: (own["offset"], own["width"]) for own in table["groups"]}
    fixed = {"k100": "low", "k101": "high"}
    encoded = np.array([[(row[name] - scale[name][0]) / scale[name][1] for name in ("age", "hours")] for row in rows])
    labels = np.array([fixed.get(row["key"], row["income"]) for row in rows])
    trained = arrays["heldout"] == 0
    kept = trained & ~np.isin([row["key"] for row in rows], ids)
    other = LogisticRegression(fit_intercept=False, tol=1e-10, solver="newton-cg", max_iter=1000)
    other.fit(np.c_[encoded, np.ones(ROWS)][kept], labels[kept])
    new = skops.load("new.skops", trusted=[])
    np.testing.assert_allclose(new.coef_[:, :2], other.coef_[:, :2], atol=1e-6)
    np.testing.assert_allclose(new.intercept_, other.coef_[:, 2], atol=1e-6)
    assert not new.coef_[:, 2:].any()
    measured = record(Path("THREE"), "measurements/after-second.json")
    own = np.array([row["income"] for row in rows])  # corrections of rows held out change no row
    right = (other.predict(np.c_[encoded, np.ones(ROWS)][~trained]) == own[~trained]).mean()
    assert measured["heldout"]["accuracy"] == pytest.approx(right, abs=1e-9)
    assert measured["max_loss_difference"] < 1e-6
    before, after = (record(Path("THREE"), f"measurements/{name}.json")["labels"] for name in ("before", "after-first"))
    assert before["membership"]["auc"] > after["membership"]["auc"]
    assert after["membership"]["auc_low"] < 0.5 < after["membership"]["auc_high"]
    brief = ("--against", "retrain", "--format", "json", "--json")
    made = succeed("report", "THREE", "--certify", "0.1,1e-5", "--fail-residual", "1e-6", *brief)
    assert made.document["run"]["gate"]["status"] == "passed"
    update, retrained = made.document["methods"][:2]
    assert (update["f1"], update["accuracy"]) == (retrained["f1"], retrained["accuracy"])
    succeed("publish", "THREE", "--certify", "0.1,1e-5", "-o", "three.skops")
    refused = canaryaudit("train", "THREE", "--loss", "squared-hinge", "--force")
    assert (refused.status, "y has 3 classes, and LinearSVC fits a model for each" in refused.complaint) == (1, True)


def test_runs_are_compared_on_one_page_and_a_gate_takes_the_worst(run: Path) -> None:
    shutil.copytree("RUN", "RUN3")
    succeed("report", "RUN", "--against", "retrain", "-o", "old", "--format", "json")
    document = succeed(
        "report", "RUN", "RUN3", "old/report.json", "-o", "out", "--certify", "1,1e-5", "--json"
    ).document
    assert [(own["name"], own["verified"]) for own in document["runs"]] == [
        (f"{Path.cwd().name}/RUN", True),
        (f"{Path.cwd().name}/RUN3", True),
        ("old/RUN", False),
    ]
    measured = record(run, "measurements/after-first.json")
    for own in document["runs"]:
        assert own["accuracy"] == pytest.approx(measured["heldout"]["accuracy"], rel=1e-6)
        assert own["residual"] == pytest.approx(measured["residual"], rel=1e-6)
        assert own["coins_after"] == pytest.approx(measured["labels"]["membership"]["auc"], rel=1e-6)
    assert sorted(path.name for path in Path("out").iterdir()) == [
        f"comparison.{own}" for own in ("html", "json", "md")
    ]
    assert canaryaudit("report", "RUN", "RUN3", "-q", "--fail-residual", "1e-6").status == 0
    assert canaryaudit("report", "RUN", "RUN3", "-q", "--fail-residual", "1e-15").status == 3
    (Path("RUN3") / "table.safetensors").unlink()
    assert canaryaudit("report", "RUN", "RUN3", "-q", "--fail-residual", "1e-6").status == 4
    for arguments, fault in (
        (("RUN", "RUN"), "RUN is given twice"),
        (("RUN", "old/report.json", "--fail-residual", "1"), "old/report.json cannot be verified"),
        (("RUN", "people.csv"), "people.csv: expected a run directory on a table"),
        (("RUN", "RUN3", "--format", "junit"), "--format junit: only available for one run"),
        (("RUN", "RUN3", "--trend"), "--trend is for runs on text"),
    ):
        refused = canaryaudit("report", *arguments)
        assert (refused.status, fault in refused.complaint) == (2, True), refused.complaint


def test_a_part_of_a_one_hot_group_takes_the_rest_along_and_names_of_a_matrix_stay_hidden(run: Path) -> None:
    rng = np.random.default_rng(0)
    group = rng.integers(0, 3, 120)
    matrix = np.c_[np.eye(3)[group], rng.random((120, 2)) * 9]
    names = ["hush=a", "hush=b", "hush=c", "hush_d", "hush_e"]
    np.savez("hush.npz", X=matrix, y=(matrix[:, 3] > 4).astype(int), columns=np.array(names))
    succeed("insert", "hush.npz", "--target", "y", "--scale", "range", "-o", "HUSH")
    Path("rows.txt").write_text("".join(f"{number}\n" for number in range(1, 100)), "utf-8")
    done = succeed("unlearn", "HUSH", "--columns", "hush=a", "--rows", "rows.txt")
    assert "removed along with their one-hot group: column 2, column 3" in done.err
    assert "columns such as column " in done.err
    succeed("report", "HUSH", "--against", "left-out", "-o", "out", "--format", "html,md,json,junit,sarif", "-q")
    assert not [path for path in Path("out").iterdir() if "hush" in path.read_text("utf-8").replace("hush.npz", "")]
    part = succeed("unlearn", "RUN", "--columns", "city=Oslo", "--name", "part")
    assert "all columns of city were removed, since each follows from the others" in part.err
    request = record(run, "unlearned/part/unlearning.json")["request"]
    assert sorted(request["columns"]) == ["city=Bern", "city=Linz", "city=Oslo"]


def test_a_run_of_the_other_kind_is_replaced_whole(run: Path) -> None:
    Path("sea.txt").write_text("The tide turns at noon. The wind follows it.\n\n" * 60, "utf-8")
    text = ("insert", "sea.txt", "-t", "The code is {digits:3}.", "-n", "2", "-r", "1", "--controls", "4", "-o", "RUN")
    refused = canaryaudit(*text)
    assert (refused.status, "is a run on a table" in refused.complaint) == (1, True)
    succeed(*text, "--force")
    assert not list(run.glob("table.*"))
    assert not (run / "unlearned").exists()
    assert canaryaudit("verify", "RUN").status == 0
    succeed("insert", *INSERT, "--holdout", "0", "-o", "RUN", "--force")
    assert not (run / "corpus.txt").exists()
    assert succeed("unlearn", "RUN", "--json").document["residual"] <= 1e-6
    assert record(run, "measurements/after-second-order.json")["heldout"] is None
    assert succeed("verify", "RUN", "--json").document["sound"]


def test_a_lost_manifest_is_made_again(run: Path) -> None:
    (run / "manifest.json").unlink()
    refused = canaryaudit("measure", "RUN")
    assert (refused.status, "has lost its manifest.json" in refused.complaint) == (1, True)
    assert "--target COLUMN" in refused.complaint
    succeed("insert", *INSERT, "-o", "NEW")
    shutil.copy2("NEW/manifest.json", run / "manifest.json")
    assert canaryaudit("verify", "RUN").status == 1
    succeed("verify", "RUN", "--reseal")
    assert succeed("verify", "RUN").status == 0
