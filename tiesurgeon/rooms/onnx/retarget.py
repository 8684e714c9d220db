"""How each node that took one initializer comes to take another, or why it cannot."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from tiesurgeon.edits import Perm
from tiesurgeon.errors import TieRefused
from tiesurgeon.rooms.onnx.layers import Builder, Use
from tiesurgeon.rooms.onnx.order import called
from tiesurgeon.rooms.onnx.places import graphs
from tiesurgeon.rooms.onnx.projection import Head, Projection
from tiesurgeon.rooms.onnx.quantised import QuantisedStorage
from tiesurgeon.rooms.onnx.ranks import ranks_of
from tiesurgeon.rooms.onnx.roles import is_known

TRANSPOSED: Perm = (1, 0)
Edit = Callable[[str], None]


@dataclass
class Retarget:
    """Edits of one model. `moved` tells which uses have another name since, `warnings` what it
    cost."""

    index: Builder
    head: Head
    moved: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    @property
    def model(self) -> Any:
        """The ModelProto that is edited."""
        return self.index.model

    def refuse(self, use: Use) -> None:
        """TieRefused where what a node does with its matrix is not known, or not its own."""
        name = use.held.name
        if use.scope.graph is None:
            raise TieRefused(
                f"{use.path!r} is inside a function, which is written once for all its calls; "
                "inline it first (onnx.inliner.inline_local_functions)"
            )
        if not is_known(use.node):
            raise TieRefused(
                f"{use.path!r} is a {use.node.domain or 'ai.onnx'}.{use.node.op_type}, which is "
                "not known here, so what it does with the matrix cannot be told"
            )
        if hasattr(use.held.owner, "indices"):
            raise TieRefused(f"{name!r} is stored sparse; make it dense first")
        if any(value.name == name for graph in graphs(self.model) for value in graph.output):
            raise TieRefused(f"{name!r} is an output of the model, so it stays")
        if self.model.training_info:
            raise TieRefused("the file says how to train its initializers by name; remove that")

    def edit(self, use: Use, source: Use, perm: Perm | None) -> Edit:
        """What makes a node take an initializer, given its name, and see it transposed by `perm`.

        Raises TieRefused, with nothing changed, where the node cannot.
        """
        node, index = use.node, use.index
        turning = [one for one in use.held.chain if one.op_type == "DequantizeLinear"]
        if turning:
            return self._requantised(use, turning[-1], source, perm)
        if isinstance(use.held.variable.storage, QuantisedStorage) and perm is not None:
            raise TieRefused(
                f"{use.path!r} ({node.op_type}) takes quantised integers and cannot take them "
                "transposed; tie the model before it is quantised"
            )
        if self.head == "activation" and (node.op_type, index) == ("Gemm", 1):
            self.warnings.append(
                f"{use.path!r} is a Gemm already and stays one, so --onnx-head activation does "
                "nothing for it"
            )
        if perm is None:
            return lambda name: _set_input(node, index, name)
        if node.op_type == "Gemm" and index in (0, 1):
            return lambda name: _flip_gemm(node, index, name)
        return self.projection(use, source, perm)

    def projection(self, use: Use, source: Use, perm: Perm) -> Edit:
        """The edit for a MatMul, which is written anew."""
        node = use.node
        is_product = node.op_type == "MatMul" and not node.domain and use.index == 1
        if perm != TRANSPOSED or not is_product:
            raise TieRefused(
                f"{use.path!r} ({node.op_type}) cannot take {source.held.name!r} transposed: of "
                "ONNX's operators only MatMul and Gemm can"
            )
        out, width = source.held.variable.storage.shape
        rank = ranks_of(self.model).get(node.input[0])
        projection = Projection(
            self.model, use.scope, node, out, width, rank, self.index.opset, self.head
        )
        projection.refuse()

        def edit(name: str) -> None:
            bias = projection.bias()
            if bias is not None:
                [old] = [o for o, u in self.index.uses.items() if u.node is bias[0]]
                self.moved[old] = f"{use.path}/C"
            if self.head == "activation":
                self.moved[f"{use.path}/B"] = f"{use.path}/A"
            written = projection.write(name, bias)
            if bias is not None and self.head == "activation":
                above = use.path.removesuffix(called(node))
                self.moved[old] = f"{above}{written}/B"

        return edit

    def _requantised(self, use: Use, node: Any, source: Use, perm: Perm | None) -> Edit:
        """The node's own DequantizeLinear takes the source's integers."""
        if perm is None:
            return lambda name: _set_input(node, 0, name)
        takers = use.scope.takers.get(node.output[0], [])
        if len(takers) != 1 or use.held.chain[-1] is not node:
            raise TieRefused(f"{called(node)!r} is taken by other nodes than {use.path!r} too")
        edit_product: Edit = (
            (lambda name: _flip_gemm(use.node, use.index, name))
            if use.node.op_type == "Gemm"
            else self.projection(use, source, perm)
        )

        def edit(name: str) -> None:
            _set_input(node, 0, name)
            for attribute in node.attribute:
                if attribute.name == "axis":
                    attribute.i = 1 - attribute.i % 2
            edit_product(node.output[0])
            self.warnings.append(
                f"{use.path!r} is computed in floats now: no runtime fuses a transposed quantised "
                "product, so it may be slower than before"
            )

        return edit


def through_transposes(index: Builder) -> Sequence[str]:
    """Uses of shared matrices by a MatMul that takes them from a Transpose node.

    Every optimiser folds that Transpose, and so makes a second matrix.
    """
    count: dict[int, int] = {}
    for use in index.uses.values():
        count[id(use.held.tensor)] = count.get(id(use.held.tensor), 0) + 1
    return [
        name
        for name, use in index.uses.items()
        if use.held.perm == TRANSPOSED
        and (use.node.op_type, use.index) == ("MatMul", 1)
        and use.scope.graph is not None
        and all(node.op_type in ("Identity", "Transpose") for node in use.held.chain)
        and count[id(use.held.tensor)] > 1
    ]


def _set_input(node: Any, index: int, name: str) -> None:
    node.input[index] = name


def _flip_gemm(node: Any, index: int, name: str) -> None:
    flag = ("transA", "transB")[index]
    node.input[index] = name
    for attribute in node.attribute:
        if attribute.name == flag:
            attribute.i = 1 - attribute.i
            return
    node.attribute.add(name=flag, i=1, type=2)  # INT
