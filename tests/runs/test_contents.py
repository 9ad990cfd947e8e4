"""Tests of canaryaudit.runs.contents: what is the run's own, what is the user's, and what is not safe."""

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from canaryaudit.errors import CanaryAuditError, RunDirectoryError
from canaryaudit.exposure.consistency import measurement_fault
from canaryaudit.records import TRAINED_MODEL, ModelId
from canaryaudit.runs import contents
from canaryaudit.runs.run_directory import RunDirectory
from canaryaudit.runs.verification import verify_run
from tests.runs.test_run_directory import measure, train, tree, unlearn

MakeRun = Callable[..., RunDirectory]
FOREIGN = {
    "a corpus of the same name": ("corpus.txt",),
    "a Hugging Face model": ("config.json", "model.safetensors"),
    "weights alone": ("model.safetensors",),
    "a web page's manifest": ("manifest.json",),
    "a model and a manifest": ("manifest.json", "model.safetensors"),
    "measurements": ("measurements/before.json",),
    "another program's lock": (".lock",),
    "somebody's staging folder": (".staging/corpus.txt",),
    "a hidden half": (".notes.0123abcd.tmp",),
}


@pytest.mark.parametrize("kind", FOREIGN)
@pytest.mark.parametrize("replace", [False, True], ids=["", "force"])
def test_nothing_is_written_where_there_was_no_run(make_run: MakeRun, tmp_path: Path, kind: str, replace: bool) -> None:
    """Such files were overwritten or deleted, by ``insert`` or by the ``--force`` that it advised."""
    path = tmp_path / "mine"
    for name in FOREIGN[kind]:
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text('{"name": "mine"}', "utf-8")
    before = tree(path)
    with pytest.raises(RunDirectoryError, match=r"choose (an empty or a new|another) directory") as caught:
        make_run(path, replace=replace)
    assert "--force" not in str(caught.value)
    assert tree(path) == before


@pytest.mark.parametrize(
    "name", ["notes.txt", "unlearned/notes.txt", "measurements/mine.json", "unlearned/x/config.json"]
)
def test_a_users_own_file_in_a_run_keeps_the_run_from_being_replaced(
    make_run: MakeRun, run: RunDirectory, name: str
) -> None:
    train(run)
    unlearn(run, "x")
    measure(run, TRAINED_MODEL)
    (run.path / name).write_text("mine", "utf-8")
    before = tree(run.path)
    with pytest.raises(RunDirectoryError, match=f"holds other files .{name}"):
        make_run(run.path, replace=True)
    assert tree(run.path) == before


def link(path: Path, elsewhere: Path) -> None:
    path.symlink_to(elsewhere)


def pipe(path: Path, _: Path) -> None:
    os.mkfifo(path)


def folder(path: Path, _: Path) -> None:
    path.mkdir()


@pytest.mark.parametrize("kind", [link, pipe, folder], ids=lambda kind: kind.__name__)
@pytest.mark.parametrize(
    "name",
    [".lock", "manifest.json", "corpus.txt", "model.json", "measurements", "unlearned", "unlearned/x", ".encoded"],
)
def test_no_command_follows_a_link_or_waits_for_a_pipe(
    run: RunDirectory, tmp_path: Path, name: str, kind: Callable[[Path, Path], None]
) -> None:
    train(run)
    unlearn(run, "x")
    measure(run, ModelId("x"))
    (tmp_path / "elsewhere").mkdir()
    target = tmp_path / "elsewhere" / Path(name).name
    (run.path / name).rename(target)
    if kind is folder and target.is_dir():
        return  # it is one
    kind(run.path / name, target)
    before = tree(tmp_path / "elsewhere")
    with (
        pytest.raises(RunDirectoryError, match="a symbolic link|not a plain file|not a directory") as caught,
        run.lock(),
    ):
        pytest.fail("it was opened")
    assert str(run.path / name) in str(caught.value)
    assert "\n" not in str(caught.value)
    if name == ".lock":
        with pytest.raises(CanaryAuditError, match=f"the run loses nothing: rm {run.path / name}$"):
            verify_run(run.path, check=measurement_fault)
    else:
        verification = verify_run(run.path, check=measurement_fault)
        assert not verification.sound
        assert any(own.state == "damaged" and own.file == name for own in verification.findings)
        assert not any("rm -rf" in line for line in verification.repairs)
    assert tree(tmp_path / "elsewhere") == before


