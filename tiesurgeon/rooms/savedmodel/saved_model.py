"""`saved_model.pb`: who wrote the model, what it is called with, and the objects it is made of.

Format: tensorflow/core/protobuf/saved_model.proto and meta_graph.proto. The graph itself,
which is most of the file, is not looked at.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tiesurgeon.errors import UnreadableFile
from tiesurgeon.rooms.savedmodel import wire
from tiesurgeon.rooms.savedmodel.bundle import DTYPES, mapped
from tiesurgeon.rooms.savedmodel.wire import Bytes

_LARGEST = 1 << 31  # a protocol buffer ends there
_STRING = 7


@dataclass(frozen=True)
class Signature:
    """One way to call the model: its tensors by name, each as "int32[?, 5]"."""

    inputs: dict[str, str]
    outputs: dict[str, str]

    def __str__(self) -> str:
        given = ", ".join(f"{name}: {tensor}" for name, tensor in self.inputs.items())
        result = ", ".join(f"{name}: {tensor}" for name, tensor in self.outputs.items())
        return f"({given}) -> ({result})"


@dataclass(frozen=True)
class SavedModel:
    """The MetaGraphDef that serves; `objects` is its SavedObjectGraph, empty before TF 2."""

    version: str
    signatures: dict[str, Signature]
    objects: Bytes


def read_saved_model(path: Path) -> SavedModel:
    """Reads `saved_model.pb`; UnreadableFile if it holds no model."""
    graphs = list(wire.parts(mapped(path, _LARGEST), 2))
    if not graphs:
        raise UnreadableFile(f"{path.name} holds no graph; the file is damaged")
    graph = next((one for one in graphs if "serve" in _tags(one)), graphs[0])
    signatures = {
        name: Signature(_tensors(signature, 1), _tensors(signature, 2))
        for name, signature in wire.pairs(graph, 5)
        if not name.startswith("__saved_model")
    }
    return SavedModel(wire.text(wire.part(graph, 1), 5), signatures, wire.part(graph, 7))


def _tags(graph: Bytes) -> list[str]:
    return [str(tag, "utf-8") for tag in wire.parts(wire.part(graph, 1), 4)]


def _tensors(signature: Bytes, side: int) -> dict[str, str]:
    return {name: _tensor(info) for name, info in sorted(wire.pairs(signature, side))}


def _tensor(info: Bytes) -> str:
    """TensorInfo."""
    number = wire.number(info, 2)
    dtype = "string" if number == _STRING else str(DTYPES.get(number, f"type {number}"))
    shape = wire.part(info, 3)
    if wire.number(shape, 3):  # unknown_rank
        return f"{dtype}[...]"
    sizes = (wire.signed(wire.number(dim, 1)) for dim in wire.parts(shape, 2))
    return f"{dtype}[{', '.join('?' if size < 0 else str(size) for size in sizes)}]"
