"""Gives the layers of a skeleton their variables, from paths (`.keras`, `.weights.h5`).

Keras walks the model's objects and names each by class and number among its siblings,
`layers/dense_1/vars/0`; since Keras 3 the group also says the layer's own name, which is
believed first. A layer that two nested models share is written only where it is met first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import h5py

from tiesurgeon.errors import UnreadableFile
from tiesurgeon.graph import Graph, Kind, Layer, Storage, Variable, View
from tiesurgeon.mapping.keras_operations import is_operation
from tiesurgeon.rooms.keras.hdf5 import Hdf5
from tiesurgeon.rooms.keras.layered import Assigned, kind_of, with_views
from tiesurgeon.rooms.keras.variables import (
    PLACES,
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
    """All variables of a weights file, the optimizer's left out."""
    groups: dict[str, dict[int, Storage]] = {}
    names: dict[str, str] = {}
    for path, item in hdf5.walk():
        # Keras 2.13 called the list of layers by its internal name.
        path = path.replace("_layer_checkpoint_dependencies", "layers")
        folder, _, leaf = path.rpartition("/")
        if path.startswith("optimizer/"):
            continue
        if isinstance(item, h5py.Group) and leaf == "vars":
            name = hdf5.text("name", item)
            if name is not None:
                names[folder] = name
        elif folder.split("/")[-1] == "vars" and leaf.isdecimal() and len(leaf) < 9:
            groups.setdefault(folder, {})[int(leaf)] = hdf5.storage(item)
    ordered = {group: tuple(found[i] for i in sorted(found)) for group, found in groups.items()}
    return Tree(ordered, names)


def attach(graph: Graph, weights: Tree) -> Graph:
    """The graph with views; UnreadableFile where the file lacks what a layer needs."""
    hand_out = _HandOut(weights)
    hand_out.siblings(graph.layers, "", "")
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

    def siblings(self, layers: tuple[Layer, ...], group: str, path: str) -> None:
        folder = f"{group}layers"
        by_name = {
            self.weights.names.get(f"{folder}/{child}"): child
            for child in self.weights.children(folder)
        }
        true_layers = tuple(layer for layer in layers if not is_operation(layer))
        for place, layer in container_names(true_layers):
            child = by_name.get(layer.name, place)
            self.layer(layer, f"{folder}/{child}", f"{path}{layer.name}")

    def layer(self, layer: Layer, group: str, path: str) -> None:
        if layer.body is not None:
            self.siblings(layer.body.layers, f"{group}/", f"{path}/")
        wrapped = [(f"{group}/{place}", lay) for place, lay in inner_paths(layer)]
        if not is_known(layer):  # a custom one may keep what it wraps anywhere
            wrapped = [(place, lay) for place, lay in wrapped if self.weights.children(place)]
            self._unknown(layer, group, path, [place for place, _ in wrapped])
        for place, inner in wrapped:
            self.layer(inner, place, f"{path}/{inner.name}")
        if is_known(layer):
            self._known(layer, group, path)

    def _known(self, layer: Layer, group: str, path: str) -> None:
        trainable = bool(layer.config.get("trainable", True))
        # These files hold LoRA's matrices added to the layer's own.
        places = [place for place in own_places(layer) if not place.role.startswith("lora_")]
        for place in places:
            # MultiHeadAttention's parts were private attributes in Keras 2.
            folders = (f"{group}/{place.path}", f"{group}/_{place.path}")
            found = next((f for f in map(self.weights.groups.get, folders) if f), ())
            if not found:
                self.empty[path] = layer
                return
            wanted = 1 + max(other.index for other in places if other.path == place.path)
            if len(found) != wanted:
                raise UnreadableFile(
                    f"layer {path!r} ({layer.op}) has {len(found)} weights in the file, but its "
                    f"config asks for {wanted}; the file is damaged or of a kind not known here"
                )
            storage, is_trained = found[place.index], trainable and place.trainable
            variable = Variable(f"{path}/{place.role}", storage, is_trained, kind_of(place.role))
            self.views.setdefault(path, []).append(View(place.role, variable))
            self.filled.setdefault((layer.name, layer.op), path)

    def _unknown(self, layer: Layer, group: str, path: str, wrapped: list[str]) -> None:
        """Its own variables, and those of the layers it made for itself, by their paths."""
        trainable = bool(layer.config.get("trainable", True))
        elsewhere = tuple(f"{place.removeprefix(group)[1:]}/" for place in wrapped)
        if layer.body is not None:
            elsewhere += ("layers/",)
        for rest, storages in self.weights.below(group):
            if rest.startswith(elsewhere) or "seed_generator" in rest:
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


def bare_layers(weights: Tree) -> tuple[Layer, ...]:
    """The layers of a weights-only file: names and variables, no classes, no graph."""
    children = weights.children("layers")
    firsts = dict.fromkeys(group.split("/")[0] for group in weights.groups)
    folders = [f"layers/{child}" for child in children]
    folders += [first for first in firsts if first not in ("layers", "vars")]
    layers: dict[str, Layer] = {}
    for folder in folders:
        leaf = folder.rsplit("/", 1)[-1]
        name = weights.names.get(folder, leaf)
        name = leaf if name in layers or not name else name
        layers[name] = _bare(weights, folder, name)
    if "vars" in weights.groups:  # a subclassed model's own variables
        own = weights.groups["vars"]
        views = tuple(View(str(i), Variable(f"model/{i}", s)) for i, s in enumerate(own))
        layers.setdefault("model", Layer("model", "", views=views))
    return tuple(layers.values())


def _bare(weights: Tree, folder: str, name: str) -> Layer:
    leaf = folder.rsplit("/", 1)[-1]
    views: list[View] = []
    for rest, storages in weights.below(folder):
        owner = rest.removesuffix("vars")
        kind: Kind = "seed" if "seed_generator" in rest else "weight"
        roles = _usual_roles(leaf, owner, len(storages))
        for role, storage in zip(roles, storages, strict=True):
            views.append(View(role, Variable(f"{name}/{role}", storage, kind != "seed", kind)))
    return Layer(name, "", views=tuple(views))


def _usual_roles(leaf: str, owner: str, count: int) -> list[str]:
    """Names for numbered variables, where the group's name tells the class."""
    stem = leaf.rstrip("_0123456789") if leaf[-1:].isdigit() else leaf
    op = next((known for known in PLACES if snake_case(known) in (leaf, stem)), "")
    here = {p.index: p.role for p in own_places(Layer(leaf, op)) if p.path == f"{owner}vars"}
    if here and len(here) >= count:
        return [here.get(index, f"{owner}{index}") for index in range(count)]
    return [f"{owner}{index}" for index in range(count)]
