"""What a rewrite of a Keras file must know of masks, which the graph does not show.

Keras carries masks beside tensors. A rewrite that loses one changes losses and recurrent
layers without any message. The rules themselves are in `mapping.mask_rules`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tiesurgeon.graph import Call, Graph, Layer, Value, values_in
from tiesurgeon.mapping.keras_operations import is_operation
from tiesurgeon.mapping.mask_recognition import recognise
from tiesurgeon.mapping.mask_rules import ATTENTION, MERGING, PASSING, RECURRENT, Mask, uses_of
from tiesurgeon.mapping.masks import propagated
from tiesurgeon.rewiring import Rewiring

_SIMPLE = frozenset({"ids", "steps", "given"})
_HANDS_ON = PASSING | RECURRENT | MERGING | {"Concatenate", "Attention", "AdditiveAttention"}
_NAMES = frozenset({"mask", "query_mask", "value_mask", "key_mask"})


class Untraceable(Exception):
    """There may be a mask, but what it is cannot be told from the graph."""


def mask_of(graph: Graph, value: Value) -> Mask | None:
    """The mask that travels with a value: of kind ids, steps or given; None if there is none.

    Raises Untraceable, naming the layer, where a mask may be hidden or is of another kind.
    """
    mask = propagated(graph).get(value)
    if mask is not None and mask.kind not in _SIMPLE:
        raise Untraceable(graph.call_by_id[value.call].layer)
    if mask is None:
        hider = _hider(graph, value)
        if hider is not None:
            raise Untraceable(hider)
    return mask


def _hider(graph: Graph, value: Value) -> str | None:
    """A custom layer on the way that is given a mask, and may hand it on or not."""
    seen: set[str] = set()
    pending = [value]
    while pending:
        call = graph.call_by_id[pending.pop().call]
        if call.id in seen:
            continue
        seen.add(call.id)
        layer = graph.layer(call.layer)
        if _is_custom(layer):
            if _mask_above(graph, call):
                return layer.name
        elif layer.op in _HANDS_ON:
            pending += call.inputs
    return None


def _is_custom(layer: Layer) -> bool:
    return layer.body is None and not str(layer.entry.get("module") or "").startswith("keras")


def _mask_above(graph: Graph, call: Call) -> bool:
    masks = propagated(graph)
    seen: set[Value] = set()
    pending = list(call.inputs)
    while pending:
        value = pending.pop()
        if value in seen:
            continue
        seen.add(value)
        if masks.get(value) is not None:
            return True
        pending += graph.call_by_id[value.call].inputs
    return False


def without_stated_masks(graph: Graph) -> Graph:
    """Drops mask arguments that only state what Keras would carry along anyway.

    Keras 3 writes the mask of `Embedding(mask_zero=True)` into the config as a `NotEqual`
    node, and then cannot reload it from `.h5` ("Unknown layer: 'NotEqual'").
    """
    bodies = {
        layer.name: replace(layer, body=without_stated_masks(layer.body))
        for layer in graph.layers
        if layer.body is not None
    }
    graph = graph.with_layers(bodies)
    if not any(_stated(call) for call in graph.calls):
        return graph
    masks = propagated(graph)
    rewiring = Rewiring(graph)
    dropped: set[str] = set()
    for call in graph.calls:
        for name, value in _stated(call).items():
            if _implied(graph, call, name, masks) == recognise(graph, value):
                kept = dict(rewiring.calls[call.id].kwargs)
                del kept[name]
                rewiring.calls[call.id] = replace(rewiring.calls[call.id], kwargs=kept)
                dropped.add(value.call)
    _drop_unused(rewiring, dropped)
    return replace(rewiring.graph(), op=graph.op)


def _stated(call: Call) -> Mapping[str, Value]:
    return {
        name: value
        for name, value in call.kwargs.items()
        if name in _NAMES and isinstance(value, Value)
    }


def _implied(
    graph: Graph, call: Call, name: str, masks: Mapping[Value, Mask | None]
) -> Mask | None:
    """The mask that Keras fills in where `name` is not given (layer.py, `Layer.__call__`)."""
    layer = graph.layer(call.layer)
    bare = replace(call, kwargs={k: v for k, v in call.kwargs.items() if k not in _stated(call)})
    if layer.op in ATTENTION:
        found: Any = uses_of(layer, bare, dict(masks)).get(name)
        return found if isinstance(found, Mask) else None
    # With one tensor among the arguments it is that one's; with more it is none's.
    return masks.get(bare.inputs[0]) if name == "mask" and len(bare.inputs) == 1 else None


def _drop_unused(rewiring: Rewiring, calls: set[str]) -> None:
    """Removes what only computed the dropped masks."""
    outputs = {value.call for value in values_in(rewiring.outputs)}
    pending = list(calls)
    while pending:
        call_id = pending.pop()
        call = rewiring.calls.get(call_id)
        if call is None or call_id in outputs or not call.inputs:
            continue
        used = any(call_id == v.call for other in rewiring.calls.values() for v in other.inputs)
        if not used and is_operation(rewiring.layers[call.layer]):
            rewiring.drop_call(call_id)
            pending += [value.call for value in call.inputs]
