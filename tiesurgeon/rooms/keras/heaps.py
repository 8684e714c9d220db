"""Strings of varying length in HDF5, looked over before the library reads them.

Keras' names are such strings: an attribute holds their lengths and where they lie in a *global
heap*. The library (1.14.6) walks through a heap by the sizes of its objects, and never ends
where a free object has the size 0; it also takes as much memory as a length claims. So one
wrong byte in a file would hang whoever opens it, or fill the memory.
Format: HDF5 file format specification 3.0, III.E (global heap) and IV.A.2.m (attribute).
"""

from __future__ import annotations

import math
import mmap
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path

from tiesurgeon.errors import UnreadableFile

Extent = tuple[int, int]  # first byte, and the one after the last

_HEAP = b"GCOL\x01"
# The attributes that are read of Keras' files, as far as they are strings.
_NAMES = tuple(
    name + b"\0"
    for name in (
        *(b"layer_names", b"weight_names", b"model_config", b"training_config"),
        *(b"keras_version", b"backend", b"name"),
    )
)
_VARYING = 9  # class of a datatype
_HEADER, _OBJECT = 16, 16  # bytes
_BLOCK = 1 << 24


def refuse_bad_strings(path: Path, start: int, arrays: Iterable[Extent]) -> None:
    """UnreadableFile if strings in the HDF5 file at byte `start` would hang or fill the memory.

    `arrays` are parts of the file that hold numbers, and are not searched.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        for low, high in _between(start, len(data), arrays):
            endless = any(not _ends(data, heap) for heap in _found(data, _HEAP, low, high))
            if endless or any(
                length > len(data)
                for name in _NAMES
                for place in _found(data, name, low, high)
                for length in _lengths(data, place, len(name))
            ):
                raise UnreadableFile("a list of names in it is damaged")


def _between(start: int, end: int, arrays: Iterable[Extent]) -> Iterator[Extent]:
    for low, high in sorted(arrays):
        if low > start:
            yield start, low
        start = max(start, high)
    if start < end:
        yield start, end


def _found(data: mmap.mmap, text: bytes, low: int, high: int) -> Iterator[int]:
    for block in range(low, high, _BLOCK):
        end = min(block + _BLOCK, high)
        found = data.find(text, block, min(end + len(text) - 1, high))
        while found >= 0:
            yield found
            found = data.find(text, found + 1, end)
        if high - low > _BLOCK and hasattr(mmap, "MADV_DONTNEED"):
            data.madvise(mmap.MADV_DONTNEED)  # or what was searched would count as our memory


def _lengths(data: mmap.mmap, name: int, size: int) -> Iterator[int]:
    """Lengths of the strings in the attribute whose name is there; none if it is another thing."""
    for version, header, unit in ((1, 8, 8), (2, 8, 1), (3, 9, 1)):
        if name < header or data[name - header] != version:
            continue
        sizes = struct.unpack_from("<HHH", data, name - header + 2)
        if sizes[0] != size:
            continue
        kind = name + _padded(size, unit)
        space = kind + _padded(sizes[1], unit)
        strings = space + _padded(sizes[2], unit)
        if strings > len(data) or data[kind] & 15 != _VARYING:
            continue
        for at in range(strings, len(data) - 15, 16)[: _count(data, space)]:
            yield struct.unpack_from("<I", data, at)[0]


def _count(data: mmap.mmap, space: int) -> int:
    """Number of elements of a dataspace."""
    version, rank = data[space], data[space + 1]
    dims = struct.unpack_from(f"<{rank}Q", data, space + (8 if version == 1 else 4))
    return int(min(math.prod(dims), len(data)))


def _padded(size: int, unit: int) -> int:
    return -(-size // unit) * unit


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
