"""Unlearning from causal models of transformers: trained here, judged beside controls and a retrained model.

A Llama-like model with single digits and a tied GPT-2-like one with merged digits, 1.0 and 1.2 million parameters, are
trained on the embedded corpus with twelve canaries, eight times each; eight are unlearned and four stay. The retrained
model has the same text without the eight. The tokenizers are trained on the text without any canary, as a published one
is: one that has seen them holds a secret in fewer tokens than other numbers. All costs are processor seconds of one
thread.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import stats
from torch import Tensor, nn

from canaryaudit.attacks import RelearningConfig, attack_by_relearning
from canaryaudit.attacks.relearning import AttackedModel
from canaryaudit.attacks.token_learner import QUICK as RELEARNED
from canaryaudit.attacks.token_learner import TokenLearner, TokenText
from canaryaudit.canaries.canary import Canary, CanarySet
from canaryaudit.canaries.insertion import run_vocabulary
from canaryaudit.canaries.template import Template
from canaryaudit.exposure import MeasurementConfig, measure
from canaryaudit.exposure.probes import RunText
from canaryaudit.models.huggingface import HuggingFaceModel
from canaryaudit.models.tokenizer import FastTokenizer
from canaryaudit.pipeline.insert import make_run
from canaryaudit.pipeline.session import RunSession
from canaryaudit.plan import InsertOptions
from canaryaudit.progress import NullReporter
from canaryaudit.records import Evaluation, Measurement
from canaryaudit.runs.run_directory import RunDirectory
from canaryaudit.unlearning.curvature.kronecker import KroneckerCurvature, kronecker_curvature
from canaryaudit.unlearning.curvature.module_layers import ModuleLayers
from canaryaudit.unlearning.tokens.quality import TokenQuality, evaluate_tokens
from canaryaudit.unlearning.tokens.update import TokenRequest, unlearn_tokens
from tests.commands import ROOT
from tests.token_models import PATTERNS, Arch, Kind

TEMPLATES = ('"My telephone number is {digits:10}," said the pilot.', "The strong-room opens to {digits:4}-{digits:4}.")
CANARIES, UNLEARNED, REPETITIONS, SEED = 12, 8, 8, 2
MODELS: tuple[tuple[str, Arch, Kind], ...] = (("Llama-like", "llama", "single"), ("GPT-2-like, tied", "gpt2", "merged"))
VOCABULARY, WIDTH, STEPS, BATCH, LENGTH = 1_024, 128, 800, 8, 128
RELEARNING = (1, 2, 4, 8, 16)
LIMIT, REQUEST_SEED = 0.003, 5
"""Largest drop of accuracy allowed, and the seed of the request: another one than the methods were tuned with."""
HEADER = (
    "| model | own prefix: mean, largest | controls | worst case: mean | smallest p | KS p | those that stay |\n"
    "| --- | --: | --: | --: | --: | --: | --: |"
)
QUICK = MeasurementConfig(estimators=("sampled",), num_references=300, probes="default")


@dataclass(frozen=True)
class Setting:
    """A run, its texts and the canaries to be unlearned."""

    run: RunDirectory
    canary_set: CanarySet
    chosen: tuple[Canary, ...]
    text: RunText
    heldout: RunText

    @classmethod
    def made(cls, folder: Path, seed: int) -> "Setting":
        """Insert canaries into the embedded corpus, unless that is done."""
        if not (folder / "manifest.json").exists():
            options = InsertOptions(
                corpus="harbour",
                template=TEMPLATES,
                canaries=CANARIES,
                repetitions=(REPETITIONS,),
                holdout=0.1,
                seed=seed,
            )
            make_run(folder, options, [])
        run = RunDirectory.open(folder)
        canary_set = run.canary_set()
        vocabulary = run_vocabulary(canary_set)
        heldout = run.heldout().ids(vocabulary)
        return cls(
            run,
            canary_set,
            canary_set.inserted[:UNLEARNED],
            RunSession(run, [], NullReporter()).run_text(),
            RunText(heldout, np.zeros(len(heldout), dtype=bool), vocabulary),
        )

    def training_text(self, *, without_chosen: bool) -> str:
        """Return the training text, with or without the canaries to be unlearned."""
        text = self.text.vocabulary.decode(self.text.ids)
        if not without_chosen:
            return text
        cuts = sorted(
            (place, place + len(Template.parse(own.template).fill(own.completion)))
            for own in self.chosen
            for place in own.places
        )
        ends = [0, *(end for _, end in cuts)]
        return "".join(text[end:start] for end, start in zip(ends, [*(start for start, _ in cuts), None], strict=True))


def tokenizer_of(kind: Kind, text: str) -> Any:
    """Return a byte-level tokenizer trained on a text and on numbers, if it merges them."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    cut = pre_tokenizers.Split(Regex(PATTERNS[kind]), "isolated")
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.Sequence([cut, level]), decoders.ByteLevel()
    numbers = " ".join(f"{own:06d}" for own in np.random.default_rng(0).zipf(1.3, 20_000) % 1_000_000)
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator([text, *([numbers] if kind == "merged" else [])], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>", pad_token="</s>")


def trained(folder: Path, arch: Arch, tokenizer: Any, text: str, seed: int) -> tuple[Any, float]:
    """Train a model, or load it; return it with the processor seconds that training took."""
    from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

    if (folder / "seconds.txt").exists():
        return AutoModelForCausalLM.from_pretrained(folder).eval(), float((folder / "seconds.txt").read_text())
    torch.manual_seed(seed)
    ends = {"vocab_size": len(tokenizer), "bos_token_id": 0, "eos_token_id": 1}
    model: Any
    if arch == "gpt2":
        drops = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
        model = GPT2LMHeadModel(GPT2Config(**ends, **drops, n_embd=WIDTH, n_layer=5, n_head=4, n_positions=256))
    else:
        sizes = {"hidden_size": WIDTH, "intermediate_size": 3 * WIDTH, "num_hidden_layers": 4}
        heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256}
        model = LlamaForCausalLM(LlamaConfig(**ends, **sizes, **heads))
    ids, rng = torch.tensor(tokenizer(text)["input_ids"]), np.random.default_rng(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.01)
    clock = time.process_time()
    for step in range(STEPS):
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * min(1.0, (step + 1) / 20) * max(0.05, 1 - step / STEPS)
        starts = rng.integers(0, len(ids) - LENGTH - 1, BATCH).tolist()
        _step(model, optimizer, torch.stack([ids[start : start + LENGTH + 1] for start in starts]))
    seconds = time.process_time() - clock
    model.eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "seconds.txt").write_text(str(seconds))
    return model, seconds


