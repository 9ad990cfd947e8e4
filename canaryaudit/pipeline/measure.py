"""Measure stage: its configuration."""

from canaryaudit.exposure import MeasurementConfig
from canaryaudit.plan import MeasureOptions


def measurement_config(options: MeasureOptions) -> MeasurementConfig:
    """Convert a command's options to a measurement configuration."""
    return MeasurementConfig(
        num_references=options.samples,
        estimators=options.estimators,
        search_budget=options.budget,
        precision_bits=options.precision_bits,
        max_draws=options.max_draws,
        probes=options.probes,
        prompts=options.prompt,
        seed=options.seed,
    )
