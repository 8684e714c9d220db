"""What an operator of ATen does, in the words that `find` knows."""

from __future__ import annotations

from typing import Any

from tiesurgeon.rooms.pytorch.exported.program import Node

_WORDS = {
    word: names.split()
    for word, names in {
        "Add": "add",
        "Subtract": "sub rsub",
        "Multiply": "mul",
        "Divide": "div",
        "Negative": "neg",
        "Maximum": "maximum",
        "Minimum": "minimum",
        "Clip": "clamp clamp_min clamp_max clip",
        "Where": "where masked_fill",
        "Exp": "exp",
        "Log": "log",
        "ReLU": "relu",
        "ReLU6": "relu6",
        "LeakyReLU": "leaky_relu",
        "PReLU": "prelu",
        "ELU": "elu",
        "GELU": "gelu",
        "SiLU": "silu",
        "Sigmoid": "sigmoid",
        "LogSigmoid": "log_sigmoid log_sigmoid_forward",
        "Tanh": "tanh",
        "Hardtanh": "hardtanh",
        "Softplus": "softplus",
        "Softmax": "softmax _softmax _safe_softmax",
        "LogSoftmax": "log_softmax _log_softmax",
        "Dropout": "dropout native_dropout",
        "AlphaDropout": "alpha_dropout",
        "LayerNormalization": "layer_norm native_layer_norm",
        "RMSNormalization": "rms_norm",
        "Reshape": "view reshape _unsafe_view view_as",
        "Flatten": "flatten",
        "Unflatten": "unflatten",
        "Transpose": "permute transpose t numpy_T movedim swapaxes",
        "Squeeze": "squeeze",
        "ExpandDims": "unsqueeze",
        "BroadcastTo": "expand expand_as broadcast_to",
        "GetItem": "select slice index index_select narrow",
        "Cast": "to _to_copy type_as",
        "Identity": "clone contiguous alias detach detach_ lift_fresh_copy",
        "Concatenate": "cat concat",
        "Stack": "stack",
        "Split": "split split_with_sizes chunk unbind",
        "Arange": "arange",
        "Cumsum": "cumsum",
        "OnesLike": "ones_like",
        "ZerosLike": "zeros_like",
        "Ones": "ones",
        "Zeros": "zeros",
        "Full": "full",
        "FullLike": "full_like",
        "Embedding": "embedding",
        "EmbeddingBag": "embedding_bag",
        "Linear": "linear",
        "MatMul": "matmul mm bmm addmm baddbmm",
        "Conv1d": "conv1d",
        "Conv2d": "conv2d",
        "Conv3d": "conv3d",
        "ConvTranspose1d": "conv_transpose1d",
        "ConvTranspose2d": "conv_transpose2d",
        "ConvTranspose3d": "conv_transpose3d",
        "ScaledDotProductAttention": "scaled_dot_product_attention",
    }.items()
}
_BY_NAME = {name: word for word, names in _WORDS.items() for name in names}
# The argument that holds the matrix; in a plain product it is (in, out), so turned.
_MATRICES = {"mm": "mat2", "addmm": "mat2", "bmm": "mat2", "matmul": "other"}
_WEIGHTED = frozenset(
    "Embedding EmbeddingBag Linear Conv1d Conv2d Conv3d ConvTranspose1d ConvTranspose2d "
    "ConvTranspose3d".split()
)


def name_of(node: Node) -> str:
    """`linear` for `torch.ops.aten.linear.default`; the same for a form that works in place."""
    parts = str(node["target"]).split(".")
    if parts[:3] != ["torch", "ops", "aten"] or len(parts) < 4:
        return parts[-1]
    name = parts[3]
    return name[:-1] if name.endswith("_") and name[:-1] in _BY_NAME else name


def word_of(node: Node) -> str:
    """The word for what a node does; the operator's own name where there is none."""
    name = name_of(node)
    return _BY_NAME.get(name, name)


def is_product(node: Node, argument: str) -> bool:
    """True if the argument is a matrix of shape (in, out) that something is multiplied by."""
    return _MATRICES.get(name_of(node)) == argument


def is_weight(node: Node, argument: str) -> bool:
    """True if the argument is the matrix of a lookup, a linear map or a convolution."""
    return (word_of(node) in _WEIGHTED and argument == "weight") or is_product(node, argument)


def argument_of(node: Node, name: str) -> Any:
    """A plain argument by its name in the operator's schema; None if it is not given."""
    for named in node["inputs"]:
        if named.get("name") == name:
            return _plain(named.get("arg"))
    return None


def plain_arguments(node: Node) -> dict[str, Any]:
    """The arguments that are numbers, flags, strings or lists of them."""
    found = {str(named.get("name")): _plain(named.get("arg")) for named in node["inputs"]}
    return {name: value for name, value in found.items() if value is not None}


def _plain(argument: Any) -> Any:
    if not isinstance(argument, dict):
        return None
    for kind in ("as_int", "as_ints", "as_float", "as_floats", "as_bool", "as_string"):
        if kind in argument:
            return argument[kind]
    return None