def test_a_lock_that_is_another_files_hard_link_is_not_written_to(run: RunDirectory, tmp_path: Path) -> None:
    (run.path / ".lock").unlink()
    (tmp_path / "letter").write_text("mine", "utf-8")
    (run.path / ".lock").hardlink_to(tmp_path / "letter")
    with pytest.raises(RunDirectoryError, match=r"a hard link to another file: .*: rm "), run.lock():
        pytest.fail("it was opened")
    with pytest.raises(RunDirectoryError, match="a hard link to another file"):
        verify_run(run.path, check=measurement_fault)
    assert (tmp_path / "letter").read_text("utf-8") == "mine"


def test_what_is_written_replaces_a_hard_link_and_not_its_other_name(run: RunDirectory, tmp_path: Path) -> None:
    train(run)
    for name in ("model.json", "model.safetensors", "manifest.json"):
        (tmp_path / name).hardlink_to(run.path / name)
    before = tree(tmp_path)
    train(run, b"trained anew")
    assert {name: data for name, data in tree(tmp_path).items() if "/" not in name} == {
        name: data for name, data in before.items() if "/" not in name
    }


# --- who may read it ------------------------------------------------------------------------------------------


def modes(path: Path) -> dict[str, int]:
    return {str(own.relative_to(path)): stat.S_IMODE(own.stat().st_mode) for own in [path, *path.rglob("*")]}


def test_only_the_owner_may_read_a_run(make_run: MakeRun, tmp_path: Path) -> None:
    """The text, its ids, and models that memorized it hold the secrets as much as canaries.json does."""
    (tmp_path / "there").mkdir(0o755)
    before = os.umask(0o022)
    try:
        for path in (tmp_path / "there", tmp_path / "deep" / "run"):
            run = make_run(path)
            train(run)
            unlearn(run, "x")
            measure(run, TRAINED_MODEL)
            run.measurement_cache("x").put("a", {})
            found = modes(path)
            assert len(found) > 15
            assert {found[name] for name in found if (path / name).is_file()} == {0o600}
            assert {found[name] for name in found if (path / name).is_dir()} == {0o700}
            assert contents.too_open(path) == []
    finally:
        os.umask(before)


def test_a_run_that_others_can_read_is_told_with_the_command_that_closes_it(run: RunDirectory) -> None:
    run.path.chmod(0o755)
    assert contents.too_open(run.path) == [], "its files are closed"
    (run.path / "corpus.txt").chmod(0o644)
    assert contents.too_open(run.path) == ["corpus.txt"]
    (finding,) = [own for own in verify_run(run.path, check=measurement_fault).findings if own.state == "too open"]
    assert finding.repair == f"chmod -R go= {run.path}"
    assert verify_run(run.path, check=measurement_fault).sound, "a warning, no damage"
    run.path.chmod(0o700)
    assert contents.too_open(run.path) == [], "nobody gets to them"
    run.path.chmod(0o722)
    assert "manifest.json" in contents.too_open(run.path), "anybody may replace it"


def test_the_names_of_a_runs_files() -> None:
    own = (
        "manifest.json",
        "measurements/after-a.b.json",
        "unlearned/x/shards/03-corrected.safetensors",
        ".parts/0a/b-1.safetensors",
    )
    for name in (*own, ".staging/corpus.txt", "unlearned/x/.model.safetensors.0123abcd.tmp", ".m.0123abcd.tmp"):
        assert contents.is_file_name(name), name
    for name in (
        "notes.txt",
        "corpus.txt/x",
        "measurements/x.json",
        "unlearned/X/model.safetensors",
        "x/.a.0123abcd.tmp",
    ):
        assert not contents.is_file_name(name), name
