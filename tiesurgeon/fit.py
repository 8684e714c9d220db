"""How to choose one matrix for two that differ. Numpy only.

A method is a function of a block of source rows and the same block of target rows, so
that neither matrix has to fit in memory as float64.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tiesurgeon.errors import ShapeMismatch
from tiesurgeon.graph import Array

_BLOCK = 1 << 18  # numbers computed at a time


def _keep_source(source: Array, target: Array) -> Array:
    return source


def _keep_target(source: Array, target: Array) -> Array:
    return target


def _mean(source: Array, target: Array) -> Array:
    """(a + b) / 2 in double precision, so that no half-precision sum overflows."""
    return (source.astype(np.float64) + target.astype(np.float64)) / 2


_BY_ROWS: dict[str, Callable[[Array, Array], Array]] = {
    "keep-source": _keep_source,
    "keep-target": _keep_target,
    "mean": _mean,
}
METHODS = tuple(_BY_ROWS)


def fit(source: Array, target: Array, method: str) -> Array:
    """The matrix to share, of the source's shape and dtype; `target` is oriented like it.

    Raises ShapeMismatch, naming both shapes, if they differ, and ValueError for a method
    that is not in `METHODS`.
    """
    if method not in _BY_ROWS:
        raise ValueError(f"unknown method {method!r}, expected one of {', '.join(METHODS)}")
    if source.shape != target.shape:
        raise ShapeMismatch(_mismatch(source, target))
    choose = _BY_ROWS[method]
    shared = np.empty(source.shape, source.dtype)
    width = max(source.size // max(len(source), 1), 1)
    step = max(_BLOCK // width, 1)
    for start in range(0, len(source), step):
        rows = slice(start, start + step)
        shared[rows] = choose(source[rows], target[rows]).astype(source.dtype)
    return shared


def _mismatch(source: Array, target: Array) -> str:
    found = f"the source is {source.shape} and the target, turned the same way, {target.shape}"
    if source.ndim == target.ndim == 2 and source.shape[1] == target.shape[1]:
        more = "source" if len(source) > len(target) else "target"
        count = abs(len(source) - len(target))
        return (
            f"{found}: the {more} has {count} more rows, as where a vocabulary was padded on one "
            f"side only; give both sides the same rows first (cut or pad the {more}'s)"
        )
    return f"{found}; two matrices can be one only if their shapes agree"
