"""What a PyTorch file holds, as a graph of layers and variables."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from tiesurgeon.edits import compose
from tiesurgeon.graph import Graph, Kind, Layer, Variable, View
from tiesurgeon.rooms.pytorch import bare
from tiesurgeon.rooms.pytorch.pickles import mappings, modules
from tiesurgeon.rooms.pytorch.pickles.content import Content, Spot
from tiesurgeon.rooms.pytorch.pickles.nodes import walk
from tiesurgeon.rooms.pytorch.pickles.numbers import Numbers
from tiesurgeon.rooms.pytorch.pickles.recognised import UNUSUAL


def graph_of(name: str, content: Content, numbers: Numbers) -> Graph:
    """The graph of a file: layers in the order of the file, without calls.

    In modules one Parameter under two names is one variable. In a state dict every name is a
    variable: whether two of them are one is up to the class that loads it.
    """
    making = _Making(numbers, has_model=bool(content.weight_sets))
    layers: dict[str, Layer] = {}
    for found in content.sets:
        for part in found.parts:
            path = (content.prefix(found) + part.name).rstrip(".")
            views = tuple(
                making.view(content.spots[content.prefix(found) + place.name])
                for place in part.places
            )
            if path in layers:  # loose tensors beside a module
                views = layers[path].views + views
            layers[path] = Layer(path, part.op, part.config, views, separator=".")
    op = modules.class_of(content.root) if content.format in _MODULES else ""
    return Graph(name, op, tuple(layers.values()))


_MODULES = ("torch-module", "torchscript")


@dataclass
class _Making:
    numbers: Numbers
    has_model: bool
    variables: dict[int, Variable] = field(default_factory=dict)  # by id of the Parameter

    def view(self, spot: Spot) -> View:
        tensor = spot.place.tensor
        storage, perm = self.numbers.stored(spot.name, tensor)
        role = spot.place.name.rpartition(".")[2]
        perm = compose(perm, spot.place.perm)
        if spot.where.kind != "module":
            variable = bare.variable(spot.name, storage)
            return View(role, _named(spot, variable, has_model=self.has_model), perm)
        kind: Kind = spot.place.kind or "weight"
        known = self.variables.get(id(tensor.record))
        if known is None or known.kind != kind:
            trainable = kind == "weight" and tensor.requires_grad and not tensor.is_quantised
            known = Variable(spot.name, storage, trainable, kind)
            self.variables[id(tensor.record)] = known
        return View(role, known, perm)


def _named(spot: Spot, variable: Variable, *, has_model: bool) -> Variable:
    """What the name says beside what the numbers say."""
    tensor, storage = spot.place.tensor, variable.storage
    if spot.where.kind == "optimizer":
        return Variable(spot.name, storage, trainable=False, kind="optimizer slot")
    if spot.where.kind == "loose" and "rng" in spot.name and storage.dtype.name == "uint8":
        return Variable(spot.name, storage, trainable=False, kind="seed")
    if spot.where.kind == "loose" and has_model:
        return Variable(spot.name, storage, trainable=False, kind="buffer")
    if tensor.is_quantised:
        return Variable(spot.name, storage, trainable=False)
    return variable


def notes_on(root: Any) -> tuple[str, ...]:
    """What a tree holds that the graph does not show."""
    words = Counter(
        UNUSUAL[made_by.name]
        for node in walk(root)
        if (made_by := mappings.global_of(node)) is not None
        and made_by.module in ("torch._utils", "torch._tensor")
        and made_by.name in UNUSUAL
    )
    return tuple(
        f"tensors that are not listed: {count} of the kind {word}" for word, count in words.items()
    )
