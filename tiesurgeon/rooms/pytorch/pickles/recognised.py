"""Tensors and parameters among the records of a pickle.

What they are made by: torch/_utils.py (`_rebuild_tensor_v2` and its kin), torch/_tensor.py
(`_reduce_ex_internal`), torch/nn/parameter.py. Storages: `persistent_id` in
torch/serialization.py.
"""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from typing import Any

from tiesurgeon.errors import UnreadableFile, UnsupportedFormat
from tiesurgeon.rooms.pytorch.pickles.mappings import global_of
from tiesurgeon.rooms.pytorch.pickles.nodes import Global, Persistent, Record
from tiesurgeon.rooms.pytorch.tensors import DTYPES, DType, Layout

_REBUILDS = ("torch._utils", "torch._tensor")
_PLAIN = frozenset({"_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_tensor_v3"})
_PARAMETERS = frozenset({"_rebuild_parameter", "_rebuild_parameter_with_state"})

# Tensors whose numbers are not, or not only, the bytes of one storage.
UNUSUAL = {
    "_rebuild_meta_tensor_no_storage": "meta (no numbers)",
    "_rebuild_sparse_tensor": "sparse",
    "_rebuild_sparse_csr_tensor": "sparse",
    "_rebuild_nested_tensor": "nested",
    "_rebuild_wrapper_subclass": "subclass",
    "_rebuild_device_tensor_from_numpy": "of another device",
    "_rebuild_device_tensor_from_cpu_tensor": "of another device",
}

_STORAGE_DTYPES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128",
    "QInt8Storage": "int8",
    "QUInt8Storage": "uint8",
    "QInt32Storage": "int32",
    "QUInt4x2Storage": "uint8",
    "QUInt2x4Storage": "uint8",
    "UntypedStorage": "uint8",
}


@dataclass(frozen=True)
class StorageReference:
    """What the pickle says of a storage: `numel` numbers of `dtype` under a key, on a device."""

    key: str
    dtype: DType
    device: str
    numel: int


@dataclass(frozen=True)
class Tensor:
    """A tensor or parameter. `record` is the object that modules hold: two names are one
    Parameter if they hold the same record. `arguments` are those of its `_rebuild_tensor_v2`."""

    record: Record
    arguments: tuple[Any, ...]
    storage: StorageReference
    layout: Layout
    requires_grad: bool
    is_parameter: bool
    is_quantised: bool = False


def tensor_of(node: Any) -> Tensor | None:
    """The tensor that a node describes; None if it is something else.

    Raises UnreadableFile where it is one with arguments that no tensor has.
    """
    if type(node) is not Record or node.opcode != pickle.REDUCE:
        return None
    made_by = global_of(node)
    arguments = node.parts[1]
    if made_by is None or made_by.module not in _REBUILDS or type(arguments) is not tuple:
        return None
    if made_by.name in _PARAMETERS:
        inner = tensor_of(arguments[0]) if len(arguments) > 1 else None
        if inner is None:
            return None
        flag = _flag(arguments[1])
        return Tensor(
            node, inner.arguments, inner.storage, inner.layout, flag, True, inner.is_quantised
        )
    if made_by.name == "_rebuild_from_type_v2" and len(arguments) > 2:
        return _of_type(node, arguments)
    return _plain(node, made_by, arguments)


def unusual(node: Any) -> str | None:
    """What kind of tensor that has no plain numbers a node is; None if it is none."""
    made_by = global_of(node)
    if made_by is None or made_by.module not in _REBUILDS:
        return None
    if made_by.name in _PARAMETERS and type(node.parts[1]) is tuple and node.parts[1]:
        return unusual(node.parts[1][0])
    if made_by.name == "_rebuild_from_type_v2" and type(node.parts[1]) is tuple:
        made_by = next((part for part in node.parts[1] if type(part) is Global), made_by)
    return UNUSUAL.get(made_by.name)


def storage_of(node: Any) -> StorageReference | None:
    """The storage that a persistent id stands for; None if it stands for something else."""
    if type(node) is not Persistent or type(node.value) is not tuple or len(node.value) < 5:
        return None
    word, kind, key, device, numel, *view = node.value
    if word != "storage":
        return None
    if type(kind) is not Global or kind.name not in _STORAGE_DTYPES:
        raise UnsupportedFormat(f"holds a storage of type {str(kind)[:80]}, which is not known")
    if any(part is not None for part in view):
        raise UnsupportedFormat(
            "holds views of storages, as PyTorch before 0.4 wrote them; load it with torch.load "
            "and save it again"
        )
    if type(key) is not str or type(device) is not str or type(numel) is not int or numel < 0:
        raise UnreadableFile("names a storage without a key, a device or a size")
    return StorageReference(key, DTYPES[_STORAGE_DTYPES[kind.name]], device, numel)


def with_arguments(tensor: Tensor, arguments: tuple[Any, ...]) -> Record:
    """A new object like that of a tensor, over other numbers."""
    return _copied(tensor.record, tensor.arguments, arguments)


def _copied(record: Record, old: tuple[Any, ...], new: tuple[Any, ...]) -> Record:
    parts = list(record.parts)
    parts[1] = new if parts[1] is old else tuple(_inside(part, old, new) for part in parts[1])
    return Record(record.opcode, parts, list(record.steps))


def _inside(part: Any, old: tuple[Any, ...], new: tuple[Any, ...]) -> Any:
    if part is old:
        return new
    return _copied(part, old, new) if tensor_of(part) is not None else part


def _plain(node: Record, made_by: Global, arguments: tuple[Any, ...]) -> Tensor | None:
    is_quantised = made_by.name == "_rebuild_qtensor"
    if not is_quantised and made_by.name not in _PLAIN:
        return None
    if len(arguments) < 4:
        raise UnreadableFile(
            f"a tensor is made from {len(arguments)} arguments, expected 4 at least"
        )
    storage = storage_of(arguments[0])
    if storage is None:
        raise UnreadableFile("a tensor has no storage")
    dtype, offset, shape, strides = storage.dtype, *arguments[1:4]
    if made_by.name == "_rebuild_tensor_v3" and len(arguments) > 6:
        dtype = _dtype(arguments[6])
    if not all(type(numbers) is tuple for numbers in (shape, strides)):
        raise UnreadableFile("a tensor has a shape or strides that are no tuple")
    flag = len(arguments) > 4 + is_quantised and _flag(arguments[4 + is_quantised])
    layout = Layout(dtype, shape, strides, offset)
    return Tensor(node, arguments, storage, layout, flag, False, is_quantised)


def _of_type(node: Record, arguments: tuple[Any, ...]) -> Tensor | None:
    """A tensor with attributes of its own, or of a subclass."""
    function, _, inner = arguments[:3]
    if type(function) is not Global or function.module not in _REBUILDS or type(inner) is not tuple:
        return None
    if function.name in _PARAMETERS:
        found = tensor_of(Record(pickle.REDUCE, [function, inner]))
        if found is None:
            return None
        return Tensor(
            node, found.arguments, found.storage, found.layout, found.requires_grad, True,
            found.is_quantised,
        )  # fmt: skip
    return _plain(node, function, inner)


def _dtype(node: Any) -> DType:
    if type(node) is Global and node.module == "torch" and node.name in DTYPES:
        return DTYPES[node.name]
    raise UnsupportedFormat(f"holds a tensor of dtype {str(node)[:80]}, which is not known")


def _flag(node: Any) -> bool:
    return node is True
