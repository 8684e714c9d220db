"""Quantised matrices, seen as the floats that they stand for.

`(q - zero_point) * scale`, by tensor, along one axis or in blocks of one.
https://onnx.ai/onnx/operators/onnx__DequantizeLinear.html
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tiesurgeon.errors import UnreadableFile
from tiesurgeon.graph import Array, Shape, Storage


@dataclass(frozen=True, eq=False)
class QuantisedStorage(Storage):
    """Floats that are stored as small integers; `load()` dequantises them anew each time."""

    packed: Storage
    scale: Storage
    zero_point: Storage | None
    bits: int
    axis: int | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of the integers."""
        return -(-self.size * self.bits // 8)

    @property
    def words(self) -> str:
        """How it is stored, for people."""
        kind = self.packed.dtype.name if self.bits >= 8 else f"{self.bits}-bit"
        if self.scale.size == 1:
            scale = f"scale {float(self.scale.load().reshape(-1)[0]):.4g}"
            zero = 0 if self.zero_point is None else self.zero_point.load().reshape(-1)[0]
            return f"{kind}, {scale}, zero point {int(zero)}"
        zero = "with" if self.zero_point is not None else "without"
        return f"{kind}, {self.scale.size:,} scales, {zero} zero points"


def quantised(
    packed: Storage, scale: Storage, zero_point: Storage | None, axis: int | None, block: int = 0
) -> QuantisedStorage:
    """The floats of `packed`; `axis` is that of the scales, where there are several.

    Raises UnreadableFile where the scales do not fit.
    """
    axis = None if scale.size == 1 and not block else axis
    shape = _scale_shape(packed, scale, axis, block)
    bits = 4 if packed.dtype.name in ("int4", "uint4") else 2 if "int2" in packed.dtype.name else 8
    bits = max(bits, packed.dtype.itemsize * 8) if bits == 8 else bits

    def load() -> Array:
        steps = _spread(scale, shape, axis, block, packed.shape)
        numbers = packed.load().astype(steps.dtype)
        if zero_point is not None:
            numbers = numbers - _spread(zero_point, shape, axis, block, packed.shape)
        return np.asarray(numbers * steps, steps.dtype)

    dtype = scale.dtype
    return QuantisedStorage(
        packed.key, packed.shape, dtype, load, packed, scale, zero_point, bits, axis
    )


def _scale_shape(packed: Storage, scale: Storage, axis: int | None, block: int) -> Shape:
    rank = len(packed.shape)
    if axis is None:
        return (1,) * rank
    axis %= max(rank, 1)
    wanted = list(packed.shape) if block else [1] * rank
    wanted[axis] = -(-packed.shape[axis] // block) if block else packed.shape[axis]
    size = 1
    for dim in wanted:
        size *= dim
    if scale.size != size:
        raise UnreadableFile(
            f"tensor {packed.key!r} of shape {packed.shape} has {scale.size:,} scales, expected "
            f"{size:,}"
        )
    return tuple(wanted)


def _spread(storage: Storage, shape: Shape, axis: int | None, block: int, whole: Shape) -> Array:
    array = storage.load()
    dtype = array.dtype if array.dtype.kind == "f" else np.dtype("f4")
    array = array.astype(dtype).reshape(shape)
    if block and axis is not None:
        array = array.repeat(block, axis)
        array = array[tuple(slice(dim) for dim in whole)]
    return array


def packed_bits(
    packed: Storage, scale: Storage, zero_point: Storage | None, shape: Shape, bits: int, block: int
) -> QuantisedStorage:
    """The (rows, width) floats of `MatMulNBits` and `GatherBlockQuantized` with uint8 data.

    Rows lie in blocks of `block` numbers, the first in the lowest bits; the zero point is
    the middle where none is given.
    https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md
    """
    rows, width = shape
    blocks = -(-width // block)
    if packed.size * 8 != rows * blocks * block * bits or scale.size != rows * blocks:
        raise UnreadableFile(
            f"tensor {packed.key!r} holds {packed.size:,} bytes and {scale.size:,} scales, which "
            f"is no matrix {shape} of {bits} bits in blocks of {block}"
        )

    def load() -> Array:
        numbers = _unpacked(packed.load().reshape(rows, -1), bits, blocks * block)
        steps = scale.load().astype("f4").reshape(rows, blocks, 1)
        middle: Any = 1 << (bits - 1)
        if zero_point is not None:
            middle = _zero_points(zero_point.load(), rows, blocks, bits)
        floats = (numbers.reshape(rows, blocks, block).astype("f4") - middle) * steps
        return np.ascontiguousarray(floats.reshape(rows, -1)[:, :width], "f4")

    return QuantisedStorage(
        packed.key, shape, np.dtype("f4"), load, packed, scale, zero_point, bits, 1
    )


def _zero_points(array: Array, rows: int, blocks: int, bits: int) -> Array:
    if array.dtype == np.uint8 and array.size != rows * blocks:
        return _unpacked(array.reshape(rows, -1), bits, blocks).astype("f4")[:, :, None]
    return array.astype("f4").reshape(rows, blocks, 1)


def _unpacked(data: Array, bits: int, count: int) -> Array:
    steps = np.arange(0, 8, bits, dtype=np.uint8)
    parts = (data[:, :, None] >> steps) & ((1 << bits) - 1)
    return parts.reshape(len(data), -1)[:, :count]
