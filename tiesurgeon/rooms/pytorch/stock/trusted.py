"""Unpickling with PyTorch's own classes only: what is opened where no code may be trusted.

`weights_only=True` refuses whole modules. Here the classes of `torch.nn` are let in, and
the functions that people keep as attributes (`self.activation = torch.relu`); nothing else
is imported, so nothing of the file's choosing runs.
"""

import inspect
import pickle
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import torch
from torch.fx import graph_module

from .harmless import refuse_other_forward
from .untrusted import Untrusted

_NAMES = {
    "collections": {"OrderedDict", "defaultdict", "deque", "Counter"},
    "builtins": {
        "set", "frozenset", "slice", "complex", "range", "bytearray", "object",
        "list", "dict", "tuple", "int", "float", "bool", "str", "bytes",
    },
    "_codecs": {"encode"},
    "copyreg": {"_reconstructor"},
    "argparse": {"Namespace"},
    "numpy": {"dtype", "ndarray"},
    "numpy.core.multiarray": {"_reconstruct", "scalar"},
    "numpy._core.multiarray": {"_reconstruct", "scalar"},
    "torch": {"Size", "Tensor", "device", "dtype", "Generator"},
    "torch._C": {"Generator"},
    "torch.fx._symbolic_trace": {"Tracer"},
    "torch.nn.parameter": {"Parameter", "Buffer", "UninitializedParameter"},
    "torch.serialization": {"_get_layout"},
}  # fmt: skip
_RENAMED = {"__builtin__": "builtins", "copy_reg": "copyreg"}  # in pickles as Python 2 wrote them
_CLASSES = (
    torch.nn.Module,
    torch.Tensor,
    torch.UntypedStorage,
    torch.storage.TypedStorage,
    torch.optim.Optimizer,
    torch.optim.lr_scheduler.LRScheduler,
)
_VALUES = (torch.dtype, torch.layout, torch.memory_format)


class _Unpickler(pickle.Unpickler):
    """Python's own, with the choice of names above."""

    def find_class(self, module: str, name: str) -> Any:
        module = _RENAMED.get(module, module)
        if (module, name) == ("torch.fx.graph_module", "reduce_graph_module"):
            return _plain_graph_module
        if "." not in name:
            if name in _NAMES.get(module, ()):
                return super().find_class(module, name)
            if _is_open(module) and _is_harmless(module, name, super().find_class(module, name)):
                return super().find_class(module, name)
        raise Untrusted(f"{module}.{name}")


def trust_only_torch() -> None:
    """From here on, every `torch.load` of this process unpickles in that way."""
    load = torch.load
    unpickling = SimpleNamespace(
        __name__="pickle",
        Unpickler=_Unpickler,
        load=lambda file, **options: _Unpickler(file, **options).load(),
    )

    def load_safely(*args: Any, **options: Any) -> Any:
        if not options.get("weights_only", True):
            options["pickle_module"] = unpickling
        return load(*args, **options)

    torch.load = load_safely


def _is_open(module: str) -> bool:
    """Modules of PyTorch in which some names may be looked up."""
    named = "torch torch.cuda torch.storage torch._utils torch._tensor torch.nn.functional"
    return module in (*named.split(), "torch._C._nn", "torch._C._VariableFunctions") or (
        module.startswith(("torch.nn.modules.", "torch.optim."))
    )


def _is_harmless(module: str, name: str, found: Any) -> bool:
    if inspect.isclass(found):
        return issubclass(found, _CLASSES)
    if module in ("torch._utils", "torch._tensor"):
        return name.startswith("_rebuild_")
    if isinstance(found, _VALUES):
        return True
    # A function that people keep as an attribute: torch.relu, torch.nn.functional.gelu.
    if name.startswith("_") or not callable(found):
        return False
    return hasattr(torch.Tensor, name) or (found.__module__ or "").startswith(
        ("torch.nn", "torch._C._nn")
    )


def _plain_graph_module(body: Mapping[str, Any], import_block: str) -> Any:
    """The fx module of a transposed tie: its few lines do arithmetic and nothing else."""
    code = body.get("_code") or body["code"]
    refuse_other_forward(import_block + code)
    return graph_module.reduce_graph_module(dict(body), import_block)
