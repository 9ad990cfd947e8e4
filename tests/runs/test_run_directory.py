"""Tests of canaryaudit.runs.run_directory."""

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from canaryaudit.canaries.insertion import InsertionPlan
from canaryaudit.errors import ModelError, RunDirectoryError
from canaryaudit.exposure.consistency import measurement_fault
from canaryaudit.records import (
    TRAINED_MODEL,
    Architecture,
    Fidelity,
    Manifest,
    Measurement,
    MeasurementCost,
    ModelId,
    ModelRecord,
    StageRun,
    UnlearningCost,
    UnlearningRecord,
)
from canaryaudit.runs import encoded_text as encoded
from canaryaudit.runs.run_directory import RunDirectory
from canaryaudit.runs.seals import is_sealed
from canaryaudit.runs.verification import verify_run
from canaryaudit.storage import files
from canaryaudit.storage import json_records as recordfiles
from tests.wholetext import heldout_text, training_text

MakeRun = Callable[..., RunDirectory]


def tree(path: Path) -> dict[str, bytes]:
    return {str(p.relative_to(path)): p.read_bytes() for p in sorted(path.rglob("*")) if p.is_file()}


def train(run: RunDirectory, weights: bytes = b"weights") -> None:
    sha256 = run.write_weights(TRAINED_MODEL, weights)
    architecture = Architecture(vocabulary="ab", embedding=1, hidden=1, layers=1)
    run.write_model_record(ModelRecord(architecture=architecture, sha256=sha256))


def measure(run: RunDirectory, model: ModelId) -> Measurement:
    measurement = Measurement(
        model=model,
        model_sha256=run.model_record(model).sha256,
        seed=0,
        device="cpu",
        precision="fp32",
        num_references=2,
        search_budget=1,
        precision_bits=0.1,
        max_draws=1,
        time_limit=0,
        efforts=(),
        canaries=(),
        references=(),
        calibration=None,
        memorization=(),
        cost=MeasurementCost(seconds=1, references=2, search_nodes=3, characters_scored=4),
    )
    run.write_measurement(measurement)
    return measurement


def unlearn(run: RunDirectory, name: str, weights: bytes = b"other weights") -> UnlearningRecord:
    figures: dict[str, Any] = {**dict.fromkeys(Fidelity.model_fields, 0.5), "unit": "character"}
    costs: dict[str, Any] = dict.fromkeys(UnlearningCost.model_fields, 1)
    record = UnlearningRecord(
        name=name,
        method="second-order",
        scope="final-layer",
        replacement="decoys",
        canaries=("canary-01",),
        affected_windows=1,
        retention_windows=1,
        seed=0,
        device="cpu",
        precision="fp32",
        model_sha256=run.write_weights(ModelId(name), weights),
        origin_sha256=run.model_record().sha256,
        updates=(),
        fidelity=Fidelity(**figures),
        fidelity_limit=0.003,
        cost=UnlearningCost(**costs),
    )
    run.write_unlearning(record)
    return record


# --- making a run -------------------------------------------------------------------------------------


def test_a_run_gives_back_what_it_was_made_of(make_run: MakeRun, plan: InsertionPlan, tmp_path: Path) -> None:
    make_run(tmp_path / "deep" / "run")
    run = RunDirectory.open(tmp_path / "deep" / "run")
    assert run.text().read() == training_text(plan)
    assert run.heldout().read() == heldout_text(plan)
    assert run.canary_set() == plan.canary_set
    ids = {".encoded/corpus.safetensors", ".encoded/heldout.safetensors"}
    assert set(tree(run.path)) == {".lock", "manifest.json", "corpus.txt", "heldout.txt", "canaries.json", *ids}


def test_only_the_owner_may_read_the_secrets(run: RunDirectory) -> None:
    assert (run.path / "canaries.json").stat().st_mode & 0o777 == 0o600


