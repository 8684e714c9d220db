"""How far two arrays are apart, and where; in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from tiesurgeon.errors import ShapeMismatch
from tiesurgeon.graph import Array, Shape

_BLOCK = 1 << 20  # numbers at a time


@dataclass(frozen=True)
class Difference:
    """Two arrays of one shape, compared number by number.

    `max_abs_diff` is the largest |a - b|, at `index`, where the arrays hold `a` and `b`;
    `max_rel_diff` the largest |a - b| / max(|a|, |b|), which may be elsewhere. A NaN or an
    infinity that only one of them has is infinitely far away; one that both have at the same
    place is no difference. `unusual` counts those of `a`, `scale` is its largest other number.
    """

    name: str
    shape: Shape
    max_abs_diff: float
    max_rel_diff: float
    index: tuple[int, ...]
    a: complex
    b: complex
    same_bits: bool
    unusual: int
    scale: float


def compare(name: str, one: Array, other: Array) -> Difference:
    """Compares two arrays of numbers, whatever their dtypes; ShapeMismatch if shapes differ."""
    if one.shape != other.shape:
        raise ShapeMismatch(f"{name} is {one.shape} in the first and {other.shape} in the second")
    largest, relative, scale = -1.0, 0.0, 0.0
    unusual, same_bits = 0, one.dtype == other.dtype
    place, a, b = 0, 0.0 + 0j, 0.0 + 0j
    for start, x, y in _blocks(one, other):
        same_bits = same_bits and x.tobytes() == y.tobytes()
        x, y = _wide(x), _wide(y)
        gaps, relatives = _gaps(x, y)
        is_finite = np.isfinite(x)
        unusual += int(np.count_nonzero(~is_finite))
        scale = max(scale, float(np.max(np.abs(x), where=is_finite, initial=0.0)))
        at = int(np.argmax(gaps))
        relative = max(relative, float(relatives.max()))
        if gaps[at] > largest:
            largest, place, a, b = float(gaps[at]), start + at, complex(x[at]), complex(y[at])
    index = tuple(map(int, np.unravel_index(place, one.shape))) if one.size else ()
    return Difference(
        name, one.shape, max(largest, 0.0), relative, index, a, b, same_bits, unusual, scale
    )


def largest_difference(one: Sequence[Array], other: Sequence[Array]) -> float:
    """Over all pairs in order; infinite where their number or shapes differ."""
    if [x.shape for x in one] != [y.shape for y in other]:
        return float("inf")
    pairs = zip(one, other, strict=True)
    return max((compare("", x, y).max_abs_diff for x, y in pairs), default=0.0)


def _blocks(one: Array, other: Array) -> Iterator[tuple[int, Array, Array]]:
    """Flat pieces of both, and the place at which they start, in the order of C."""
    if one.ndim == 0:
        yield 0, one.reshape(1), other.reshape(1)
        return
    width = max(1, one.size // max(one.shape[0], 1))
    rows = max(1, _BLOCK // width)
    for start in range(0, one.shape[0] if one.size else 0, rows):
        stop = start + rows
        yield start * width, one[start:stop].reshape(-1), other[start:stop].reshape(-1)


def _wide(array: Array) -> Array:
    return array.astype(np.complex128 if array.dtype.kind == "c" else np.float64)


def _gaps(one: Array, other: Array) -> tuple[Array, Array]:
    same = (one == other) | (np.isnan(one) & np.isnan(other))
    with np.errstate(invalid="ignore", over="ignore"):
        apart = np.where(same, 0.0, np.abs(one - other))
        apart = np.where(np.isnan(apart), np.inf, apart)
        size = np.maximum(np.abs(one), np.abs(other))
        relative = np.where(apart == 0.0, 0.0, apart / np.where(size == 0.0, 1.0, size))
    return apart, np.where(np.isnan(relative), np.inf, relative)
