"""Weights as Keras 1 wrote them: a matrix per gate, kernels in other orders.

Source: keras 2.x, `preprocess_weights_for_loading` (keras/engine/saving.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from tiesurgeon.graph import Array, Layer, Shape, Storage

# Keras 1 kept (W, U, b) of each gate in the order of the left; Keras 2 joins them in the
# order of the right.
_GATES = {"LSTM": ("icfo", "ifco"), "GRU": ("zrh", "zrh")}


def upgrade(layer: Layer, found: list[tuple[str, Storage]]) -> list[tuple[str, Storage]]:
    """The list of one layer's weights as Keras 2 would have written it."""
    if layer.op in ("TimeDistributed", "Bidirectional"):
        return _wrapped(layer, found)
    if layer.op in _GATES and len(found) == 3 * len(_GATES[layer.op][0]):
        return _joined(layer.op, found)
    if layer.op == "Conv1D" and found and len(found[0][1].shape) == 4:
        # (length, 1, in, out), and kernels were flipped as in a true convolution: keras 2
        # keeps the order and drops the axis.
        kernel = found[0][1]
        shape = (kernel.shape[0], *kernel.shape[2:])
        return [(found[0][0], _changed(kernel, shape, lambda a: a[:, 0])), *found[1:]]
    if layer.op == "Conv2D" and found and _is_channels_first(layer):
        name, kernel = found[0]
        out, channels, rows, columns = kernel.shape
        shape = (rows, columns, channels, out)
        return [(name, _changed(kernel, shape, lambda a: a.transpose(2, 3, 1, 0))), *found[1:]]
    return found


def _is_channels_first(layer: Layer) -> bool:
    dialect: Mapping[str, Any] = layer.entry.get("dialect") or {}
    return dialect.get("kernel") == "channels_first"


def _wrapped(layer: Layer, found: list[tuple[str, Storage]]) -> list[tuple[str, Storage]]:
    if not layer.inner:
        return found
    share = len(found) // len(layer.inner)
    joined: list[tuple[str, Storage]] = []
    for index, inner in enumerate(layer.inner):
        joined += upgrade(inner, found[index * share : (index + 1) * share])
    return joined


def _joined(op: str, found: list[tuple[str, Storage]]) -> list[tuple[str, Storage]]:
    stored, wanted = _GATES[op]
    by_gate = {gate: found[3 * i : 3 * i + 3] for i, gate in enumerate(stored)}
    names = ("kernel", "recurrent_kernel", "bias")
    return [
        (name, _concatenated(name, [by_gate[gate][part][1] for gate in wanted]))
        for part, name in enumerate(names)
    ]


def _concatenated(key: str, parts: list[Storage]) -> Storage:
    shape = (*parts[0].shape[:-1], sum(part.shape[-1] for part in parts))

    def load() -> Array:
        return np.concatenate([part.load() for part in parts], axis=-1)

    return Storage(key, shape, parts[0].dtype, load)


def _changed(storage: Storage, shape: Shape, change: Callable[[Array], Array]) -> Storage:
    return Storage(storage.key, shape, storage.dtype, lambda: change(storage.load()))
