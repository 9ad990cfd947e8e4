"""What was measured: kinds of detected data and the number of references in words, and secrets by tokens."""

from canaryaudit import formatting as figures
from canaryaudit.canaries.canary import Canary
from canaryaudit.records import CanaryMeasurement, Measurement
from canaryaudit.report.schema import TokenFigure


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


def token_figures(canary: Canary, measured: CanaryMeasurement) -> tuple[TokenFigure, ...] | None:
    """Return a secret by tokens; None where the model reads characters, or the tokens do not end with the secret."""
    tokens = measured.token_bits
    if not tokens or tokens[-1].end != len(canary.completion):
        return None
    begins = [0, *(token.end for token in tokens)]
    return tuple(
        TokenFigure(text=canary.completion[begin : token.end], bits=token.bits)
        for begin, token in zip(begins, tokens, strict=False)
    )
