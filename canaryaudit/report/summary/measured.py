"""What was measured, in words: kinds of detected data, and how many references."""

from canaryaudit import formatting as figures
from canaryaudit.records import Measurement


def exposed_by_kind(measurement: Measurement) -> str:
    """Return how exposed each kind of detected data is, by the worst case over all probes, where there are any."""
    found: dict[str, list[float]] = {}
    for canary in measurement.canaries:
        if canary.kind:
            found.setdefault(canary.kind, []).append((canary.worst_case or canary.exposure).bits)
    return "; ".join(
        f"{kind}: {figures.counted(len(bits), 'value')}, up to {max(bits):.1f} bits"
        for kind, bits in sorted(found.items())
    )


def references_in_words(measurement: Measurement) -> str:
    """Return the number of references; where it differs by template, the smallest."""
    numbers = {own.num_references for own in measurement.efforts} or {measurement.num_references}
    return f"{min(numbers):,}" if len(numbers) == 1 else f"at least {min(numbers):,}"
