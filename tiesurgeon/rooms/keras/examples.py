"""Inputs that a Keras graph can be run on, made from what the graph says of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from tiesurgeon.graph import Array, Graph, Layer, Value, values_in

_BATCH, _STEPS, _MOST_STEPS = 2, 7, 1 << 15
_PASSING = frozenset(
    {"Cast", "Reshape", "Identity", "Dropout", "RepeatVector", "GetItem", "Masking"}
)


def example_inputs(graph: Graph, *, seed: int = 0) -> dict[str, Array]:
    """An array for each input layer, by name; ids stay below the vocabulary they are used in.

    Unknown dimensions become 7 (2 for the batch), or as long as the layers need that crop,
    convolve and pool.
    """
    rng = np.random.default_rng(seed)
    steps = enough_steps(graph)
    found: dict[str, Array] = {}
    for value in values_in(graph.inputs):
        layer = graph.layer(graph.call_by_id[value.call].layer)
        shape = _shape(layer, steps)
        bound = min(vocabularies(graph, value), default=None)
        dtype = str(layer.config.get("dtype") or "float32")
        if bound is not None:
            array = rng.integers(0, max(bound, 1), shape)
            found[layer.name] = array.astype(dtype if "int" in dtype else "float32")
        elif "int" in dtype or dtype == "bool":
            found[layer.name] = rng.integers(0, 2, shape).astype(dtype)
        else:
            found[layer.name] = rng.standard_normal(shape).astype("float32")
    return found


def enough_steps(graph: Graph) -> int:
    """Steps that leave some after all layers, as if each stood in one line after the other."""
    stride, lost = 1, 0
    for _, layer in graph.walk():
        config = layer.config
        kernel = _largest(config.get("kernel_size") or config.get("pool_size") or 1)
        if config.get("padding") == "valid":
            lost += stride * (kernel - 1) * _largest(config.get("dilation_rate") or 1)
        lost += stride * _largest(config.get("cropping") or 0, total=True)
        if "Pooling" in layer.op or "Conv" in layer.op:
            default = kernel if "Pooling" in layer.op else 1
            stride *= max(1, _largest(config.get("strides") or default))
    return min(_MOST_STEPS, _STEPS * min(stride, 64) + lost)


def _largest(value: Any, *, total: bool = False) -> int:
    """The largest of a number, or of numbers in lists; `total` adds up innermost pairs."""
    if isinstance(value, (list, tuple)):
        parts = [_largest(item, total=total) for item in value]
        is_pair = total and all(isinstance(item, int) for item in value)
        return sum(parts) if is_pair else max(parts, default=0)
    return int(value) if isinstance(value, (int, float)) else 0


def _shape(layer: Layer, steps: int) -> tuple[int, ...]:
    dims = layer.config.get("batch_shape") or layer.config.get("batch_input_shape") or [None]
    batch = dims[0] or _BATCH
    return (batch, *(dim or steps for dim in dims[1:]))


def vocabularies(graph: Graph, value: Value) -> Iterator[int]:
    """Sizes of the tables that a value is looked up in, nested models included."""
    for call in graph.consumers(value):
        layer = graph.layer(call.layer)
        if layer.op in ("Embedding", "ReversibleEmbedding") and not call.kwargs.get("reverse"):
            yield int(layer.config.get("input_dim", 1))
        elif layer.op == "TimeDistributed" and layer.inner:
            inner = layer.inner[0]
            if inner.op == "Embedding":
                yield int(inner.config.get("input_dim", 1))
            elif inner.body is not None:
                yield from _inside(inner.body, 0)
        elif layer.body is not None:
            for position, given in enumerate(call.inputs):
                if given == value:
                    yield from _inside(layer.body, position)
        elif layer.op in _PASSING:
            yield from vocabularies(graph, Value(call.id))


def _inside(body: Graph, position: int) -> Iterator[int]:
    inputs = list(values_in(body.inputs))
    if position < len(inputs):
        yield from vocabularies(body, inputs[position])
