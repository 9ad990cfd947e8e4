"""Tests of canaryaudit.models.char_lstm."""

import contextlib
import json
import math
import random
import struct
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from canaryaudit.errors import Damaged, ModelError
from canaryaudit.models import device as model_module
from canaryaudit.models.char_lstm import BFloat16LanguageModel, CharLSTM, LSTMLanguageModel
from canaryaudit.models.device import resolve_device, resolve_precision
from canaryaudit.models.weights import load_into, weights_bytes
from canaryaudit.records import Architecture

VOCABULARY = "\n !0123456789abcdef"
CPU = torch.device("cpu")


def make(embedding: int = 6, hidden: int = 24, layers: int = 2, scale: float = 3.0) -> CharLSTM:
    torch.manual_seed(0)
    model = CharLSTM(Architecture(vocabulary=VOCABULARY, embedding=embedding, hidden=hidden, layers=layers)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter *= scale  # Untrained weights make every law nearly uniform.
    return model


def texts(count: int, length: int) -> torch.Tensor:
    return torch.randint(len(VOCABULARY), (count, length), generator=torch.Generator().manual_seed(1))


def log2_probs(model: CharLSTM, symbols: torch.Tensor) -> torch.Tensor:
    """The whole model at once, through nn.LSTM."""
    with torch.no_grad():
        return torch.log_softmax(model(symbols), 2) / math.log(2)


def read_all(reader: LSTMLanguageModel, symbols: torch.Tensor) -> torch.Tensor:
    """Read texts symbol by symbol, side by side; (B, T) -> (B, T, V)."""
    states = [reader.read(text[:1]) for text in symbols]
    state = type(states[0])(
        torch.cat([own.log2_probs for own in states]),
        tuple(torch.cat([own.cache[k] for own in states]) for k in range(2)),
    )
    steps = [state.log2_probs]
    for place in range(1, symbols.shape[1]):
        state = reader.advance(state, symbols[:, place])
        steps.append(state.log2_probs)
    return torch.stack(steps, 1)


# --- reading --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("embedding", "hidden", "layers"), [(6, 24, 1), (6, 24, 2), (3, 17, 3), (1, 1, 1)])
def test_the_reader_agrees_with_the_whole_model(embedding: int, hidden: int, layers: int) -> None:
    model, symbols = make(embedding, hidden, layers), texts(9, 40)
    found, expected = read_all(LSTMLanguageModel(model), symbols), log2_probs(model, symbols)
    assert (found - expected).abs().max() < 1e-4
    assert expected.std() > 0.1, "a uniform model would prove nothing"


def test_bfloat16_stays_within_a_tenth_of_a_bit_per_symbol() -> None:
    model, symbols = make(16, 64, 2, scale=2.0), texts(20, 40)
    error = read_all(BFloat16LanguageModel(model), symbols) - log2_probs(model, symbols)
    assert 1e-6 < error.abs().max() < 0.1
    assert error.abs().mean() < 0.01
    assert abs(error.mean()) < 0.002, "errors must not add up along a text"


@pytest.mark.parametrize("reader", [LSTMLanguageModel, BFloat16LanguageModel])
def test_the_laws_are_laws(reader: type[LSTMLanguageModel]) -> None:
    probs = torch.exp2(read_all(reader(make()), texts(3, 10)))
    assert torch.allclose(probs.sum(2), torch.ones(3, 10), atol=1e-5)
    assert (probs <= 1).all()


def test_reading_a_prefix_is_advancing_symbol_by_symbol() -> None:
    reader, symbols = LSTMLanguageModel(make()), texts(1, 7)[0]
    state = reader.read(symbols[:3])
    for symbol in symbols[3:]:
        state = reader.advance(state, symbol[None])
    whole = reader.read(symbols)
    assert torch.equal(state.log2_probs, whole.log2_probs)


def test_rows_reorder_and_repeat_states() -> None:
    reader, symbols = LSTMLanguageModel(make()), texts(1, 4)[0]
    state = reader.advance(reader.read(symbols[:1]).rows(torch.zeros(3, dtype=torch.long)), symbols[1:4])
    turned = state.rows(torch.tensor([2, 0, 0]))
    assert torch.equal(turned.log2_probs, state.log2_probs[[2, 0, 0]])
    assert all(torch.equal(a, b[[2, 0, 0]]) for a, b in zip(turned.cache, state.cache, strict=True))


def test_a_reader_keeps_the_weights_it_was_made_of() -> None:
    model, symbols = make(), texts(1, 5)[0]
    reader = LSTMLanguageModel(model)
    before = reader.read(symbols).log2_probs.clone()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 1
    assert torch.equal(reader.read(symbols).log2_probs, before)


def test_an_empty_prefix_predicts_nothing() -> None:
    with pytest.raises(ModelError, match="empty prefix"):
        LSTMLanguageModel(make()).read(torch.zeros(0, dtype=torch.long))


def test_a_draft_goes_on_from_the_readers_own_state() -> None:
    model, symbols = make(16, 64, 2), texts(1, 7)[0]
    state = LSTMLanguageModel(model).read(symbols[:6])
    drafted, exact = (
        reader(model).advance(state, symbols[6:]) for reader in (BFloat16LanguageModel, LSTMLanguageModel)
    )
    assert 0 < (drafted.log2_probs - exact.log2_probs).abs().max() < 0.05
    assert [part.shape for part in drafted.cache] == [part.shape for part in exact.cache]


# --- weights --------------------------------------------------------------------------------------------


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    path.write_bytes(weights_bytes(make()))
    return path


def refusal(path: Path, architecture: Architecture | None = None) -> str:
    with pytest.raises((ModelError, Damaged)) as caught:
        load_into(lambda: CharLSTM(architecture or make().architecture), path, CPU)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    return str(caught.value)


def rewritten(path: Path, **changes: torch.Tensor | None) -> Path:
    tensors = load_file(path) | changes
    save_file({name.replace("__", "."): value for name, value in tensors.items() if value is not None}, path)
    return path


def test_weights_come_back_as_they_were(weights: Path) -> None:
    model = make()
    again = load_into(lambda: CharLSTM(model.architecture), weights, CPU)
    assert not again.training
    assert all(parameter.requires_grad for parameter in again.parameters())
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    assert torch.equal(model(texts(2, 9)), again(texts(2, 9)))


def test_loaded_weights_do_not_hang_on_the_file(weights: Path) -> None:
    model = load_into(lambda: CharLSTM(make().architecture), weights, CPU)
    data = weights.read_bytes()
    with weights.open("r+b") as file:
        file.write(b"\0" * len(data))
    assert all(torch.equal(a, b) for a, b in zip(make().parameters(), model.parameters(), strict=True))


def test_loaded_weights_can_be_trained(weights: Path) -> None:
    model = load_into(lambda: CharLSTM(make().architecture), weights, CPU)
    model(texts(2, 5)).sum().backward()  # type: ignore[no-untyped-call]
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_a_missing_file_and_a_directory_are_refused(tmp_path: Path) -> None:
    assert "it is missing" in refusal(tmp_path / "none.safetensors")
    assert "not a plain file" in refusal(tmp_path)


def test_files_cut_short_are_refused(weights: Path) -> None:
    data = weights.read_bytes()
    for length in (0, 1, 7, 8, 100, len(data) // 2, len(data) - 1):
        weights.write_bytes(data[:length])
        refusal(weights)


def test_foreign_and_overlong_files_are_refused(weights: Path) -> None:
    data = weights.read_bytes()
    for foreign in (b"PK\x03\x04" + data, data + b"\0", b"\xff" * 1000, b"{}" * 500, struct.pack("<Q", 2**62) + data):
        weights.write_bytes(foreign)
        refusal(weights)


def test_random_damage_to_the_header_never_ends_in_another_error(weights: Path) -> None:
    data, rng = weights.read_bytes(), random.Random(0)
    length = 8 + struct.unpack("<Q", data[:8])[0]
    for _ in range(300):
        damaged = bytearray(data)
        for _ in range(rng.randint(1, 4)):
            damaged[rng.randrange(length)] = rng.randrange(256)
        weights.write_bytes(bytes(damaged))
        with contextlib.suppress(ModelError, Damaged):
            load_into(lambda: CharLSTM(make().architecture), weights, CPU)


def test_a_header_that_promises_terabytes_is_refused_before_anything_is_allocated(tmp_path: Path) -> None:
    size = 10**12
    header = json.dumps(
        {"embedding.weight": {"dtype": "F32", "shape": [size, 1], "data_offsets": [0, 4 * size]}}
    ).encode()
    path = tmp_path / "model.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header)
    with path.open("r+b") as file:
        file.truncate(8 + len(header) + 4 * size)  # sparse: takes no room on the disk
    assert "is damaged" in refusal(path)


def test_a_description_of_a_monstrous_model_is_refused_before_anything_is_allocated(weights: Path) -> None:
    monster = Architecture(vocabulary=VOCABULARY, embedding=65536, hidden=65536, layers=64)
    assert "expected F32 [18, 65536], got F32 [18, 6]".replace("18", str(len(VOCABULARY))) in refusal(weights, monster)


def test_weights_of_another_shape_type_or_name_are_refused(weights: Path) -> None:
    original = weights.read_bytes()
    size = len(VOCABULARY)
    for changes, message in (
        ({"output.bias": torch.zeros(size + 1)}, f"'output.bias': expected F32 [{size}], got F32 [{size + 1}]"),
        ({"output.bias": torch.zeros(size, dtype=torch.int64)}, f"expected F32 [{size}], got I64 [{size}]"),
        ({"output.bias": None}, "'output.bias': expected F32 [" + str(size) + "], got nothing"),
        ({"other": torch.zeros(1)}, "'other': expected nothing, got F32 [1]"),
    ):
        weights.write_bytes(original)
        assert message in refusal(rewritten(weights, **changes))  # type: ignore[arg-type]


def test_weights_that_are_no_numbers_are_refused(weights: Path) -> None:
    bias = torch.zeros(len(VOCABULARY))
    bias[3] = math.nan
    assert "output.bias holds infinite or NaN values" in refusal(rewritten(weights, **{"output.bias": bias}))


# --- device and precision -------------------------------------------------------------------------------


def test_devices_are_resolved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("auto") == resolve_device("cpu") == CPU
    with pytest.raises(ModelError, match="no CUDA device is available: use --device cpu"):
        resolve_device("cuda")
    with pytest.raises(ModelError, match="unknown device 'tpu'"):
        resolve_device("tpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert resolve_device("auto") == resolve_device("cuda") == torch.device("cuda")


@pytest.mark.parametrize(("bf16_seconds", "expected"), [(0.2, "bf16"), (0.9, "fp32"), (2.0, "fp32")])
def test_the_automatic_precision_is_the_one_that_is_clearly_faster(
    monkeypatch: pytest.MonkeyPatch, bf16_seconds: float, expected: str
) -> None:
    def seconds_of(work, device):  # type: ignore[no-untyped-def]
        return bf16_seconds if work().dtype == torch.bfloat16 else 1.0

    monkeypatch.setattr(model_module, "_seconds_of", seconds_of)
    assert resolve_precision("auto", CPU) == expected


def test_waiting_for_a_busy_processor_does_not_change_the_precision() -> None:
    assert model_module._seconds_of(lambda: time.sleep(0.05), CPU) < 0.03


def test_a_precision_that_was_asked_for_is_taken() -> None:
    assert resolve_precision("bf16", CPU) == "bf16"
    assert resolve_precision("fp32", CPU) == "fp32"
    assert resolve_precision("auto", CPU) in ("fp32", "bf16")
    with pytest.raises(ModelError, match="unknown precision 'fp64'"):
        resolve_precision("fp64", CPU)
