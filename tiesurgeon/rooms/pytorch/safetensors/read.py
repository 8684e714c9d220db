"""A safetensors file -> a graph of named tensors; only the header is read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from tiesurgeon.damage import blamed
from tiesurgeon.errors import UnreadableFile
from tiesurgeon.graph import Graph, Storage, Variable
from tiesurgeon.rooms.pytorch.bare import layers_of, variable
from tiesurgeon.rooms.pytorch.document import TorchFile
from tiesurgeon.rooms.pytorch.safetensors.document import SafetensorsDocument
from tiesurgeon.rooms.pytorch.safetensors.dtypes import PACKED_BITS, numpy_dtype
from tiesurgeon.rooms.pytorch.safetensors.header import Entry, Header, read_header
from tiesurgeon.rooms.pytorch.tensors import Layout, Storages, contiguous_strides

_LISTED = 3
# Keys of the metadata that never are the names of tensors.
_NO_ALIAS = frozenset(("format", "source", "writer"))


def read_safetensors(path: Path) -> TorchFile:
    """Reads a safetensors file.

    Names that the metadata maps to a tensor (`{"lm_head.weight": "wte.weight"}`, as
    `safetensors.torch.save_model` writes for a tied class) are shown as second variables over
    its storage: the file says that they are one, and only a class can make it so.
    Raises UnreadableFile with one line where the file is not what it should be.
    """
    with blamed(path, "a safetensors file"):
        if not path.is_file():
            raise UnreadableFile("there is no such file")
        header = read_header(path)
        aliases = aliases_of(header)
        variables = named_variables(header)
        for alias, name in aliases.items():
            variables[alias] = variable(alias, variables[name].storage)
        return TorchFile(
            "safetensors",
            Graph(path.stem, "", layers_of(variables)),
            header.metadata.get("writer", "safetensors"),
            SafetensorsDocument(header, aliases),
            tuple(packed_notes(header.entries)),
        )


def aliases_of(header: Header) -> dict[str, str]:
    """Names that are no tensors of the file, each with the tensor that the file says it is."""
    return {
        alias: name
        for alias, name in header.metadata.items()
        if name in header.entries and alias not in header.entries and alias not in _NO_ALIAS
    }


def named_variables(header: Header) -> dict[str, Variable]:
    """The tensors of the file by name, in the order of the header."""
    return {name: variable(name, storage_of(name, e)) for name, e in header.entries.items()}


def storage_of(name: str, entry: Entry) -> Storage:
    """The numbers of one tensor, memory-mapped when they are loaded; packed ones as bytes."""
    shape = (entry.extent.length,) if entry.dtype in PACKED_BITS else entry.shape
    layout = Layout(numpy_dtype(entry.dtype), shape, contiguous_strides(shape))
    return Storages().of(name, name, entry.extent, layout)[0]


def packed_notes(entries: Mapping[str, Entry]) -> Iterator[str]:
    """A line for the tensors whose numbers share bytes."""
    packed = [name for name, entry in entries.items() if entry.dtype in PACKED_BITS]
    if packed:
        dtypes = " and ".join(sorted({entries[name].dtype for name in packed}))
        some = ", ".join(packed[:_LISTED]) + (", ..." if len(packed) > _LISTED else "")
        yield f"{len(packed)} tensors hold {dtypes} numbers and are shown as bytes: {some}"
