"""Vocabularies that `.keras` files keep beside the config, put into it.

A lookup layer that was adapted has its words in `assets/`; one that was given them has them
in its config, where every format keeps them. Source: index_lookup.py, `save_assets`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from tiesurgeon.graph import Graph, Layer
from tiesurgeon.mapping.keras_operations import is_operation
from tiesurgeon.rooms.keras.variables import container_names

_LOOKUPS = frozenset({"StringLookup", "IntegerLookup", "TextVectorization"})


def with_vocabularies(graph: Graph, texts: Mapping[str, bytes], folder: str = "") -> Graph:
    """The graph with the words of `texts` (by the folder of each layer) in the configs."""
    if not texts:
        return graph
    true_layers = tuple(layer for layer in graph.layers if not is_operation(layer))
    new: dict[str, Layer] = {}
    for place, layer in container_names(true_layers):
        here = f"{folder}layers/{place}"
        if layer.body is not None:
            body = with_vocabularies(layer.body, texts, f"{here}/")
            new[layer.name] = replace(layer, body=body)
        elif layer.op in _LOOKUPS and here in texts and layer.config.get("vocabulary") is None:
            new[layer.name] = _with_words(layer, texts[here].decode("utf-8"))
    return graph.with_layers(new)


def _with_words(layer: Layer, text: str) -> Layer:
    words = text.splitlines()
    while words and not words[-1]:
        words.pop()
    is_number = layer.op == "IntegerLookup" and layer.config.get("vocabulary_dtype") != "string"
    vocabulary = [int(word) for word in words] if is_number else words
    return replace(layer, config={**layer.config, "vocabulary": vocabulary})
