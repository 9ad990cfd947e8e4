"""Unlearn stage of models that lie outside the run directory: those of ``transformers``."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from canaryaudit.canaries.canary import Canary
from canaryaudit.canaries.insertion import run_vocabulary
from canaryaudit.errors import ModelError, UnfitOptions, UnlearningError
from canaryaudit.exposure.probes import RunText
from canaryaudit.formatting import points, share_change
from canaryaudit.models.huggingface import SCHEME, LoadedModel, ModelSource, save_huggingface
from canaryaudit.pipeline.curvature import StoredCurvature, curvature_of
from canaryaudit.pipeline.external import check_unchanged, described, load_source, memory_errors, source_of
from canaryaudit.pipeline.session import RunSession
from canaryaudit.pipeline.unlearn import unlearned_words
from canaryaudit.plan import UnlearnOptions
from canaryaudit.records import (
    TRAINED_MODEL,
    CanaryMeasurement,
    ExternalModel,
    UnlearningCost,
    UnlearningRecord,
)
from canaryaudit.unlearning.curvature.kronecker import KroneckerCurvature
from canaryaudit.unlearning.curvature.module_layers import ModuleLayers
from canaryaudit.unlearning.tokens.quality import TokenQuality, fidelity_by_tokens
from canaryaudit.unlearning.tokens.update import TokenRequest, TokenResult, unlearn_tokens

REMEMBERED_PVALUE = 0.1
"""p-value of a secret's worst case in the original model up to which it counts as remembered."""


@dataclass(frozen=True)
class CheckpointRequest:
    """Which checkpoint to unlearn from, and where the result is to be written.

    Attributes:
        source: Where the model lies; None for the one that was measured, or the result of ``--from``.
        output: A folder that does not exist yet; None for a baseline, which is ready.
    """

    source: ModelSource | None = None
    output: Path | None = None


def check_checkpoint_options(options: UnlearnOptions, request: CheckpointRequest) -> None:
    """Check that the options fit a model that canaryaudit did not train.

    Raises:
        UnfitOptions: One does not.
        UnlearningError: The output is missing or taken.
    """
    default = UnlearnOptions()
    fixed = ("solver", "replacement", "retain_windows", "tau", "shards")
    unfit = [name for name in fixed if getattr(options, name) != getattr(default, name)]
    unfit += ["scope"] if options.scope not in (None, "all-layers") else []
    if unfit:
        raise UnfitOptions(f"--{unfit[0].replace('_', '-')} only applies to the model that canaryaudit trains: drop it")
    if options.method == "retrain":
        if request.source is None or request.output is not None:
            raise UnfitOptions(
                "canaryaudit does not train models of transformers: give the checkpoint that you retrained without "
                "the canaries as --model hf:PATH, without -o"
            )
        return
    if options.method != "second-order":
        raise UnfitOptions(
            f"--method {options.method} only applies to the model that canaryaudit trains: drop it, or use --method "
            "retrain for a checkpoint that you retrained"
        )
    if request.output is None:
        raise UnlearningError("where to? Give the folder for the updated checkpoint with -o")


def check_output(run: Path, output: Path) -> None:
    """Check that a folder can take a checkpoint.

    Raises:
        UnlearningError: It exists, or lies in the run directory.
    """
    if output.exists() or output.is_symlink():
        raise UnlearningError(f"{output} exists: choose another -o")
    if run.resolve() in output.resolve().parents:
        raise UnlearningError(f"{output} lies in the run directory, which holds records only: choose another -o")


