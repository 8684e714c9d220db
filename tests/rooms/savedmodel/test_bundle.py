"""Checkpoints: their index against their shards."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tests.rooms.savedmodel.crafting import entry, field, table
from tiesurgeon.errors import TiesurgeonError
from tiesurgeon.rooms.savedmodel.bundle import DTYPES, Bundle, read_bundle

HEADER = field(1, 1)


def bundle(folder: Path, *, header: bytes = HEADER, data: bytes = b"", **entries: bytes) -> Bundle:
    index = folder / "variables.index"
    index.write_bytes(table({b"": header, **{k.encode(): entries[k] for k in sorted(entries)}}))
    (folder / "variables.data-00000-of-00001").write_bytes(data)
    return read_bundle(index)


def test_tensorflow_reads_the_same_numbers(tmp_path: Path) -> None:
    """Of every dtype that it saves, and of sizes that put them at odd places in the shard."""
    rng = np.random.default_rng(0)
    arrays = {
        f"v{number}": tf.cast(rng.integers(0, 2, (3, number % 5)), tf.as_dtype(number)).numpy()
        for number in DTYPES
        if number not in (24, 25)  # float8: TensorFlow casts nothing to it
    }
    arrays["scalar"] = np.float32(7)
    tf.raw_ops.SaveV2(
        prefix=str(tmp_path / "variables"),
        tensor_names=list(arrays),
        shape_and_slices=[""] * len(arrays),
        tensors=list(arrays.values()),
    )
    found = read_bundle(tmp_path / "variables.index")
    assert sorted(found.entries) == sorted(arrays)
    for key, array in arrays.items():
        storage = found.storage(key)
        assert storage is not None
        assert storage.shape == array.shape
        np.testing.assert_array_equal(storage.load(), array)


def test_strings_are_no_numbers(tmp_path: Path) -> None:
    tf.raw_ops.SaveV2(
        prefix=str(tmp_path / "variables"),
        tensor_names=["text"],
        shape_and_slices=[""],
        tensors=[tf.constant(b"said")],
    )
    found = read_bundle(tmp_path / "variables.index")
    assert found.storage("text") is None
    assert found.string("text") == b"said"


def test_partitioned_variables_are_refused_by_name(tmp_path: Path) -> None:
    tf.raw_ops.SaveV2(
        prefix=str(tmp_path / "variables"),
        tensor_names=["table"],
        shape_and_slices=["11 3 0,5:-"],
        tensors=[tf.zeros((5, 3))],
    )
    found = read_bundle(tmp_path / "variables.index")
    with pytest.raises(TiesurgeonError, match="'table' is stored in slices"):
        found.storage("table")


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (entry((3, 5), size=60, offset=4), "cut short"),
        (entry((3, 5), size=60, offset=1 << 62), "cut short"),
        (entry((3, 5), size=56), "but 56 bytes"),
        (entry((3, -5), size=60), "but 60 bytes"),
        (entry((-3, -5), size=60), "but 60 bytes"),
        (entry((1 << 40, 1 << 40), size=60), "but 60 bytes"),
        (entry((1 << 62, 4), size=0), "but 0 bytes"),
        (entry((0, 1 << 40, 1 << 40), size=0), "but 0 bytes"),
        (entry((1,) * 100, size=4), "but 4 bytes"),
        (entry((3, 5), size=60, shard=1), "in a shard that its index does not have"),
        (entry((3, 5), size=60, shard=1 << 31), "in a shard that its index does not have"),
    ],
)
def test_entries_that_lie(tmp_path: Path, row: bytes, words: str) -> None:
    found = bundle(tmp_path, v=row, data=bytes(60))
    with pytest.raises(TiesurgeonError, match=words):
        found.storage("v")


def test_an_array_without_numbers(tmp_path: Path) -> None:
    storage = bundle(tmp_path, v=entry((0, 3))).storage("v")
    assert storage is not None
    assert storage.load().shape == (0, 3)


def test_any_number_of_shards_may_be_claimed(tmp_path: Path) -> None:
    found = bundle(tmp_path, header=field(1, 1 << 60), v=entry((1,), size=4), data=bytes(4))
    with pytest.raises(TiesurgeonError, match="is missing"):
        found.storage("v")


def test_big_endian_numbers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TiesurgeonError, match="big-endian"):
        bundle(tmp_path, header=HEADER + field(2, 1))


@pytest.mark.parametrize("data", [b"", b"\x05\0\0\0\0said", b"\xff" * 12, b"\x04\0\0\0\0sai"])
def test_strings_that_lie(tmp_path: Path, data: bytes) -> None:
    found = bundle(tmp_path, v=entry((), dtype=7, size=len(data)), data=data)
    with pytest.raises(TiesurgeonError):
        found.string("v")


def missing(index: Path) -> None:
    index.unlink()


def empty(index: Path) -> None:
    index.write_bytes(b"")


def a_folder(index: Path) -> None:
    index.unlink()
    index.mkdir()


@pytest.mark.parametrize("change", [missing, empty, a_folder])
def test_an_index_that_is_none(tmp_path: Path, change: Any) -> None:
    bundle(tmp_path)
    change(tmp_path / "variables.index")
    with pytest.raises(TiesurgeonError, match=r"variables\.index"):
        read_bundle(tmp_path / "variables.index")
