"""What Keras 2 left of itself in a SavedModel: the config of the model, and lists of weights.

Since TensorFlow 2.5 it stands in `keras_metadata.pb` (tf_keras/protobuf/saved_metadata.proto),
before that in the objects themselves. Keras 3 writes nothing of the kind.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tiesurgeon.errors import UnreadableFile
from tiesurgeon.graph import Storage
from tiesurgeon.rooms.savedmodel import wire
from tiesurgeon.rooms.savedmodel.bundle import mapped
from tiesurgeon.rooms.savedmodel.objects import Node, Objects

FILE = "keras_metadata.pb"
_LARGEST = 1 << 26
_LAYER = "layer-"

Lists = dict[str, list[tuple[str, Storage]]]


def add_metadata(objects: Objects, path: Path) -> None:
    """Gives the objects what `keras_metadata.pb` says of them, if there is such a file."""
    if not path.exists():
        return
    for data in wire.parts(mapped(path, _LARGEST), 1):
        number = wire.number(data, 2)
        if number >= len(objects.nodes):
            raise UnreadableFile(f"{path.name} speaks of objects that saved_model.pb does not have")
        node = objects.nodes[number]
        node.identifier, node.metadata = wire.text(data, 4), wire.text(data, 5)


def said_of(node: Node) -> Mapping[str, Any]:
    """A Keras object's metadata: class_name, name, config and more; {} for any other object."""
    if not node.identifier.startswith("_tf_keras_") or not node.metadata:
        return {}
    found = json.loads(node.metadata)
    return found if isinstance(found, dict) else {}


def model_config(said: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The config of the root, as `.h5` files have it; None where the root is no Keras model."""
    stored = said.get("model_config") or said
    if not isinstance(stored, dict) or not isinstance(stored.get("class_name"), str):
        return None
    config = stored.get("config")
    # A subclassed model may have none.
    return {"class_name": stored["class_name"], "config": config if config else {}}


def weight_lists(objects: Objects) -> Lists:
    """The weights of each top-level layer by the layer's name, trainable ones first."""
    root = objects.nodes[0]
    lists: Lists = {}
    for child, number in root.children.items():
        if child.startswith(_LAYER):
            layer = objects.nodes[number]
            name = str(said_of(layer).get("name", child))
            lists[name] = [(v.name or "", v.storage) for v in _weights(objects, layer) if v.storage]
    return lists


def _weights(objects: Objects, layer: Node) -> list[Node]:
    trained = objects.listed(layer, "trainable_variables")
    api = objects.child(layer, "keras_api")
    others = [] if api is None else objects.listed(api, "non_trainable_variables")
    # `variables` of a nested model is in the order of its layers; preprocessing has no lists.
    return [*trained, *others] or objects.listed(layer, "variables") or _held(objects, layer)


def _held(objects: Objects, layer: Node) -> list[Node]:
    """The variables that are attributes of a layer, each once."""
    found = dict.fromkeys(layer.children.values())
    return [objects.nodes[number] for number in found if objects.nodes[number].name is not None]
