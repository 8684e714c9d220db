"""Bytes of arrays in blocks, and bytes of files copied."""

import errno
import os
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from tiesurgeon.errors import UnreadableFile
from tiesurgeon.graph import Array
from tiesurgeon.rooms.pytorch.streaming import copy_extent, raw_blocks
from tiesurgeon.rooms.pytorch.tensors import Extent

MATRIX = np.arange(33, dtype="f4").reshape(11, 3)
CUBE = np.arange(2 * 3 * 5, dtype="i8").reshape(2, 3, 5)


@pytest.mark.parametrize(
    "array",
    [
        MATRIX,
        MATRIX.T,
        MATRIX[::2, 1:],
        CUBE.transpose(2, 0, 1),
        MATRIX.astype(ml_dtypes.bfloat16).T,
        np.full((), 7, "f8"),
        np.zeros((3, 0)),
        np.array([True, False]),
    ],
)
def test_blocks_are_the_bytes_in_the_order_of_the_axes(array: Array) -> None:
    assert b"".join(raw_blocks(array)) == array.tobytes()


@pytest.mark.parametrize("kept", ["<f4", ">f4", "<c8", ">i2", "u1"])
def test_blocks_have_the_byte_order_that_is_asked_for(kept: str) -> None:
    array = MATRIX.astype(kept)
    assert (
        b"".join(raw_blocks(array, "big")) == array.astype(array.dtype.newbyteorder(">")).tobytes()
    )
    assert b"".join(raw_blocks(array)) == array.astype(array.dtype.newbyteorder("<")).tobytes()


def test_types_that_numpy_does_not_swap_itself() -> None:
    array = np.array([1, 2.5], ml_dtypes.bfloat16)
    assert b"".join(raw_blocks(array, "big")) == array.view("<u2").astype(">u2").tobytes()


@pytest.mark.parametrize("shape", [(3, 5 << 20), (5 << 20, 3), (15 << 20,)])
@pytest.mark.parametrize("turned", [False, True])
def test_blocks_are_small(shape: tuple[int, ...], turned: bool) -> None:
    array = np.broadcast_to(np.int16(257), shape)
    sizes = [len(block) for block in raw_blocks(array.T if turned else array)]
    assert sum(sizes) == 2 * 15 << 20
    assert max(sizes) <= 8 << 20


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A file of a few blocks' length, each byte another."""
    path = tmp_path / "source"
    path.write_bytes(np.arange(3 << 20, dtype="u4").tobytes())
    return path


@pytest.mark.parametrize("known", [True, False])
def test_extents_are_appended(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, known: bool
) -> None:
    """By the kernel, and where it cannot by reading and writing."""

    def refuse(*_: object) -> int:
        raise OSError(errno.EXDEV, "other file system")

    if not known:
        monkeypatch.setattr(os, "copy_file_range", refuse, raising=False)
    with (tmp_path / "target").open("w+b") as target:
        target.write(b"before")
        copy_extent(Extent(source, 5, 10 << 20), target)
        target.write(b"after")
    expected = source.read_bytes()[5 : 5 + (10 << 20)]
    assert (tmp_path / "target").read_bytes() == b"before" + expected + b"after"


def test_a_full_disk_is_no_reason_to_try_otherwise(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "copy_file_range", refuse, raising=False)
    with (tmp_path / "target").open("wb") as target, pytest.raises(OSError, match="full"):
        copy_extent(Extent(source, 0, 4), target)


def test_a_source_that_is_too_short(source: Path, tmp_path: Path) -> None:
    with (
        (tmp_path / "target").open("wb") as target,
        pytest.raises(UnreadableFile, match="became shorter"),
    ):
        copy_extent(Extent(source, (12 << 20) - 4, 8), target)
