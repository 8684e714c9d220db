"""Which names of a pickle a framework can import and call without trusting the file."""

from __future__ import annotations

from typing import Any

from tiesurgeon.rooms.pytorch.pickles.modules import is_graph_module
from tiesurgeon.rooms.pytorch.pickles.nodes import Global, Record, walk
from tiesurgeon.rooms.pytorch.pickles.recognised import UNUSUAL
from tiesurgeon.rooms.pytorch.pickles.transposed import is_transposed_linear
from tiesurgeon.rooms.pytorch.tensors import DTYPES

_CLASSES_OF = ("torch.nn.modules.", "torch.optim.", "torch.nn.parameter")
_NAMES = {
    "torch": {"Size", "device", "Tensor", "strided", "sparse_coo", "sparse_csr", *DTYPES},
    "torch._utils": {
        "_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_tensor_v3", "_rebuild_parameter",
        "_rebuild_parameter_with_state", "_rebuild_qtensor", *UNUSUAL,
    },
    "torch._tensor": {"_rebuild_from_type_v2"},
    "torch.storage": {"UntypedStorage", "TypedStorage"},
    "torch.serialization": {"_get_layout"},
    "collections": {"OrderedDict", "defaultdict", "Counter", "deque"},
    "builtins": {
        "set", "frozenset", "dict", "list", "tuple", "int", "float", "bool", "str", "bytes",
        "bytearray", "complex", "slice", "range", "object",
    },
    "_codecs": {"encode"},
    "copyreg": {"_reconstructor"},
    "torch.fx._symbolic_trace": {"Tracer"},
    "argparse": {"Namespace"},
    "numpy": {"dtype", "ndarray"},
    "numpy.core.multiarray": {"_reconstruct", "scalar"},
    "numpy._core.multiarray": {"_reconstruct", "scalar"},
}  # fmt: skip
_RENAMED = {"__builtin__": "builtins", "copy_reg": "copyreg"}
# Functions that modules of PyTorch keep as attributes.
_FUNCTIONS = frozenset(
    "relu gelu silu tanh sigmoid softmax elu selu leaky_relu log_softmax mish hardtanh relu6 "
    "softplus".split()
)


def classes_in(root: Any) -> tuple[str, ...]:
    """Dotted names, beside PyTorch's and harmless ones, that opening the pickle imports or runs.

    A GraphModule of torch.fx runs code that the pickle holds, so it counts too.
    """
    found: dict[str, None] = {}
    for node in walk(root):
        if type(node) is Global and not _is_harmless(node):
            found.setdefault(str(node))
        elif type(node) is Record and is_graph_module(node) and not is_transposed_linear(node):
            found.setdefault(str(node.parts[0]))
    return tuple(found)


def _is_harmless(name: Global) -> bool:
    module = _RENAMED.get(name.module, name.module)
    if "." in name.name:
        return False
    if name.name in _NAMES.get(module, ()):
        return True
    if module in ("torch", "torch.cuda") and name.name.endswith("Storage"):
        return True
    if module in ("torch.nn.functional", "torch", "torch._C._nn") and name.name in _FUNCTIONS:
        return True
    is_class = name.name[:1].isupper()
    if is_class and f"{module}.".startswith(tuple(f"{m.rstrip('.')}." for m in _CLASSES_OF)):
        return True
    return (module, name.name) == ("torch.fx.graph_module", "reduce_graph_module")
