"""The table that the page opens with: every method, by the secret's own prefix and however it is asked."""

from collections import Counter

from canaryaudit.report.verdicts import CHANCE, exposed_border
from tests.reproduction.cells import METHOD_NAMES, NONE, average, exposures, figure, table
from tests.reproduction.results import Exposed, Results

STAGES = ("grid", "ten", "seeds")
"""Those whose cases forget what they were asked to and nothing before it."""
_NOISE = 1e-9


def render(results: Results) -> list[str]:
    """Return the section's paragraphs."""
    rows = []
    for method, name in METHOD_NAMES.items():
        cases = [case for stage in STAGES for case in results.of(stage, method=method) if not case.refused]
        if found := exposures(cases):
            rows.append([name, *_figures(found)])
    if not rows:
        return []
    head = ["method", "secrets", "own prefix, stale references", "own prefix, fresh references", "worst case"]
    return [
        "## However it is asked\n",
        "Mean exposure in bits over all secrets of this page that a method was to forget, growth of requests apart. "
        "The worst case is the exposure under the one of 41 probes that exposes a secret most (other prompts, and a "
        "part of the secret given); among so many some bits are there by chance, so that it is judged beside secrets "
        f"never inserted that are asked by the same probes: *told apart* are those with p < {CHANCE:.0%}, of which "
        "chance gives one in twenty, *exposed* those that are so to at most one in 1,024 unseen secrets (fewer in "
        "small spaces). *Found by* names the families of probes that told most secrets apart.\n",
        table([*head, "told apart", "exposed", "found by"], rows),
    ]


def _figures(found: list[Exposed]) -> list[str]:
    fresh = figure(average(own.exposure_bits for own in found))
    cells = [str(len(found)), figure(average(own.stale_bits for own in found)), fresh]
    asked = [(own, own.worst_p_value) for own in found if own.worst_p_value is not None]
    if not asked:
        return [*cells, *[NONE] * 4]
    apart = [own for own, p_value in asked if p_value < CHANCE]
    exposed = sum(p_value <= 2 ** -exposed_border(own.space_bits) * (1 + _NOISE) for own, p_value in asked)
    families = Counter(own.worst_family for own in apart).most_common(2)
    return [
        *cells,
        figure(average(own.worst_bits for own, _ in asked)),
        f"{len(apart)} of {len(asked)}",
        f"{exposed} of {len(asked)}",
        ", ".join(f"{family} {count}" for family, count in families) or NONE,
    ]
