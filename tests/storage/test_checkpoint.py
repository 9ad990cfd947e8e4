"""Tests of canaryaudit.storage.checkpoint."""

import contextlib
import json
import random
import re
from pathlib import Path

import pytest
import torch

from canaryaudit.errors import Damaged
from canaryaudit.storage.checkpoint import CheckpointFile, read_facts

TENSORS = {"a": torch.arange(6.0).view(2, 3), "b": torch.tensor(7, dtype=torch.float64), "c": torch.zeros(0)}
FACTS = {"epoch": 3, "history": [{"loss": 1.5}], "name": "é\0"}


@pytest.fixture
def file(tmp_path: Path) -> CheckpointFile:
    return CheckpointFile(tmp_path / "checkpoint.safetensors", "this training")


def test_a_state_comes_back_as_it_was(file: CheckpointFile) -> None:
    file.save(TENSORS, FACTS)
    found = file.load()
    assert found is not None
    tensors, facts = found
    assert json.loads(facts) == FACTS
    assert tensors.keys() == TENSORS.keys()
    assert all(torch.equal(tensors[name], own) and tensors[name].dtype == own.dtype for name, own in TENSORS.items())
    assert json.loads(read_facts(file.path) or b"") == FACTS


def test_no_file_is_no_state(file: CheckpointFile) -> None:
    assert file.load() is None
    assert read_facts(file.path) is None


def test_a_state_of_another_training_is_not_loaded(file: CheckpointFile) -> None:
    file.save(TENSORS, FACTS)
    assert CheckpointFile(file.path, "another training").load() is None


def test_any_changed_byte_is_noticed(file: CheckpointFile) -> None:
    file.save(TENSORS, FACTS)
    data, rng = file.path.read_bytes(), random.Random(0)
    padding = {match.start() + n for match in re.finditer(rb" +", data) for n in range(len(match[0]))}
    places = sorted(set(range(len(data))) - padding)
    for place in rng.sample(places, min(300, len(places))):
        damaged = bytearray(data)
        damaged[place] ^= 1 << rng.randrange(8)
        file.path.write_bytes(bytes(damaged))
        with contextlib.suppress(Damaged):
            assert file.load() is None, f"byte {place}"  # The key itself was changed.


def test_a_file_cut_short_or_foreign_is_damaged(file: CheckpointFile) -> None:
    file.save(TENSORS, FACTS)
    data = file.path.read_bytes()
    for damaged in (b"", data[:7], data[:100], data[:-1], data + b"x", b"not a checkpoint at all"):
        file.path.write_bytes(damaged)
        with pytest.raises(Damaged):
            file.load()
    assert read_facts(file.path) is None


def test_a_state_that_was_loaded_does_not_hang_on_the_file(file: CheckpointFile) -> None:
    file.save(TENSORS, FACTS)
    found = file.load()
    assert found is not None
    file.path.write_bytes(b"\0" * file.path.stat().st_size)
    assert torch.equal(found[0]["a"], TENSORS["a"])
