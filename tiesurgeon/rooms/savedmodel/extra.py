"""What tiesurgeon puts beside a SavedModel, so that its layers can be seen and changed again.

`assets.extra` is the folder that TensorFlow leaves to others. In it stand the two documents
of a `.keras` archive, and the objects hold each variable under the name of its layer.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tiesurgeon.errors import UnreadableFile
from tiesurgeon.graph import Graph
from tiesurgeon.rooms.keras.slots import legacy_order, slots
from tiesurgeon.rooms.savedmodel.bundle import mapped
from tiesurgeon.rooms.savedmodel.keras_metadata import Lists
from tiesurgeon.rooms.savedmodel.objects import Objects

CONFIG = Path("assets.extra", "keras", "config.json")
METADATA = Path("assets.extra", "keras", "metadata.json")
WEIGHTS = "weights"  # the attribute of the root: a dict of all variables by name
RESOURCES = "resources/"  # where the keys of a checkpoint start that are no weights
_LARGEST = 1 << 26


def weight_names(graph: Graph) -> dict[str, list[str]]:
    """Names for the weights of each top-level layer, in the order in which Keras lists them."""
    found = {}
    for layer in graph.layers:
        ordered = legacy_order(layer, slots(layer, layer.name), trained="reloaded")
        if ordered:
            found[layer.name] = [f"{slot.path}/{slot.role}" for slot in ordered]
    return found


def document(path: Path) -> Mapping[str, Any]:
    """The JSON object in a file; UnreadableFile if it is none."""
    found = json.loads(bytes(mapped(path, _LARGEST)))
    if not isinstance(found, dict):
        raise UnreadableFile(f"{path.name} is not a JSON object")
    return found


def named_lists(objects: Objects, names: Any) -> Lists:
    """The weights of each top-level layer, by the lists of `names` in the metadata."""
    weights = objects.child(objects.nodes[0], WEIGHTS) if objects.nodes else None
    if weights is None or not isinstance(names, dict):
        raise UnreadableFile("its variables do not belong to the Keras config beside them")
    held = {name: objects.nodes[number].storage for name, number in weights.children.items()}
    lists: Lists = {}
    for layer, wanted in names.items():
        found = [(name, held.get(name)) for name in wanted]
        lists[layer] = [(name, storage) for name, storage in found if storage is not None]
    return lists