def test_an_empty_directory_may_become_a_run(make_run: MakeRun, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    assert make_run(tmp_path / "run").manifest.corpus.name == "boats.txt"


def test_a_directory_with_something_else_is_refused_and_untouched(make_run: MakeRun, tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("{}", "utf-8")
    (tmp_path / "thesis.tex").write_text("mine", "utf-8")
    before = tree(tmp_path)
    for replace in (False, True):
        with pytest.raises(RunDirectoryError, match=r"holds other files \(thesis.tex\)"):
            make_run(tmp_path, replace=replace)
    assert tree(tmp_path) == before


@pytest.mark.parametrize("replace", [False, True])
@pytest.mark.parametrize("name", ["corpus.txt", "heldout.txt", "canaries.json", "model.json", "model.safetensors"])
def test_a_users_own_file_of_one_of_our_names_is_refused_and_untouched(
    make_run: MakeRun, tmp_path: Path, name: str, replace: bool
) -> None:
    (tmp_path / name).write_text("my own work", "utf-8")
    before = tree(tmp_path)
    with pytest.raises(RunDirectoryError, match=rf"holds other files \({name}\): choose an empty or a new directory"):
        make_run(tmp_path, replace=replace)
    assert tree(tmp_path) == before


def test_a_file_in_place_of_the_directory_is_refused(make_run: MakeRun, tmp_path: Path) -> None:
    (tmp_path / "run").touch()
    with pytest.raises(RunDirectoryError, match="is a file"):
        make_run(tmp_path / "run")


def test_a_run_is_replaced_only_when_told_and_then_wholly(make_run: MakeRun, run: RunDirectory) -> None:
    fresh = tree(run.path)
    train(run)
    unlearn(run, "x")
    measure(run, TRAINED_MODEL)
    with pytest.raises(RunDirectoryError, match="already holds a run"):
        make_run(run.path)
    assert run.has_measurement(TRAINED_MODEL)
    make_run(run.path, replace=True)
    assert tree(run.path) == fresh


@pytest.mark.parametrize("failing", ["corpus.txt", "heldout.safetensors", "canaries.json", "manifest.json"])
def test_a_failure_leaves_nothing_of_a_new_run_and_all_of_an_old_one(
    make_run: MakeRun, run: RunDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    atomic_path = files.atomic_path

    def interrupted(path: Path, mode: int = 0o644) -> AbstractContextManager[Path]:
        if path.name == failing:
            raise KeyboardInterrupt
        return atomic_path(path, mode)

    before = tree(run.path)
    (tmp_path / "empty").mkdir()
    for module in (files, encoded):
        monkeypatch.setattr(module, "atomic_path", interrupted)
    for path in (run.path, tmp_path / "new", tmp_path / "empty"):
        with pytest.raises(KeyboardInterrupt):
            make_run(path, replace=True)
    assert tree(run.path) == before
    assert not (tmp_path / "new").exists()
    assert [entry.name for entry in (tmp_path / "empty").iterdir()] == [".lock"]
    for module in (files, encoded):
        monkeypatch.setattr(module, "atomic_path", atomic_path)
    assert make_run(tmp_path / "empty").manifest


@pytest.mark.parametrize("moment", range(1, 12))
@pytest.mark.parametrize("is_new", [True, False], ids=["new", "replacing"])
def test_what_a_killed_insertion_left_is_no_run_and_may_be_written_over(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: int, is_new: bool
) -> None:
    """Whichever of its steps was the last: nothing is cleaned up after a kill."""
    path = tmp_path / "run"
    if not is_new:
        train(make_run(path))
    steps = 0

    def step(original: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **options: Any) -> Any:
            nonlocal steps
            steps += 1
            if steps >= moment:
                raise KeyboardInterrupt
            return original(*arguments, **options)

        return counted

    with monkeypatch.context() as patch:
        for name in ("replace", "unlink", "rmdir"):
            patch.setattr(Path, name, step(getattr(Path, name)))
        with pytest.raises(KeyboardInterrupt):
            make_run(path, replace=True)
    holds_run = RunDirectory.holds_run(path)
    assert make_run(path, replace=holds_run).canary_set()
    assert verify_run(path, check=measurement_fault).sound
    assert not (path / ".staging").exists()
    assert not (path / "model.safetensors").exists()


def test_a_run_that_lost_its_manifest_is_not_written_over_and_can_be_completed(
    make_run: MakeRun, run: RunDirectory, tmp_path: Path
) -> None:
    """No advice to start over: the model is worth more than the manifest."""
    train(run)
    (run.path / "manifest.json").unlink()
    with pytest.raises(RunDirectoryError, match=r"has lost its manifest.json: canaryaudit insert CORPUS ") as caught:
        RunDirectory.open(run.path)
    assert "--force" not in str(caught.value)
    assert f"cp -p {run.path}.new/manifest.json {run.path} && rm -r {run.path}.new" in str(caught.value)
    for replace in (False, True):
        with pytest.raises(
            RunDirectoryError, match=r"holds other files \(.encoded, .*choose an empty or a new directory"
        ):
            make_run(run.path, replace=replace)
    again = make_run(tmp_path / "run.new")
    (again.path / "manifest.json").replace(run.path / "manifest.json")
    assert RunDirectory.open(run.path).verify_weights(TRAINED_MODEL).read_bytes() == b"weights"


def test_a_locked_directory_is_not_written_to(make_run: MakeRun, run: RunDirectory) -> None:
    with run.lock():
        (run.path / ".staging").mkdir(0o700)
        with pytest.raises(RunDirectoryError, match="in use by another command"):
            make_run(run.path, replace=True)
        assert (run.path / ".staging").exists()


# --- opening a run ------------------------------------------------------------------------------------


def test_directories_without_a_run_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RunDirectoryError, match="no such run directory.*canaryaudit insert"):
        RunDirectory.open(tmp_path / "none")
    with pytest.raises(RunDirectoryError, match="not a run directory.*canaryaudit insert"):
        RunDirectory.open(tmp_path)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b'{"schema_version": 1}', b"\xff\xfe", b'{"schema_version": "new"}', b"[" * 100_000, b"null"],
)
@pytest.mark.parametrize("name", ["manifest.json", "canaries.json", "model.json", "measurements/before.json"])
def test_damaged_records_are_named_with_the_way_to_mend_them(run: RunDirectory, name: str, content: bytes) -> None:
    train(run)
    measure(run, TRAINED_MODEL)
    (run.path / name).write_bytes(content)
    with pytest.raises(RunDirectoryError, match="is damaged") as caught:
        read_everything(run)
    message = str(caught.value)
    assert str(run.path / name) in message
    assert "see the repair command with: canaryaudit verify " in message
    assert "delete" not in message
    assert "\n" not in message


