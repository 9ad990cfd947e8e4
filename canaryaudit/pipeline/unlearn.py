"""Unlearn stage: a closed-form update or a baseline, and its record."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import get_args

from canaryaudit.canaries.canary import Canary
from canaryaudit.errors import ModelError, UnfitOptions, UnlearningError
from canaryaudit.formatting import counted, points, share_change
from canaryaudit.models.char_lstm import CharLSTM
from canaryaudit.models.device import resolve_device, resolve_precision
from canaryaudit.models.ensemble import Ensemble
from canaryaudit.models.weights import weights_bytes
from canaryaudit.pipeline.curvature import stored_curvature
from canaryaudit.pipeline.session import RunSession
from canaryaudit.plan import DEFAULT_SHARDS, UnlearnOptions
from canaryaudit.records import ClosedForm, ModelId, ModelRecord, Scope, SolverName, UnlearningRecord
from canaryaudit.runs.run_directory import RunDirectory
from canaryaudit.training.data import TrainingData
from canaryaudit.unlearning import TrainedModelFacts, UnlearningConfig, UnlearningResult, unlearn
from canaryaudit.unlearning.baselines.retraining import BaselineConfig, Original, training_of, unlearn_by_training
from canaryaudit.unlearning.baselines.sisa import passes_over_windows


def check_options(options: UnlearnOptions) -> None:
    """Check that the options are compatible, before any training.

    Raises:
        UnfitOptions: An option does not apply to the method.
    """
    if options.shards is not None and options.method != "sisa":
        raise UnfitOptions(f"--shards only applies to --method sisa, not to {options.method}: drop --shards")
    if options.tau is not None and options.method != "first-order":
        raise UnfitOptions(f"--tau only applies to --method first-order, not to {options.method}: drop --tau")
    default, closed = UnlearnOptions(), options.method in get_args(ClosedForm)
    if options.solver != default.solver and not (closed and _closed_form(options, options.scope).resolved_solver):
        what = options.method if options.method != "second-order" else "the final layer's update"
        raise UnfitOptions(
            f"--solver only applies to second-order updates of all layers, not to {what}: drop --solver "
            f"{options.solver}"
        )
    if closed:
        return
    if options.retain_windows != default.retain_windows:
        raise UnfitOptions(f"--method {options.method} trains on the whole text: drop --retain-windows")
    if not options.start.is_trained:
        raise UnfitOptions(f"--method {options.method} starts from the trained model: drop --from {options.start}")
    if options.scope not in (None, "all-layers"):
        raise UnfitOptions(f"--method {options.method} trains all layers: drop --scope {options.scope}")


def difference(record: UnlearningRecord, options: UnlearnOptions, inserted: Sequence[Canary]) -> str:
    """Return the first option in which an existing unlearning differs from a request; empty if none differs.

    Args:
        record: The existing unlearning.
        options: The requested options.
        inserted: The run's inserted canaries, the default of the requested ones.
    """
    pairs: dict[str, tuple[object, object]] = {
        "method": (record.method, options.method),
        "replacement": (record.replacement, options.replacement),
        "canaries": (set(record.canaries), set(options.canary or (canary.id for canary in inserted))),
        "from": (record.origin, options.start),
        "seed": (record.seed, options.seed),
        "max-fidelity-drop": (record.fidelity_limit, options.max_fidelity_drop),
    }
    if record.method == "sisa":
        pairs["shards"] = (record.members, options.shards or DEFAULT_SHARDS)
    if record.solver:
        pairs["solver"] = (record.solver, options.solver)
    if record.asked_windows is None:  # a baseline
        pairs["scope"] = (record.scope, options.scope or record.scope)
    elif record.method == options.method:
        made, asked = (_closed_form(options, scope) for scope in (record.asked_scope, options.scope))
        pairs["scope"] = (made.resolved_scope, asked.resolved_scope)
        pairs["retain-windows"] = (record.asked_windows, options.retain_windows)
        pairs["tau"] = (record.tau, options.tau)
    return next((name for name, (actual, asked) in pairs.items() if actual != asked), "")


def _closed_form(options: UnlearnOptions, scope: Scope | None) -> UnlearningConfig:
    """Return the configuration of a closed-form update with this scope."""
    return options.configure(UnlearningConfig, scope=scope)


@dataclass(frozen=True)
class _Origin:
    """What an unlearning starts from.

    Attributes:
        record: The trained model's record: what the model to update was trained with.
        model: The model to update.
        data: The text that it was trained on.
        precision: Of the matrix products.
    """

    record: ModelRecord
    model: CharLSTM
    data: TrainingData
    precision: str


@dataclass(frozen=True)
class _Outcome:
    """What a method made, and what it made of the options that were left to it."""

    result: UnlearningResult
    scope: Scope
    solver: SolverName | None = None


def select_canaries(run: RunDirectory, identifiers: Sequence[str]) -> list[Canary]:
    """Return the inserted canaries with these ids, or all if no id is given.

    Raises:
        UnlearningError: There is no such canary.
    """
    inserted = {canary.id: canary for canary in run.canary_set().inserted}
    for identifier in identifiers:
        if identifier not in inserted:
            known = ", ".join(list(inserted)[:10]) + (", …" if len(inserted) > 10 else "")
            raise UnlearningError(f"no inserted canary is called {identifier!r}: this run has {known}")
    return [inserted[identifier] for identifier in dict.fromkeys(identifiers or inserted)]


def run_unlearning(
    session: RunSession, options: UnlearnOptions, chosen: Sequence[Canary], lineage: Sequence[UnlearningRecord]
) -> UnlearningRecord:
    """Unlearn the chosen canaries from the model to start from, and write the result.

    Args:
        session: The run.
        options: How to unlearn, and from which model.
        chosen: The canaries to unlearn.
        lineage: The requests that led to the model to start from, the first one first.

    Raises:
        UnlearningError: The request is invalid.
        Inconclusive: No update stays within the fidelity limit; nothing was saved.
    """
    name, run, closed = options.resolved_name, session.run, options.method in get_args(ClosedForm)
    start, trained = run.model_record(options.start), run.model_record()
    device = resolve_device(options.device)
    # The training's precision if possible: a speed test could choose another one when an interrupted request resumes.
    same = trained.training is not None and trained.training.device == device.type
    precision = trained.training.precision if trained.training and same else resolve_precision("auto", device)
    model, (data, _) = session.model(options.start, device), session.data(device)
    if isinstance(model, Ensemble):
        raise ModelError(f"{run.path} holds an ensemble of models: expected the single trained model")
    origin = _Origin(trained, model, data, precision)
    with session.stage("unlearn", name, seed=options.seed, device=device.type, precision=precision):
        if closed:
            outcome = _update(session, options, chosen, lineage, origin)
        else:
            outcome = _Outcome(_train(session, options, chosen, origin), "all-layers")
        result = outcome.result
        sha256 = run.write_weights(ModelId(name), weights_bytes(result.model))
    cost = result.cost
    if trained.training:
        cost = cost.model_copy(update={"retraining_gradients": passes_over_windows(trained.training)})
    record = UnlearningRecord(
        name=name,
        method=options.method,
        scope=outcome.scope,
        asked_scope=options.scope if closed else None,
        solver=outcome.solver,
        tau=options.tau,
        replacement=options.replacement,
        canaries=tuple(canary.id for canary in chosen),
        left_alone=tuple(canary.id for canary in chosen if canary.id in result.left_alone),
        affected_windows=result.affected_windows,
        retention_windows=result.retention_windows,
        asked_windows=options.retain_windows if closed else None,
        retention_source="corpus" if options.retain_windows else "model",
        seed=options.seed,
        device=device.type,
        precision=precision,
        model_sha256=sha256,
        origin=options.start,
        origin_sha256=start.sha256,
        updates=result.updates,
        fidelity=result.fidelity,
        fidelity_limit=options.max_fidelity_drop,
        cost=cost,
        members=len(result.model.members) if isinstance(result.model, Ensemble) else 1,
        notes=result.notes,
    )
    run.write_unlearning(record)
    run.remove_work(name)
    change = share_change(record.fidelity.train_accuracy_before, record.fidelity.train_accuracy_after)
    session.progress.info(
        f"{unlearned_words(record)} in {record.cost.seconds:.1f} s "
        f"(training took {record.cost.retraining_seconds:.1f} s); accuracy outside the secrets changed by "
        f"{points(change)}."
    )
    return record


def unlearned_words(record: UnlearningRecord) -> str:
    """Say what an unlearning did, as the beginning of a sentence."""
    alone = len(record.left_alone)
    if alone == len(record.canaries):
        return f"Left {counted(alone, 'canary')} alone, which the model did not remember,"
    done = f"Unlearned {counted(len(record.canaries) - alone, 'canary')}"
    return done + (f" and left {alone:,} alone, which the model did not remember," if alone else "")


def _update(
    session: RunSession,
    options: UnlearnOptions,
    chosen: Sequence[Canary],
    lineage: Sequence[UnlearningRecord],
    origin: _Origin,
) -> _Outcome:
    """Run the closed-form update."""
    # Earlier requests are re-applied. Otherwise their secrets return: after two more requests on a tiny model
    # (three seeds), to 2.6 bits on average instead of 1.7. Retaining their windows did not help (2.6 bits).
    earlier = [own for link in lineage for own in link.canaries]
    again = [own for own in select_canaries(session.run, earlier) if own not in chosen] if earlier else []
    config = options.configure(UnlearningConfig, window=origin.record.window, precision=origin.precision)
    # Without windows of the corpus, the curvature is computed on sampled text too, and not stored.
    curved = config.resolved_solver == "kronecker" and config.retain_windows > 0
    stored = stored_curvature(session, origin.data) if curved else None
    result = unlearn(
        origin.model,
        origin.data,
        [*chosen, *again],
        session.run.canary_set().lexicon,
        config,
        trained=TrainedModelFacts(
            training_seconds=origin.record.training.seconds if origin.record.training else 0.0,
            fidelity=lineage[0].fidelity if lineage else None,
            curvature=stored.curvature if stored else None,
            canaries=session.run.canary_set().inserted,
        ),
        progress=session.progress,
    )
    if stored:
        result = replace(result, cost=stored.charged(result.cost), notes=(stored.note, *result.notes))
    return _Outcome(result, config.resolved_scope, config.resolved_solver)


def _train(session: RunSession, options: UnlearnOptions, chosen: Sequence[Canary], origin: _Origin) -> UnlearningResult:
    """Train the baseline."""
    training = origin.record.training
    if training is None:
        raise ModelError(
            f"{session.run.path} has no training record: --method {options.method} needs a model made by canaryaudit "
            "train"
        )
    shards = options.shards or DEFAULT_SHARDS
    config = options.configure(BaselineConfig, shards=shards, precision=origin.precision)
    return unlearn_by_training(
        Original(origin.model, origin.data, training_of(training, origin.data.train.device), training),
        chosen,
        session.run.canary_set(),
        config,
        partial(session.run.work_path, options.resolved_name),
        session.progress,
        session.processes,
    )
