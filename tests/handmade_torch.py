"""Graphs as PyTorch's files give them, made by hand: flat layers with dotted names."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from tiesurgeon.graph import Array, Graph, Layer, Shape, Storage, Variable, View, in_memory

random = np.random.default_rng(7)

Config = Mapping[str, Any]
Given = Array | Shape  # a shape stands for random numbers


def module(name: str, op: str, *, config: Config | None = None, **views: Given) -> Layer:
    """A layer with the views that the keywords name."""
    made = tuple(View(role, variable(f"{name}.{role}", given)) for role, given in views.items())
    return Layer(name, op, config or {}, made, separator=".")


def variable(name: str, given: Given) -> Variable:
    array = given if isinstance(given, np.ndarray) else random.normal(size=given).astype("f4")
    return Variable(name, in_memory(name, array))


def embedding(name: str, given: Given) -> Layer:
    return module(name, "Embedding", weight=given)


def linear(name: str, given: Given) -> Layer:
    return module(name, "Linear", weight=given)


def bare(tensors: Mapping[str, Given]) -> Graph:
    """A state dict: names and shapes, or names and arrays."""
    layers: dict[str, Layer] = {}
    for key, given in tensors.items():
        path, _, role = key.rpartition(".")
        layer = layers.get(path, Layer(path, "", separator="."))
        view = View(role, variable(key, given))
        layers[path] = replace(layer, views=(*layer.views, view))
    return Graph("model", "", tuple(layers.values()))


def unread(tensors: Mapping[str, Shape]) -> Graph:
    """A state dict of any size whose numbers are not to be read."""

    def refuse() -> Array:
        raise AssertionError("a weight was read")

    graph = bare(dict.fromkeys(tensors, ()))
    storages = {key: Storage(key, shape, np.dtype("f4"), refuse) for key, shape in tensors.items()}
    layers = []
    for layer in graph.layers:
        views = tuple(
            replace(view, variable=Variable(view.variable.name, storages[view.variable.name]))
            for view in layer.views
        )
        layers.append(replace(layer, views=views))
    return replace(graph, layers=tuple(layers))


def modules(*layers: Layer) -> Graph:
    """A whole module: classes are known, calls are not."""
    return Graph("Model", "Model", layers)
