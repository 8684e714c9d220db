"""The order in which Keras lists the layers of a Functional model once it is rebuilt.

Files name variables by that order ("dense_1" is the second Dense of the list), so whoever
writes one must know it. Source: keras/src/ops/function.py, `map_graph`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from tiesurgeon.graph import Call, Graph, Value, values_in


def in_keras_order(graph: Graph) -> Graph:
    """The graph with its layers as `Model.layers` will list them; unused ones are gone."""
    if graph.op == "Sequential":
        return graph
    traversal, seen_at = _depth_first(graph)
    call_depth: dict[str, int] = {}
    layer_depth: dict[str, int] = {}
    for call in reversed(traversal):
        depth = max(call_depth.get(call.id, 0), layer_depth.get(call.layer, 0))
        call_depth[call.id] = layer_depth[call.layer] = depth
        for value in _inputs(call):
            parent = graph.call_by_id[value.call]
            call_depth[parent.id] = max(depth + 1, call_depth.get(parent.id, 0))
    for value in flattened(graph.inputs):  # inputs that lead nowhere are kept
        name = graph.call_by_id[value.call].layer
        layer_depth.setdefault(name, 0)
        seen_at.setdefault(name, -1)
    names = sorted(layer_depth, key=lambda name: (-layer_depth[name], seen_at[name]))
    reached = {call.id for call in traversal} | {v.call for v in values_in(graph.inputs)}
    return replace(
        graph,
        layers=tuple(graph.layer(name) for name in names),
        calls=tuple(call for call in graph.calls if call.id in reached),
    )


def flattened(structure: Any) -> Iterator[Value]:
    """The `Value` leaves in the order of `keras.tree.flatten`: dicts by their sorted keys."""
    if isinstance(structure, Value):
        yield structure
    elif isinstance(structure, Mapping):
        for key in sorted(structure):
            yield from flattened(structure[key])
    elif isinstance(structure, (list, tuple)):
        for item in structure:
            yield from flattened(item)


def _inputs(call: Call) -> list[Value]:
    return list(flattened((call.args, call.kwargs)))


def _depth_first(graph: Graph) -> tuple[list[Call], dict[str, int]]:
    """Calls from inputs to outputs, and when each layer was first met."""
    finished: list[Call] = []
    done: set[str] = set()
    seen_at: dict[str, int] = {}
    inputs = set(values_in(graph.inputs))

    # An explicit stack: real models are deeper than Python's recursion limit.
    for output in flattened(graph.outputs):
        stack: list[tuple[Value, bool]] = [(output, False)]
        while stack:
            value, leaving = stack.pop()
            call = graph.call_by_id[value.call]
            if leaving:
                finished.append(call)
                continue
            if call.id in done:
                continue
            done.add(call.id)
            seen_at.setdefault(call.layer, len(seen_at))
            stack.append((value, True))
            if value not in inputs:
                stack.extend((parent, False) for parent in reversed(_inputs(call)))
    return finished, seen_at
