"""A TensorFlow checkpoint: an index of names, and shards in which the numbers lie end to end.

Format: tensorflow/core/util/tensor_bundle/tensor_bundle.h and protobuf/tensor_bundle.proto.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from tiesurgeon.errors import UnreadableFile, UnsupportedFormat
from tiesurgeon.graph import Array, Shape, Storage
from tiesurgeon.rooms.savedmodel import sstable, wire
from tiesurgeon.rooms.savedmodel.wire import Bytes

_STRING = 7
# tensorflow/core/framework/types.proto
DTYPES: dict[int, np.dtype[Any]] = {
    1: np.dtype("float32"),
    2: np.dtype("float64"),
    3: np.dtype("int32"),
    4: np.dtype("uint8"),
    5: np.dtype("int16"),
    6: np.dtype("int8"),
    8: np.dtype("complex64"),
    9: np.dtype("int64"),
    10: np.dtype("bool"),
    14: np.dtype(ml_dtypes.bfloat16),
    17: np.dtype("uint16"),
    18: np.dtype("complex128"),
    19: np.dtype("float16"),
    22: np.dtype("uint32"),
    23: np.dtype("uint64"),
    24: np.dtype(ml_dtypes.float8_e5m2),
    25: np.dtype(ml_dtypes.float8_e4m3fn),
}
_LARGEST_INDEX = 1 << 26
_MOST_DIMS = 64
_LARGEST_STRING = 1 << 26
_CHECKSUM = 4  # bytes


@dataclass(frozen=True)
class Entry:
    """Where a tensor lies, as the index says; `dtype` is TensorFlow's number for it."""

    dtype: int
    shape: Shape
    shard: int
    offset: int
    size: int
    is_sliced: bool


@dataclass(frozen=True)
class Bundle:
    """A checkpoint's entries by key; `prefix` and `shards` (how many) name the shards."""

    entries: Mapping[str, Entry]
    prefix: Path
    shards: int

    def storage(self, key: str) -> Storage | None:
        """The numbers of a tensor, memory-mapped; None for strings and other things.

        Raises UnreadableFile where the entry and its shard do not agree, UnsupportedFormat for
        a partitioned variable.
        """
        entry = self.entries[key]
        if entry.dtype not in DTYPES:
            return None
        if entry.is_sliced:
            raise UnsupportedFormat(
                f"variable {key!r} is stored in slices, which are not supported; load the model "
                "in TensorFlow and save it without a partitioner"
            )
        dtype = DTYPES[entry.dtype]
        if min(entry.shape, default=0) < 0 or _nbytes(entry.shape, dtype) != entry.size:
            raise UnreadableFile(
                f"variable {key!r} has shape {list(entry.shape)} of {dtype} but "
                f"{entry.size:,} bytes; the file is damaged"
            )
        return _mapped(key, self._shard(key), entry.offset, entry.shape, dtype)

    def string(self, key: str) -> bytes:
        """The one string of a tensor: its length, a checksum of that, its bytes."""
        entry, path = self.entries[key], self._shard(key)
        if entry.dtype != _STRING or entry.size > _LARGEST_STRING:
            raise UnreadableFile(f"{key!r} in its index is not a string")
        with path.open("rb") as file:
            file.seek(entry.offset)
            data = wire.Bytes(file.read(entry.size))
        length, at = wire.varint(data, 0)
        if length != len(data) - at - _CHECKSUM:
            raise UnreadableFile(f"{key!r} has {len(data):,} bytes, but claims {length:,}")
        return bytes(data[at + _CHECKSUM :])

    def _shard(self, key: str) -> Path:
        """The file of that tensor, which holds all of it."""
        entry = self.entries[key]
        if entry.shard >= self.shards:
            raise UnreadableFile(f"variable {key!r} is in a shard that its index does not have")
        path = Path(f"{self.prefix}.data-{entry.shard:05}-of-{self.shards:05}")
        if not path.is_file():
            raise UnreadableFile(f"{path.name} is missing; copy the whole folder")
        if entry.offset + entry.size > path.stat().st_size:
            raise UnreadableFile(
                f"variable {key!r} ends beyond the end of {path.name}: it was cut short"
            )
        return path


def read_bundle(index: Path) -> Bundle:
    """Reads `variables.index`; its shards stand beside it, under names that it has no say in."""
    entries: dict[str, Entry] = {}
    shards = 0
    for key, value in sstable.entries(mapped(index, _LARGEST_INDEX)):
        if key == b"":
            shards = _shards(value)
        elif key[0] != 0:  # what starts with zero is a slice of another entry
            entries[key.decode("utf-8")] = _entry(value)
    return Bundle(entries, index.with_suffix(""), shards)


def mapped(path: Path, largest: int) -> Bytes:
    """The bytes of a file, mapped; UnreadableFile if it is missing, empty or larger than that."""
    if not path.is_file():
        raise UnreadableFile(f"{path.name} is missing; copy the whole folder")
    size = path.stat().st_size
    if not 0 < size <= largest:
        raise UnreadableFile(f"{path.name} has {size:,} bytes, so is damaged")
    with path.open("rb") as file:
        return Bytes(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def _shards(header: Bytes) -> int:
    """BundleHeaderProto."""
    if wire.number(header, 2) != 0:
        raise UnsupportedFormat("its numbers are big-endian, which is not supported")
    return wire.number(header, 1)


def _entry(data: Bytes) -> Entry:
    """BundleEntryProto, with the TensorShapeProto in it."""
    found: dict[int, int] = {}
    shape: list[int] = []
    is_sliced = False
    for number, value in wire.fields(data):
        if number == 2:
            shape += [wire.signed(wire.number(dim, 1)) for dim in wire.parts(value, 2)]
        elif number == 7:
            is_sliced = True
        elif isinstance(value, int):
            found[number] = value
    dtype, shard, offset, size = (found.get(number, 0) for number in (1, 3, 4, 5))
    return Entry(dtype, tuple(shape), shard, offset, size, is_sliced)


def _nbytes(shape: Shape, dtype: np.dtype[Any]) -> int:
    """Bytes of the array; -1 for one that numpy could not even describe."""
    if len(shape) > _MOST_DIMS or math.prod(filter(None, shape)) >= 1 << 56:
        return -1
    return math.prod(shape) * dtype.itemsize


def _mapped(key: str, path: Path, offset: int, shape: Shape, dtype: np.dtype[Any]) -> Storage:
    def load() -> Array:
        if 0 in shape:
            return np.empty(shape, dtype)
        return np.memmap(path, dtype, "r", offset, shape)

    return Storage(key, shape, dtype, load)
