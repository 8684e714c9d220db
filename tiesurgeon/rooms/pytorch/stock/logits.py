"""transformers' models as plain functions of tensors: their logits alone."""

import inspect
from typing import Any

import torch

from .opening import Opened, flat


def give_logits_only(model: Opened, names: list[str]) -> None:
    """Lets `forward` take the inputs of these names and give one tensor.

    An exported program that gave transformers' own classes could be loaded only where
    transformers is installed. The module stays the same object, so names and ties do too.
    """
    kind = type(model.module)
    model.module.config.use_cache = False

    def forward(self: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        outputs = kind.forward(self, **dict(zip(names, args, strict=False)), **kwargs)
        found = getattr(outputs, "logits", None)
        return next(flat(outputs)) if found is None else found

    one = inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = [inspect.Parameter(name, one) for name in ("self", *names)]
    forward.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    model.module.__class__ = type(kind.__name__, (kind,), {"forward": forward})
