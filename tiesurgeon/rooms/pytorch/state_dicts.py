"""A graph's tensors written as a `.pt` file of a state dict, as `torch.save` would, without it.

Names that share numbers share a storage; a transposed view is one by its strides. Format:
`_save` in torch/serialization.py and `Tensor._reduce_ex_internal` in torch/_tensor.py.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tiesurgeon.errors import UnsupportedFormat
from tiesurgeon.graph import Graph, Storage, View
from tiesurgeon.rooms.pytorch.containers import PROVENANCE
from tiesurgeon.rooms.pytorch.containers.zip_writer import ArchiveWriter
from tiesurgeon.rooms.pytorch.pickles.emit import encode
from tiesurgeon.rooms.pytorch.pickles.nodes import Global, Persistent, Record, Step
from tiesurgeon.rooms.pytorch.streaming import raw_blocks
from tiesurgeon.rooms.pytorch.tensors import DTYPES, contiguous_strides

_ROOT = "archive"
_VERSION = b"3\n"  # of the archive, since PyTorch 1.6
_PROTOCOL = 2
_NAMES = {dtype: name for name, dtype in DTYPES.items()}
# Types with a storage class of their own; the tensors of newer ones say their dtype themselves.
_CLASSES = {
    "float64": "DoubleStorage",
    "float32": "FloatStorage",
    "float16": "HalfStorage",
    "bfloat16": "BFloat16Storage",
    "complex64": "ComplexFloatStorage",
    "complex128": "ComplexDoubleStorage",
    "int64": "LongStorage",
    "int32": "IntStorage",
    "int16": "ShortStorage",
    "int8": "CharStorage",
    "uint8": "ByteStorage",
    "bool": "BoolStorage",
}


def write_state_dict(path: Path, graph: Graph, provenance: Mapping[str, Any]) -> None:
    """Writes what the layers see, under its full names, loading one storage after the other.

    `torch.load(path, weights_only=True, mmap=True)` opens it. Raises UnsupportedFormat for a
    dtype that PyTorch does not have.
    """
    tensors = _Tensors()
    items = [
        item
        for path_, layer in graph.walk()
        for view in layer.views
        for item in (layer.name_of(view, path_), tensors.of(layer.name_of(view, path_), view))
    ]
    root = _ordered_dict()
    root.steps.append(Step(pickle.SETITEMS, items))
    with ArchiveWriter(path, _ROOT) as writer:
        _add(writer, "data.pkl", encode(root, _PROTOCOL))
        _add(writer, "byteorder", b"little")
        for key, storage in tensors.storages():
            writer.add(f"data/{key}", raw_blocks(storage.load()), storage.nbytes)
        _add(writer, "version", _VERSION)
        _add(writer, PROVENANCE, json.dumps(dict(provenance)).encode())


def _add(writer: ArchiveWriter, name: str, data: bytes) -> None:
    writer.add(name, [data], len(data))


def _ordered_dict() -> Record:
    return Record(pickle.REDUCE, [Global("collections", "OrderedDict"), ()])


@dataclass
class _Tensors:
    """Tensors as the pickle builds them; `_kept` are the storages, numbered as they come."""

    _kept: dict[Storage, Persistent] = field(default_factory=dict)

    def of(self, name: str, view: View) -> Record:
        """The call that rebuilds a tensor over its storage."""
        storage, strides = _seen(view)
        dtype = _dtype(name, storage)
        held = self._kept.get(storage)
        if held is None:
            held = self._kept[storage] = _persistent(str(len(self._kept)), storage, dtype)
        function = "_rebuild_tensor_v2" if dtype in _CLASSES else "_rebuild_tensor_v3"
        said = () if dtype in _CLASSES else (Global("torch", dtype),)
        # Storage, offset, shape, strides, requires_grad, hooks: a state dict is detached.
        arguments = (held, 0, view.shape, strides, False, _ordered_dict(), *said)
        return Record(pickle.REDUCE, [Global("torch._utils", function), arguments])

    def storages(self) -> Iterator[tuple[str, Storage]]:
        """Each storage once, with its key."""
        for number, storage in enumerate(self._kept):
            yield str(number), storage


def _seen(view: View) -> tuple[Storage, tuple[int, ...]]:
    """The storage that a view sees and its strides in it; one of its own if it has none."""
    stored = view.variable.storage
    if view.perm is None:
        return stored, contiguous_strides(view.shape)
    if view.reshape is None:
        strides = contiguous_strides(stored.shape)
        return stored, tuple(strides[axis] for axis in view.perm)
    return Storage(stored.key, view.shape, stored.dtype, view.load), contiguous_strides(view.shape)


def _dtype(name: str, storage: Storage) -> str:
    found = _NAMES.get(np.dtype(storage.dtype).newbyteorder("="))
    if found is None:
        raise UnsupportedFormat(f"{name}: PyTorch has no dtype {storage.dtype}")
    return found


def _persistent(key: str, storage: Storage, dtype: str) -> Persistent:
    """A storage as `torch.save` refers to it: its class, its key and how many numbers it has."""
    if dtype in _CLASSES:
        return Persistent(("storage", Global("torch", _CLASSES[dtype]), key, "cpu", storage.size))
    untyped = Global("torch.storage", "UntypedStorage")  # counts bytes
    return Persistent(("storage", untyped, key, "cpu", storage.nbytes))
