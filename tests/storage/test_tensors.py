"""Tests of canaryaudit.storage.tensors: what a header says is believed only where it agrees with the file."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from canaryaudit.errors import Damaged
from canaryaudit.models.char_lstm import CharLSTM
from canaryaudit.models.ensemble import Ensemble
from canaryaudit.records import Architecture
from canaryaudit.storage.tensors import MAX_HEADER_BYTES, data_start, open_tensors, weight_shapes

ARRAYS = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.zeros((0, 4)), "c": np.array(7, dtype=np.int64)}


def written(path: Path, header: Any, data: bytes = b"") -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def entry(start: int, end: int, dtype: str = "F32", shape: tuple[int, ...] = (1,)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}


def shapes(path: Path) -> dict[str, tuple[int, ...]]:
    with open_tensors(path) as file:
        return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}


def test_a_file_is_opened_as_the_library_wrote_it(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(save(ARRAYS, {"note": "metadata is no tensor"}))
    assert shapes(path) == {name: own.shape for name, own in ARRAYS.items()}
    with open_tensors(path) as file:
        for name, own in ARRAYS.items():
            np.testing.assert_array_equal(file.get_tensor(name), own)
    assert path.stat().st_size - data_start(path) == sum(own.nbytes for own in ARRAYS.values())


@pytest.mark.parametrize(
    ("header", "data"),
    [
        ({"a": entry(0, 4)}, b""),
        ({"a": entry(0, 4)}, b"12345"),
        ({"a": entry(0, 2**60, shape=(2**58,))}, b"1234"),
        ({"a": entry(0, 4, shape=(2**62, 2**62))}, b"1234"),
        ({"a": entry(0, 4, shape=(-1,))}, b"1234"),
        ({"a": entry(0, 4, dtype="F128")}, b"1234"),
        ({"a": entry(0, 4), "b": entry(0, 4)}, b"1234"),
        ({"a": entry(0, 4), "b": entry(2, 6)}, b"123456"),
        ({"a": entry(4, 8)}, b"12345678"),
        ({"a": entry(4, 0, shape=(0,))}, b""),
        ({"../../a": 1}, b""),
        ([], b""),
        (b"{" * 50, b""),
        (b"[" * 100_000, b""),
        (b'{"a":' * 100_000, b""),
        (b'{"a": 1e999', b""),
        (b'{"\xff": 1}', b""),
        (b"", b""),
    ],
)
def test_headers_that_contradict_themselves_or_the_file(tmp_path: Path, header: Any, data: bytes) -> None:
    with pytest.raises(Damaged) as caught:
        shapes(written(tmp_path / "x", header, data))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("length", [1, MAX_HEADER_BYTES + 1, 2**63, 2**64 - 1])
def test_a_length_beyond_the_file_is_not_read(tmp_path: Path, length: int) -> None:
    (tmp_path / "x").write_bytes(length.to_bytes(8, "little"))
    with pytest.raises(Damaged, match="its length is invalid"):
        shapes(tmp_path / "x")


def test_a_header_larger_than_any_honest_one_is_not_parsed(tmp_path: Path) -> None:
    """The library itself takes 1.3 GB and seconds for such a header of 64 MB, and then believes it."""
    header = b'{"a":' + json.dumps(entry(0, 0, shape=(0,))).encode() + b"}"
    path = tmp_path / "x"
    shapes(written(path, header + b" " * (MAX_HEADER_BYTES - len(header))))
    with pytest.raises(Damaged, match="its length is invalid"):
        shapes(written(path, header + b" " * (MAX_HEADER_BYTES - len(header) + 1)))


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Damaged, match="not a plain file"):
        shapes(tmp_path)
    with pytest.raises(Damaged, match="missing"):
        shapes(tmp_path / "none")


@settings(max_examples=300, deadline=None)
@given(position=st.integers(0, 199), value=st.integers(0, 255), cut=st.integers(0, 260))
def test_a_changed_byte_never_gives_a_tensor_outside_of_the_file(
    tmp_path_factory: pytest.TempPathFactory, position: int, value: int, cut: int
) -> None:
    data = bytearray(save(ARRAYS))
    data[position % len(data)] = value
    path = tmp_path_factory.getbasetemp() / "changed.safetensors"
    path.write_bytes(data[:cut] if cut % 2 else data)
    try:
        with open_tensors(path) as file:
            tensors = [file.get_tensor(name) for name in file.keys()]
    except Damaged:
        return
    assert sum(own.nbytes for own in tensors) == path.stat().st_size - data_start(path)


@pytest.mark.parametrize(("layers", "members"), [(1, 1), (3, 1), (2, 3)])
def test_the_expected_weights_are_those_of_the_model(layers: int, members: int) -> None:
    architecture = Architecture(vocabulary="abcde", embedding=3, hidden=4, layers=layers)
    with torch.device("meta"):
        models = [CharLSTM(architecture) for _ in range(members)]
        model = models[0] if members == 1 else Ensemble(models)
    expected = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    assert weight_shapes(architecture, members) == expected
