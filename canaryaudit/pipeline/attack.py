"""Attack stage: select the target, the canaries and the retrained model to compare with, and record the result."""

from collections.abc import Collection, Sequence
from itertools import chain, count

from canaryaudit.attacks import RelearningConfig, attack_by_relearning
from canaryaudit.attacks.character_learner import CharacterLearner, CharacterText
from canaryaudit.attacks.learner import AttackText, Learner
from canaryaudit.attacks.relearning import AttackedModel
from canaryaudit.attacks.token_learner import QUICK, WINDOW, TokenLearner, TokenText
from canaryaudit.canaries.canary import Canary
from canaryaudit.errors import UnlearningError
from canaryaudit.exposure.probes import probes_of
from canaryaudit.exposure.probing import AskedProbe, worst_probe
from canaryaudit.models.device import resolve_device
from canaryaudit.pipeline.external import load_result, memory_errors
from canaryaudit.pipeline.session import RunSession
from canaryaudit.plan import AttackOptions
from canaryaudit.records import Measurement, ModelId, Relearning, UnlearningRecord, main_result
from canaryaudit.report.summary.relearning import relearning_sentences
from canaryaudit.runs.layout import MAX_NAME


def attack_target(unlearnings: Sequence[UnlearningRecord], name: str | None) -> UnlearningRecord | None:
    """Return the unlearning to attack: the named one, or the last one that is not a baseline.

    Args:
        unlearnings: In the order in which they ran.
        name: The requested name; None for the default.

    Returns:
        The record; None if no name was given and there is none to attack.

    Raises:
        UnlearningError: There is none of that name, or it is the retrained model that attacks are compared with.
    """
    if name is None:
        return main_result([record for record in unlearnings if record.method != "retrain"])
    target = next((record for record in unlearnings if record.name == name), None)
    if target is None:
        known = ", ".join(record.name for record in unlearnings) or "none"
        raise UnlearningError(
            f"no unlearning is called {name!r}: this run has {known}; create it with canaryaudit unlearn"
        )
    if target.method == "retrain":
        raise UnlearningError(
            f"{name!r} is a retrained model, which attacks are compared with: choose another unlearning"
        )
    return target


def attack_canaries(
    record: UnlearningRecord, asked: Sequence[str], before: Measurement, inserted: Sequence[Canary]
) -> list[Canary]:
    """Return the canaries to attack: the requested ones, or the one most exposed before unlearning.

    Raises:
        UnlearningError: A requested canary was not unlearned by this request.
    """
    by_id = {canary.id: canary for canary in inserted}
    for identifier in asked:
        if identifier not in record.canaries:
            known = ", ".join(record.canaries[:10]) + (", …" if len(record.canaries) > 10 else "")
            raise UnlearningError(f"unlearning {record.name!r} does not include {identifier!r}: choose from {known}")
    if asked:
        return [by_id[identifier] for identifier in dict.fromkeys(asked)]
    exposures = {canary.id: (canary.exposure.bits, canary.repetitions) for canary in before.canaries}
    return [by_id[max(record.canaries, key=lambda identifier: exposures.get(identifier, (-1.0, 0)))]]


def find_retrained(unlearnings: Sequence[UnlearningRecord], canaries: Sequence[Canary]) -> UnlearningRecord | None:
    """Return the last retrained model whose text contained none of these canaries; None if there is none."""
    wanted = {canary.id for canary in canaries}
    fitting = [record for record in unlearnings if record.method == "retrain" and wanted <= set(record.canaries)]
    return fitting[-1] if fitting else None


def is_same_attack(
    record: UnlearningRecord, reference: UnlearningRecord, canaries: Sequence[Canary], options: AttackOptions
) -> bool:
    """Return whether the record contains this attack, compared with the current retrained model."""
    attack = record.relearning
    return attack is not None and (
        {curve.canary for curve in attack.curves} == {canary.id for canary in canaries}
        and (attack.steps, attack.learning_rate, attack.seed) == (options.steps, options.learning_rate, options.seed)
        and attack.retrained_sha256 == reference.model_sha256
    )


