"""The header of a safetensors file, believed only where the file bears it out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from tiesurgeon.errors import UnreadableFile
from tiesurgeon.graph import Shape
from tiesurgeon.rooms.pytorch.safetensors.dtypes import bits
from tiesurgeon.rooms.pytorch.tensors import Extent

METADATA = "__metadata__"
_LENGTH_BYTES = 8
_LARGEST = 100_000_000  # bytes, as the safetensors library has it
_MOST_VALUES = 1 << 22  # 400,000 tensors; JSON of nothing but brackets would fill the memory


@dataclass(frozen=True)
class Entry:
    """One tensor of the header: `dtype` in the format's own word, `extent` its bytes."""

    dtype: str
    shape: Shape
    extent: Extent


@dataclass(frozen=True)
class Header:
    """What a file says that it holds; entries in the order of the header."""

    entries: Mapping[str, Entry]
    metadata: Mapping[str, str]


def read_header(path: Path) -> Header:
    """Reads and checks the header of a file, and no tensor.

    Raises UnreadableFile unless dtypes and shapes give the bytes that the offsets claim, and
    the tensors cover the rest of the file without gap or overlap.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
        if size < _LENGTH_BYTES or length > size - _LENGTH_BYTES:
            raise UnreadableFile(
                f"claims a header of {length:,} bytes and has {max(size - _LENGTH_BYTES, 0):,} "
                "after it: not a safetensors file, or not fully downloaded"
            )
        if length > _LARGEST:
            raise UnreadableFile(f"has a header of {length:,} bytes, allowed are {_LARGEST:,}")
        found = _parsed(file.read(length))
    metadata = _metadata(found.pop(METADATA, {}))
    start = _LENGTH_BYTES + length
    entries = {name: _entry(name, value, path, start) for name, value in found.items()}
    _refuse_gaps(entries, start, size)
    return Header(entries, metadata)


def _parsed(text: bytes) -> dict[str, Any]:
    if sum(text.count(mark) for mark in (b"[", b"{", b",")) > _MOST_VALUES:
        raise UnreadableFile("its header holds more values than that of any model")
    try:
        found = json.loads(
            text.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_refuse_constant
        )
    except ValueError as error:
        raise UnreadableFile(f"its header is not JSON ({error})") from None
    if not isinstance(found, dict):
        raise UnreadableFile("its header is not a JSON object")
    return found


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise UnreadableFile(f"its header names {twice!r} twice")
    return found


def _refuse_constant(constant: str) -> None:
    raise UnreadableFile(f"its header holds {constant}, which is not JSON")


def _metadata(found: Any) -> dict[str, str]:
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise UnreadableFile(f"its {METADATA} does not map names to texts")
    return found


def _entry(name: str, value: Any, path: Path, start: int) -> Entry:
    if not isinstance(value, dict) or set(value) != {"dtype", "shape", "data_offsets"}:
        raise UnreadableFile(f"tensor {name!r} is not described by dtype, shape and data_offsets")
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not (_are_counts(shape) and _are_counts(offsets) and len(offsets) == 2):
        raise UnreadableFile(f"tensor {name!r} has a shape or offsets that are not whole numbers")
    width = bits(dtype) if isinstance(dtype, str) else None
    if width is None:
        raise UnreadableFile(f"tensor {name!r} has the unknown dtype {dtype!r}")
    first, end = offsets
    needed, spare = divmod(prod(shape) * width, 8)
    if end - first != needed or spare:
        raise UnreadableFile(
            f"tensor {name!r}, {dtype} of shape {tuple(shape)}, takes {needed:,} bytes, and its "
            f"offsets give it {end - first:,}"
        )
    return Entry(dtype, tuple(shape), Extent(path, start + first, needed))


def _are_counts(found: Any) -> bool:
    return isinstance(found, list) and all(type(item) is int and item >= 0 for item in found)


def _refuse_gaps(entries: Mapping[str, Entry], start: int, size: int) -> None:
    end = start
    by_place = sorted(
        entries.items(), key=lambda item: (item[1].extent.start, item[1].extent.length)
    )
    for name, entry in by_place:
        if entry.extent.start != end:
            problem = "overlaps the one before it" if entry.extent.start < end else "leaves a gap"
            raise UnreadableFile(
                f"tensor {name!r} starts at byte {entry.extent.start - start:,} of the data, where "
                f"{end - start:,} was expected: it {problem}"
            )
        end += entry.extent.length
    if end != size:
        raise UnreadableFile(
            f"its tensors end at byte {end:,} and the file at {size:,}: cut short, or not "
            "fully downloaded"
            if end > size
            else f"holds {size - end:,} bytes after its last tensor, which belong to none"
        )
