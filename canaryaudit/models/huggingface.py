"""Causal models of ``transformers``: loaded from a folder or the hub, and read token by token.

Only safetensors are read, and no code that comes with a model is run.
"""

import json
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError

from canaryaudit.errors import ModelError, UnreadableText
from canaryaudit.formatting import shorten
from canaryaudit.models.language_model import PrefixReader, PrefixState
from canaryaudit.models.token_model import FullReader, as_tokenizer
from canaryaudit.models.tokenizer import FastTokenizer, Tokenizer
from canaryaudit.models.tree_reader import TreeReader
from canaryaudit.storage.model_folder import ADAPTER_CONFIG, folders_sha256

SCHEME = "hf:"
"""Before the path or hub id of a model, on the command line."""
DTYPES = ("auto", "float32", "bfloat16", "float16")
MAX_BYTES = 1 << 30
"""What keys and values after the prompt may take: a million tokens of a small model, 8,000 of one of 8 B parameters."""
_AGREE_BITS = {torch.float32: 1e-2, torch.bfloat16: 2.0, torch.float16: 0.5}
"""How far shared attention may lie from the model's own, by its arithmetic; a wrong one is bits away."""
_TRIES, _TRY_DEPTH, _LIKELY = 4, 3, -20.0
"""Paths that are compared, after each of the first tokens and after the last."""
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_LAYER = re.compile(r"\.\d+\.")
_LOADING_ERRORS = (OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError, ImportError, SafetensorError)
_INSTALL = "install what it needs: pip install 'canaryaudit[hf]'"


class HuggingFaceModel:
    r"""A causal model of ``transformers`` as a ``TokenModel``.

    Keys and values are shared among all prefixes of a prompt wherever the model's attention allows it; otherwise every
    prefix is read from its beginning, which is slow and always right.

    Args:
        model: Returns logits; also a PEFT model.
        tokenizer: Its fast tokenizer.
        max_bytes: What keys and values after a prompt may take.

    Examples:
        >>> from tokenizers import Tokenizer, models
        >>> from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast
        >>> symbols = {symbol: index for index, symbol in enumerate("0123456789 .abcdefghijklmnopqrstuvwxyz\n")}
        >>> tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE(symbols, [])))
        >>> sizes = {"n_embd": 8, "n_layer": 1, "n_head": 1, "bos_token_id": 0, "eos_token_id": 0}
        >>> model = HuggingFaceModel(GPT2LMHeadModel(GPT2Config(vocab_size=len(symbols), **sizes)), tokenizer)
        >>> _, state = model.open(model.tokenizer.encode(["code "])[0].ids, np.arange(10), depth=4)
        >>> state.log2_probs.shape
        torch.Size([1, 11])
    """

    def __init__(self, model: Any, tokenizer: Any, max_bytes: int = MAX_BYTES) -> None:
        self.model: Any = model
        self.tokenizer: Tokenizer = as_tokenizer(tokenizer)
        self.max_bytes = max_bytes

    @property
    def device(self) -> torch.device:
        """Of the model's weights."""
        device: torch.device = next(self.model.parameters()).device
        return device

    @property
    def longest(self) -> int | None:
        """How many tokens it reads at most; None if that is not known."""
        longest = getattr(self.model.config, "max_position_embeddings", None)
        return longest if isinstance(longest, int) else None

    @property
    def multiplications(self) -> int:
        """How many reading one token takes."""
        return sum(parameter.numel() for parameter in self.model.parameters())

    def open(self, prompt: Sequence[int], columns: np.ndarray, depth: int) -> tuple[PrefixReader, PrefixState]:
        """Read a prompt; see ``TokenModel.open``.

        Raises:
            UnreadableText: The prompt is longer than what the model reads, or has tokens that it does not know.
            ModelError: The model's predictions are no numbers.
        """
        if self.longest is not None and len(prompt) + depth > self.longest:
            raise UnreadableText(
                f"a prompt of {len(prompt)} tokens and a secret of up to {depth} do not fit into the {self.longest} "
                "that the model reads: use a shorter template, or leave out long prompts with --probes none"
            )
        known = int(self.model.get_input_embeddings().weight.shape[0])
        strange = max((*prompt, *(columns.tolist() if len(columns) < known else ())), default=0)
        if strange >= known:  # All tokens are asked for where any will do.
            raise UnreadableText(
                f"the tokenizer gives token {strange}, and the model knows only {known:,}: use the tokenizer that it "
                "was trained with"
            )
        full = FullReader(self.model, prompt, columns, self.device, self.multiplications)
        training = self.model.training
        self.model.eval()
        try:
            with _quiet():  # Advice on padding: any token may be read.
                start = full.start(depth)
                if not torch.isfinite(start.log2_probs).all():
                    raise ModelError("the model predicts NaN: load it with --dtype float32, or train it again")
                if tree := self._tree(prompt, columns, depth, (full, start)):
                    return tree, tree.start()
        finally:
            self.model.train(training)
        return full, start

    def _tree(
        self, prompt: Sequence[int], columns: np.ndarray, depth: int, plain: tuple[FullReader, PrefixState]
    ) -> TreeReader | None:
        """Return a reader that shares keys and values; None if it does not read as the model itself does."""
        tolerance = _AGREE_BITS.get(next(self.model.parameters()).dtype, _AGREE_BITS[torch.float32])
        full, start = plain
        paths = torch.from_numpy(np.random.default_rng(0).integers(0, max(1, len(columns)), (_TRIES, max(1, depth))))
        paths = paths.to(self.device)
        try:
            tree = TreeReader(self.model, prompt, columns, depth=depth, max_bytes=self.max_bytes)
            here, there = start.log2_probs, tree.start()
            for place in range(depth + 1):
                if place:
                    rows = torch.arange(_TRIES, device=self.device) % len(there.log2_probs)
                    there = tree.advance(there.rows(rows), paths[:, place - 1])
                    if place > _TRY_DEPTH and place < depth:
                        continue
                    here = full.after(paths[:, :place])
                # Of hopeless tokens the bits are many and coarse: the likely ones must agree.
                likely = here > _LIKELY
                differences = (here - there.log2_probs)[likely].abs()
                if not torch.isfinite(there.log2_probs).all() or bool((differences > tolerance).any()):
                    return None
        except (AttributeError, KeyError, IndexError, RuntimeError, TypeError, ValueError):
            return None  # Its attention is of another kind.
        return tree


