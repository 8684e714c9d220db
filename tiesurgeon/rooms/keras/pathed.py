"""Gives the layers of a skeleton their variables, from paths (`.keras`, `.weights.h5`).

Keras walks the model's objects and names each by class and number among its siblings,
`layers/dense_1/vars/0`; since Keras 3 the group also says the layer's own name, which is
believed first. A layer that two nested models share is written only where it is met first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from tiesurgeon.errors import UnreadableFile
from tiesurgeon.graph import Graph, Layer, Storage, Variable, View
from tiesurgeon.rooms.keras.hdf5 import Hdf5
from tiesurgeon.rooms.keras.layered import BUFFERS, Assigned, with_views
from tiesurgeon.rooms.keras.variables import (
    container_names,
    inner_paths,
    is_known,
    own_places,
    snake_case,
)


@dataclass(frozen=True)
class Tree:
    """Variables by the path of their group, and the names that groups carry."""

    groups: Mapping[str, tuple[Storage, ...]]
    names: Mapping[str, str]

    def below(self, path: str) -> Iterator[tuple[str, tuple[Storage, ...]]]:
        """Groups at and under a path, with what follows it."""
        for group, storages in self.groups.items():
            if group.startswith(f"{path}/"):
                yield group.removeprefix(f"{path}/"), storages

    def children(self, path: str) -> list[str]:
        """Names of the groups directly under a path, in the file's order."""
        found = dict.fromkeys(rest.split("/")[0] for rest, _ in self.below(path))
        return list(found)


def tree(hdf5: Hdf5) -> Tree:
    """All variables of a weights file, optimizer and seeds left out."""
    groups: dict[str, dict[int, Storage]] = {}
    for path, storage in hdf5.datasets():
        # Keras 2.13 called the list of layers by its internal name.
        path = path.replace("_layer_checkpoint_dependencies", "layers")
        group, _, leaf = path.rpartition("/")
        if group.endswith("vars") and leaf.isdigit() and not path.startswith("optimizer/"):
            groups.setdefault(group, {})[int(leaf)] = storage
    names: dict[str, str] = {}
    hdf5.file.visititems(lambda path, item: _note_name(path, item, names))
    ordered = {group: tuple(found[i] for i in sorted(found)) for group, found in groups.items()}
    return Tree(ordered, names)


def _note_name(path: str, item: Any, names: dict[str, str]) -> None:
    name = item.attrs.get("name")
    if path.endswith("vars") and isinstance(name, (str, bytes)):
        owner = path.replace("\\", "/").removesuffix("/vars")
        names[owner] = name.decode() if isinstance(name, bytes) else name


def attach(graph: Graph, weights: Tree) -> Graph:
    """The graph with views; UnreadableFile where the file lacks what a layer needs."""
    hand_out = _HandOut(weights)
    hand_out.siblings(graph.layers, "", "", trainable=True)
    hand_out.share_what_was_written_once()
    hand_out.refuse_missing()
    layers = tuple(with_views(layer, layer.name, hand_out.views) for layer in graph.layers)
    return replace(graph, layers=layers)


