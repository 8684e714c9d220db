"""Tensors of a file: strided views of bytes that lie in it, as storages of the graph.

Two tensors that see the same bytes through the same strides, or through each other's
transpose, get one `Storage` object; so the graph shows them as sharing it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from tiesurgeon.errors import UnreadableFile
from tiesurgeon.graph import Array, Shape, Storage

Strides = tuple[int, ...]
DType = np.dtype[Any]

_MOST_DIMENSIONS = 64

# PyTorch's names of dtypes, without "torch.".
DTYPES: dict[str, DType] = {
    "float64": np.dtype("f8"),
    "float32": np.dtype("f4"),
    "float16": np.dtype("f2"),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "float8_e4m3fn": np.dtype(ml_dtypes.float8_e4m3fn),
    "float8_e4m3fnuz": np.dtype(ml_dtypes.float8_e4m3fnuz),
    "float8_e5m2": np.dtype(ml_dtypes.float8_e5m2),
    "float8_e5m2fnuz": np.dtype(ml_dtypes.float8_e5m2fnuz),
    "float8_e8m0fnu": np.dtype(ml_dtypes.float8_e8m0fnu),
    "complex64": np.dtype("c8"),
    "complex128": np.dtype("c16"),
    "int64": np.dtype("i8"),
    "int32": np.dtype("i4"),
    "int16": np.dtype("i2"),
    "int8": np.dtype("i1"),
    "uint64": np.dtype("u8"),
    "uint32": np.dtype("u4"),
    "uint16": np.dtype("u2"),
    "uint8": np.dtype("u1"),
    "bool": np.dtype("?"),
}


@dataclass(frozen=True)
class Extent:
    """Bytes `start` to `start + length` of a file: what PyTorch calls an untyped storage."""

    path: Path
    start: int
    length: int

    def mapped(self, dtype: DType) -> Array:
        """All of it as a vector, memory-mapped and read-only."""
        count = self.length // dtype.itemsize
        if count == 0:
            return np.empty((0,), dtype)
        return np.memmap(self.path, dtype, "r", self.start, (count,))


@dataclass(frozen=True)
class Layout:
    """How a tensor sees a storage; offset and strides count numbers, not bytes."""

    dtype: DType
    shape: Shape
    strides: Strides
    offset: int = 0

    @property
    def span(self) -> int:
        """Numbers from the first that it sees to the last; 0 if it sees none."""
        if 0 in self.shape:
            return 0
        ends = ((dim - 1) * step for dim, step in zip(self.shape, self.strides, strict=True))
        return 1 + sum(ends)

    @property
    def perm(self) -> tuple[int, ...] | None:
        """The transpose of a contiguous array that it is; None if it is one, or is neither.

        Axes of length one may have any stride, so they stay where they are.
        """
        order = sorted(
            (axis for axis, dim in enumerate(self.shape) if dim > 1),
            key=lambda axis: -self.strides[axis],
        )
        moved = iter(order)
        full = tuple(next(moved) if dim > 1 else axis for axis, dim in enumerate(self.shape))
        if full == tuple(range(len(full))) or not self._is_dense(full):
            return None
        return tuple(full.index(axis) for axis in range(len(full)))

    @property
    def is_contiguous(self) -> bool:
        """True if the numbers lie in the order of the shape, without gaps."""
        return self._is_dense(tuple(range(len(self.shape))))

    def _is_dense(self, order: tuple[int, ...]) -> bool:
        step = 1
        for axis in reversed(order):
            if self.shape[axis] > 1 and self.strides[axis] != step:
                return False
            step *= self.shape[axis]
        return True


def contiguous_strides(shape: Shape) -> Strides:
    """Strides of a contiguous tensor of that shape, in numbers."""
    strides, step = [], 1
    for dim in reversed(shape):
        strides.append(step)
        step *= max(dim, 1)
    return tuple(reversed(strides))


def refuse_bad_layout(name: str, layout: Layout, extent: Extent) -> None:
    """UnreadableFile unless the layout stays inside the extent; nothing may be negative."""
    numbers = (*layout.shape, *layout.strides, layout.offset)
    if len(layout.shape) != len(layout.strides) or len(layout.shape) > _MOST_DIMENSIONS:
        raise UnreadableFile(
            f"tensor {name!r} has {len(layout.shape)} dimensions and {len(layout.strides)} strides"
        )
    if any(type(number) is not int or number < 0 for number in numbers):
        raise UnreadableFile(f"tensor {name!r} has a shape, stride or offset below zero")
    # An empty tensor sees nothing, wherever it claims to start.
    end = layout.offset + layout.span if layout.span else 0
    if end * layout.dtype.itemsize > extent.length:
        raise UnreadableFile(
            f"tensor {name!r} ends at byte {end * layout.dtype.itemsize:,} of a storage that has "
            f"{extent.length:,}: cut short, or made to deceive"
        )


@dataclass
class Storages:
    """The storages of one file, each made once. `swapped`: the file's byte order is not ours."""

    swapped: bool = False
    _made: dict[Any, Storage] = field(default_factory=dict)

    def of(
        self, name: str, key: str, extent: Extent, layout: Layout
    ) -> tuple[Storage, tuple[int, ...] | None]:
        """The storage that a tensor sees, and its transpose; (contiguous storage, None) mostly.

        `key` is the file's own name of the bytes, `name` the tensor's, for errors. Raises
        UnreadableFile where the layout leaves the extent. An expanded or sliced tensor has a
        storage of its own, which is read by copying.
        """
        refuse_bad_layout(name, layout, extent)
        perm = layout.perm
        if perm is not None:
            back = tuple(perm.index(axis) for axis in range(len(perm)))
            shape = tuple(layout.shape[axis] for axis in back)
            layout = Layout(layout.dtype, shape, contiguous_strides(shape), layout.offset)
        seen = (extent, layout)
        if seen not in self._made:
            self._made[seen] = self._storage(key, extent, layout)
        return self._made[seen], perm

    def _storage(self, key: str, extent: Extent, layout: Layout) -> Storage:
        dtype, swapped = layout.dtype, self.swapped

        def load() -> Array:
            if 0 in layout.shape:
                return np.empty(layout.shape, dtype)
            flat = extent.mapped(dtype.newbyteorder("S") if swapped else dtype)
            flat = flat[layout.offset : layout.offset + layout.span]
            if layout.is_contiguous:
                found: Array = flat.reshape(layout.shape)
            else:
                steps = tuple(step * dtype.itemsize for step in layout.strides)
                found = np.lib.stride_tricks.as_strided(flat, layout.shape, steps).copy()
            return found.astype(dtype) if swapped else found

        whole = layout.is_contiguous and layout.span * dtype.itemsize == extent.length
        name = key if whole else f"{key}[{layout.offset}:{layout.offset + layout.span}]"
        return Storage(name, layout.shape, dtype, load)
