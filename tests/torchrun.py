"""``torchrun`` called from within the tests, and the processes that it starts."""

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.commands import PROCESS, ROOT, Result

MAIN = ROOT / "tests" / "torchrun_main.py"


def launch(
    processes: int, script: Path, *arguments: str | Path, restarts: int = 0, **env: str
) -> subprocess.Popen[str]:
    """Start ``script`` in several processes, each on one thread, at a port of their own."""
    options = ("--standalone", "--nproc-per-node", str(processes), "--max-restarts", str(restarts))
    command = [sys.executable, "-m", "torch.distributed.run", *options, str(script), *map(str, arguments)]
    environment = {**os.environ, **PROCESS, **env}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def start_tiny(*arguments: str | Path) -> subprocess.Popen[str]:
    """Start one process that does the same as those of a launcher."""
    command = [sys.executable, str(MAIN), *map(str, arguments)]
    environment = {**os.environ, **PROCESS}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str]) -> Result:
    """Wait for a launcher, or for one process."""
    out, err = process.communicate(timeout=900)
    return Result(process.returncode, out, err)


def canaryaudit_on(processes: int, *arguments: str | Path, **options: Any) -> Result:
    """Run a command on several processes."""
    return finish(launch(processes, MAIN, *arguments, **options))


def side_by_side(processes: int, script: Path, *arguments: str | Path) -> Result:
    """Run ``script`` in several processes as ``torchrun`` would, without its own, which loads torch once more.

    The result has the worst status, and what each process wrote, one after another.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, str(script), *map(str, arguments)]
    common = {"WORLD_SIZE": processes, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "tests"}
    started = []
    for rank in range(processes):
        own = {name: str(value) for name, value in (common | {"RANK": rank, "LOCAL_RANK": rank}).items()}
        environment = {**os.environ, **PROCESS, **own}
        started.append(
            subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        )
    results = [finish(process) for process in started]
    return Result(
        max((result.status for result in results), key=abs),
        "".join(result.out for result in results),
        "".join(result.err for result in results),
    )


def worker(launcher: subprocess.Popen[str], rank: int) -> int:
    """Return the process id of one of the processes that a launcher started."""
    for child in Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text("ascii").split():
        if f"\0RANK={rank}\0" in Path(f"/proc/{child}/environ").read_text("utf-8", "replace"):
            return int(child)
    raise AssertionError(f"no process {rank}")


def complaints(result: Result) -> list[str]:
    """Return what the processes themselves said went wrong; their launcher has much more to say."""
    lines = result.err.splitlines()
    return [line.removeprefix("canaryaudit: ") for line in lines if line.startswith("canaryaudit: ")]
