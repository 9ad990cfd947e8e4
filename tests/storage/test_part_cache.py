"""Tests of canaryaudit.storage.part_cache."""

from pathlib import Path

import numpy as np

from canaryaudit.storage.part_cache import DirectoryCache, NullCache


def test_a_part_comes_back_as_it_was(tmp_path: Path) -> None:
    store = DirectoryCache(tmp_path / "parts")
    assert store.get("one") is None
    arrays = {"bits": np.array([1.5, np.inf]), "counts": np.array([1, 2], dtype=np.int32)}
    store.put("one", arrays)
    found = DirectoryCache(tmp_path / "parts").get("one")
    assert found is not None
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype


def test_a_damaged_part_is_none(tmp_path: Path) -> None:
    store = DirectoryCache(tmp_path)
    store.put("one", {"bits": np.ones(3)})
    path = next(tmp_path.iterdir())
    path.write_bytes(path.read_bytes()[:-1])
    assert store.get("one") is None
    path.write_bytes(b"")
    assert store.get("one") is None


def test_a_part_of_a_type_that_numpy_lacks_is_none(tmp_path: Path) -> None:
    header = b'{"a":{"dtype":"F8_E4M3","shape":[2],"data_offsets":[0,2]}}'
    (tmp_path / "one.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"12")
    assert DirectoryCache(tmp_path).get("one") is None


def test_forgetful_keeps_nothing() -> None:
    store = NullCache()
    store.put("one", {"bits": np.ones(3)})
    assert store.get("one") is None
