"""Do canaries agree with their templates and with the text? Asked of every canaries.json that is read."""

from canaryaudit.canaries import CanarySet, Template
from canaryaudit.errors import TemplateError

MAX_EDGES = 10_000_000
"""Of all templates' spaces together: a thousand with a hundred places of a hundred symbols. More would take minutes."""


def expected_strings(canary_set: CanarySet) -> list[tuple[int, str]] | None:
    """Return at which place of the text what should stand; None where canaries contradict their templates.

    Args:
        canary_set: As somebody may have written it.
    """
    identifiers = [canary.id for canary in canary_set.canaries]
    sound, edges = len(set(identifiers)) == len(identifiers), 0
    strings: list[tuple[int, str]] = []
    try:
        for name, group in canary_set.by_template().items():
            template = Template.parse(name)
            space = canary_set.space(template)
            edges += sum(map(len, space.edges))
            if edges > MAX_EDGES:
                return None
            for canary in group:
                filled = template.fill(canary.completion)
                sound &= canary.completion in space
                sound &= canary.repetitions == len(canary.places)
                strings += [(place, filled) for place in canary.places]
    except TemplateError:
        return None
    return strings if sound else None
