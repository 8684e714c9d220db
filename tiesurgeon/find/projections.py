"""Which layers are matrix products over the last axis, and which of them make the output."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tiesurgeon.find.flow import Flow, Node
from tiesurgeon.find.tables import SUMS
from tiesurgeon.graph import Layer, View
from tiesurgeon.names import Spot

# These change a value, its shape or nothing, but mix no columns of a projection. Merges and
# `keras.ops` nodes of the same name are alike here.
PASSES = frozenset(
    "Activation Softmax LogSoftmax ReLU LeakyReLU PReLU ELU Relu Relu6 LeakyRelu Elu Selu Gelu "
    "Silu Sigmoid LogSigmoid HardSigmoid Tanh HardTanh Softplus Softsign Exp Log "
    "Dropout SpatialDropout1D AlphaDropout GaussianNoise GaussianDropout "
    "ActivityRegularization Masking Identity Lambda Rescaling Cast StopGradient "
    "Reshape Flatten Permute Transpose Swapaxes Squeeze ExpandDims RepeatVector GetItem "
    "Add Subtract Multiply Divide TrueDivide Maximum Minimum Clip Where Negative NanToNum".split()
)
_LAST_AXIS = re.compile(r"^(\.\.\.|[a-z]*)([a-z]),\2([a-z])->\1\3$")


@dataclass(frozen=True, eq=False)
class Projection:
    """A matrix of shape (in, out) that something is multiplied by, with its uses."""

    spot: Spot
    view: View
    uses: tuple[Node, ...]


def projections(flow: Flow) -> list[Projection]:
    """Every Dense matrix once, in order of first use."""
    found: dict[int, list[tuple[Node, View]]] = {}
    for node in flow.nodes:
        view = product_matrix(node.layer)
        if view is not None:
            found.setdefault(id(view.variable), []).append((node, view))
    return [
        Projection(Spot(uses[0][0].path, uses[0][0].layer, uses[0][1]), uses[0][1], nodes)
        for uses in found.values()
        for nodes in [tuple(node for node, _ in uses)]
    ]


def product_matrix(layer: Layer) -> View | None:
    """The (in, out) matrix of a Dense or of an EinsumDense that is one."""
    if layer.op == "EinsumDense":
        equation = str(layer.config.get("equation", "")).replace(" ", "")
        if not _LAST_AXIS.match(equation):
            return None
    elif layer.op != "Dense":
        return None
    view = layer.view("kernel")
    return view if view is not None and len(view.shape) == 2 else None


def reaches_output(flow: Flow, node: Node) -> bool:
    """True if the model returns the node's result, activations and the like aside."""
    upstream: frozenset[int] | None = None
    pending, seen = [node.index], {node.index}
    while pending:
        at = pending.pop()
        if at in flow.outputs:
            return True
        for after in flow.after(at):
            following = flow.nodes[after]
            if after in seen or following.layer.op not in PASSES:
                continue
            if following.layer.op in SUMS:
                # x + Dense(x) is a residual step inside a model, not its output layer.
                upstream = flow.upstream(node.index) if upstream is None else upstream
                if any(other in upstream for other in following.before):
                    continue
            seen.add(after)
            pending.append(after)
    return False


def fed_by_input(flow: Flow, node: Node) -> Node | None:
    """The input that a node takes as it is (noise, dropout and reshaping aside)."""
    pending, seen = list(node.main), set(node.main)
    while pending:
        at = flow.nodes[pending.pop()]
        if at.layer.op == "InputLayer":
            return at
        if at.layer.op in PASSES or at.layer.op in _RESCALES:
            pending += [other for other in at.main if other not in seen]
            seen.update(at.main)
    return None


_RESCALES = frozenset({"Normalization", "BatchNormalization", "LayerNormalization"})
