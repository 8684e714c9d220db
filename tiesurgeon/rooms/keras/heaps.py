"""HDF5's global heaps, looked over before the library reads them.

Strings of varying length, as Keras' names are, lie in these heaps. The library (1.14.6) walks
through one by the sizes of its objects, and never ends where a free object has the size 0: one
wrong byte in a file would hang whoever opens it. Format: HDF5 file format specification, III.E.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path

from tiesurgeon.errors import UnreadableFile

Extent = tuple[int, int]  # first byte, and the one after the last

_SIGNATURE = b"GCOL\x01"
_HEADER, _OBJECT = 16, 16  # bytes
_BLOCK = 1 << 24


def refuse_endless_heaps(path: Path, start: int, arrays: Iterable[Extent]) -> None:
    """UnreadableFile if a heap of the HDF5 file at byte `start` has no end.

    `arrays` are parts of the file that hold numbers, and are not searched.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        for low, high in _between(start, len(data), arrays):
            for heap in _heaps(data, low, high):
                if not _ends(data, heap):
                    raise UnreadableFile("a list of names in it is damaged")


def _between(start: int, end: int, arrays: Iterable[Extent]) -> Iterator[Extent]:
    for low, high in sorted(arrays):
        if low > start:
            yield start, low
        start = max(start, high)
    if start < end:
        yield start, end


def _heaps(data: mmap.mmap, low: int, high: int) -> Iterator[int]:
    for block in range(low, high, _BLOCK):
        end = min(block + _BLOCK, high)
        found = data.find(_SIGNATURE, block, min(end + len(_SIGNATURE) - 1, high))
        while found >= 0:
            yield found
            found = data.find(_SIGNATURE, found + 1, end)
        if high - low > _BLOCK and hasattr(mmap, "MADV_DONTNEED"):
            data.madvise(mmap.MADV_DONTNEED)  # or what was searched would count as our memory


def _ends(data: mmap.mmap, heap: int) -> bool:
    if heap + _HEADER > len(data):
        return False
    end = min(heap + int(struct.unpack_from("<Q", data, heap + 8)[0]), len(data))
    at = heap + _HEADER
    while at + _OBJECT <= end:
        index, _, size = struct.unpack_from("<HH4xQ", data, at)
        if index == 0:
            if size < _OBJECT:
                return False
            at += size
        else:
            at += _OBJECT + (size + 7) // 8 * 8
    return True