@dataclass(frozen=True)
class ModelSource:
    """Where a model lies and how it is loaded.

    Attributes:
        path: Its folder, or its id on the hub; of a series of checkpoints a pattern with ``*``, for who loads each.
        adapter: Folder of a PEFT adapter, which is merged into it; none if empty.
        dtype: Of the weights; ``auto`` as they are stored.
        device_map: How ``accelerate`` spreads it over devices; on one device if empty.
    """

    path: str
    adapter: str = ""
    dtype: str = "auto"
    device_map: str = ""


@dataclass(frozen=True)
class LoadedModel:
    """A model with what records say of it.

    Attributes:
        model: The model.
        kind: Its class, such as ``LlamaForCausalLM``.
        parameters: How many it has.
        dtype: Of its weights.
        sha256: Of its weights, configuration, tokenizer and adapter.
        tokenizer: Kind and size of its tokenizer.
        starts_with: What the tokenizer puts before every text; may be empty.
    """

    model: HuggingFaceModel
    kind: str
    parameters: int
    dtype: str
    sha256: str
    tokenizer: str
    starts_with: str


def load_huggingface(source: ModelSource, device: torch.device) -> LoadedModel:
    """Load a causal model and its tokenizer.

    Raises:
        ModelError: There is no such model, it is not in safetensors, asks for code of its own, or has no fast
            tokenizer; or ``transformers`` is not installed.
    """
    if source.dtype not in DTYPES:
        raise ModelError(f"--dtype {shorten(source.dtype, 20)}: expected one of {', '.join(DTYPES)}")
    try:
        from transformers import AutoModelForCausalLM, AutoTokenizer
    except ImportError:
        raise ModelError(f"transformers is not installed: {_INSTALL}") from None
    folder, tokenizer_at, adapters = _folders(source)
    placed = {"device_map": source.device_map} if source.device_map else {}
    try:
        with _quiet():
            # Code of the model's own is refused above as well: it would run at loading.
            tokenizer = AutoTokenizer.from_pretrained(tokenizer_at, trust_remote_code=False, local_files_only=True)
            model, found = AutoModelForCausalLM.from_pretrained(
                folder,
                dtype=source.dtype,
                trust_remote_code=False,
                use_safetensors=True,
                local_files_only=True,
                output_loading_info=True,
                **placed,
            )
            _check_weights(folder, model, found)
            for adapter in adapters:
                model = _with_adapter(model, adapter)
    except _LOADING_ERRORS as error:
        reason = shorten(" ".join(str(error).split()), 200)
        raise ModelError(
            f"{folder} is no causal model that transformers can load ({reason}): check its files"
        ) from None
    if not placed:
        model = model.to(device)
    _check_causal(folder, model.eval())
    loaded = HuggingFaceModel(model, tokenizer)
    first = getattr(loaded.tokenizer, "first", ())
    return LoadedModel(
        model=loaded,
        kind=type(model).__name__,
        parameters=sum(own.numel() for own in model.parameters()),
        dtype=str(next(model.parameters()).dtype).removeprefix("torch."),
        sha256=folders_sha256([folder, tokenizer_at, *adapters]),
        tokenizer=f"{type(tokenizer).__name__}, {len(tokenizer):,} tokens",
        starts_with="".join(str(tokenizer.convert_ids_to_tokens(index)) for index in first),
    )


