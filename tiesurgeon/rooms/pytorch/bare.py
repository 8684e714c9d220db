"""Named tensors as layers: what can be told of weights whose file holds no module."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tiesurgeon.graph import Layer, Storage, Variable, View

_BUFFERS = frozenset(("running_mean", "running_var", "num_batches_tracked"))


def variable(name: str, storage: Storage) -> Variable:
    """A variable of that full name; what cannot be trained is a buffer."""
    if not is_trainable(name, storage.dtype):
        return Variable(name, storage, trainable=False, kind="buffer")
    return Variable(name, storage)


def is_trainable(name: str, dtype: np.dtype[Any]) -> bool:
    """True for floating numbers, unless the name is one of batch normalisation's buffers."""
    is_floating = dtype.kind in "fc" or (dtype.kind == "V" and "float" in dtype.name)
    return is_floating and name.rpartition(".")[2] not in _BUFFERS


def layers_of(variables: Mapping[str, Variable]) -> tuple[Layer, ...]:
    """One layer a prefix, in order of first mention; `variables` by full name in the file.

    Several names may lead to one variable.
    """
    views: dict[str, list[View]] = {}
    for name, held in variables.items():
        path, _, role = name.rpartition(".")
        views.setdefault(path, []).append(View(role, held))
    return tuple(Layer(path, "", views=tuple(held), separator=".") for path, held in views.items())
