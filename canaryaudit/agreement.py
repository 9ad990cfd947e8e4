"""Do canaries agree with their templates and with the text? Asked of every canaries.json that is read."""

from canaryaudit.canaries import CanarySet, Template
from canaryaudit.errors import TemplateError

MAX_EDGES = 10_000_000
"""Of all templates' spaces together: a thousand with a hundred places of a hundred symbols. More would take minutes."""


def agrees(canary_set: CanarySet, text: str) -> bool:
    """Tell whether every completion is in its space, and every canary stands at its places.

    Args:
        canary_set: As somebody may have written it.
        text: The run's corpus.txt.
    """
    identifiers = [canary.id for canary in canary_set.canaries]
    sound, edges = len(set(identifiers)) == len(identifiers), 0
    try:
        for name, group in canary_set.by_template().items():
            template = Template.parse(name)
            space = canary_set.space(template)
            edges += sum(map(len, space.edges))
            if edges > MAX_EDGES:
                return False
            for canary in group:
                filled = template.fill(canary.completion)
                sound &= canary.completion in space
                sound &= canary.repetitions == len(canary.places)
                sound &= all(place >= 0 and text.startswith(filled, place) for place in canary.places)
    except TemplateError:
        return False
    return sound
