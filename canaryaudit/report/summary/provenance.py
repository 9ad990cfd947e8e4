"""Where the figures come from, and the commands that repeat them."""

import shlex
from collections.abc import Mapping
from pathlib import PurePath

from canaryaudit.formatting import well_formed
from canaryaudit.records import Manifest, Measurement, ModelRecord, UnlearningRecord
from canaryaudit.report.schema import Fact, Provenance, StageLine
from canaryaudit.report.summary.masking import Masker

WITHHELD = "withheld: a short secret could be guessed from it"


def provenance(
    manifest: Manifest,
    model_record: ModelRecord,
    before: Measurement,
    chosen: tuple[UnlearningRecord, Measurement] | None,
    masker: Masker,
) -> Provenance:
    """Gather what a second engineer needs to check the figures."""
    # A hash of text that is known but for a short secret gives that secret away to whoever tries them all.
    audited_hash = WITHHELD if masker.hides else manifest.corpus.audited_sha256
    corpus_hash = WITHHELD if masker.hides_located else manifest.corpus.sha256
    facts = [
        ("canaryaudit", manifest.canaryaudit),
        ("Commit", manifest.commit or "not recorded"),
        ("Packages", ", ".join(f"{name} {version}" for name, version in sorted(manifest.versions.items()))),
        ("Machine", ", ".join(f"{name}: {value}" for name, value in manifest.machine.items())),
        ("SHA-256 of the corpus as read", corpus_hash),
        ("SHA-256 of the audited text", audited_hash),
        ("SHA-256 of the model before", model_record.sha256),
        *(
            [(f"SHA-256 of {chosen[0].origin}, from which it was unlearned", chosen[0].origin_sha256)]
            if chosen and not chosen[0].origin.is_trained
            else []
        ),
        *([("SHA-256 of the model after", chosen[0].model_sha256)] if chosen else []),
        ("Seed of the canaries", str(manifest.corpus.seed)),
        ("Measurement before", _measurement_words(before)),
        *([("Measurement after", _measurement_words(chosen[1]))] if chosen else []),
    ]
    stages = tuple(
        StageLine(
            stage=run.stage,
            name=masker.text(run.name),
            started=run.started,
            seconds=run.seconds,
            seed=run.seed,
            device=run.device,
            precision=run.precision,
        )
        for run in manifest.stages
    )
    commands = dict.fromkeys(_command(run.argv, masker) for run in manifest.stages if run.argv)
    return Provenance(
        facts=tuple(Fact(name=name, value=well_formed(value)) for name, value in facts if value),
        stages=stages,
        commands=tuple(commands),
    )


def _measurement_words(measurement: Measurement) -> str:
    return (
        f"seed {measurement.seed}, {measurement.num_references:,} references a template, {measurement.device} "
        f"in {measurement.precision}, {measurement.cost.seconds:.1f} s"
    )


def _command(argv: tuple[str, ...], masker: Masker) -> str:
    """Write a command line as one would type it, without the directory in which the program is installed."""
    program, *rest = argv
    return " ".join(shlex.quote(masker.text(well_formed(word))) for word in (PurePath(program).name, *rest))


def earlier(record: UnlearningRecord, records: Mapping[str, UnlearningRecord]) -> tuple[UnlearningRecord, ...]:
    """Return the unlearnings whose results a record's own started from, the first one first.

    Args:
        record: The unlearning.
        records: All of the run's, by name.
    """
    links: list[UnlearningRecord] = []
    while record.origin.unlearning is not None and (found := records.get(record.origin.unlearning)):
        if found in links:
            break
        links.append(found)
        record = found
    return tuple(reversed(links))


def targeted(record: UnlearningRecord, records: Mapping[str, UnlearningRecord]) -> set[str]:
    """Return the ids of all canaries that a result was to forget, those of earlier requests included."""
    return {own for link in (*earlier(record, records), record) for own in link.canaries}