def run_attack(
    session: RunSession,
    record: UnlearningRecord,
    reference: UnlearningRecord,
    canaries: Sequence[Canary],
    options: AttackOptions,
) -> UnlearningRecord:
    """Attack an unlearned and the retrained model, and write the result to the unlearning's record.

    Raises:
        ModelError: A checkpoint outside the run cannot be read, or has changed since it was recorded.
        UnlearningError: The text has no window without a secret, or the two models read it in different tokens.
    """
    attack = _attack_tokens if session.run.external_model() else _attack_characters
    relearning = attack(session, (record, reference), canaries, options)
    written = record.model_copy(update={"relearning": relearning})
    session.run.write_unlearning(written)
    for sentence in relearning_sentences(relearning, written.cost.speedup):
        session.progress.info(sentence)
    return written


def _attack_characters(
    session: RunSession, records: Sequence[UnlearningRecord], canaries: Sequence[Canary], options: AttackOptions
) -> Relearning:
    """Attack models that canaryaudit trained."""
    device = resolve_device(options.device)
    text = CharacterText(session.data(device)[0], session.run.model_record().window)
    learners = [CharacterLearner(session.model(ModelId(own.name), device)) for own in records]
    contenders = [_attacked(session, own, learner, text) for own, learner in zip(records, learners, strict=True)]
    with session.stage("attack", records[0].name, seed=options.seed, device=device.type, precision="fp32"):
        return _relearning(session, contenders, canaries, options.configure(RelearningConfig))


def _attack_tokens(
    session: RunSession, records: Sequence[UnlearningRecord], canaries: Sequence[Canary], options: AttackOptions
) -> Relearning:
    """Attack models of ``transformers``, in float32: the files are left as they are."""
    if session.processes.size > 1:
        raise UnlearningError("a model of transformers is attacked by one process: leave out torchrun")
    models = [load_result(session, ModelId(own.name), options.device).model for own in records]
    window = min(WINDOW, *(own.longest or WINDOW for own in models))
    run_text, device = session.run_text(), models[0].device
    with (
        session.stage("attack", records[0].name, seed=options.seed, device=device.type, precision="fp32"),
        memory_errors("train the models further", "a smaller model"),
    ):
        contenders = []
        for own, model in zip(records, models, strict=True):
            model.model.float()
            text = TokenText(run_text, model.tokenizer, window, device)
            contenders.append(_attacked(session, own, TokenLearner(model), text))
        return _relearning(session, contenders, canaries, options.configure(RelearningConfig, measurement=QUICK))


def _attacked(session: RunSession, record: UnlearningRecord, learner: Learner, text: AttackText) -> AttackedModel:
    worst = _worst_probes(session, ModelId(record.name))
    return AttackedModel(record.name, learner, text, record.model_sha256, worst)


def _relearning(
    session: RunSession, contenders: Sequence[AttackedModel], canaries: Sequence[Canary], config: RelearningConfig
) -> Relearning:
    return attack_by_relearning(
        contenders[0], contenders[1], canaries, session.run.canary_set(), config, session.progress
    )


def _worst_probes(session: RunSession, model: ModelId) -> dict[str, AskedProbe]:
    """Return the worst probe of each canary in a model, unless it is the template's prefix itself."""
    measurement = session.run.measurement(model)
    if measurement.worst_cases is None:
        return {}
    probes = {part.template: part for part in probes_of(measurement, session.run.canary_set(), session.run_text())}
    worst = {c.id: worst_probe(c, probes[c.template]) for c in measurement.canaries if not c.control}
    return {name: probe for name, probe in worst.items() if probe}


def name_of_retraining(attacked: str, taken: Collection[str]) -> str:
    """Return a free name for the model retrained for comparison with the unlearning ``attacked``."""
    long = f"retrain-for-{attacked}"[: MAX_NAME - len("-99")]
    numbered = (f"{long}-{number}" for number in count(2))
    return next(name for name in chain(("retrain", long), numbered) if name not in taken)
