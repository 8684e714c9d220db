"""Weights as older Keras laid them out -> as Keras 3 does.

Keras 1 kept a matrix per gate and kernels in other orders; cuDNN's own layers (Keras 2) keep
each gate transposed, and two biases. Source: tf_keras/src/saving/legacy/hdf5_format.py,
`preprocess_weights_for_loading` and `_convert_rnn_weights`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from tiesurgeon.graph import Array, Graph, Layer, Shape, Storage, Variable, View
from tiesurgeon.rooms.keras.slots import Slot

Named = tuple[str, Storage]

# Keras 1 kept (W, U, b) of each gate in the order of the left; later Keras joins them in the
# order of the right.
_GATES = {"LSTM": ("icfo", "ifco"), "GRU": ("zrh", "zrh")}
_CONVOLUTIONS = frozenset({"Conv1D", "Conv2D", "Conv3D", "Conv2DTranspose", "ConvLSTM2D"})


def gates_of(layer: Layer) -> int:
    """How many stored arrays make one variable of a layer of Keras 1, unless they are joined."""
    return len(_GATES[layer.op][0]) if layer.op in _GATES and _is_of("keras1", layer) else 1


def joined_gates(order: Sequence[Slot], found: Sequence[Named]) -> list[Named]:
    """One array per slot, of a list that holds the gates of Keras 1's layers one by one."""
    joined: list[Named] = []
    rest = list(found)
    while len(joined) < len(order):
        layer = order[len(joined)].layer
        count = 3 * gates_of(layer)  # kernel, recurrent kernel and bias of each
        if count > 3:
            joined += _joined(layer.op, rest[:count])
        else:
            joined.append(rest[0])
        rest = rest[count if count > 3 else 1 :]
    return joined


def modernised(graph: Graph, *, flipped: bool = False) -> Graph:
    """The graph with every array in today's layout; `flipped` if Theano wrote the kernels."""
    return _Modernisation(flipped).graph(graph)


class _Modernisation:
    def __init__(self, flipped: bool) -> None:
        self.flipped = flipped
        self.done: dict[Variable, Variable] = {}  # what is shared stays shared

    def graph(self, graph: Graph) -> Graph:
        return replace(graph, layers=tuple(map(self.layer, graph.layers)))

    def layer(self, layer: Layer) -> Layer:
        entry = dict(layer.entry)
        dialect = dict(entry.pop("dialect", None) or {})
        old = {key: dialect.pop(key, None) for key in ("cudnn", "keras1", "kernel")}
        if dialect:
            entry["dialect"] = dialect
        return replace(
            layer,
            body=None if layer.body is None else self.graph(layer.body),
            inner=tuple(map(self.layer, layer.inner)),
            views=tuple(self.view(layer, view, old) for view in layer.views),
            entry=entry,
        )

    def view(self, layer: Layer, view: View, old: Mapping[str, Any]) -> View:
        if view.variable not in self.done:
            new = view
            if old["cudnn"]:
                new = _from_cudnn(layer.op, new)
            if old["keras1"]:
                new = _from_keras1(layer, new)
            if self.flipped and layer.op in _CONVOLUTIONS:
                new = _unflipped(new)
            self.done[view.variable] = new.variable
        return replace(view, variable=self.done[view.variable])


def _is_of(dialect: str, layer: Layer) -> bool:
    return dialect in (layer.entry.get("dialect") or {})


def _joined(op: str, found: Sequence[Named]) -> list[Named]:
    stored, wanted = _GATES[op]
    by_gate = {gate: found[3 * i : 3 * i + 3] for i, gate in enumerate(stored)}
    names = ("kernel", "recurrent_kernel", "bias")
    return [
        (name, _concatenated([by_gate[gate][part][1] for gate in wanted]))
        for part, name in enumerate(names)
    ]


def _concatenated(parts: list[Storage]) -> Storage:
    shape = (*parts[0].shape[:-1], sum(part.shape[-1] if part.shape else 1 for part in parts))

    def load() -> Array:
        return np.concatenate([part.load() for part in parts], axis=-1)

    return Storage(parts[0].key, shape, parts[0].dtype, load)


def _from_cudnn(op: str, view: View) -> View:
    gates = {"LSTM": 4, "GRU": 3}[op]
    shape = view.shape
    if len(shape) == 2 and shape[1] % gates == 0:
        by_gate = _kernel_of_gate if view.role == "kernel" else _recurrent_of_gate
        return _changed(
            view,
            shape,
            lambda array: np.hstack([by_gate(part) for part in np.hsplit(array, gates)]),
        )
    if len(shape) == 1 and shape[0] % (2 * gates) == 0:
        half = shape[0] // 2
        if op == "GRU":
            return _changed(view, (2, half), lambda array: array.reshape(2, half))
        return _changed(view, (half,), lambda array: array[:half] + array[half:])
    return view


def _kernel_of_gate(part: Array) -> Array:
    return part.T.reshape(part.shape, order="F")


def _recurrent_of_gate(part: Array) -> Array:
    return part.T


def _from_keras1(layer: Layer, view: View) -> View:
    shape = view.shape
    if view.role != "kernel" or len(shape) < 4:
        return view
    channels_first = layer.config.get("data_format") == "channels_first"
    if layer.op == "Conv1D":
        return _kernel_of_conv1d(layer, view)
    if layer.op == "Conv2DTranspose":
        return _transposed(view, (2, 3, 0, 1) if channels_first else (0, 1, 3, 2))
    if channels_first and layer.op in ("Conv2D", "Conv3D"):
        return _transposed(view, (*range(2, len(shape)), 1, 0))
    return view


def _kernel_of_conv1d(layer: Layer, view: View) -> View:
    """(length, 1, in, out), or before Keras 1.2 (out, in, length, 1)."""
    size = layer.config.get("kernel_size")
    length = size[0] if isinstance(size, list) and size else size
    if view.shape[:2] != (length, 1) or view.shape[3] != layer.config.get("filters"):
        view = _transposed(view, (2, 3, 1, 0))
    shape = (view.shape[0], *view.shape[2:])
    return _changed(view, shape, lambda array: array[:, 0])


def _unflipped(view: View) -> View:
    if "kernel" not in view.role or len(view.shape) < 3:
        return view
    window = tuple(range(len(view.shape) - 2))
    return _changed(view, view.shape, lambda array: np.flip(array, window))


def _transposed(view: View, perm: tuple[int, ...]) -> View:
    shape = tuple(view.shape[axis] for axis in perm)
    return _changed(view, shape, lambda array: array.transpose(perm))


def _changed(view: View, shape: Shape, change: Callable[[Array], Array]) -> View:
    old = view.variable.storage
    storage = Storage(old.key, shape, old.dtype, lambda: change(old.load()))
    return replace(view, variable=replace(view.variable, storage=storage))