def digest_of(source: ModelSource) -> str:
    """Return the SHA-256 that a model will have once it is loaded.

    Raises:
        ModelError: There is no such model, or it cannot be read safely.
    """
    folder, tokenizer_at, adapters = _folders(source)
    return folders_sha256([folder, tokenizer_at, *adapters])


def _folders(source: ModelSource) -> tuple[Path, Path, list[Path]]:
    """Return the folders of a model, of its tokenizer and of its adapters, after checking what they hold."""
    folder = _folder(source.path)
    adapters = [_folder(source.adapter)] if source.adapter else []
    if (folder / ADAPTER_CONFIG).is_file() and not (folder / "config.json").is_file():
        adapters = [folder, *adapters]  # A checkpoint of PEFT holds the adapter only.
        folder = _folder(_base_of(folder))
    _check_model(folder)
    for adapter in adapters:
        _check_adapter(adapter)
    tokenizer_at = next((own for own in (*adapters, folder) if (own / "tokenizer.json").is_file()), None)
    if tokenizer_at is None:
        raise ModelError(
            f"{folder} has no tokenizer.json: save the model's fast tokenizer there, with tokenizer.save_pretrained"
        )
    return folder, tokenizer_at, adapters


def save_huggingface(model: Any, tokenizer: Tokenizer, dtype: str, folder: Path) -> str:
    """Write a model with its tokenizer into a new folder, as safetensors; nothing remains where that fails.

    Args:
        model: The model; its weights are converted in place.
        tokenizer: Its tokenizer.
        dtype: Of the weights that are written, such as ``bfloat16``.
        folder: Must not exist.

    Returns:
        The SHA-256 that ``load_huggingface`` will find.

    Raises:
        ModelError: It cannot be written.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as staging, _quiet():
            inside = Path(staging) / "model"
            model.to(getattr(torch, dtype)).save_pretrained(inside)
            if isinstance(tokenizer, FastTokenizer):
                tokenizer.save(inside)
            inside.rename(folder)
    except OSError as error:
        raise ModelError(f"cannot write {folder}: {error.strerror or error}; choose another -o") from error
    return folders_sha256([folder])


def _folder(path: str) -> Path:
    """Return the folder of a model: the path itself, or what the hub has under this id."""
    folder = Path(path).expanduser()
    if folder.is_dir():
        return folder
    if folder.exists():
        raise ModelError(f"{path} is a file: give the folder that save_pretrained wrote")
    if not _HUB_ID.fullmatch(path) or folder.parts[0] == ".." or Path(folder.parts[0]).exists():
        raise ModelError(f"no such model folder: {path}; give the folder that save_pretrained wrote, or a hub id")
    try:
        from huggingface_hub import snapshot_download

        return Path(snapshot_download(path, allow_patterns=["*.json", "*.safetensors", "*.model", "*.jinja"]))
    except (ImportError, OSError, ValueError, RuntimeError) as error:
        reason = shorten(" ".join(str(error).split()), 160)
        raise ModelError(
            f"no such model folder: {path}, and the hub does not give it ({reason}): check the path or id"
        ) from None


def _base_of(adapter: Path) -> str:
    base = _json(adapter / ADAPTER_CONFIG).get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        raise ModelError(f"{adapter} is an adapter without its model: give the model as hf:PATH, and it as --adapter")
    return base


def _check_model(folder: Path) -> None:
    """Refuse what holds no model in safetensors, or asks for code of its own."""
    config = _json(folder / "config.json", "it holds no model: give the folder that save_pretrained wrote")
    if config.get("auto_map"):
        raise ModelError(
            f"{folder} asks for code of its own (auto_map in config.json), which is never run: convert it to an "
            "architecture that transformers has"
        )
    if not any(folder.glob("*.safetensors")):
        pickled = sorted(own.name for own in folder.iterdir() if own.suffix in (".bin", ".pt", ".pth", ".ckpt"))
        held = f"only pickled weights ({pickled[0]}), which can run code" if pickled else "no weights"
        raise ModelError(f"{folder} has {held}: save it with save_pretrained, which writes model.safetensors")


def _check_adapter(folder: Path) -> None:
    _json(folder / ADAPTER_CONFIG, "it holds no adapter: give the folder that PEFT's save_pretrained wrote")
    if not (folder / "adapter_model.safetensors").is_file():
        raise ModelError(f"{folder} has no adapter_model.safetensors: save the adapter with PEFT's save_pretrained")


def _check_weights(folder: Path, model: Any, found: dict[str, Any]) -> None:
    """Refuse a model of which parts are random, as no weights have their names, or of which layers are left out."""
    own = {_LAYER.sub(".", name) for name, _ in model.named_parameters()}
    left_out = [name for name in found["unexpected_keys"] if _LAYER.sub(".", name) in own]
    for names, what in ((found["missing_keys"], "are missing"), (left_out, "have no place in the model")):
        if names:
            raise ModelError(
                f"{folder}: weights {what} ({len(names):,}, such as {sorted(names)[0]}): save the model itself with "
                "save_pretrained, not a wrapper of it, and with its configuration"
            )


def _check_causal(folder: Path, model: Any) -> None:
    """Refuse a model whose predictions change with what is read later, such as BERT."""
    ids = torch.arange(4, device=next(model.parameters()).device)[None] % model.get_input_embeddings().weight.shape[0]
    with torch.no_grad(), _quiet():
        early, late = (model(ids[:, :length]).logits[0, 1].float() for length in (2, 4))
    rounding = 1e-4 if next(model.parameters()).dtype == torch.float32 else 0.1
    if bool((early - late).abs().max() > rounding * early.abs().max()):  # NaN is told later.
        raise ModelError(f"{folder} is no causal model: what it reads later changes its predictions; give one that is")


def _with_adapter(model: Any, adapter: Path) -> Any:
    try:
        from peft import PeftModel
    except ImportError:
        raise ModelError(f"peft is not installed: {_INSTALL}") from None
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "(?s).*missing adapter keys")
        try:
            return PeftModel.from_pretrained(model, adapter).merge_and_unload()
        except UserWarning:
            raise ModelError(f"{adapter} does not fit the model: its weights have other names; give its own") from None


def _json(path: Path, otherwise: str = "save the model again") -> dict[str, Any]:
    try:
        found = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise ModelError(f"{path.parent} has no {path.name}: {otherwise}") from None
    except (OSError, ValueError):
        found = None
    if not isinstance(found, dict):
        raise ModelError(f"{path} is damaged: {otherwise}")
    return found


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the loader's bars and advice off the terminal; what matters is raised."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