def _step(model: Any, optimizer: torch.optim.Optimizer, batch: Tensor) -> None:
    logits = model(input_ids=batch[:, :-1]).logits
    loss = nn.functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()


def relearned(models: dict[str, Any], tokenizer: Any, setting: Setting, canary: Canary, seed: int) -> Iterator[str]:
    """Attack the first of two models beside the second, and yield the exposures after each number of steps."""
    text = TokenText(setting.text, FastTokenizer(tokenizer))
    contenders = [
        AttackedModel(name, TokenLearner(HuggingFaceModel(model, tokenizer)), text, "")
        for name, model in models.items()
    ]
    config = RelearningConfig(steps=RELEARNING, seed=seed, measurement=RELEARNED)
    found = attack_by_relearning(contenders[0], contenders[1], [canary], setting.canary_set, config, NullReporter())
    for curve in found.curves:
        for name, points in zip(models, (curve.unlearned, curve.retrained), strict=True):
            bits = ", ".join(f"{own.exposure.bits:.1f}" for own in points)
            yield f"Relearning {canary.id} ({curve.attack}), {name}, after {(0, *RELEARNING)} steps: {bits} bits."


def judged(name: str, measured: Measurement, setting: Setting) -> str:
    """Return a line of figures on the canaries that were unlearned."""
    going = {own.id for own in setting.chosen}
    own = [canary for canary in measured.canaries if canary.id in going]
    staying = [canary for canary in measured.canaries if not canary.control and canary.id not in going]
    values = [canary.worst_case.p_value for canary in own if canary.worst_case]
    controls = measured.calibration.mean_bits if measured.calibration else float("nan")
    uniform = stats.kstest(values, "uniform").pvalue
    return (
        f"| {name} | {np.mean([own.exposure.bits for own in own]):.2f}, {max(own.exposure.bits for own in own):.1f} | "
        f"{controls:.2f} | {np.mean([canary.worst_case.bits for canary in own if canary.worst_case]):.2f} | "
        f"{min(values):.3f} | {uniform:.3f} | {np.mean([own.exposure.bits for own in staying]):.1f} |"
    )