def read_everything(run: RunDirectory) -> None:
    open_pipeline = RunDirectory.open(run.path)
    open_pipeline.canary_set()
    for model in (TRAINED_MODEL, ModelId("x")):
        open_pipeline.has_measurement(model)


def test_a_run_of_a_newer_version_says_to_upgrade(run: RunDirectory) -> None:
    path = run.path / "manifest.json"
    document = json.loads(path.read_text("utf-8"))
    path.write_text(json.dumps({**document, "schema_version": 99, "novelty": 1}), "utf-8")
    with pytest.raises(RunDirectoryError, match=r"newer canaryaudit \(schema 99.*upgrade"):
        RunDirectory.open(run.path)


def test_a_huge_record_is_refused_unread(run: RunDirectory) -> None:
    with (run.path / "manifest.json").open("wb") as file:
        file.truncate(recordfiles.MAX_JSON_BYTES + 1)
    with pytest.raises(RunDirectoryError, match="larger than 48 MB"):
        RunDirectory.open(run.path)


def test_a_damage_report_holds_no_secret(run: RunDirectory) -> None:
    path = run.path / "canaries.json"
    document = json.loads(path.read_text("utf-8"))
    secret = document["canaries"][0]["completion"]
    document["canaries"][0]["origin"] = secret
    path.write_text(json.dumps(document), "utf-8")
    with pytest.raises(RunDirectoryError, match="canaries.0.origin") as caught:
        run.canary_set()
    assert secret not in str(caught.value)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("completion", "000000"),
        ("completion", "letters"),
        ("template", "no slot"),
        ("places", [0]),
        ("places", [-5]),
        ("places", []),
        ("id", "control-001"),
    ],
)
def test_canaries_that_disagree_with_the_text_are_damaged(run: RunDirectory, field: str, value: object) -> None:
    path = run.path / "canaries.json"
    document = json.loads(path.read_text("utf-8"))
    document["canaries"][0][field] = value
    path.write_text(json.dumps(document), "utf-8")
    with pytest.raises(RunDirectoryError, match=r"canaries.json is damaged \(it does not match"):
        run.canary_set()


@pytest.mark.parametrize("name", ["corpus.txt", "heldout.txt"])
def test_a_changed_text_is_noticed(run: RunDirectory, name: str) -> None:
    with (run.path / name).open("a", encoding="utf-8") as file:
        file.write("more")
    with pytest.raises(RunDirectoryError, match=f"{name} was changed"):
        (run.text() if name == "corpus.txt" else run.heldout()).check()


def test_a_missing_file_is_named(run: RunDirectory) -> None:
    (run.path / "corpus.txt").unlink()
    with pytest.raises(RunDirectoryError, match=r"cannot read .*corpus.txt"):
        run.text().read()


