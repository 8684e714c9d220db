"""Merge: one layer of Keras 1 (and, from legacy code, of 2.0) for what are eight layers now.

It could stand first in a Sequential and then held the models it merged in its own config.
"""

from typing import Any

from tiesurgeon.rooms.keras.dialects.draft import Draft
from tiesurgeon.rooms.keras.dialects.entries import Entry, is_functional, is_sequential
from tiesurgeon.rooms.keras.dialects.inputs import implied_input
from tiesurgeon.rooms.keras.dialects.names import name_of

_CLASSES = {
    "sum": "Add",
    "mul": "Multiply",
    "ave": "Average",
    "max": "Maximum",
    "concat": "Concatenate",
    "dot": "Dot",
    "cos": "Dot",
}


def upgrade_merge(draft: Draft) -> None:
    """Gives a Merge the class that its mode stands for."""
    old = draft.config
    mode = old.get("mode", "sum")
    if not isinstance(mode, str) or mode not in _CLASSES:
        draft.note("it merges by Python code of its own, which no config can carry")
        return
    draft.class_name = _CLASSES[mode]
    draft.config = {key: old[key] for key in ("name", "trainable", "dtype") if key in old}
    if mode == "concat":
        draft.config["axis"] = old.get("concat_axis", -1)
    if mode in ("dot", "cos"):
        draft.config.update(axes=old.get("dot_axes", -1), normalize=mode == "cos")


def begins_with_merge(entry: Entry) -> bool:
    """True for a Sequential whose first layer merges models of its own."""
    layers = _layers(entry) if is_sequential(entry) else []
    return bool(layers) and _branches(layers[0]) is not None


def without_first_merge(entry: Entry) -> Entry:
    """The same model as a Functional one, in Keras 2's format.

    The layers of merged Sequentials become layers of the model itself: Keras stored their weights
    so too.
    """
    graph = _Graph()
    last = graph.add_chain(_layers(entry))
    stored = entry["config"] if isinstance(entry["config"], dict) else {}
    name = stored.get("name") or entry.get("name") or "sequential"
    config = {
        "name": name,
        "layers": graph.layers,
        "input_layers": [[name, 0, 0] for name in graph.inputs],
        "output_layers": [[last, 0, 0]],
    }
    return {**entry, "class_name": "Model", "config": config}


def _layers(entry: Entry) -> list[Any]:
    config = entry["config"]
    layers = config if isinstance(config, list) else config["layers"]
    return layers if isinstance(layers, list) else []


def _branches(entry: Entry) -> list[Entry] | None:
    config = entry.get("config")
    merged = config.get("layers") if isinstance(config, dict) else None
    return merged if entry.get("class_name") == "Merge" and isinstance(merged, list) else None


class _Graph:
    """Layers in the order they are called, each with its inbound node."""

    def __init__(self) -> None:
        self.layers: list[Entry] = []
        self.inputs: list[str] = []

    def add_chain(self, chain: list[Entry]) -> str:
        """Adds layers that follow each other; returns the last one's name."""
        branches = _branches(chain[0])
        if branches is not None:
            last = self._add(chain[0], [self._add_branch(branch) for branch in branches])
        else:
            last = self._add_start(chain[0])
        for layer in chain[1:]:
            last = self._add(layer, [last])
        return last

    def _add_branch(self, branch: Entry) -> str:
        return self.add_chain(_layers(branch) if is_sequential(branch) else [branch])

    def _add_start(self, first: Entry) -> str:
        if first.get("class_name") == "InputLayer":
            return self._add_input(first)
        if is_functional(first):
            inner = [one for one in first["config"]["layers"] if one["class_name"] == "InputLayer"]
            return self._add(first, [self._add_input(_renamed(one, first)) for one in inner])
        return self._add(first, [self._add_input(one) for one in implied_input(first, None)])

    def _add_input(self, layer: Entry) -> str:
        self.inputs.append(name_of(layer))
        return self._add(layer, [])

    def _add(self, layer: Entry, sources: list[str]) -> str:
        nodes = [[[source, 0, 0, {}] for source in sources]] if sources else []
        self.layers.append({**layer, "name": name_of(layer), "inbound_nodes": nodes})
        return name_of(layer)


def _renamed(layer: Entry, model: Entry) -> Entry:
    name = f"{name_of(model)}_{name_of(layer)}"
    return {**layer, "name": name, "config": {**layer["config"], "name": name}}
