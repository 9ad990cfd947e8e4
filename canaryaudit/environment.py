"""Facts about the machine and the software for the manifest, and allocator settings."""

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


def versions(*more: str) -> dict[str, str]:
    """Return the versions of Python and of the packages that compute the figures.

    Args:
        more: Other packages.
    """
    by_name = {"python": platform.python_version()}
    for package in (*_PACKAGES, *more):
        try:
            by_name[package] = version(package)
        except PackageNotFoundError:
            continue
    return by_name


def machine() -> dict[str, str | int]:
    """Return processor, cores, memory and accelerator."""
    import torch  # Takes seconds, so only when needed.

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
    """Return how many processes ``torchrun`` started for this job; 1 without ``torchrun``."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "TORCHELASTIC_RUN_ID" in os.environ else 1


def rank() -> int:
    """Return this process's rank in its job, from 0."""
    return int(os.environ.get("RANK", "0")) if num_processes() > 1 else 0


def keep_freed_memory() -> None:
    """Let the GNU C library keep large freed blocks of memory for reuse; no effect with other C libraries.

    Otherwise it returns them to the system, which clears every page of the next allocation. That takes a tenth of the
    time of scoring millions of strings.
    """
    with suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        library.mallopt(_M_MMAP_MAX, 0)
        library.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def commit() -> str:
    """Return the Git commit of this package's checkout; an empty string if it was installed."""
    package = Path(__file__).parent
    # An installed package may be inside an unrelated repository.
    if not _git(package, "ls-files", "--error-unmatch", Path(__file__).name):
        return ""
    return _git(package, "rev-parse", "HEAD")


def _git(directory: Path, *words: str) -> str:
    """Return Git's output in a directory; an empty string if Git is missing or fails."""
    try:
        done = subprocess.run(  # noqa: S603 - all arguments are ours
            ["git", "-C", str(directory), *words],  # noqa: S607 - the user's git
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
