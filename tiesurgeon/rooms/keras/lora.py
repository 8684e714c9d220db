"""LoRA's thin matrices, added to the matrix they stand beside.

A `.keras` file holds the sum already, and only its config still speaks of a rank; an `.h5`
holds the parts. Either way the layer computes what the plain one with the sum does.
Source: keras/src/layers/core/dense.py, `_get_kernel_with_merged_lora`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from tiesurgeon.errors import UnsupportedFormat
from tiesurgeon.graph import Array, Graph, Layer, Storage, Variable, View
from tiesurgeon.rooms.keras.variables import quantisation

_KEYS = ("lora_rank", "lora_alpha")


def merged(graph: Graph) -> tuple[Graph, list[str]]:
    """The graph with plain layers instead, and a line for each that was changed."""
    notes: list[str] = []
    done: dict[Variable, Variable] = {}
    layers = tuple(_plain(layer, layer.name, notes, done) for layer in graph.layers)
    return replace(graph, layers=layers), notes


def _plain(layer: Layer, path: str, notes: list[str], done: dict[Variable, Variable]) -> Layer:
    inner = tuple(_plain(lay, f"{path}/{lay.name}", notes, done) for lay in layer.inner)
    body = layer.body
    if body is not None:
        nested = tuple(_plain(lay, f"{path}/{lay.name}", notes, done) for lay in body.layers)
        body = replace(body, layers=nested)
    layer = replace(layer, inner=inner, body=body)
    if not layer.config.get("lora_rank"):
        return layer
    notes.append(f"{path}: its LoRA matrices were added to its own, which is one plain matrix now")
    thin = [view for view in layer.views if view.role.startswith("lora_")]
    if thin and quantisation(layer.config) is not None:
        raise UnsupportedFormat(
            f"layer {path!r} has LoRA matrices beside a quantised one, which are not added up "
            "here; save the model as .keras, which does it"
        )
    matrix, *others = (view for view in layer.views if view not in thin)
    if matrix.variable not in done:
        storage = _sum(layer, matrix, thin) if thin else matrix.variable.storage
        trainable = bool(layer.config.get("trainable", True))
        done[matrix.variable] = replace(matrix.variable, storage=storage, trainable=trainable)
    views = (replace(matrix, variable=done[matrix.variable]), *others)
    config = {key: value for key, value in layer.config.items() if key not in _KEYS}
    return replace(layer, views=views, config=config)


def _sum(layer: Layer, view: View, thin: list[View]) -> Storage:
    a, b = (next(v for v in thin if v.role.endswith(end)) for end in ("_a", "_b"))
    rank: Any = layer.config["lora_rank"]
    scale = float(layer.config.get("lora_alpha") or rank) / float(rank)
    old = view.variable.storage

    def load() -> Array:
        total: Array = old.load() + scale * np.matmul(a.load(), b.load())
        return total.astype(old.dtype)

    return Storage(old.key, old.shape, old.dtype, load)