class _HandOut:
    def __init__(self, weights: Tree) -> None:
        self.weights = weights
        self.views: Assigned = {}
        self.empty: dict[str, Layer] = {}
        self.filled: dict[tuple[str, str], str] = {}  # (name, op) -> path of the layer

    def siblings(
        self, layers: tuple[Layer, ...], group: str, path: str, *, trainable: bool
    ) -> None:
        folder = f"{group}layers"
        by_name = {
            self.weights.names.get(f"{folder}/{child}"): child
            for child in self.weights.children(folder)
        }
        is_layer = [lay for lay in layers if not is_operation(lay)]
        for place, layer in container_names(tuple(is_layer)):
            child = by_name.get(layer.name, place)
            self.layer(layer, f"{folder}/{child}", f"{path}{layer.name}", trainable=trainable)

    def layer(self, layer: Layer, group: str, path: str, *, trainable: bool) -> None:
        trainable = trainable and bool(layer.config.get("trainable", True))
        if layer.body is not None:
            below = trainable and bool(layer.body.config.get("trainable", True))
            self.siblings(layer.body.layers, f"{group}/", f"{path}/", trainable=below)
        for place, inner in inner_paths(layer):
            self.layer(inner, f"{group}/{place}", f"{path}/{inner.name}", trainable=trainable)
        if is_known(layer):
            self._known(layer, group, path, trainable=trainable)
        elif layer.body is None:
            self._unknown(layer, group, path, trainable=trainable)

    def _known(self, layer: Layer, group: str, path: str, *, trainable: bool) -> None:
        for place in own_places(layer):
            # MultiHeadAttention's parts were private attributes in Keras 2.
            folders = (f"{group}/{place.path}", f"{group}/_{place.path}")
            found = next((f for f in map(self.weights.groups.get, folders) if f), ())
            if place.index >= len(found):
                self.empty[path] = layer
                return
            kind = "buffer" if place.role in BUFFERS else "weight"
            storage, is_trained = found[place.index], trainable and place.trainable
            variable = Variable(f"{path}/{place.role}", storage, is_trained, kind)
            self.views.setdefault(path, []).append(View(place.role, variable))
            self.filled.setdefault((layer.name, layer.op), path)

    def _unknown(self, layer: Layer, group: str, path: str, *, trainable: bool) -> None:
        wrapped = tuple(f"{place}/" for place, _ in inner_paths(layer))
        for rest, storages in self.weights.below(group):
            if rest.startswith(wrapped) or "seed_generator" in rest:
                continue
            owner = rest.removesuffix("vars")
            for index, storage in enumerate(storages):
                variable = Variable(f"{path}/{owner}{index}", storage, trainable)
                self.views.setdefault(path, []).append(View(f"{owner}{index}", variable))

    def share_what_was_written_once(self) -> None:
        """A layer without its variables is one that another model here holds too."""
        for path, layer in list(self.empty.items()):
            twin = self.filled.get((layer.name, layer.op))
            if twin is not None and twin != path:
                self.views[path] = list(self.views[twin])
                del self.empty[path]

    def refuse_missing(self) -> None:
        for path, layer in self.empty.items():
            roles = ", ".join(place.role for place in own_places(layer))
            raise UnreadableFile(
                f"layer {path!r} ({layer.op}) has no weights in the file, expected {roles}; "
                "the file is damaged or of a kind not known here"
            )


def is_operation(layer: Layer) -> bool:
    """True for a `keras.ops` node, which is not a layer and holds no weights."""
    return ".ops" in str(layer.entry.get("module") or "")


def bare_layers(weights: Tree) -> tuple[Layer, ...]:
    """The layers of a weights-only file: names and variables, no classes, no graph."""
    folders = dict.fromkeys(
        f"layers/{child}" for child in weights.children("layers")
    ) or dict.fromkeys(group.split("/")[0] for group in weights.groups)
    return tuple(_bare(weights, folder) for folder in folders)


def _bare(weights: Tree, folder: str) -> Layer:
    leaf = folder.rsplit("/", 1)[-1]
    name = weights.names.get(folder) or leaf
    views: list[View] = []
    for rest, storages in weights.below(folder):
        owner = rest.removesuffix("vars")
        roles = _usual_roles(leaf, owner, len(storages))
        for role, storage in zip(roles, storages, strict=True):
            views.append(View(role, Variable(f"{name}/{role}", storage)))
    return Layer(name, "", views=tuple(views))


def _usual_roles(leaf: str, owner: str, count: int) -> list[str]:
    """Names for numbered variables, where the group's name tells the class."""
    from tiesurgeon.rooms.keras.variables import PLACES

    stem = leaf.rstrip("_0123456789") if leaf[-1:].isdigit() else leaf
    op = next((known for known in PLACES if snake_case(known) in (leaf, stem)), "")
    here = [p.role for p in own_places(Layer(leaf, op)) if p.path == f"{owner}vars"]
    if len(here) >= count and here:
        return here[:count]
    return [f"{owner}{index}" for index in range(count)]
