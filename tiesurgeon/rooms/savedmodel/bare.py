"""The layers of a SavedModel without a Keras config: its variables, under their own names."""

from __future__ import annotations

from collections.abc import Iterator

from tiesurgeon.graph import Kind, Layer, Storage, Variable, View
from tiesurgeon.rooms.keras.layered import kind_of
from tiesurgeon.rooms.savedmodel.bundle import Bundle
from tiesurgeon.rooms.savedmodel.keras_metadata import said_of
from tiesurgeon.rooms.savedmodel.objects import Node, Objects

_NOT_OF_THE_MODEL = ("optimizer/", "keras_api/metrics/", "keras_api/optimizer")
_SEED = "seed_generator_state"


def bare_layers(objects: Objects) -> tuple[Layer, ...]:
    """One layer for each scope of names; with its class, where Keras 2 tells it."""
    held = dict(_of_the_model(objects))
    owners = _owners(objects)
    grouped: dict[str, dict[str, Node]] = {}
    for path, node in held.items():
        layer, role = _split(node.name or "", path)
        if role in grouped.get(layer, {}):  # the name is taken, but no path is
            layer, role = _split(path, path)
        grouped.setdefault(layer, {})[role] = node
    return tuple(_layer(name, views, owners) for name, views in grouped.items())


def written_twice(objects: Objects) -> list[Node]:
    """Variables beside those of the model, each with the name and shape of one of them."""
    model = {node.number: node for _, node in _of_the_model(objects)}
    known = {(n.name, n.storage.shape) for n in model.values() if n.storage}
    return [
        node
        for _, node in objects.walk()
        if node.storage and node.number not in model and (node.name, node.storage.shape) in known
    ]


def keyed_layers(bundle: Bundle) -> tuple[Layer, ...]:
    """The same of a model of TensorFlow 1, which has no objects: a checkpoint's keys are names."""
    grouped: dict[str, list[View]] = {}
    for key in bundle.entries:
        storage = bundle.storage(key)
        if storage is not None:
            layer, role = _split(key, key)
            variable = Variable(f"{layer}/{role}", storage, kind=kind_of(role))
            grouped.setdefault(layer, []).append(View(role, variable))
    return tuple(Layer(name, "", views=tuple(views)) for name, views in grouped.items())


def _of_the_model(objects: Objects) -> Iterator[tuple[str, Node]]:
    """Variables with the path to each: those that the model lists, or all but an optimizer's."""
    root = objects.nodes[0]
    listed = {node.number for node in objects.listed(root, "variables")}
    for path, node in objects.walk():
        if node.storage is None or (listed and node.number not in listed):
            continue
        if listed or not path.startswith(_NOT_OF_THE_MODEL):
            yield path, node


def _owners(objects: Objects) -> dict[int, Node]:
    """The Keras layer that holds each variable as an attribute."""
    found: dict[int, Node] = {}
    for node in objects.nodes:
        if node.identifier.startswith("_tf_keras_"):
            for child in node.children.values():
                if objects.nodes[child].name is not None:
                    found[child] = node
    return found


def _split(name: str, path: str) -> tuple[str, str]:
    """Layer and role; the model itself holds what has no scope."""
    layer, _, role = (name.split(":")[0] or path).rpartition("/")
    return layer or "model", role


def _layer(name: str, held: dict[str, Node], owners: dict[int, Node]) -> Layer:
    views = []
    for role, node in held.items():
        storage: Storage | None = node.storage
        assert storage is not None
        kind: Kind = "seed" if role.endswith(_SEED) else kind_of(role)
        views.append(View(role, Variable(f"{name}/{role}", storage, node.is_trainable, kind)))
    owner = {owners[n.number].number: owners[n.number] for n in held.values() if n.number in owners}
    said = said_of(next(iter(owner.values()))) if len(owner) == 1 else {}
    return Layer(name, str(said.get("class_name", "")), views=tuple(views))
