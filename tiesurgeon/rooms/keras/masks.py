"""Where the mask of a value comes from, as stock Keras would propagate it.

Keras carries masks beside tensors, out of sight of the graph. A rewrite that loses one
changes losses and recurrent layers without any message, so it must be known. Sources:
`compute_mask` and `supports_masking` in keras/src/layers (3.15.1).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from tiesurgeon.graph import Call, Graph, Layer, Value, values_in
from tiesurgeon.rewiring import Rewiring

PASSING = frozenset(
    {
        "Activation", "ActivityRegularization", "AlphaDropout", "BatchNormalization", "Dense",
        "Dropout", "ELU", "GaussianDropout", "GaussianNoise", "GroupNormalization", "Identity",
        "LayerNormalization", "LeakyReLU", "Normalization", "PReLU", "ReLU", "Rescaling",
        "Softmax", "SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D",
        "TimeDistributed", "UnitNormalization", "MultiHeadAttention", "GroupQueryAttention",
    }
)  # fmt: skip
_RECURRENT = frozenset({"RNN", "LSTM", "GRU", "SimpleRNN", "Bidirectional"})
_MERGING = frozenset({"Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum"})


@dataclass(frozen=True)
class MaskSource:
    """A mask: `ids` that are not 0, steps of `values` that are not all `fill`, or a tensor."""

    kind: Literal["ids", "values", "tensor"]
    value: Value
    fill: float = 0.0


class Untraceable(Exception):
    """There may be a mask, but what it is cannot be told from the graph."""


def mask_of(graph: Graph, value: Value) -> MaskSource | None:
    """The mask that travels with a value; None if there is none.

    Raises Untraceable where a mask enters a layer of which this cannot be said.
    """
    call = graph.call_by_id[value.call]
    layer = graph.layer(call.layer)
    explicit = call.kwargs.get("mask")
    if layer.op == "Embedding" or (layer.op == "ReversibleEmbedding" and not _reverse(call)):
        return MaskSource("ids", call.inputs[0]) if layer.config.get("mask_zero") else None
    if layer.op == "Masking":
        return MaskSource("values", call.inputs[0], float(layer.config.get("mask_value", 0.0)))
    if layer.op in _RECURRENT and not _returns_sequences(layer):
        return None
    if layer.op in PASSING or layer.op in _RECURRENT:
        if value.index > 0:
            return None  # a recurrent layer's states, attention's scores
        if isinstance(explicit, Value):
            return _explicit(graph, explicit)
        return mask_of(graph, call.inputs[0]) if call.inputs else None
    if layer.op in _MERGING and not _is_operation(layer):
        return _merged(graph, call)
    if _drops(layer) or not _any_mask_above(graph, call):
        return None
    raise Untraceable(layer.name)


def _reverse(call: Call) -> bool:
    return bool(call.kwargs.get("reverse"))


def _returns_sequences(layer: Layer) -> bool:
    config = layer.inner[0].config if layer.op == "Bidirectional" else layer.config
    return bool(config.get("return_sequences"))


def _is_operation(layer: Layer) -> bool:
    return ".ops" in str(layer.entry.get("module") or "")


def _drops(layer: Layer) -> bool:
    """Stock layers outside the lists above lose masks; custom and nested ones may not."""
    if layer.body is not None or layer.op in ("Lambda", "Attention", "AdditiveAttention"):
        return False
    if layer.op == "Concatenate":
        return False
    return str(layer.entry.get("module") or "").startswith("keras")


def _explicit(graph: Graph, mask: Value) -> MaskSource:
    """A mask given as a tensor; `not_equal(ids, 0)` is what an Embedding makes."""
    call = graph.call_by_id[mask.call]
    if graph.layer(call.layer).op == "NotEqual" and list(call.args[1:]) == [0]:
        return MaskSource("ids", call.inputs[0])
    return MaskSource("tensor", mask)


def _merged(graph: Graph, call: Call) -> MaskSource | None:
    masks = {mask_of(graph, value) for value in call.inputs}
    if None in masks:  # base_merge.py: one input without a mask, and there is none
        return None
    if len(masks) == 1:
        return masks.pop()
    raise Untraceable(call.layer)


def _any_mask_above(graph: Graph, call: Call) -> bool:
    seen: set[str] = set()
    pending = [call]
    while pending:
        here = pending.pop()
        layer = graph.layer(here.layer)
        if _makes_mask(layer):
            return True
        for value in here.inputs:
            if value.call not in seen:
                seen.add(value.call)
                pending.append(graph.call_by_id[value.call])
    return False


def _makes_mask(layer: Layer) -> bool:
    if layer.op == "Masking" or layer.config.get("mask_zero"):
        return True
    return layer.body is not None and any(_makes_mask(inner) for inner in layer.body.layers)


def without_stated_masks(graph: Graph) -> Graph:
    """Drops mask arguments that only state what Keras would carry along anyway.

    Keras 3 writes the mask of `Embedding(mask_zero=True)` into the config as a `NotEqual`
    node, and then cannot reload it from `.h5` ("Unknown layer: 'NotEqual'").
    """
    layers = {
        layer.name: replace(layer, body=without_stated_masks(layer.body))
        for layer in graph.layers
        if layer.body is not None
    }
    graph = graph.with_layers(layers)
    redundant = [call for call in graph.calls if _states_the_obvious(graph, call)]
    if not redundant:
        return graph
    rewiring = Rewiring(graph)
    for call in redundant:
        kwargs = {key: value for key, value in call.kwargs.items() if not _is_mask(key, value)}
        rewiring.calls[call.id] = replace(call, kwargs=kwargs)
    given = {value.call for call in redundant for value in values_in(call.kwargs)}
    used = {value.call for call in rewiring.calls.values() for value in call.inputs}
    outputs = {value.call for value in values_in(graph.outputs)}
    for call_id in given - used - outputs:
        if graph.layer(graph.call_by_id[call_id].layer).op == "NotEqual":
            rewiring.drop_call(call_id)
    return replace(rewiring.graph(), op=graph.op)


def _states_the_obvious(graph: Graph, call: Call) -> bool:
    given = [value for key, value in call.kwargs.items() if _is_mask(key, value)]
    if not given or not call.args or not isinstance(call.args[0], Value):
        return False
    try:
        carried = mask_of(graph, call.args[0])
    except Untraceable:
        return False
    return all(_explicit(graph, mask) == carried for mask in given)


def _is_mask(key: str, value: Any) -> bool:
    return (key == "mask" or key.endswith("_mask")) and isinstance(value, Value)
