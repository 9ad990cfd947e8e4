"""One request after another: which unlearnings a result came through, and which canaries they were meant for."""

from collections.abc import Mapping

from canaryaudit.records import UnlearningRecord


def earlier(record: UnlearningRecord, records: Mapping[str, UnlearningRecord]) -> tuple[UnlearningRecord, ...]:
    """Return the unlearnings whose results a record's own started from, the first one first.

    Args:
        record: The unlearning.
        records: All of the run's, by name.
    """
    links: list[UnlearningRecord] = []
    while record.origin != "before" and (found := records.get(record.origin.removeprefix("after-"))):
        if found in links:
            break
        links.append(found)
        record = found
    return tuple(reversed(links))


def targeted(record: UnlearningRecord, records: Mapping[str, UnlearningRecord]) -> set[str]:
    """Return the ids of all canaries that a result was to forget, those of earlier requests included."""
    return {own for link in (*earlier(record, records), record) for own in link.canaries}
