"""Puts the layers of a nested model into the model around it.

Keras shares a layer only within one Functional model: two nested models that hold the same
one are saved twice or not at all (keras/src/saving/saving_lib.py visits each object once).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tiesurgeon.errors import TieRefused
from tiesurgeon.graph import Call, Graph, Layer, Value, map_values
from tiesurgeon.rewiring import Rewiring
from tiesurgeon.rooms.keras.order import flattened


def inline(graph: Graph, names: set[str]) -> Graph:
    """The same model with the nested models of those names opened up."""
    rewiring = Rewiring(graph)
    for name in names:
        _open(rewiring, graph.layer(name))
    return rewiring.graph()


def _open(rewiring: Rewiring, nested: Layer) -> None:
    body = nested.body
    if body is None or not body.calls:
        raise TieRefused(f"{nested.name!r} ({nested.op}) has no graph inside, so it stays closed")
    calls = [call.id for call in rewiring.calls.values() if call.layer == nested.name]
    new_names = _add_layers(rewiring, nested, body)
    for call_id in calls:  # looked up anew: one call may take what another gave
        outputs = _add_calls(rewiring, body, new_names, rewiring.calls[call_id])
        for index, value in enumerate(flattened(body.outputs)):
            rewiring.redirect(Value(call_id, index), outputs[value])
        del rewiring.calls[call_id]
    rewiring.layers.pop(nested.name, None)


def _add_layers(rewiring: Rewiring, nested: Layer, body: Graph) -> dict[str, str]:
    """Adds the inner layers; a name that is taken gets the nested model's before it.

    Which of them are frozen is their own word: Keras hands a model's down when it is given.
    """
    names: dict[str, str] = {}
    for layer in body.layers:
        if layer.op == "InputLayer":
            continue
        taken = layer.name in rewiring.layers
        name = rewiring.fresh(f"{nested.name}_{layer.name}" if taken else layer.name)
        config: dict[str, Any] = {**layer.config, "name": name} if layer.body is None else {}
        rewiring.layers[name] = replace(layer, name=name, config=config)
        names[layer.name] = name
    return names


def _add_calls(
    rewiring: Rewiring, body: Graph, names: dict[str, str], call: Call
) -> dict[Value, Value]:
    """Adds one run of the inner calls; returns where each inner value went."""
    given = list(flattened(call.args)) or list(flattened(call.kwargs))
    there: dict[Value, Value] = dict(zip(flattened(body.inputs), given, strict=True))

    def moved(value: Value) -> Value:
        return there.get(value) or Value(new_id[value.call], value.index)

    new_id: dict[str, str] = {}
    for inner in body.calls:
        if inner.layer not in names:
            continue
        args, kwargs = map_values(inner.args, moved), map_values(inner.kwargs, moved)
        layer = rewiring.layers[names[inner.layer]]
        new_id[inner.id] = rewiring.add(layer, *args, kwargs=kwargs).call
    return {value: moved(value) for value in flattened(body.outputs)}
