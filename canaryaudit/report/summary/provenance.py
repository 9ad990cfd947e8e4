"""Where the figures come from, and the commands that reproduce them."""

import shlex
from collections.abc import Mapping
from pathlib import PurePath

from canaryaudit.formatting import well_formed
from canaryaudit.records import Manifest, Measurement, ModelRecord, UnlearningRecord
from canaryaudit.report.judgment import Fact
from canaryaudit.report.schema import Provenance, StageLine
from canaryaudit.report.summary.masking import Masker

NO_COMMIT = "not recorded"
WITHHELD = "withheld: a short secret could be guessed from the hash"


def provenance(
    manifest: Manifest,
    model_record: ModelRecord,
    before: Measurement,
    chosen: tuple[UnlearningRecord, Measurement] | None,
    masker: Masker,
    signature: str,
) -> Provenance:
    """Collect what another engineer needs to check the figures."""
    # If only a short secret in the text is unknown, a hash of the text allows testing all candidates.
    audited_hash = WITHHELD if masker.hides else manifest.corpus.audited_sha256
    corpus_hash = WITHHELD if masker.hides_located else manifest.corpus.sha256
    facts = [
        ("canaryaudit", manifest.canaryaudit),
        ("Commit", manifest.commit or NO_COMMIT),
        ("Signature", signature),
        ("Packages", ", ".join(f"{name} {version}" for name, version in sorted(manifest.versions.items()))),
        ("Machine", ", ".join(f"{name}: {value}" for name, value in manifest.machine.items())),
        ("SHA-256 of the corpus", corpus_hash),
        ("SHA-256 of the audited text", audited_hash),
        ("SHA-256 of the model before", model_record.sha256),
        *(
            [(f"SHA-256 of {chosen[0].origin}, the model that was updated", chosen[0].origin_sha256)]
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
        f"seed {measurement.seed}, {measurement.num_references:,} references per template, {measurement.device} "
        f"in {measurement.precision}, {measurement.cost.seconds:.1f} s"
    )


def _command(argv: tuple[str, ...], masker: Masker) -> str:
    """Write a command line without the directory in which the program is installed, and without ``--force``.

    Whoever pastes the commands is to reproduce a run, not to replace one.
    """
    program, *rest = (word for word in argv if word != "--force")
    return " ".join(shlex.quote(masker.text(well_formed(word))) for word in (PurePath(program).name, *rest))


def earlier(record: UnlearningRecord, records: Mapping[str, UnlearningRecord]) -> tuple[UnlearningRecord, ...]:
    """Return the earlier unlearnings that a result builds on, the first one first.

    Args:
        record: The unlearning.
        records: All records of the run, by name.
    """
    links: list[UnlearningRecord] = []
    while record.origin.unlearning is not None and (source := records.get(record.origin.unlearning)):
        if source in links:
            break
        links.append(source)
        record = source
    return tuple(reversed(links))


def targeted(record: UnlearningRecord, records: Mapping[str, UnlearningRecord]) -> set[str]:
    """Return the ids of all canaries that were to be unlearned, including those of earlier requests."""
    return {canary for link in (*earlier(record, records), record) for canary in link.canaries}
