"""`MatMul` by a matrix, written anew over the transpose of another initializer.

A Transpose before the MatMul would be folded by every optimiser, into a second matrix. These
forms are not: `Gemm(transB=1)`, and `MatMul(E, hT)` of which ONNX Runtime keeps one copy in
memory where it keeps a packed copy beside for Gemm.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tiesurgeon.errors import TieRefused
from tiesurgeon.rooms.onnx.order import called
from tiesurgeon.rooms.onnx.places import (
    forget_value,
    fresh_name,
    remove_node,
    replace_node,
)
from tiesurgeon.rooms.onnx.values import Held, Scope

Head = Literal["gemm", "activation"]
Bias = tuple[Any, str]
HEADS: tuple[Head, ...] = ("gemm", "activation")
_OLDEST = 7  # Gemm broadcasts by itself since
_GEMM_WITHOUT_C = 11
_SHAPE_OF_PART = 15
_SLICE_BY_INPUTS = 10
_RESHAPE_ALLOWS_ZERO = 14


@dataclass(frozen=True)
class Projection:
    """A `MatMul(x, B)` that becomes one over a matrix of shape (out, in).

    `out` are that matrix's rows, `width` its columns; `rank` is that of x, None where the file
    does not tell.
    """

    model: Any
    scope: Scope
    node: Any
    out: int
    width: int
    rank: int | None
    opset: int
    head: Head = "gemm"

    def refuse(self) -> None:
        """TieRefused where this cannot be written."""
        if self.opset < _OLDEST:
            raise TieRefused(
                f"the file uses opset {self.opset}, whose Gemm cannot take {called(self.node)!r}; "
                "raise it first with onnx.version_converter.convert_version"
            )

    def write(self, matrix: str, bias: Bias | None) -> str:
        """Replaces the node, and the Add of its bias; returns the name of the one that adds it."""
        graph, node = self.scope.graph, self.node
        nodes = _Nodes(self.model, called(node), self.opset)
        x = node.input[0]
        result = bias[0].output[0] if bias is not None else node.output[0]
        given = bias[1] if bias is not None else ""
        flat = self.rank == 2
        rows = x if flat else nodes.reshape(x, nodes.numbers([-1, self.width], "rows"), "rows")
        end = result if flat else nodes.name("flat")
        if self.head == "gemm":
            adding = nodes.gemm(rows, matrix, given, end, self._dtype())
        else:
            adding = nodes.activation(rows, matrix, given, end)
        if not flat:
            nodes.restore(x, self.out, end, result)
        if bias is not None:
            forget_value(graph, node.output[0])
            remove_node(graph, bias[0])
        replace_node(graph, node, nodes.made)
        graph.initializer.extend(nodes.tensors)
        return adding

    def bias(self) -> Bias | None:
        """An Add that alone takes the product: its node, and its bias' name.

        One that makes an output of the model stays: ONNX Runtime copies what a Reshape gives
        as an output (8 % of the time for a projection alone), and an Add costs less than that.
        """
        y = self.node.output[0]
        takers = self.scope.takers.get(y, [])
        if len(takers) != 1 or takers[0].op_type != "Add" or takers[0].domain:
            return None
        returned = {value.name for value in self.scope.graph.output}
        if y in returned or (takers[0].output[0] in returned and self.rank != 2):
            return None
        at = 1 - list(takers[0].input).index(y)
        found = self.scope.find(takers[0].input[at])
        if not isinstance(found, Held) or found.perm is not None or found.chain:
            return None
        if found.variable.shape not in ((self.out,), (1, self.out)):
            return None
        if found.variable.shape != (self.out,) and self.rank != 2:
            return None  # (1, V) added to (V,) would give a matrix
        if sum(one.name == takers[0].name for one in self.scope.graph.node if one.name) > 1:
            return None  # without it another node of that name would be called otherwise
        return takers[0], takers[0].input[at]

    def _dtype(self) -> int:
        found = self.scope.find(self.node.input[1])
        return int(found.tensor.data_type) if isinstance(found, Held) else 1


class _Nodes:
    """The nodes that come in the place of one, and the small tensors that they need."""

    def __init__(self, model: Any, stem: str, opset: int) -> None:
        self._model, self._stem, self._opset = model, stem, opset
        self.made: list[Any] = []
        self.tensors: list[Any] = []

    def name(self, what: str) -> str:
        return fresh_name(self._model, f"{self._stem}_{what}")

    def numbers(self, numbers: Sequence[int], what: str) -> str:
        from onnx import helper

        name = self.name(f"{what}_shape")
        self.tensors.append(helper.make_tensor(name, 7, [len(numbers)], list(numbers)))
        return name

    def _add(self, op: str, inputs: Sequence[str], output: str, name: str, **given: Any) -> None:
        from onnx import helper

        self.made.append(helper.make_node(op, list(inputs), [output], name=name, **given))

    def reshape(self, x: str, shape: str, what: str) -> str:
        output = self.name(what)
        self._add("Reshape", [x, shape], output, output)
        return output

    def gemm(self, x: str, matrix: str, bias: str, output: str, dtype: int) -> str:
        if not bias and self._opset < _GEMM_WITHOUT_C:
            from onnx import helper

            bias = self.name("no_bias")
            self.tensors.append(helper.make_tensor(bias, dtype, [1], [0]))
        inputs = [x, matrix, bias] if bias else [x, matrix]
        self._add("Gemm", inputs, output, self._stem, transB=1)
        return self._stem

    def activation(self, x: str, matrix: str, bias: str, output: str) -> str:
        turned, product = self.name("turned"), self.name("product")
        self._add("Transpose", [x], turned, turned, perm=[1, 0])
        self._add("MatMul", [matrix, turned], product, self._stem)
        back = self.name("unbiased") if bias else output
        self._add("Transpose", [product], back, self.name("back"), perm=[1, 0])
        adding = self.name("bias")
        if bias:
            self._add("Add", [back, bias], output, adding)
        return adding

    def restore(self, x: str, out: int, flat: str, result: str) -> None:
        """Gives the rows of `flat` the leading axes of `x` again, whatever they are."""
        leading = self.name("leading")
        if self._opset >= _SHAPE_OF_PART:
            self._add("Shape", [x], leading, leading, end=-1)
        else:
            whole = self.name("whole")
            self._add("Shape", [x], whole, whole)
            if self._opset >= _SLICE_BY_INPUTS:
                ends = [self.numbers([number], what) for number, what in ((0, "from"), (-1, "to"))]
                self._add("Slice", [whole, *ends], leading, leading)
            else:
                self._add("Slice", [whole], leading, leading, starts=[0], ends=[-1])
        shape = self.name("shape")
        self._add("Concat", [leading, self.numbers([out], "out")], shape, shape, axis=0)
        # A batch of none is a shape with a zero in it, which else means "as it was".
        zero = {"allowzero": 1} if self._opset >= _RESHAPE_ALLOWS_ZERO else {}
        self._add("Reshape", [flat, shape], result, self.name("restored"), **zero)
