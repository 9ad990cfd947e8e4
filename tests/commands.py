"""The command line called from within the tests, and the run directories that such calls leave."""

import contextlib
import hashlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.numpy

from canaryaudit.cli.main import run_command
from canaryaudit.runs.image_directory import ImageDirectory
from canaryaudit.runs.run_directory import RunDirectory
from canaryaudit.runs.sealed_run import kind_of_run
from canaryaudit.runs.seals import checksum_of
from canaryaudit.runs.table_directory import TableDirectory
from canaryaudit.storage.json_records import record_json

ROOT = Path(__file__).resolve().parent.parent
TEMPLATE = "The code is {digits:3}."
INSERT = ("-t", TEMPLATE, "-n", "2", "-r", "1,5", "--controls", "8")
PLAN = f"""\
run = "RUN"
[insert]
corpus = "sea.txt"
template = ["{TEMPLATE}"]
canaries = 2
repetitions = [1, 5]
controls = 8
"""
"""The beginning of a plan that inserts what ``INSERT`` does."""
FAST = ("--samples", "200")
UNLEARN = (*FAST, "--max-fidelity-drop", "0.5", "--retain-windows", "40")
PROCESS = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "COLUMNS": "80"}
"""Environment of a process of its own."""

# What a second run of the same work may do differently.
_VOLATILE = {
    "seconds",
    "preparation_seconds",
    "characters_per_second",
    "started",
    "speedup",
    "retraining_seconds",
    "records",
    "checksum",
}


@dataclass(frozen=True)
class Result:
    """What a command left: its exit status, standard output and standard error."""

    status: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """Standard output as JSON."""
        return json.loads(self.out)

    @property
    def complaint(self) -> str:
        """The one line on standard error that says what went wrong."""
        lines = [line for line in self.err.splitlines() if line.startswith("canaryaudit: ")]
        assert len(lines) == 1, self.err
        assert self.err.endswith(lines[0] + "\n"), self.err
        assert "Traceback" not in self.err
        assert "internal error" not in self.err
        return lines[0].removeprefix("canaryaudit: ")


def canaryaudit(*arguments: str | Path) -> Result:
    """Call the command line in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = run_command([str(argument) for argument in arguments])
    return Result(status, out.getvalue(), err.getvalue())


def succeed(*arguments: str | Path) -> Result:
    """Call the command line in this process, and fail if it does."""
    result = canaryaudit(*arguments)
    assert result.status == 0, result.err
    return result


def start(*arguments: str | Path, **options: Any) -> subprocess.Popen[str]:
    """Start the command line as a process of its own, on one thread."""
    command = [sys.executable, "-m", "canaryaudit", *map(str, arguments)]
    environment = {**os.environ, **PROCESS, **options.pop("env", {})}
    settings: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **options}
    return subprocess.Popen(command, env=environment, **settings)


def finish(process: subprocess.Popen[str]) -> Result:
    """Wait for a process that ``start`` began."""
    out, err = process.communicate(timeout=120)
    return Result(process.returncode, out or "", err or "")


def reseal(run: Path) -> None:
    """Make every checksum of a run's manifest match again, as whoever rewrites everything can."""
    kinds: dict[str, Any] = {"table": TableDirectory, "images": ImageDirectory, "text": RunDirectory}
    directory = kinds[kind_of_run(run)](run)
    records = {
        path.relative_to(run).as_posix(): (hashlib.sha256(path.read_bytes()).hexdigest(),)
        for path in sorted(run.rglob("*.json"))
        if path.name not in ("manifest.json", "signature.json")
    }
    manifest: Any = directory.manifest
    manifest = manifest.model_copy(update={"records": records})
    (run / "manifest.json").write_text(record_json(manifest.model_copy(update={"checksum": checksum_of(manifest)})))


def tree(path: Path) -> dict[str, bytes]:
    """Return every file below ``path`` by its name; the lock, which stays, is none."""
    files = (file for file in sorted(path.rglob("*")) if file.is_file() and file.name != ".lock")
    return {str(file.relative_to(path)): file.read_bytes() for file in files}


def essence(path: Path) -> dict[str, Any]:
    """Return a run's files without what differs from one run of the same work to the next."""
    found: dict[str, Any] = {}
    for name, data in tree(path).items():
        if name == "manifest.json":
            manifest = json.loads(data)
            stages = {(stage["stage"], stage["name"]) for stage in manifest.pop("stages")}
            found[name] = (steady(manifest), stages)
        else:
            found[name] = steady(json.loads(data)) if name.endswith(".json") else data
            if name == "curvature.safetensors":  # its header says how long it took
                found[name] = {key: part.tobytes() for key, part in safetensors.numpy.load(data).items()}
    return found


def steady(value: Any) -> Any:
    """Return a JSON value without times."""
    if isinstance(value, Mapping):
        return {key: steady(item) for key, item in value.items() if key not in _VOLATILE}
    return [steady(item) for item in value] if isinstance(value, list) else value
