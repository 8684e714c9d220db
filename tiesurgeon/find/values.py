"""How alike two matrices are, and which of many are the same: in bounded memory.

Equality is of bits. Sums are taken over blocks, so that a memory-mapped matrix is never held
as a whole, and added up in double precision.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from tiesurgeon.find.blocks import as_matrix, blocks
from tiesurgeon.graph import Array, Shape, View

Match = Literal["equal", "close", "different", "declared"]
Perm = tuple[int, ...]

# Rounding to half precision or to int8 stays below; no two trained matrices come near it.
CLOSE = 0.05
_GRID = 16
# Sums of squares beyond are not exact in single precision, or not there.
_LEAST, _MOST = 1e-30, 1e30


@dataclass(frozen=True)
class Comparison:
    """`relative_difference` is |a - b| / |a| (Frobenius), `cosine` the mean over rows.

    Both are None where they are not finite numbers.
    """

    match: Match
    relative_difference: float | None
    cosine: float | None


def compare(a: View, b: View, perm: Perm | None = None) -> Comparison:
    """Compares `a` with `b` transposed by `perm`; the shapes must then agree."""
    return compare_arrays(a.load(), _oriented(b, perm))


def compare_arrays(a: Array, b: Array) -> Comparison:
    """As `compare`, for arrays of one shape."""
    if a.shape != b.shape:
        raise ValueError(f"cannot compare {a.shape} with {b.shape}")
    if bits_equal(a, b):
        return Comparison("equal", 0.0, 1.0)
    a, b = as_matrix(a), as_matrix(b)
    sums = _Sums(len(a))
    with np.errstate(all="ignore"):
        for rows, columns in blocks(a, b):
            sums.add(rows, a[rows, columns], b[rows, columns])
            if not np.isfinite(sums.difference):
                break
        relative, cosine = sums.relative_difference(), sums.cosine()
    is_close = relative is not None and relative < CLOSE
    return Comparison("close" if is_close else "different", relative, cosine)


class _Sums:
    """Of squares and products over each row, and of the squared differences over all."""

    def __init__(self, rows: int) -> None:
        self.squares = np.zeros((2, rows))
        self.products = np.zeros(rows)
        self.difference = 0.0

    def add(self, rows: slice, x: Array, y: Array) -> None:
        """Adds a block that starts at the row `rows.start`.

        Sums over a row of the block are of single precision where its numbers are. Rows for
        whose squares that has too short a range are summed in double precision.
        """
        x, y = _as_floats(x, y)
        sums = _row_sums(x, y)
        if x.dtype == np.float32:
            _, *squares = sums
            poor = ~np.logical_and.reduce([(s > _LEAST) & (s < _MOST) for s in squares])
            if poor.any():
                sums = sums.astype(np.float64)
                sums[:, poor] = _row_sums(x[poor].astype(np.float64), y[poor].astype(np.float64))
        self.products[rows] += sums[0]
        self.squares[:, rows] += sums[1:3]
        self.difference += float(sums[3].sum(dtype=np.float64))

    def relative_difference(self) -> float | None:
        if not np.isfinite(self.difference):
            return None
        scale = self.squares[0].sum() or self.squares[1].sum()
        return _finite(np.sqrt(self.difference / scale)) if scale else None

    def cosine(self) -> float | None:
        if not np.isfinite(self.difference):
            return None
        norms = np.sqrt(self.squares[0]) * np.sqrt(self.squares[1])
        counted = norms != 0  # a row of zeros (padding) has no direction
        cosines = self.products[counted] / norms[counted]
        return _finite(cosines.mean()) if len(cosines) else None


def _row_sums(x: Array, y: Array) -> Array:
    """Of each row: x * y, x * x, y * y and (x - y) * (x - y)."""
    difference = x - y
    pairs = (x, y), (x, x), (y, y), (difference, difference)
    return np.stack([np.einsum("ij,ij->i", one, other) for one, other in pairs])


def _as_floats(x: Array, y: Array) -> tuple[Array, Array]:
    """Both row by row, in single precision, or in double where one of them needs it."""
    is_single = all(array.dtype.itemsize <= 4 and array.dtype.kind in "fV" for array in (x, y))
    x, y = _by_rows(x), _by_rows(y)
    return (_single(x), _single(y)) if is_single else (x.astype(np.float64), y.astype(np.float64))


def _by_rows(array: Array) -> Array:
    """The same, copied where its rows do not lie in one piece: sums are slow there."""
    return array if array.strides[1] == array.itemsize else np.ascontiguousarray(array)


def _single(array: Array) -> Array:
    if array.dtype.itemsize > 1:
        return array.astype(np.float32, copy=False)
    every = np.arange(256, dtype=np.uint8).view(array.dtype).astype(np.float32)
    return every.take(array.view(np.uint8))  # seven times as fast as a cast


def _finite(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None


def bits_equal(a: Array, b: Array) -> bool:
    """True if both have one type and shape, and the same bits (so NaN equals itself)."""
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    bits = np.dtype(f"u{a.dtype.itemsize}") if a.dtype.itemsize in (1, 2, 4, 8) else None
    if bits is None:
        return bool(np.array_equal(a, b))
    a, b = as_matrix(a).view(bits), as_matrix(b).view(bits)
    return all(np.array_equal(a[block], b[block]) for block in blocks(a, b))


def _oriented(view: View, perm: Perm | None) -> Array:
    array = view.load()
    return array if perm is None else array.transpose(perm)


# --- many at once -----------------------------------------------------------------------------


def equal_pairs(views: Sequence[View]) -> Iterator[tuple[int, int, Perm | None]]:
    """Pairs of bit-equal views, equal as they are or transposed, by their numbers.

    Of n that are all equal, the first is paired with each other. Only floating matrices
    of which not all numbers are one are looked at. Reads 256 numbers of each view that
    shares its shape with another, and the whole only of those that agree in them.
    """
    for group in _buckets(views):
        firsts: list[int] = []
        for number in group:
            if is_constant(views[number].load()):
                continue
            for first in firsts:
                found, perm = _equal(views[first], views[number])
                if found:
                    yield first, number, perm
                    break
            else:
                firsts.append(number)


def _buckets(views: Sequence[View]) -> Iterator[list[int]]:
    by_shape: dict[Any, list[int]] = {}
    for number, view in enumerate(views):
        if len(view.shape) >= 2 and view.variable.storage.size and is_floating(view):
            key = (view.variable.storage.dtype, unordered(view.shape))
            by_shape.setdefault(key, []).append(number)
    for same_shape in by_shape.values():
        by_sample: dict[bytes, list[int]] = {}
        for number in same_shape if len(same_shape) > 1 else ():
            by_sample.setdefault(_key(sample(views[number].load())), []).append(number)
        yield from (group for group in by_sample.values() if len(group) > 1)


def unordered(shape: Shape) -> Shape:
    """The same for a matrix and its transpose."""
    return tuple(sorted(shape)) if len(shape) == 2 else shape


def is_floating(view: View) -> bool:
    """True for floats, bfloat16 and its like included (numpy calls their kind "V")."""
    dtype = view.variable.storage.dtype
    return dtype.kind == "f" or (dtype.kind == "V" and "float" in dtype.name)


def sample(array: Array) -> Array:
    """A grid of at most 16 x 16 numbers; that of the transpose is its transpose."""
    matrix = as_matrix(array)
    rows, columns = (
        np.linspace(0, size - 1, min(size, _GRID)).astype(np.intp) for size in matrix.shape
    )
    return np.ascontiguousarray(matrix[np.ix_(rows, columns)])


def _key(grid: Array) -> bytes:
    return min(grid.tobytes(), np.ascontiguousarray(grid.T).tobytes())


def is_constant(array: Array) -> bool:
    """True if all numbers are one: such matrices are equal without being related."""
    matrix = as_matrix(array)
    first = matrix[:1, :1]
    if not (sample(array) == first).all():
        return False
    return all((matrix[block] == first).all() for block in blocks(matrix, matrix))


def _equal(a: View, b: View) -> tuple[bool, Perm | None]:
    if a.variable.storage is b.variable.storage and a.perm == b.perm and a.reshape == b.reshape:
        return True, None
    x, y = a.load(), b.load()
    if bits_equal(x, y):
        return True, None
    if x.ndim == 2 and bits_equal(x, y.T):
        return True, (1, 0)
    return False, None


def alike_pairs(views: Sequence[View]) -> Iterator[tuple[int, int, Perm | None]]:
    """Pairs of which the samples are nearly the same, so that it is worth comparing in full."""
    by_shape: dict[Shape, list[int]] = {}
    for number, view in enumerate(views):
        if len(view.shape) >= 2 and view.variable.storage.size and is_floating(view):
            by_shape.setdefault(unordered(view.shape), []).append(number)
    for shape, group in by_shape.items():
        if len(group) > 1:
            grids = [sample(views[n].load()).astype(np.float64) for n in group]
            lying = [len(shape) == 2 and views[n].shape != shape for n in group]
            upright = [g.T if lies else g for g, lies in zip(grids, lying, strict=True)]
            for i, j in _near(upright, upright):
                yield group[i], group[j], (1, 0) if lying[i] != lying[j] else None
            if len(shape) == 2 and shape[0] == shape[1]:
                for i, j in _near(grids, [grid.T for grid in grids]):
                    yield group[i], group[j], (1, 0)


def _near(ones: Sequence[Array], others: Sequence[Array]) -> Iterator[tuple[int, int]]:
    """Pairs i < j where the second list's j is near the first list's i."""
    a = np.stack([grid.ravel() for grid in ones])
    b = np.stack([grid.ravel() for grid in others])
    with np.errstate(all="ignore"):
        for i in range(len(a) - 1):
            difference = np.square(b[i + 1 :] - a[i]).sum(axis=1)
            limit = (4 * CLOSE) ** 2 * np.square(a[i]).sum()  # a sample strays from the whole
            for j in np.flatnonzero(difference <= limit):
                yield i, i + 1 + int(j)
