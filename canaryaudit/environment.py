"""Facts about the machine and the software, for the manifest, and what the process asks of its allocator."""

import ctypes
import os
import platform
import subprocess
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of malloc.h
_PACKAGES = ("torch", "numpy", "scipy", "safetensors", "datasets")


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that make the figures."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def machine() -> dict[str, str | int]:
    """Return processor, cores, memory and accelerator."""
    import torch  # Takes seconds: only those wait who need it.

    facts: dict[str, str | int] = {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
    }
    with suppress(ValueError, OSError):
        facts["memory_gib"] = round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30)
    facts["accelerator"] = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "none"
    return facts


def num_processes() -> int:
    """Return how many processes ``torchrun`` started for this job; 1 where it did not start this one."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "TORCHELASTIC_RUN_ID" in os.environ else 1


def rank() -> int:
    """Return this process's number among those of its job, from 0; the first one leads."""
    return int(os.environ.get("RANK", "0")) if num_processes() > 1 else 0


def keep_freed_memory() -> None:
    """Let the C library keep large pieces of memory that are freed, for the next of the same size.

    It would hand them back to the system, which clears them page by page when they are asked for again: a tenth
    of the time of scoring millions. Nothing happens where the C library is not the GNU one.
    """
    with suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        library.mallopt(_M_MMAP_MAX, 0)
        library.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def commit() -> str:
    """Return the Git commit that this package was checked out from; an empty string where it was installed."""
    package = Path(__file__).parent
    # Installed, it may lie within a repository of its user's, whose commit says nothing of it.
    if not _git(package, "ls-files", "--error-unmatch", Path(__file__).name):
        return ""
    return _git(package, "rev-parse", "HEAD")


def _git(place: Path, *words: str) -> str:
    """Return what Git prints there; an empty string where it is missing or refuses."""
    try:
        done = subprocess.run(  # noqa: S603 - nobody else's words
            ["git", "-C", str(place), *words],  # noqa: S607 - whichever git the user has
            capture_output=True,
            text=True,
            timeout=5,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def utc_now() -> str:
    """Return the time, UTC, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _processor() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
