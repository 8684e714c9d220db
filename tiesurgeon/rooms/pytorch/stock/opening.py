"""Opens a model of any format as its users do, so that it can be called."""

import importlib
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from .harmless import refuse_other_exports
from .trusted import trust_only_torch
from .untrusted import Untrusted


@dataclass
class Opened:
    """A module and what its file says of it.

    `examples` are (args, kwargs) that the file carries; `program` is the ExportedProgram of
    a `.pt2`; `prefix` may stand before the names of the file; `missing` are weights that the
    file did not have.
    """

    module: torch.nn.Module
    format: str
    examples: Any = None
    program: Any = None
    prefix: str = ""
    missing: list[str] = field(default_factory=list)

    def tensors(self) -> dict[str, torch.Tensor]:
        """Parameters and buffers, under every name that they have."""
        found = dict(self.module.named_parameters(remove_duplicate=False))
        return found | dict(self.module.named_buffers(remove_duplicate=False))

    def name(self, name: str) -> str:
        """The module's own name of what the file calls `name`."""
        known = self.tensors()
        base = f"{self.prefix}."
        for own in (name, base + name, name.removeprefix(base)):
            if own in known:
                return own
        return name

    def call(self, inputs: tuple[Any, Any]) -> list[torch.Tensor]:
        """All tensors among the outputs, in order; seeded, should the model draw numbers."""
        args, kwargs = inputs
        torch.manual_seed(0)
        return list(flat(self.module(*args, **kwargs)))


def flat(outputs: Any) -> Any:
    """Tensors of nested tuples, lists and mappings."""
    if isinstance(outputs, torch.Tensor):
        yield outputs
    elif isinstance(outputs, Mapping):
        for output in outputs.values():
            yield from flat(output)
    elif isinstance(outputs, (tuple, list)):
        for output in outputs:
            yield from flat(output)


def trust(order: dict[str, Any]) -> None:
    """With the user's word, their own modules can be imported as in their own Python.

    Without it, only PyTorch's classes are; TorchScript is no Python, so it can do no harm.
    """
    if order["trusted"]:
        sys.path.extend(order["folders"])
    else:
        trust_only_torch()


def open_model(path: str, format: str, trusted: bool) -> Opened:
    """The model in eval mode, on the CPU. Untrusted where that needs code that is not PyTorch's."""
    torch.manual_seed(0)  # for weights that the file lacks
    opened = _OPENERS[format](path, trusted)
    if format != "torch-export":  # whose graph is what it was exported in
        opened.module.eval()
    return opened


def _open_module(path: str, trusted: bool) -> Opened:
    module = torch.load(path, map_location="cpu", weights_only=False)
    if not isinstance(module, torch.nn.Module):
        raise TypeError(f"it holds a {type(module).__name__} and not a module")
    return Opened(module, "torch-module")


def _open_script(path: str, trusted: bool) -> Opened:
    return Opened(torch.jit.load(path, map_location="cpu"), "torchscript")


def _open_exported(path: str, trusted: bool) -> Opened:
    if not trusted:
        refuse_other_exports(path)
    program = torch.export.load(path)
    return Opened(program.module(), "torch-export", program.example_inputs, program)


def _open_folder(path: str, trusted: bool) -> Opened:
    """A folder with `model.py`, as `convert --to torch` writes it."""
    sys.path.insert(0, path)
    return Opened(importlib.import_module("model").load(), "torch")


def _open_huggingface(path: str, trusted: bool) -> Opened:
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    config = json.loads(Path(path, "config.json").read_text(encoding="utf-8"))
    options: dict[str, Any] = {"output_loading_info": True, "local_files_only": True}
    own_code = config.get("auto_map") or {}
    if own_code and not trusted:
        raise Untrusted(", ".join(map(str, own_code.values())))
    import transformers

    if own_code:
        name = next((key for key in own_code if key.startswith("AutoModel")), "AutoModel")
        options["trust_remote_code"] = True
    else:
        name = next(iter(config.get("architectures") or ()), "AutoModel")
    if not hasattr(getattr(transformers, name, None), "from_pretrained"):
        raise TypeError(f"transformers {transformers.__version__} has no class {name}")
    module, info = getattr(transformers, name).from_pretrained(path, **options)
    prefix = str(getattr(module, "base_model_prefix", ""))
    return Opened(module, "huggingface", prefix=prefix, missing=sorted(info["missing_keys"]))


_OPENERS = {
    "torch-module": _open_module,
    "torchscript": _open_script,
    "torch-export": _open_exported,
    "huggingface": _open_huggingface,
    "torch": _open_folder,
}
