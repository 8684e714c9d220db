"""Which layers are matrix products over the last axis, and which of them make the output."""

from __future__ import annotations

from dataclasses import dataclass

from tiesurgeon.find.flow import Flow, Node
from tiesurgeon.find.tables import SUMS
from tiesurgeon.graph import View
from tiesurgeon.names import Spot
from tiesurgeon.orientation import Product, product_matrix

# These change a value, its shape or nothing, but mix no columns of a projection. Merges and
# `keras.ops` nodes of the same name are alike here, and so are the classes of PyTorch.
PASSES = frozenset(
    "Activation Softmax LogSoftmax ReLU LeakyReLU PReLU ELU Relu Relu6 LeakyRelu Elu Selu Gelu "
    "Silu Sigmoid LogSigmoid HardSigmoid Tanh HardTanh Softplus Softsign Exp Log "
    "Dropout SpatialDropout1D AlphaDropout GaussianNoise GaussianDropout "
    "ActivityRegularization Masking Identity Lambda Rescaling Cast StopGradient "
    "GELU SiLU CELU SELU Mish Hardtanh Hardsigmoid Hardswish ReLU6 LogSigmoid Softmin Threshold "
    "Dropout1d Dropout2d FeatureAlphaDropout "
    "Reshape Flatten Permute Transpose Swapaxes Squeeze ExpandDims RepeatVector GetItem "
    "Mul Sub Div DequantizeLinear QuantizeLinear "
    "Unflatten Unsqueeze View Expand Slice Select Clone Contiguous Detach "
    "Add Subtract Multiply Divide TrueDivide Maximum Minimum Clip Where Negative NanToNum".split()
)


@dataclass(frozen=True, eq=False)
class Projection:
    """A matrix that something is multiplied by, with its uses."""

    spot: Spot
    product: Product
    uses: tuple[Node, ...]

    @property
    def view(self) -> View:
        """The matrix as its layer sees it."""
        return self.product.view


def projections(flow: Flow) -> list[Projection]:
    """Every matrix of a Dense or Linear once, in order of first use."""
    found: dict[int, list[tuple[Node, Product]]] = {}
    for node in flow.nodes:
        product = product_matrix(node.layer)
        if product is not None:
            found.setdefault(id(product.view.variable), []).append((node, product))
    return [_projection(uses) for uses in found.values()]


def _projection(uses: list[tuple[Node, Product]]) -> Projection:
    node, product = uses[0]
    spot = Spot(node.path, node.layer, product.view)
    return Projection(spot, product, tuple(node for node, _ in uses))


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


_RESCALES = frozenset(
    {"Normalization", "BatchNormalization", "LayerNormalization", "BatchNorm1d", "LayerNorm"}
)