def test_stages_add_up_in_the_manifest(run: RunDirectory, manifest: Manifest) -> None:
    stages = [StageRun(stage="train", argv=("train",), started="2024-01-01T00:00:00Z", seconds=n) for n in (1, 2)]
    for stage in stages:
        run.add_stage(stage)
    found = RunDirectory.open(run.path).manifest
    assert found.stages == tuple(stages)
    assert found.corpus == manifest.corpus
    assert is_sealed(found)


# --- models -------------------------------------------------------------------------------------------


def test_a_model_is_there_when_its_weights_and_then_its_record_are(run: RunDirectory) -> None:
    assert not run.has_model(TRAINED_MODEL)
    run.write_weights(TRAINED_MODEL, b"weights")
    assert not run.has_model(TRAINED_MODEL)
    train(run)
    assert run.has_model(TRAINED_MODEL)
    assert run.verify_weights(TRAINED_MODEL).read_bytes() == b"weights"


def test_new_weights_without_a_record_are_no_model(run: RunDirectory) -> None:
    train(run)
    run.write_weights(TRAINED_MODEL, b"half of a second training")
    assert not run.has_model(TRAINED_MODEL)


@pytest.mark.parametrize("model", [TRAINED_MODEL, ModelId("x")], ids=str)
def test_damaged_weights_are_refused_with_the_command_that_tells_how_to_make_them_anew(
    run: RunDirectory, model: ModelId
) -> None:
    train(run)
    unlearn(run, "x")
    run.verify_weights(model)
    run.weights_path(model).write_bytes(b"bit rot")
    with pytest.raises(ModelError, match="is damaged .*see the repair command with: canaryaudit verify "):
        run.verify_weights(model)


def test_a_missing_model_is_refused_with_the_command_that_makes_it(run: RunDirectory) -> None:
    with pytest.raises(RunDirectoryError, match="has no model 'before': run: canaryaudit train"):
        run.verify_weights(TRAINED_MODEL)
    with pytest.raises(RunDirectoryError, match="has no model 'after-x': run: canaryaudit unlearn .* --name x"):
        run.verify_weights(ModelId("x"))


def test_an_unlearned_model_has_its_origins_architecture(run: RunDirectory) -> None:
    train(run)
    record = unlearn(run, "x")
    model = run.model_record(ModelId("x"))
    assert model.sha256 == record.model_sha256 != run.model_record().sha256
    assert model.architecture == run.model_record().architecture


@pytest.mark.parametrize("name", ["../x", "", "X", ".x", "x/y", "a" * 101, "x\n"])
def test_names_that_lead_out_of_the_directory_are_refused(run: RunDirectory, name: str) -> None:
    with pytest.raises(RunDirectoryError, match="invalid name"):
        run.weights_path(ModelId(name))
    with pytest.raises(RunDirectoryError, match="invalid name"):
        run.unlearning(name)


def test_unknown_models_are_refused() -> None:
    with pytest.raises(RunDirectoryError, match="expected before or after-NAME"):
        ModelId.parse("during")


# --- measurements and unlearnings ---------------------------------------------------------------------


def test_measurements_and_unlearnings_round_trip(run: RunDirectory) -> None:
    train(run)
    after = unlearn(run, "x"), unlearn(run, "a.b-c")
    measured = measure(run, ModelId("x")), measure(run, TRAINED_MODEL)
    assert run.unlearnings() == (after[1], after[0])
    assert (run.measurement(ModelId("x")), run.measurement(TRAINED_MODEL)) == measured


def test_a_measurement_of_another_model_does_not_count(run: RunDirectory) -> None:
    train(run)
    measure(run, TRAINED_MODEL)
    assert run.has_measurement(TRAINED_MODEL)
    train(run, b"trained anew")
    assert not run.has_measurement(TRAINED_MODEL)


def test_an_unlearning_of_another_model_does_not_count(run: RunDirectory) -> None:
    train(run)
    unlearn(run, "x")
    measure(run, ModelId("x"))
    assert run.has_unlearning("x")
    assert run.has_measurement(ModelId("x"))
    train(run, b"trained anew")
    assert not run.has_unlearning("x")
    assert not run.has_measurement(ModelId("x"))
    assert run.unlearnings() == ()


def test_the_checkpoint_goes_when_training_is_over(run: RunDirectory) -> None:
    run.checkpoint_path.write_bytes(b"state")
    run.remove_checkpoint()
    run.remove_checkpoint()
    assert not run.checkpoint_path.exists()
