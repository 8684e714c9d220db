"""Keras 2's `hard_sigmoid` in words that Keras 3 has.

Keras 2: clip(0.2 x + 0.5, 0, 1). Keras 3: clip(x / 6 + 0.5, 0, 1), under the same name. So
the old one of x is the new one of 1.2 x, and where x is a sum over weights these can carry
the factor: the function stays the same but for rounding. Source: keras 2.x
`backend.hard_sigmoid`, keras/src/activations/activations.py.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np

from tiesurgeon.errors import UnsupportedFormat
from tiesurgeon.graph import Array, Graph, Layer, Storage, Value, Variable, View
from tiesurgeon.rewiring import Rewiring
from tiesurgeon.rooms.keras.tied.parts import built_in

FACTOR = 1.2
_NAME = "hard_sigmoid"
# Gates in the order of the columns, those of `recurrent_activation` marked.
_GATES = {"LSTM": (True, True, False, True), "GRU": (True, True, False)}
_SUMS = frozenset({"Dense", "Conv1D", "Conv2D", "Conv3D", "SimpleRNN", "EinsumDense"})


def is_old(layer: Layer) -> bool:
    """True for a layer whose `hard_sigmoid` is that of Keras 2."""
    return bool((layer.entry.get("dialect") or {}).get(_NAME))


def in_keras_3(graph: Graph) -> Graph:
    """The same model with Keras 3's `hard_sigmoid` wherever that of Keras 2 stood.

    Raises UnsupportedFormat where no weights can carry the factor.
    """
    if not any(is_old(layer) for _, layer in graph.walk()):
        return graph
    uses = Counter(view.variable for layer in graph.layers for view in layer.all_views())
    return _in_keras_3(graph, uses)


def _in_keras_3(graph: Graph, uses: Counter[Variable]) -> Graph:
    layers = {layer.name: _layer(layer, uses) for layer in graph.layers}
    graph = graph.with_layers(layers)
    activations = [lay.name for lay in graph.layers if lay.op == "Activation" and is_old(lay)]
    if not activations:
        return graph
    rewiring = Rewiring(graph)
    for name in activations:
        _scale_inputs(rewiring, name)
    return rewiring.graph()


def _layer(layer: Layer, uses: Counter[Variable]) -> Layer:
    body = None if layer.body is None else _in_keras_3(layer.body, uses)
    layer = replace(layer, body=body, inner=tuple(_layer(inner, uses) for inner in layer.inner))
    if not is_old(layer) or layer.op == "Activation":
        return layer
    op = layer.op.removesuffix("Cell")
    main, gate = layer.config.get("activation"), layer.config.get("recurrent_activation")
    if op in _SUMS and main == _NAME:
        return _scaled(layer, None, uses)
    if op == "GRU" and _NAME in (main, gate):
        scaled = tuple((gate if is_gate else main) == _NAME for is_gate in _GATES[op])
        return _scaled(layer, scaled, uses)
    if op == "LSTM" and main != _NAME:
        return _scaled(layer, _GATES[op], uses)
    if _NAME not in (main, gate):
        return layer
    raise UnsupportedFormat(
        f"{layer.name!r} ({layer.op}) uses the hard_sigmoid of Keras 2, which Keras 3 does not "
        "have, on a value that no weight can scale; convert --to torch keeps it exactly"
    )


def _scaled(layer: Layer, gates: tuple[bool, ...] | None, uses: Counter[Variable]) -> Layer:
    views = tuple(_scaled_view(layer, view, gates, uses) for view in layer.views)
    return replace(layer, views=views)


def _scaled_view(
    layer: Layer, view: View, gates: tuple[bool, ...] | None, uses: Counter[Variable]
) -> View:
    if uses[view.variable] > 1:
        raise UnsupportedFormat(
            f"{layer.name!r}: its {view.role} is shared, so it cannot carry the factor between the "
            "hard_sigmoid of Keras 2 and of Keras 3; convert --to torch keeps it exactly"
        )

    def load() -> Array:
        array = np.array(view.load())
        if gates is None:
            return (array * FACTOR).astype(array.dtype)
        blocks: Any = array.reshape(*array.shape[:-1], len(gates), -1)
        for index, is_gate in enumerate(gates):
            if is_gate:
                blocks[..., index, :] *= FACTOR
        return array

    old = view.variable
    storage = Storage(old.storage.key, view.shape, old.storage.dtype, load)
    return View(view.role, replace(old, storage=storage))


def _scale_inputs(rewiring: Rewiring, name: str) -> None:
    """An Activation has no weights: a Rescaling goes before each of its calls."""
    factor = built_in("Rescaling", rewiring.fresh(f"{name}_scale"), scale=FACTOR, offset=0.0)
    for call in [call for call in rewiring.calls.values() if call.layer == name]:
        old: Value = call.inputs[0]
        scaled = rewiring.add(factor, old)
        rewiring.calls[call.id] = replace(call, args=(scaled, *call.args[1:]))
