"""Which names of a model are weights: initializers, constants, and what only turns them about."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tiesurgeon.edits import compose
from tiesurgeon.errors import UnreadableFile
from tiesurgeon.graph import Storage, Value, Variable
from tiesurgeon.rooms.onnx.order import called
from tiesurgeon.rooms.onnx.quantised import QuantisedStorage, packed_bits, quantised
from tiesurgeon.rooms.onnx.tensors import STRING, Tensors
from tiesurgeon.rooms.onnx.values import Held, Scope

# Where a node's quantised matrix is among its inputs: its scale, its zero point, and the axis of
# several scales.
_PLACES: dict[tuple[str, int], tuple[int, int, int]] = {
    ("QLinearMatMul", 3): (4, 5, 1),
    ("QLinearConv", 3): (4, 5, 0),
    ("QGemm", 3): (4, 5, 1),
    ("DynamicQuantizeMatMul", 1): (2, 3, 1),
    ("MatMulIntegerToFloat", 1): (3, 5, 1),
    ("DynamicQuantizeLSTM", 1): (8, 9, 0),
    ("DynamicQuantizeLSTM", 2): (10, 11, 0),
}
# What stands between a Gather of integers and their DequantizeLinear.
_TURNS = frozenset({"Transpose", "Reshape", "Squeeze", "Unsqueeze", "Identity"})


@dataclass(eq=False)
class Stored:
    """Finds what a model stores. Variables are made once, so two uses of one are one."""

    tensors: Tensors
    _variables: dict[Any, Variable] = field(default_factory=dict)
    _storages: dict[Any, QuantisedStorage] = field(default_factory=dict)
    _owners: list[Any] = field(default_factory=list)  # kept, so that no id is given twice
    sparse: list[str] = field(default_factory=list)

    def initializers(self, graph: Any) -> Iterator[tuple[str, Held]]:
        """Names of the initializers of a graph, strings left out."""
        for tensor in graph.initializer:
            yield tensor.name, self._taken(tensor, graph, tensor.name, "weight")
        for sparse in graph.sparse_initializer:
            self.sparse.append(sparse.values.name)
            yield (
                sparse.values.name,
                self._taken(sparse.values, sparse, sparse.values.name, "weight"),
            )

    def _taken(self, tensor: Any, owner: Any, name: str, kind: Any) -> Held:
        key = (id(owner), name)
        if key not in self._variables:
            if tensor.data_type == STRING:
                storage = Storage(name, tuple(tensor.dims), np.dtype("O"), _no_strings)
            else:
                self.tensors.take(tensor)
                storage = self.tensors.storage(tensor)
            floating = storage.dtype.kind == "f" or "float" in storage.dtype.name
            small = storage.dtype.itemsize == 1 and storage.dtype.kind in "iuV"
            kind = kind if floating or small else "buffer"
            self._variables[key] = Variable(name, storage, trainable=floating, kind=kind)
            self._owners.append(owner)
        return Held(self._variables[key], tensor, owner)

    # --- nodes that only hold -----------------------------------------------------------------

    def held(self, scope: Scope, node: Any) -> Held | None:
        """What the node's output holds, if it computes nothing from data."""
        if node.domain not in ("", "ai.onnx"):
            return None
        if node.op_type == "Constant":
            return self._constant(node)
        if node.op_type not in ("Identity", "Transpose", "DequantizeLinear") or not node.input:
            return None
        found = scope.find(node.input[0])
        if not isinstance(found, Held):
            return None
        if node.op_type == "Identity":
            return Held(found.variable, found.tensor, found.owner, found.perm, (*found.chain, node))
        if node.op_type == "Transpose":
            return transposed(found, node)
        return self._dequantised(scope, node, found)

    def _constant(self, node: Any) -> Held | None:
        for attribute in node.attribute:
            if attribute.name == "value" and attribute.HasField("t"):
                return self._taken(attribute.t, node, node.output[0], "weight")
            if attribute.name.startswith("value_"):
                return self._taken(_as_tensor(attribute), node, node.output[0], "buffer")
        return None

    def _dequantised(self, scope: Scope, node: Any, found: Held) -> Held | None:
        scale, zero = (_input(scope, node, index) for index in (1, 2))
        if not isinstance(scale, Held) or isinstance(zero, Value) or found.perm is not None:
            return None
        axis, block = _integer(node, "axis", 1), _integer(node, "block_size", 0)
        return self._as_quantised(found, scale, zero, axis, block, (*found.chain, node))

    def _as_quantised(
        self,
        found: Held,
        scale: Held,
        zero: Held | None,
        axis: int | None,
        block: int,
        chain: tuple[Any, ...],
    ) -> Held:
        stored = zero.variable.storage if zero is not None else None
        storage = quantised(found.variable.storage, scale.variable.storage, stored, axis, block)
        return Held(self._variable(found, storage), found.tensor, found.owner, None, chain)

    def _variable(self, found: Held, storage: QuantisedStorage) -> Variable:
        """One variable for the same integers with the same scales and zero points."""
        zero = storage.zero_point.load().tobytes() if storage.zero_point is not None else b""
        scale = storage.scale.load().tobytes()
        key = (id(found.variable), scale, zero, storage.axis, storage.shape)
        if key not in self._variables:
            name = found.variable.name
            self._variables[key] = Variable(name, storage, trainable=False, kind="weight")
        return self._variables[key]

    # --- nodes that take quantised matrices ---------------------------------------------------

    def as_seen(self, scope: Scope, node: Any, index: int, found: Held) -> Held:
        """The held tensor as the floats it stands for, where the node or the next one tells."""
        if found.perm is not None or isinstance(found.variable.storage, QuantisedStorage):
            return found
        if node.op_type in ("MatMulNBits", "GatherBlockQuantized"):
            return self._packed(scope, node, index, found)
        place = _PLACES.get((node.op_type, index))
        if place is not None:
            scale, zero = (_input(scope, node, at) for at in place[:2])
            axis: int | None = place[2]
        elif node.op_type == "MatMulInteger" and index == 1:
            scale, zero, axis = self._later_scale(scope, node), _input(scope, node, 3), 1
        elif node.op_type == "Gather" and index == 0:
            after = self._later_dequantised(scope, node)
            if after is None:
                return found
            scale, zero = _input(scope, after, 1), _input(scope, after, 2)
            axis = None
        else:
            return found
        if not isinstance(scale, Held) or isinstance(zero, Value):
            return found
        if axis is None and scale.variable.storage.size != 1:
            return found
        if len(found.variable.shape) < 2:
            return found
        return self._as_quantised(found, scale, zero, axis, 0, ())

    def _later_scale(self, scope: Scope, node: Any) -> Held | Value | None:
        """MatMulInteger -> Cast -> Mul by (scale of x * scale of the matrix)."""
        for cast in self._after(scope, node, "Cast"):
            for product in self._after(scope, cast, "Mul"):
                for name in product.input:
                    maker = scope.makers.get(name)
                    if maker is not None and maker.op_type == "Mul":
                        for at in range(2):
                            found = _input(scope, maker, at)
                            if isinstance(found, Held):
                                return found
                    elif name != cast.output[0] and isinstance(scope.find(name), Held):
                        return scope.find(name)
        return None

    def _later_dequantised(self, scope: Scope, node: Any) -> Any:
        """The DequantizeLinear that what the node gives comes to, whatever turns it before."""
        pending = list(scope.takers.get(node.output[0], ()))
        for taker in pending:  # it grows on the way
            if taker.op_type == "DequantizeLinear":
                return taker
            if taker.op_type in _TURNS:
                pending += scope.takers.get(taker.output[0], ())
        return None

    def _after(self, scope: Scope, node: Any, op: str) -> list[Any]:
        """The one node that takes the node's first output, if it is an `op`."""
        found = scope.takers.get(node.output[0], [])
        return [found[0]] if len(found) == 1 and found[0].op_type == op else []

    def _packed(self, scope: Scope, node: Any, index: int, found: Held) -> Held:
        is_product = node.op_type == "MatMulNBits"
        if index != (1 if is_product else 0):
            return found
        scale, zero = _input(scope, node, 2), _input(scope, node, 3)
        if not isinstance(scale, Held) or isinstance(zero, Value):
            return found
        bits, block = _integer(node, "bits", 4), _integer(node, "block_size", 128)
        packed = found.variable.storage
        if is_product:
            shape = _integer(node, "N", 0), _integer(node, "K", 0)
        else:
            if len(packed.shape) != 2 or _integer(node, "quantize_axis", 1) not in (1, -1):
                return found
            shape = packed.shape[0], packed.shape[1] * (8 // bits)
        if packed.dtype != np.uint8 or bits not in (2, 4, 8) or block < 16:
            return found
        stored = zero.variable.storage if zero is not None else None
        storage = packed_bits(packed, scale.variable.storage, stored, shape, bits, block)
        return Held(self._variable(found, storage), found.tensor, found.owner)


def transposed(held: Held, node: Any) -> Held:
    """What a Transpose node makes of what is held."""
    perm = next((tuple(a.ints) for a in node.attribute if a.name == "perm"), None)
    rank = len(held.variable.shape)
    perm = tuple(reversed(range(rank))) if perm is None else perm
    if sorted(perm) != list(range(rank)):
        raise UnreadableFile(f"node {called(node)!r} permutes {rank} axes as {perm}")
    whole = None if perm == tuple(range(rank)) else perm
    chain = (*held.chain, node)
    return Held(held.variable, held.tensor, held.owner, compose(held.perm, whole), chain)


def _input(scope: Scope, node: Any, index: int) -> Held | Value | None:
    name = node.input[index] if index < len(node.input) else ""
    return scope.find(name) if name else None


def _integer(node: Any, name: str, missing: int) -> int:
    return next((int(a.i) for a in node.attribute if a.name == name), missing)


def _as_tensor(attribute: Any) -> Any:
    """`value_int`, `value_floats` and the like, as the tensor that they stand for."""
    from onnx import helper

    value = helper.get_attribute_value(attribute)
    is_list = isinstance(value, (list, tuple)) or not isinstance(value, (int, float, bytes))
    items = list(value) if is_list else [value]
    kind = {"i": 7, "f": 1, "s": STRING}[attribute.name.removeprefix("value_")[0]]
    return helper.make_tensor("", kind, [len(items)] if is_list else [], items)


def _no_strings() -> Any:
    raise UnreadableFile("strings are not weights")
