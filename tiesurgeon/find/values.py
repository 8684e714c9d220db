"""How alike two matrices are, and which of many are the same: in bounded memory.

Equality is of bits. Sums are taken in float64 over tiles, so that a memory-mapped
matrix is never held as a whole.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from tiesurgeon.graph import Array, Shape, View

Match = Literal["equal", "close", "different", "declared"]
Perm = tuple[int, ...]

# Rounding to half precision or to int8 stays below; no two trained matrices come near it.
CLOSE = 0.05
_TILE = 1 << 17  # numbers in a tile: 1 MB in float64
_RELEASE = 1 << 24  # bytes read from a mapped file before its pages are given back
_GRID = 16


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
    sums = _Sums()
    with np.errstate(all="ignore"):
        for x, y in _tiles(a, b):
            sums.add(x, y)
        relative, cosine = sums.relative_difference(), sums.cosine()
    is_close = relative is not None and relative < CLOSE
    return Comparison("close" if is_close else "different", relative, cosine)


class _Sums:
    def __init__(self) -> None:
        self.a = self.b = self.difference = self.cosines = 0.0
        self.rows = 0

    def add(self, x: Array, y: Array) -> None:
        x, y = x.astype(np.float64), y.astype(np.float64)
        xx, yy = np.einsum("ij,ij->i", x, x), np.einsum("ij,ij->i", y, y)
        norms = np.sqrt(xx * yy)
        counted = norms > 0  # a row of zeros (padding) has no direction
        dots = np.einsum("ij,ij->i", x, y)[counted]
        self.cosines += float((dots / norms[counted]).sum())
        self.rows += int(counted.sum())
        self.a += float(xx.sum())
        self.b += float(yy.sum())
        x -= y
        self.difference += float(np.einsum("ij,ij->", x, x))

    def relative_difference(self) -> float | None:
        scale = self.a or self.b
        return _finite(np.sqrt(self.difference / scale)) if scale else None

    def cosine(self) -> float | None:
        return _finite(self.cosines / self.rows) if self.rows else None


def _finite(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None


def bits_equal(a: Array, b: Array) -> bool:
    """True if both have one type and shape, and the same bits (so NaN equals itself)."""
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    bits = np.dtype(f"u{a.dtype.itemsize}") if a.dtype.itemsize in (1, 2, 4, 8) else None
    if bits is None:
        return bool(np.array_equal(a, b))
    return all(np.array_equal(x.view(bits), y.view(bits)) for x, y in _tiles(a, b))


def _tiles(a: Array, b: Array) -> Iterator[tuple[Array, Array]]:
    """Blocks of whole rows of both as matrices, giving read pages back on the way."""
    a, b = as_matrix(a), as_matrix(b)
    rows, width = a.shape
    step = max(_TILE // max(width, 1), 1)
    unreleased = 0
    for start in range(0, rows, step):
        yield a[start : start + step], b[start : start + step]
        unreleased += step * width * a.itemsize
        if unreleased > _RELEASE:
            unreleased = 0
            _release(a)
            _release(b)


def _release(array: Array) -> None:
    """Gives the pages of a mapped file back; they are read again if needed."""
    owner: Any = array
    while owner is not None and not isinstance(owner, mmap.mmap):
        owner = getattr(owner, "base", None)
    if owner is not None and hasattr(mmap, "MADV_DONTNEED"):
        owner.madvise(mmap.MADV_DONTNEED)


def as_matrix(array: Array) -> Array:
    """The array with all but its last axis made one; a vector is one row."""
    if array.ndim == 2:
        return array
    width = array.shape[-1] if array.ndim else 1
    return array.reshape((array.size // width if width else 0, width))


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
    return all((block == first).all() for block, _ in _tiles(matrix, matrix))


def _equal(a: View, b: View) -> tuple[bool, Perm | None]:
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