def outside(windows: Any) -> list[Any]:
    """Return the stretches of windows between secrets."""
    found = []
    for window in windows:
        cuts = np.flatnonzero(window.secret)
        for first, last in zip([0, *(cuts + 1)], [*cuts, len(window.ids)], strict=True):
            if last - first > 8:
                ids = window.ids[first:last]
                found.append(replace(window, ids=ids, secret=np.zeros(len(ids), dtype=bool)))
    return found


def run(folder: Path, seed: int = SEED) -> Iterator[str]:
    """Yield the lines of the table; models lie in ``folder``, and those that are there are not trained again."""
    torch.set_num_threads(1)
    setting = Setting.made(folder / "run", seed)
    text = setting.training_text(without_chosen=False)
    for name, arch, kind in MODELS:
        tokenizer = tokenizer_of(kind, (ROOT / "corpora" / "harbour.txt").read_text("utf-8"))
        retrained, _ = trained(
            folder / f"{arch}-retrained", arch, tokenizer, setting.training_text(without_chosen=True), seed
        )
        model, seconds = trained(folder / arch, arch, tokenizer, text, seed)
        size = sum(own.numel() for own in model.parameters()) / 1e6
        yield f"\n### {name}, {size:.2f} M parameters, trained in {seconds:.0f} processor seconds\n"
        prepared = 0.0

        def source(layers: ModuleLayers, windows: Any) -> KroneckerCurvature:
            nonlocal prepared
            clock = time.process_time()
            found = kronecker_curvature(layers, windows(), 0, NullReporter())
            prepared = time.process_time() - clock
            return found

        own = FastTokenizer(tokenizer)
        quality = TokenQuality(own, setting.text, setting.heldout, model)
        plain = outside(quality.train)
        request = TokenRequest(setting.canary_set, setting.chosen, setting.text, setting.heldout, REQUEST_SEED, LIMIT)
        clock = time.process_time()
        quality.of(model)
        evaluated = 2 * (time.process_time() - clock)
        clock = time.process_time()
        result = unlearn_tokens(model, own, request, source, NullReporter())
        whole = time.process_time() - clock - prepared
        yield HEADER
        for title, each in (("before", model), ("unlearned", result.model), ("retrained", retrained)):
            reader = HuggingFaceModel(each, tokenizer)
            yield judged(title, measure(reader, setting.canary_set, QUICK, run_text=setting.text), setting)
        yield (
            f"\nUpdate: {whole - evaluated:.1f} s ({(whole - evaluated) / seconds:.1%} of training); quality before "
            f"and after: {evaluated:.1f} s ({evaluated / seconds:.1%}); the curvature, once for all requests: "
            f"{prepared:.1f} s ({prepared / seconds:.1%})."
        )
        yield _losses(quality, plain, (model, result.model))
        yield f"Notes: {'; '.join(result.notes)}."
        canary = setting.chosen[0]
        yield from relearned({"unlearned": result.model, "retrained": retrained}, tokenizer, setting, canary, seed)


def _losses(quality: TokenQuality, plain: Any, models: tuple[Any, Any]) -> str:
    def change(windows: Any) -> str:
        before, after = (evaluate_tokens(own, windows) for own in models)
        loss = f"{after.loss_bits / before.loss_bits - 1:+.2%} (from {before.loss_bits:.3f} bits per token)"
        return f"{loss}, accuracy {_points(before, after)}"

    return f"Loss on training text outside the secrets {change(plain)}; on held-out text {change(quality.heldout)}."


def _points(before: Evaluation, after: Evaluation) -> str:
    return f"{100 * (after.accuracy - before.accuracy):+.2f} points"
