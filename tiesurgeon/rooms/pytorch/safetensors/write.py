"""Writing a safetensors file one tensor at a time, so that a large model never lies in memory."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tiesurgeon.edits import Perm
from tiesurgeon.errors import UnsupportedFormat
from tiesurgeon.graph import Graph, Shape, Storage, View
from tiesurgeon.rooms.pytorch.safetensors.dtypes import bits, word
from tiesurgeon.rooms.pytorch.safetensors.header import METADATA, Entry
from tiesurgeon.rooms.pytorch.streaming import copy_extent, write_array
from tiesurgeon.rooms.pytorch.tensors import Extent

PROVENANCE = "tiesurgeon"  # its key in the metadata


@dataclass(frozen=True)
class Tensor:
    """A tensor to be written: `dtype` in the format's own word, its numbers in a file or loaded
    when their turn comes."""

    dtype: str
    shape: Shape
    nbytes: int
    numbers: Extent | Storage


def stored(entry: Entry) -> Tensor:
    """A tensor of another safetensors file, to be copied byte by byte."""
    return Tensor(entry.dtype, entry.shape, entry.extent.length, entry.extent)


def loaded(name: str, storage: Storage) -> Tensor:
    """A tensor of any origin; UnsupportedFormat for a dtype that the format does not have."""
    dtype = word(storage.dtype)
    if dtype is None:
        raise UnsupportedFormat(f"{name}: safetensors has no dtype {storage.dtype.name}")
    return Tensor(dtype, storage.shape, storage.nbytes, storage)


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Writes a new file; tensors of one width stay in the order given."""
    # Wide numbers first, so that each tensor is aligned to its own width.
    ordered = sorted(tensors.items(), key=lambda item: -(bits(item[1].dtype) or 0))
    header: dict[str, Any] = {METADATA: dict(metadata)} if metadata else {}
    end = 0
    for name, tensor in ordered:
        start, end = end, end + tensor.nbytes
        header[name] = {
            "dtype": tensor.dtype,
            "shape": tensor.shape,
            "data_offsets": (start, end),
        }
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        for numbers in _joined(tensor.numbers for _, tensor in ordered):
            if isinstance(numbers, Extent):
                copy_extent(numbers, file)
            else:
                write_array(numbers.load(), file)


def _joined(parts: Iterable[Extent | Storage]) -> list[Extent | Storage]:
    """The same, with extents that follow each other in one file made one."""
    joined: list[Extent | Storage] = []
    for part in parts:
        last = joined[-1] if joined else None
        if (
            isinstance(part, Extent)
            and isinstance(last, Extent)
            and (last.path, last.start + last.length) == (part.path, part.start)
        ):
            joined[-1] = Extent(last.path, last.start, last.length + part.length)
        else:
            joined.append(part)
    return joined


def save(path: Path, tensors: Mapping[str, Storage], metadata: Mapping[str, str]) -> None:
    """Writes the tensors with their names, loading one after the other.

    Raises UnsupportedFormat for a dtype that the format does not have.
    """
    write_tensors(path, {name: loaded(name, tensors[name]) for name in sorted(tensors)}, metadata)


def write_safetensors(path: Path, graph: Graph, provenance: Mapping[str, Any]) -> None:
    """Writes the weights and buffers of a graph by their names.

    What several names see in the same way is stored once, under the first of them, and the
    metadata maps the others to it, as `safetensors.torch.save_model` does. Raises
    UnsupportedFormat for a dtype that the format does not have.
    """
    tensors: dict[str, Tensor] = {}
    aliases: dict[str, str] = {}
    owners: dict[tuple[Storage, Perm | None, Shape], str] = {}
    for name, view in _tensors(graph):
        storage = view.variable.storage
        owner = owners.setdefault((storage, view.perm, view.shape), name)
        if owner == name:
            whole = Storage(name, view.shape, storage.dtype, view.load)
            tensors[name] = loaded(name, whole)
        else:
            aliases[name] = owner
    write_tensors(path, tensors, marked(provenance) | aliases)


def marked(provenance: Mapping[str, Any]) -> dict[str, str]:
    """The metadata that says where a file came from."""
    return {"format": "pt", PROVENANCE: json.dumps(dict(provenance))}


def _tensors(graph: Graph) -> Iterator[tuple[str, View]]:
    for path, layer in graph.walk():
        for view in layer.views:
            if view.variable.kind in ("weight", "buffer"):
                yield layer.name_of(view, path), view
