"""The attack stage: whom to attack, what to compare with, and what is written down."""

from collections.abc import Collection, Sequence
from itertools import chain, count

from canaryaudit.attacks import RelearningConfig, attack_by_relearning
from canaryaudit.attacks.relearning import AttackedModel
from canaryaudit.canaries.canary import Canary
from canaryaudit.errors import UnlearningError
from canaryaudit.exposure.probes import probes_of
from canaryaudit.exposure.probing import AskedProbe, worst_probe
from canaryaudit.models.device import resolve_device
from canaryaudit.pipeline.session import RunSession
from canaryaudit.plan import AttackOptions
from canaryaudit.records import Measurement, UnlearningRecord, main_result
from canaryaudit.runs.layout import MAX_NAME


def attack_target(unlearnings: Sequence[UnlearningRecord], name: str | None) -> UnlearningRecord | None:
    """Return the unlearning to attack: the one of that name, or the last that is more than a baseline.

    Args:
        unlearnings: In the order in which they were run.
        name: As asked for; None for no choice.

    Returns:
        The record; None where no name was given and there is none to attack.

    Raises:
        UnlearningError: There is none of that name, or it is a retrained model, with which attacks are compared.
    """
    if name is None:
        return main_result([record for record in unlearnings if record.method != "retrain"])
    found = next((record for record in unlearnings if record.name == name), None)
    if found is None:
        known = ", ".join(record.name for record in unlearnings) or "none"
        raise UnlearningError(
            f"no unlearning is called {name!r}: this run has {known}; make it with canaryaudit unlearn"
        )
    if found.method == "retrain":
        raise UnlearningError(
            f"{name!r} is a retrained model, which attacks are compared with: name another unlearning"
        )
    return found


def attack_canaries(
    record: UnlearningRecord, asked: Sequence[str], before: Measurement, inserted: Sequence[Canary]
) -> list[Canary]:
    """Return the canaries to attack: those asked for, or the one that was the most exposed before.

    Raises:
        UnlearningError: One was not unlearned here.
    """
    by_id = {canary.id: canary for canary in inserted}
    for identifier in asked:
        if identifier not in record.canaries:
            known = ", ".join(record.canaries[:10]) + (", …" if len(record.canaries) > 10 else "")
            raise UnlearningError(f"unlearning {record.name!r} was not for {identifier!r}: it was for {known}")
    if asked:
        return [by_id[identifier] for identifier in dict.fromkeys(asked)]
    exposures = {own.id: (own.exposure.bits, own.repetitions) for own in before.canaries}
    return [by_id[max(record.canaries, key=lambda identifier: exposures.get(identifier, (-1.0, 0)))]]


def find_retrained(unlearnings: Sequence[UnlearningRecord], canaries: Sequence[Canary]) -> UnlearningRecord | None:
    """Return the last unlearning by retraining whose text held none of these canaries; None if there is none."""
    wanted = {canary.id for canary in canaries}
    fitting = [record for record in unlearnings if record.method == "retrain" and wanted <= set(record.canaries)]
    return fitting[-1] if fitting else None


def is_same_attack(
    record: UnlearningRecord, reference: UnlearningRecord, canaries: Sequence[Canary], options: AttackOptions
) -> bool:
    """Tell whether this very attack was made, beside the retrained model as it is now."""
    found = record.relearning
    return found is not None and (
        {curve.canary for curve in found.curves} == {canary.id for canary in canaries}
        and (found.steps, found.learning_rate, found.seed) == (options.steps, options.learning_rate, options.seed)
        and found.retrained_sha256 == reference.model_sha256
    )


def run_attack(
    session: RunSession,
    record: UnlearningRecord,
    reference: UnlearningRecord,
    canaries: Sequence[Canary],
    options: AttackOptions,
) -> UnlearningRecord:
    """Attack an unlearned model beside the retrained one, and write the outcome into its record."""
    device = resolve_device(options.device)
    data, _ = session.data(device)
    training = session.run.model_record().training
    config = RelearningConfig(
        steps=options.steps,
        learning_rate=options.learning_rate,
        window=training.window if training else 100,
        seed=options.seed,
    )
    contenders = [
        AttackedModel(
            own.name, session.model(f"after-{own.name}", device), own.model_sha256, _worst_probes(session, own.name)
        )
        for own in (record, reference)
    ]
    with session.stage("attack", record.name, seed=options.seed, device=device.type, precision="fp32"):
        relearning = attack_by_relearning(
            contenders[0], contenders[1], data, canaries, session.run.canary_set(), config, session.progress
        )
    written = record.model_copy(update={"relearning": relearning})
    session.run.write_unlearning(written)
    return written


def _worst_probes(session: RunSession, name: str) -> dict[str, AskedProbe]:
    """Return the probe that shows most of each canary in an unlearned model, where it is not the prefix itself."""
    measurement = session.run.measurement(f"after-{name}")
    if measurement.worst_cases is None:
        return {}
    probes = {own.template: own for own in probes_of(measurement, session.run.canary_set(), session.run_text())}
    found = {own.id: worst_probe(own, probes[own.template]) for own in measurement.canaries if not own.control}
    return {name: asked for name, asked in found.items() if asked}


def name_of_retraining(attacked: str, taken: Collection[str]) -> str:
    """Return a free name for a model that is retrained to be attacked beside the unlearning ``attack_target``."""
    long = f"retrain-for-{attacked}"[: MAX_NAME - len("-99")]
    numbered = (f"{long}-{number}" for number in count(2))
    return next(name for name in chain(("retrain", long), numbered) if name not in taken)
