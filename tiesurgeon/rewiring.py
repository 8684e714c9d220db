"""A graph while it is being rewired: layers and calls come, go and are redirected.

`Graph` is immutable; passes that change its wiring open a `Rewiring`, edit, and close it
with `graph()`, which puts the calls in topological order again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tiesurgeon.graph import Call, Graph, Layer, Value, map_values, values_in


class Rewiring:
    """Mutable layers and calls of one level of a graph."""

    def __init__(self, graph: Graph) -> None:
        self._origin = graph
        self.layers: dict[str, Layer] = dict(graph.by_name)
        self.calls: dict[str, Call] = dict(graph.call_by_id)
        self.inputs: Any = graph.inputs
        self.outputs: Any = graph.outputs
        self._moved: dict[Value, Value] = {}

    def fresh(self, wish: str) -> str:
        """`wish`, or `wish_1`, `wish_2`, ... if a layer has that name."""
        name, number = wish, 0
        while name in self.layers or name in self.calls:
            number += 1
            name = f"{wish}_{number}"
        return name

    def add(self, layer: Layer, *args: Any, kwargs: Mapping[str, Any] | None = None) -> Value:
        """Adds a layer if it is new, calls it, and returns the call's first output."""
        self.layers.setdefault(layer.name, layer)
        call_id, number = layer.name, 0
        while call_id in self.calls:
            number += 1
            call_id = f"{layer.name}:{number}"
        self.calls[call_id] = Call(call_id, layer.name, args, kwargs or {})
        return Value(call_id)

    def consumers(self, value: Value) -> list[Call]:
        """Calls that take the value."""
        return [call for call in self.calls.values() if value in call.inputs]

    def is_output(self, value: Value) -> bool:
        """True if the model returns the value."""
        return value in set(values_in(self.outputs))

    def redirect(self, old: Value, new: Value) -> None:
        """Everything that took `old` takes `new`."""
        self._moved[old] = new

        def change(value: Value) -> Value:
            return new if value == old else value

        for call in self.consumers(old):
            self.calls[call.id] = replace(
                call, args=map_values(call.args, change), kwargs=map_values(call.kwargs, change)
            )
        self.outputs = map_values(self.outputs, change)

    def now(self, value: Value) -> Value:
        """What has come in the place of a value of the graph as it was."""
        seen: set[Value] = set()
        while value in self._moved and value not in seen:
            seen.add(value)
            value = self._moved[value]
        return value

    def drop_call(self, call_id: str) -> None:
        """Removes a call, and its layer when that was the last one."""
        call = self.calls.pop(call_id)
        if not any(other.layer == call.layer for other in self.calls.values()):
            self.layers.pop(call.layer, None)

    def drop_unused(self) -> None:
        """Removes calls whose results go nowhere, inputs excepted, and layers not called."""
        keep = {value.call for value in values_in((self.inputs, self.outputs))}
        pending = list(keep)
        while pending:
            for value in self.calls[pending.pop()].inputs:
                if value.call not in keep:
                    keep.add(value.call)
                    pending.append(value.call)
        self.calls = {call_id: call for call_id, call in self.calls.items() if call_id in keep}
        called = {call.layer for call in self.calls.values()}
        self.layers = {name: lay for name, lay in self.layers.items() if name in called}

    def graph(self) -> Graph:
        """The result, calls in topological order. Rewired models are Functional."""
        ordered: dict[str, Call] = {}
        waiting = dict(self.calls)
        while waiting:
            ready = [
                call for call in waiting.values() if all(v.call in ordered for v in call.inputs)
            ]
            if not ready:
                raise AssertionError(f"rewiring made a loop at {sorted(waiting)[:3]}")
            for call in ready:
                ordered[call.id] = waiting.pop(call.id)
        return replace(
            self._origin,
            op="Functional",
            layers=tuple(self.layers.values()),
            calls=tuple(ordered.values()),
            inputs=self.inputs,
            outputs=self.outputs,
        )
