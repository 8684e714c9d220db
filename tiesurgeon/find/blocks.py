"""Two matrices block by block, so that mapped files stream through a bounded amount of memory.

Figures are of a shared two-core machine; `benchmarks/torch_duplicates.py` measures them again.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from typing import Any

from tiesurgeon.graph import Array

Block = tuple[slice, slice]  # of rows and of columns

_NUMBERS = 1 << 16  # in a block of two matrices that lie the same way
# One lies across the other: 2048 x 64 is three times as fast as 64 x 64, and as fast as memory.
_ALONG, _ACROSS = 2048, 64
_RELEASE = 1 << 24  # bytes of a mapped file that are read before its pages are given back


def blocks(a: Array, b: Array) -> Iterator[Block]:
    """Blocks that cover two matrices of one shape, in the order that reads both best.

    Pages of mapped files are given back on the way.
    """
    if _is_upright(a) == _is_upright(b):
        yield from _along(a, b)
    else:
        yield from _across(a, b)


def as_matrix(array: Array) -> Array:
    """The array with all but its last axis made one; a vector is one row."""
    if array.ndim == 2:
        return array
    width = array.shape[-1] if array.ndim else 1
    return array.reshape((array.size // width if width else 0, width))


def _is_upright(array: Array) -> bool:
    """True if its rows lie in memory one after the other."""
    return abs(array.strides[0]) >= abs(array.strides[1]) or 1 in array.shape


def _along(a: Array, b: Array) -> Iterator[Block]:
    rows, width = a.shape
    if not _is_upright(a):
        yield from ((down, right) for right, down in _along(a.T, b.T))
        return
    columns = max(min(width, _NUMBERS), 1)
    step = _NUMBERS // columns
    unreleased = 0
    for top in range(0, rows, step):
        for left in range(0, width, columns):
            yield slice(top, top + step), slice(left, left + columns)
            unreleased += step * columns * a.itemsize
            if unreleased > _RELEASE:
                unreleased = 0
                _release(a)
                _release(b)


def _across(a: Array, b: Array) -> Iterator[Block]:
    """Along the longer side in large steps, each of them across in small ones.

    One matrix is read once through; of the other a page is read for each small step, since
    the system maps 64 KB around what is touched.
    """
    rows, width = a.shape
    if rows < width:
        yield from ((down, right) for right, down in _across(a.T, b.T))
        return
    through, other = (a, b) if _is_upright(a) else (b, a)
    along = max(min(_ALONG, 2 * _RELEASE // max(width * a.itemsize, 1)), _ACROSS)
    for top in range(0, rows, along):
        for left in range(0, width, _ACROSS):
            yield slice(top, top + along), slice(left, left + _ACROSS)
            _release(other)
        _release(through)


def _release(array: Array) -> None:
    """Gives the pages of a mapped file back; they are read again if needed."""
    owner: Any = array
    while owner is not None and not isinstance(owner, mmap.mmap):
        owner = getattr(owner, "base", None)
    if owner is not None and hasattr(mmap, "MADV_DONTNEED"):
        owner.madvise(mmap.MADV_DONTNEED)
