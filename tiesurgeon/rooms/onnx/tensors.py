"""Tensors of an ONNX model as storages of the graph: sizes checked, numbers not read."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from tiesurgeon.errors import UnreadableFile
from tiesurgeon.graph import Array, Shape, Storage
from tiesurgeon.rooms.onnx.external import external_extent
from tiesurgeon.rooms.onnx.payloads import Payloads

DType = np.dtype[Any]
STRING = 8
_MOST_DIMENSIONS = 64

# TensorProto.DataType -> dtype. https://onnx.ai/onnx/api/classes.html#tensorproto
DTYPES: dict[int, DType] = {
    number: np.dtype(kind)
    for number, kind in {
        1: "f4",
        2: "u1",
        3: "i1",
        4: "u2",
        5: "i2",
        6: "i4",
        7: "i8",
        9: "?",
        10: "f2",
        11: "f8",
        12: "u4",
        13: "u8",
        14: "c8",
        15: "c16",
        16: ml_dtypes.bfloat16,
        17: ml_dtypes.float8_e4m3fn,
        18: ml_dtypes.float8_e4m3fnuz,
        19: ml_dtypes.float8_e5m2,
        20: ml_dtypes.float8_e5m2fnuz,
        21: ml_dtypes.uint4,
        22: ml_dtypes.int4,
        23: ml_dtypes.float4_e2m1fn,
        24: ml_dtypes.float8_e8m0fnu,
        25: ml_dtypes.uint2,
        26: ml_dtypes.int2,
    }.items()
}
_BITS = {21: 4, 22: 4, 23: 4, 25: 2, 26: 2}  # several numbers in a byte
# Which field holds the numbers of a type where they are not raw; all others are in int32_data.
_FIELDS = {1: "float_data", 14: "float_data", 11: "double_data", 15: "double_data"}
_FIELDS |= {7: "int64_data", 12: "uint64_data", 13: "uint64_data", STRING: "string_data"}


@dataclass
class Tensors:
    """The storages of one model, each made once; two tensors on the same bytes get one."""

    folder: Path
    payloads: Payloads
    _made: dict[Any, Storage] = field(default_factory=dict)

    def take(self, tensor: Any) -> None:
        """Checks a tensor, and puts external data among the payloads.

        Raises UnreadableFile where its numbers do not fit its shape, or are out of bounds.
        """
        _refuse_bad(tensor)
        if self.payloads.number_of(tensor) is not None:
            self._refuse_misfit(tensor, self.payloads[self._number(tensor)].length)
        elif tensor.data_location == 1:
            if any(getattr(tensor, name) for name in _ALL_FIELDS):
                raise UnreadableFile(f"tensor {tensor.name!r} holds numbers here and elsewhere")
            extent = external_extent(tensor, self.folder, _nbytes(tensor))
            self.payloads.point(tensor, self.payloads.add(extent, outside=True))
        elif tensor.HasField("raw_data"):
            self._refuse_misfit(tensor, len(tensor.raw_data))
        else:
            _refuse_miscounted(tensor)

    def storage(self, tensor: Any) -> Storage:
        """The tensor's storage; it must have been taken."""
        shape, dtype, kind = tuple(tensor.dims), DTYPES[tensor.data_type], tensor.data_type
        number = self.payloads.number_of(tensor)
        if number is None:
            return Storage(tensor.name, shape, dtype, lambda: _own(tensor))
        key = (number, shape, kind)
        payload = self.payloads[number]
        if key not in self._made:
            self._made[key] = Storage(
                tensor.name, shape, dtype, lambda: _as_array(payload.mapped(), shape, kind)
            )
        return self._made[key]

    def _number(self, tensor: Any) -> int:
        number = self.payloads.number_of(tensor)
        assert number is not None
        return number

    def _refuse_misfit(self, tensor: Any, found: int) -> None:
        if found != _nbytes(tensor):
            raise UnreadableFile(
                f"tensor {tensor.name!r} holds {found:,} bytes, and its shape "
                f"{tuple(tensor.dims)} needs {_nbytes(tensor):,}: damaged, or made to deceive"
            )


_ALL_FIELDS = ("raw_data", *dict.fromkeys(_FIELDS.values()), "int32_data")


def size_of(tensor: Any) -> int:
    """How many numbers its shape says it holds."""
    size = 1
    for dim in tensor.dims:
        size *= dim
    return size


def _nbytes(tensor: Any) -> int:
    bits = _BITS.get(tensor.data_type)
    if bits is not None:
        return -(-size_of(tensor) * bits // 8)
    return size_of(tensor) * DTYPES[tensor.data_type].itemsize


def _refuse_bad(tensor: Any) -> None:
    if tensor.data_type != STRING and tensor.data_type not in DTYPES:
        raise UnreadableFile(
            f"tensor {tensor.name!r} has data type {tensor.data_type}, which ONNX does not have"
        )
    if len(tensor.dims) > _MOST_DIMENSIONS or any(dim < 0 for dim in tensor.dims):
        raise UnreadableFile(f"tensor {tensor.name!r} has the shape {tuple(tensor.dims)[:8]}")
    if tensor.HasField("segment"):
        raise UnreadableFile(f"tensor {tensor.name!r} is in segments, which no runtime reads")


def _refuse_miscounted(tensor: Any) -> None:
    name = _FIELDS.get(tensor.data_type, "int32_data")
    found, size = len(getattr(tensor, name)), size_of(tensor)
    if name in ("float_data", "double_data") and DTYPES[tensor.data_type].kind == "c":
        size *= 2
    size = -(-size * _BITS.get(tensor.data_type, 8) // 8)
    if found != size:
        raise UnreadableFile(
            f"tensor {tensor.name!r} holds {found:,} numbers, and its shape "
            f"{tuple(tensor.dims)} needs {size:,}: damaged, or made to deceive"
        )


def _own(tensor: Any) -> Array:
    """The numbers that stand in the protobuf itself."""
    from onnx import numpy_helper

    if tensor.HasField("raw_data"):
        raw = np.frombuffer(tensor.raw_data, np.uint8)
        return _as_array(raw, tuple(tensor.dims), tensor.data_type)
    found: Array = numpy_helper.to_array(tensor)
    return found


def _as_array(data: Array, shape: Shape, kind: int) -> Array:
    dtype, bits = DTYPES[kind], _BITS.get(kind)
    if bits is None:
        return data.view(dtype.newbyteorder("<") if dtype.itemsize > 1 else dtype).reshape(shape)
    steps = np.arange(0, 8, bits, dtype=np.uint8)  # the first number is in the lowest bits
    parts = (data[:, None] >> steps) & ((1 << bits) - 1)
    size = 1
    for dim in shape:
        size *= dim
    parts = parts.reshape(-1)[:size].astype(np.uint8)
    return _of_bits(parts, dtype, bits).reshape(shape)


def _of_bits(parts: Array, dtype: DType, bits: int) -> Array:
    if dtype.name.startswith("float"):
        return parts.view(dtype)
    if dtype.name.startswith("int"):
        parts = np.where(parts >= 1 << (bits - 1), parts.astype(np.int16) - (1 << bits), parts)
    return parts.astype(np.int8).astype(dtype)
