"""Ties a model in Python, as its owner would have written it: what a written tie must equal."""

from functools import reduce
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize

from .opening import Opened


class Transposed(nn.Module):  # type: ignore[misc]
    """A weight seen through a transpose."""

    def __init__(self, perm: list[int]) -> None:
        super().__init__()
        self.perm = perm

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        """As the layer sees it."""
        return weight.permute(self.perm)

    def right_inverse(self, weight: torch.Tensor) -> torch.Tensor:
        """As it is stored."""
        return weight.permute([self.perm.index(axis) for axis in range(len(self.perm))])


def tie(model: Opened, source: str, target: str, perm: list[int] | None) -> None:
    """Every use of the target becomes one of the source's Parameter."""
    tensors = model.tensors()
    shared, old = tensors[source], tensors[target]
    if old is shared:
        return
    for name in [name for name, tensor in tensors.items() if tensor is old]:
        path, _, leaf = name.rpartition(".")
        owner = reduce(getattr, path.split(".") if path else (), model.module)
        if perm is None:
            setattr(owner, leaf, shared)
            _replace_flat(owner, old, shared)
        else:
            parametrize.register_parametrization(owner, leaf, Transposed(perm), unsafe=True)
            owner.parametrizations[leaf].original = shared


def _replace_flat(owner: Any, old: torch.Tensor, new: torch.Tensor) -> None:
    """A scripted RNN keeps a list of its weights beside them; the others see to theirs."""
    if isinstance(owner, torch.jit.ScriptModule) and hasattr(owner, "_flat_weights"):
        held = [new if weight is old else weight for weight in owner._flat_weights]
        owner._c.setattr("_flat_weights", held)


def give(model: Opened, values: dict[str, torch.Tensor]) -> None:
    """Puts other numbers into parameters."""
    tensors = model.tensors()
    with torch.no_grad():
        for name, value in values.items():
            tensors[name].copy_(value)
