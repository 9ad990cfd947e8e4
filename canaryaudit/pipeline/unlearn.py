"""The unlearn stage: a closed-form update or a baseline, and its record."""

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
    """Refuse options that do not go together, before anything is trained for them.

    Raises:
        UnlearningError: An option that the method does not have.
    """
    if options.shards is not None and options.method != "sisa":
        raise UnlearningError(f"--shards belongs to --method sisa: drop it, or the method {options.method}")
    if options.tau is not None and options.method != "first-order":
        raise UnlearningError(f"--tau belongs to --method first-order: drop it, or the method {options.method}")
    default, closed = UnlearnOptions(), options.method in get_args(ClosedForm)
    if options.solver != default.solver and not (closed and _closed_form(options, options.scope).resolved_solver):
        what = options.method if options.method != "second-order" else "the final layer's update"
        raise UnlearningError(
            f"--solver is of second-order steps over all layers, which {what} does not take: drop --solver "
            f"{options.solver}"
        )
    if closed:
        return
    if options.retain_windows != default.retain_windows:
        raise UnlearningError(f"--method {options.method} reads all of the text: drop --retain-windows")
    if options.start != "before":
        raise UnlearningError(f"--method {options.method} starts from the trained model: drop --from {options.start}")
    if options.scope not in (None, "all-layers"):
        raise UnlearningError(f"--method {options.method} trains all layers: drop --scope {options.scope}")


def difference(record: UnlearningRecord, options: UnlearnOptions, inserted: Sequence[Canary]) -> str:
    """Return the first option in which an unlearning is not what is asked for; empty where it is in all of them.

    Args:
        record: What was done.
        options: What is asked for.
        inserted: The run's inserted canaries: all of them where none is named.
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
        found, asked = (_closed_form(options, scope) for scope in (record.asked_scope, options.scope))
        pairs["scope"] = (found.resolved_scope, asked.resolved_scope)
        pairs["retain-windows"] = (record.asked_windows, options.retain_windows)
        pairs["tau"] = (record.tau, options.tau)
    return next((name for name, (found, asked) in pairs.items() if found != asked), "")


def _closed_form(options: UnlearnOptions, scope: Scope | None) -> UnlearningConfig:
    """Return what a closed form's options resolve to, with this scope."""
    asked = options.model_dump(include={"method", "solver", "replacement"})
    return UnlearningConfig.model_validate(asked | {"scope": scope})


def run_unlearning(
    session: RunSession,
    options: UnlearnOptions,
    chosen: Sequence[Canary],
    earlier: Sequence[Canary],
    lineage: Sequence[UnlearningRecord],
) -> UnlearningRecord:
    """Unlearn the chosen canaries from the model to start from, and write the result down.

    Args:
        session: The run.
        options: How to unlearn, and from which model.
        chosen: Whose secrets to unlearn.
        earlier: Those that earlier requests unlearned from the model to start from.
        lineage: These requests, the first one first.

    Raises:
        UnlearningError: The request cannot be carried out.
        Inconclusive: Nothing can be forgotten within the fidelity limit; nothing was saved.
    """
    name, run, closed = options.resolved_name, session.run, options.method in get_args(ClosedForm)
    origin, training = run.model_record(options.start), run.model_record().training
    device = resolve_device(options.device)
    # The training's own where it can be: a trial of speed could choose otherwise where an interrupted request goes on.
    same = training is not None and training.device == device.type
    precision = training.precision if training and same else resolve_precision("auto", device)
    model, (data, _) = session.model(options.start, device), session.data(device)
    if isinstance(model, Ensemble):
        raise ModelError(f"{run.path} holds several models that predict together: expected the one that was trained")
    with session.stage("unlearn", name, seed=options.seed, device=device.type, precision=precision):
        if closed:
            canaries = [*chosen, *(own for own in earlier if own not in chosen)]
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
    """Make the closed-form update that the options ask for; return its scope and its solver too."""
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
    """Train the baseline that the options ask for."""
    if training is None:
        raise ModelError(
            f"{session.run.path} does not say how its model was trained: expected a model made by canaryaudit train "
            f"to compare --method {options.method} with"
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