def run_checkpoint_unlearning(
    session: RunSession,
    options: UnlearnOptions,
    request: CheckpointRequest,
    chosen: Sequence[Canary],
    lineage: Sequence[UnlearningRecord],
) -> UnlearningRecord:
    """Unlearn the chosen canaries from a checkpoint, write the result, and record it.

    Args:
        session: The run, whose model has been measured.
        options: How to unlearn.
        request: From which checkpoint, and where to.
        chosen: The canaries.
        lineage: The requests that led to the model to start from, the first one first.

    Raises:
        ModelError: The checkpoint cannot be read, or the result not written.
        Inconclusive: No update stays within the fidelity limit; nothing was saved.
    """
    run, name = session.run, options.resolved_name
    if session.processes.size > 1:
        raise UnlearningError("a model of transformers is updated by one process: leave out torchrun")
    source = request.source or source_of(_start(session, options))
    loaded = load_source(source, options.device)
    if request.output is not None:
        check_unchanged(session, options.start, source, loaded)
    earlier = {own for link in lineage for own in link.canaries}
    again = [own for own in run.canary_set().inserted if own.id in earlier - {canary.id for canary in chosen}]
    known = _remembered(session, chosen)
    device = loaded.model.device.type
    with (
        session.stage("unlearn", name, seed=options.seed, device=device, precision="fp32"),
        memory_errors(f"update {SCHEME}{source.path}", "unlearn fewer canaries at a time with --canary and --from"),
    ):
        model: Any = loaded.model.model.float()
        asked = _token_request(session, options, [*known, *again], lineage, loaded.dtype)
        if request.output is None:
            result, sha256, place = _as_it_is(session, model, loaded, asked), loaded.sha256, source
        else:
            result = _updated(session, loaded, asked, options)
            sha256 = save_huggingface(result.model, loaded.model.tokenizer, loaded.dtype, request.output)
            place = ModelSource(str(request.output))
    record = UnlearningRecord(
        name=name,
        method=options.method,
        scope="all-layers",
        asked_scope=options.scope,
        solver="kronecker" if request.output else None,
        replacement=options.replacement,
        canaries=tuple(canary.id for canary in chosen),
        left_alone=tuple(canary.id for canary in chosen if canary not in known) if request.output else (),
        affected_windows=result.affected_windows,
        retention_windows=result.retention_windows,
        asked_windows=options.retain_windows if request.output else None,
        seed=options.seed,
        device=device,
        precision="fp32",
        model_sha256=sha256,
        external=described(place, loaded),
        origin=options.start,
        origin_sha256=run.model_record(options.start).sha256,
        updates=result.updates,
        fidelity=result.fidelity,
        fidelity_limit=options.max_fidelity_drop,
        cost=result.cost,
        notes=result.notes,
    )
    run.write_unlearning(record)
    change = share_change(record.fidelity.train_accuracy_before, record.fidelity.train_accuracy_after)
    done = f"{unlearned_words(record)} in {record.cost.seconds:.1f} s" if request.output else "Evaluated the baseline"
    session.progress.info(f"{done}; accuracy outside the secrets changed by {points(change)}; see {place.path}.")
    return record


def _start(session: RunSession, options: UnlearnOptions) -> ExternalModel:
    record = session.run.model_record(options.start)
    if record.external is None:
        raise ModelError(f"{session.run.path} has no model of transformers: measure one with --model hf:PATH")
    return record.external


def _remembered(session: RunSession, chosen: Sequence[Canary]) -> list[Canary]:
    """Return the canaries whose worst case the original model ranks high; all where no worst case was measured."""
    measured = {own.id: own for own in session.run.measurement(TRAINED_MODEL).canaries}
    known = [own for own in chosen if _is_remembered(measured[own.id])]
    if alone := len(chosen) - len(known):
        session.progress.info(
            f"Left alone, since the model ranks them like fresh draws: {alone} of {len(chosen)} secrets."
        )
    return known


def _is_remembered(measured: CanaryMeasurement) -> bool:
    return measured.worst_case is None or measured.worst_case.p_value <= REMEMBERED_PVALUE


def _token_request(
    session: RunSession,
    options: UnlearnOptions,
    chosen: Sequence[Canary],
    lineage: Sequence[UnlearningRecord],
    dtype: str,
) -> TokenRequest:
    canary_set = session.run.canary_set()
    vocabulary = run_vocabulary(canary_set)
    heldout = session.run.heldout().ids(vocabulary)
    return TokenRequest(
        canary_set=canary_set,
        chosen=chosen,
        text=session.run_text(),
        heldout=RunText(heldout, np.zeros(len(heldout), dtype=bool), vocabulary),
        seed=options.seed,
        max_fidelity_drop=options.max_fidelity_drop,
        trained=lineage[0].fidelity if lineage else None,
        dtype=getattr(torch, dtype),
    )


def _updated(session: RunSession, loaded: LoadedModel, asked: TokenRequest, options: UnlearnOptions) -> TokenResult:
    # A later request reuses the trained model's curvature, as that of the character model does.
    is_trained = options.start.is_trained or session.run.curvature_path.exists()
    sha256 = session.run.model_record(TRAINED_MODEL if is_trained else options.start).sha256
    stored: list[StoredCurvature] = []

    def source(layers: ModuleLayers, windows: Callable[[], Tensor]) -> KroneckerCurvature:
        stored.append(curvature_of(session, layers, sha256, windows))
        return stored[0].curvature

    result = unlearn_tokens(loaded.model.model, loaded.model.tokenizer, asked, source, session.progress)
    if not stored:
        return result
    return TokenResult(
        **{
            **vars(result),
            "cost": stored[0].charged(result.cost),
            "notes": (stored[0].note, *result.notes),
        }
    )


def _as_it_is(session: RunSession, model: Any, loaded: LoadedModel, asked: TokenRequest) -> TokenResult:
    """Return a baseline that the user made: its quality beside the audited model's."""
    source = source_of(_start(session, UnlearnOptions()))
    quality = TokenQuality(loaded.model.tokenizer, asked.text, asked.heldout, model)
    after = quality.of(model)
    original = load_source(source, model.device.type)
    check_unchanged(session, TRAINED_MODEL, source, original)
    other: Any = original.model.model.float()
    before = TokenQuality(original.model.tokenizer, asked.text, asked.heldout, other).of(other)
    notes = ("a checkpoint that the user retrained; what that took is not known", quality.note)
    return TokenResult(model, (), fidelity_by_tokens(before, after), UnlearningCost.unknown(), 0, 0, notes)
