"""Which module owns each parameter, and who shares it: the classes and ties of a model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from tiesurgeon.graph import Graph, Layer, Variable, View

BUFFERS = frozenset(("running_mean", "running_var", "num_batches_tracked"))


@dataclass(frozen=True)
class Place:
    """A parameter of the model: the path of its class, the layer in it, and the role there
    ("" where the layer is the parameter itself)."""

    path: tuple[str, ...]
    layer: Layer
    view: View

    @property
    def key(self) -> str:
        """Its name in the state dict."""
        names = (*self.path, self.layer.name, self.view.role)
        return ".".join(name for name in names if name)

    @property
    def is_buffer(self) -> bool:
        """Whether it is a buffer of its module, which no optimizer sees."""
        variable = self.view.variable
        return self.view.role in BUFFERS or (not self.view.role and variable.kind == "buffer")


@dataclass
class Ownership:
    """Where each variable lives, and the other places that use it."""

    owners: dict[Variable, Place] = field(default_factory=dict)
    aliases: list[tuple[Place, Place]] = field(default_factory=list)

    def tied_in(self, path: tuple[str, ...]) -> Iterator[tuple[Place, Place]]:
        """The ties (use, owner) to be made by the class at `path`: the innermost one that
        sees both ends."""
        for use, owner in self.aliases:
            if _common(use.path, owner.path) == path:
                yield use, owner

    def owned_in(self, path: tuple[str, ...]) -> Iterator[Place]:
        """The variables that live in the class at `path`."""
        return (place for place in self.owners.values() if place.path == path)

    def is_attribute(self, place: Place) -> bool:
        """Whether a parameter read as a value needs an attribute of its own: its owner is not
        within the class that reads it."""
        owner = self.owners[place.view.variable]
        return owner == place or owner.path[: len(place.path)] != place.path


def ownership(graph: Graph) -> Ownership:
    """Who owns what. An embedding owns what it shares, then any module, then the place that
    comes first."""
    result = Ownership()
    places = list(_places(graph, ()))
    for place in sorted(places, key=_rank):
        result.owners.setdefault(place.view.variable, place)
    for place in places:
        owner = result.owners[place.view.variable]
        if place is owner:
            continue
        if place.layer.op != "nn.Parameter" or result.is_attribute(place):
            result.aliases.append((place, owner))
    return result


def _places(graph: Graph, path: tuple[str, ...]) -> Iterator[Place]:
    for layer in graph.layers:
        for view in layer.views:
            yield Place(path, layer, view)
        if layer.body is not None:
            yield from _places(layer.body, (*path, layer.name))


def _rank(place: Place) -> int:
    if place.layer.op == "nn.Embedding":
        return 0
    return 1 if place.layer.op != "nn.Parameter" else 2 + (place.view.perm is not None)


def _common(first: tuple[str, ...], second: tuple[str, ...]) -> tuple[str, ...]:
    common: list[str] = []
    for a, b in zip(first, second, strict=False):
        if a != b:
            break
        common.append(a)
    return tuple(common)
