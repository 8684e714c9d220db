"""Graphs made by hand, call by call. Sizes are distinct primes."""

from typing import Any

import numpy as np

from tiesurgeon import find
from tiesurgeon.graph import Array, Call, Graph, Layer, Value, Variable, View, in_memory

V, H = 11, 3
random = np.random.default_rng(5)


def numbers(*shape: int) -> Array:
    return random.normal(size=shape).astype(np.float32)


def view(name: str, array: Array, role: str) -> View:
    return View(role, Variable(f"{name}/{role}", in_memory(f"{name}/{role}", array)))


class Model:
    """Builds a graph call by call; every method returns the value it made."""

    def __init__(self) -> None:
        self.layers: dict[str, Layer] = {}
        self.calls: list[Call] = []

    def call(self, layer: Layer, *args: Any, **kwargs: Any) -> Value:
        self.layers.setdefault(layer.name, layer)
        count = sum(call.layer == layer.name for call in self.calls)
        call_id = layer.name if not count else f"{layer.name}:{count}"
        self.calls.append(Call(call_id, layer.name, args, kwargs))
        return Value(call_id)

    def input(self, name: str = "ids") -> Value:
        return self.call(Layer(name, "InputLayer"))

    def embedding(self, name: str, ids: Any, array: Array | None = None) -> Value:
        return self.call(self.table(name, array), ids)

    def table(self, name: str, array: Array | None = None) -> Layer:
        array = numbers(V, H) if array is None else array
        return Layer(name, "Embedding", views=(view(name, array, "embeddings"),))

    def dense(self, name: str, x: Value, array: Array | None = None) -> Value:
        array = numbers(H, V) if array is None else array
        return self.call(Layer(name, "Dense", views=(view(name, array, "kernel"),)), x)

    def op(self, op: str, *args: Any, name: str | None = None, **kwargs: Any) -> Value:
        return self.call(Layer(name or op.lower(), op), *args, **kwargs)

    def graph(self, *outputs: Value, inputs: tuple[Value, ...] = ()) -> Graph:
        return Graph("model", "Functional", tuple(self.layers.values()), tuple(self.calls),
                     inputs, outputs)  # fmt: skip


def pairs(graph: Graph, **options: Any) -> list[tuple[str, str, str]]:
    found = find.candidates(graph, **options)
    return [(c.source, c.target, c.role) for c in found]


def language_model(table: Array | None = None, kernel: Array | None = None) -> Graph:
    model = Model()
    x = model.embedding("embedding", model.input(), table)
    return model.graph(model.dense("out", model.op("LSTM", x), kernel))
