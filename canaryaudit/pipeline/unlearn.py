"""Unlearn stage: a closed-form update or a baseline, and its record."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import get_args

from canaryaudit.canaries.canary import Canary
from canaryaudit.errors import ModelError, UnlearningError
from canaryaudit.models.char_lstm import CharLSTM
from canaryaudit.models.device import resolve_device, resolve_precision
from canaryaudit.models.ensemble import Ensemble
from canaryaudit.models.weights import weights_bytes
from canaryaudit.pipeline.curvature import stored_curvature
from canaryaudit.pipeline.session import RunSession
from canaryaudit.plan import UnlearnOptions
from canaryaudit.records import ClosedForm, Scope, SolverName, TrainingRecord, UnlearningRecord
from canaryaudit.storage.files import atomic_path
from canaryaudit.training.data import TrainingData
from canaryaudit.unlearning import UnlearningConfig, UnlearningResult, unlearn
from canaryaudit.unlearning.baselines.retraining import BaselineConfig, Original, training_of, unlearn_by_training
from canaryaudit.unlearning.baselines.sisa import passes_over_windows


def check_options(options: UnlearnOptions) -> None:
    """Check that the options are compatible, before any training.

    Raises:
        UnlearningError: An option does not apply to the method.
    """
    if options.shards is not None and options.method != "sisa":
        raise UnlearningError(f"--shards only applies to --method sisa, not to {options.method}: drop --shards")
    if options.tau is not None and options.method != "first-order":
        raise UnlearningError(f"--tau only applies to --method first-order, not to {options.method}: drop --tau")
    default, closed = UnlearnOptions(), options.method in get_args(ClosedForm)
    if options.solver != default.solver and not (closed and _closed_form(options, options.scope).resolved_solver):
        what = options.method if options.method != "second-order" else "the final layer's update"
        raise UnlearningError(
            f"--solver only applies to second-order updates of all layers, not to {what}: drop --solver "
            f"{options.solver}"
        )
    if closed:
        return
    if options.retain_windows != default.retain_windows:
        raise UnlearningError(f"--method {options.method} trains on the whole text: drop --retain-windows")
    if options.start != "before":
        raise UnlearningError(f"--method {options.method} starts from the trained model: drop --from {options.start}")
    if options.scope not in (None, "all-layers"):
        raise UnlearningError(f"--method {options.method} trains all layers: drop --scope {options.scope}")


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
        pairs["shards"] = (record.members, options.shards or BaselineConfig.model_fields["shards"].default)
    if record.solver:
        pairs["solver"] = (record.solver, options.solver)
    if record.asked_windows is None:  # a baseline, or of an earlier version
        pairs["scope"] = (record.scope, options.scope or record.scope)
    elif record.method == options.method:
        made, asked = (_closed_form(options, scope) for scope in (record.asked_scope, options.scope))
        pairs["scope"] = (made.resolved_scope, asked.resolved_scope)
        pairs["retain-windows"] = (record.asked_windows, options.retain_windows)
        pairs["tau"] = (record.tau, options.tau)
    return next((name for name, (actual, asked) in pairs.items() if actual != asked), "")


def _closed_form(options: UnlearnOptions, scope: Scope | None) -> UnlearningConfig:
    """Return the configuration of a closed-form update with this scope."""
    asked = options.model_dump(include={"method", "solver", "replacement"})
    return UnlearningConfig.model_validate(asked | {"scope": scope})


def run_unlearning(
    session: RunSession,
    options: UnlearnOptions,
    chosen: Sequence[Canary],
    earlier: Sequence[Canary],
    lineage: Sequence[UnlearningRecord],
) -> UnlearningRecord:
    """Unlearn the chosen canaries from the model to start from, and write the result.

    Args:
        session: The run.
        options: How to unlearn, and from which model.
        chosen: The canaries to unlearn.
        earlier: The canaries of earlier requests that led to the model to start from.
        lineage: These requests, in order.

    Raises:
        UnlearningError: The request is invalid.
        Inconclusive: No update stays within the fidelity limit; nothing was saved.
    """
    name, run, closed = options.resolved_name, session.run, options.method in get_args(ClosedForm)
    origin, training = run.model_record(options.start), run.model_record().training
    device = resolve_device(options.device)
    # The training's precision if possible: a speed test could choose another one when an interrupted request resumes.
    same = training is not None and training.device == device.type
    precision = training.precision if training and same else resolve_precision("auto", device)
    model, (data, _) = session.model(options.start, device), session.data(device)
    if isinstance(model, Ensemble):
        raise ModelError(f"{run.path} holds an ensemble of models: expected the single trained model")
    with session.stage("unlearn", name, seed=options.seed, device=device.type, precision=precision):
        if closed:
            canaries = [*chosen, *(canary for canary in earlier if canary not in chosen)]
            scope, solver, result = _update(session, options, canaries, lineage, model, training, data, precision)
        else:
            scope, solver, result = (
                "all-layers",
                None,
                _train(session, options, chosen, model, training, data, precision),
            )
        sha256 = run.write_weights(f"after-{name}", weights_bytes(result.model))
    cost = result.cost
    if training:
        cost = cost.model_copy(update={"retraining_gradients": passes_over_windows(training)})
    record = UnlearningRecord(
        name=name,
        method=options.method,
        scope=scope,
        asked_scope=options.scope if closed else None,
        solver=solver,
        tau=options.tau,
        replacement=options.replacement,
        canaries=tuple(canary.id for canary in chosen),
        affected_windows=result.affected_windows,
        retention_windows=result.retention_windows,
        asked_windows=options.retain_windows if closed else None,
        retention_source="corpus" if options.retain_windows else "model",
        seed=options.seed,
        device=device.type,
        precision=precision,
        model_sha256=sha256,
        origin=options.start,
        origin_sha256=origin.sha256,
        updates=result.updates,
        fidelity=result.fidelity,
        fidelity_limit=options.max_fidelity_drop,
        cost=cost,
        members=len(result.model.members) if isinstance(result.model, Ensemble) else 1,
        notes=result.notes,
    )
    run.write_unlearning(record)
    run.remove_work(name)
    return record


def _update(
    session: RunSession,
    options: UnlearnOptions,
    canaries: Sequence[Canary],
    lineage: Sequence[UnlearningRecord],
    model: CharLSTM,
    training: TrainingRecord | None,
    data: TrainingData,
    precision: str,
) -> tuple[Scope, SolverName | None, UnlearningResult]:
    """Run the closed-form update; return its scope, its solver and the result."""
    config = UnlearningConfig.model_validate(
        {
            "method": options.method,
            "scope": options.scope,
            "solver": options.solver,
            "replacement": options.replacement,
            "retain_windows": options.retain_windows,
            "max_fidelity_drop": options.max_fidelity_drop,
            "tau": options.tau,
            "window": training.window if training else 100,
            "seed": options.seed,
            "precision": precision,
        }
    )
    # Without windows of the corpus the curvature too is taken from what the model says, and not kept.
    curved = config.resolved_solver == "kronecker" and config.retain_windows > 0
    stored = stored_curvature(session, data) if curved else None
    result = unlearn(
        model,
        data,
        canaries,
        session.run.canary_set().corpus_symbols,
        config,
        training.seconds if training else 0.0,
        session.progress,
        trained=lineage[0].fidelity if lineage else None,
        curvature=stored.curvature if stored else None,
    )
    if stored:
        result = replace(result, cost=stored.charged(result.cost), notes=(stored.note, *result.notes))
    return config.resolved_scope, config.resolved_solver, result


def _train(
    session: RunSession,
    options: UnlearnOptions,
    chosen: Sequence[Canary],
    model: CharLSTM,
    training: TrainingRecord | None,
    data: TrainingData,
    precision: str,
) -> UnlearningResult:
    """Train the baseline."""
    if training is None:
        raise ModelError(
            f"{session.run.path} has no training record: --method {options.method} needs a model made by canaryaudit "
            "train"
        )
    config = BaselineConfig.model_validate(
        {
            "method": options.method,
            "replacement": options.replacement,
            "max_fidelity_drop": options.max_fidelity_drop,
            "seed": options.seed,
            "precision": precision,
        }
        | ({} if options.shards is None else {"shards": options.shards})
    )
    return unlearn_by_training(
        Original(model, data, training_of(training, data.train.device), training),
        chosen,
        session.run.canary_set(),
        config,
        partial(session.run.work_path, options.resolved_name),
        atomic_path,
        session.progress,
        session.processes,
    )
