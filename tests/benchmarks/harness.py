"""Timing with ratios: the machine may be noisy, but both sides of a ratio see the same noise."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Comparison:
    """How much faster one way is than its baseline.

    Attributes:
        name: What was compared.
        baseline: The named baseline.
        ours_per_second: Median rate of ours.
        baseline_per_second: Median rate of the baseline.
        spread: Largest divided by smallest ratio over the rounds.
        unit: What is counted.
        note: Anything else that was measured on the way.
    """

    name: str
    baseline: str
    ours_per_second: float
    baseline_per_second: float
    spread: float
    unit: str
    note: str = ""

    @property
    def ratio(self) -> float:
        """Ours over baseline; above 1 is faster."""
        return self.ours_per_second / self.baseline_per_second

    def row(self) -> str:
        """Return the comparison as a line of a Markdown table."""
        return (
            f"| {self.name} | {self.ours_per_second:,.0f} {self.unit}/s | {self.baseline}: "
            f"{self.baseline_per_second:,.0f} | **{self.ratio:.1f} x** | {self.spread:.2f} | {self.note} |"
        )


def rates(work: Callable[[], int], baseline: Callable[[], int], rounds: int) -> tuple[float, float, float]:
    """Run both in turn and return median rates of both and the spread of the ratio.

    Args:
        work: Does something and returns how many units it did.
        baseline: The same for the baseline.
        rounds: How often; one more round before is not counted.
    """
    pairs = []
    for index in range(rounds + 1):
        pair = (_rate(work), _rate(baseline))
        if index:
            pairs.append(pair)
    ratios = [ours / theirs for ours, theirs in pairs]
    return (
        statistics.median(ours for ours, _ in pairs),
        statistics.median(theirs for _, theirs in pairs),
        max(ratios) / min(ratios),
    )


def _rate(work: Callable[[], int]) -> float:
    started = time.perf_counter()
    done = work()
    return done / (time.perf_counter() - started)


def peak_megabytes() -> float:
    """Return this program's resident memory at its highest, from Linux's own account of it.

    ``getrusage`` would not do: a process that was started by a larger one begins with that one's highest.
    """
    (highest,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return int(highest.split()[1]) / 1024
