"""A model is calls of layers; layers see variables through views; variables hold storages.

A *tie* is two uses of one `Variable`: a layer called twice, or two layers whose views
lead to the same `Variable` object. Two variables on one `Storage` are only an *alias*.
Identity is object identity, so every edit keeps the objects it does not change.

Nothing here knows a framework or a file format. Arrays are numpy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Shape = tuple[int, ...]
Kind = Literal["weight", "buffer", "optimizer slot", "seed"]


@dataclass(frozen=True, eq=False)
class Storage:
    """Numbers in a file (or in memory), read only when `load()` is called."""

    key: str
    shape: Shape
    dtype: np.dtype[Any]
    load: Callable[[], Array] = field(repr=False)

    @property
    def size(self) -> int:
        """How many numbers it holds."""
        size = 1
        for dim in self.shape:
            size *= dim
        return size

    @property
    def nbytes(self) -> int:
        """Bytes of the plain array."""
        return self.size * self.dtype.itemsize


@dataclass(frozen=True, eq=False)
class Variable:
    """One thing that training would update; the unit that a tie shares."""

    name: str
    storage: Storage
    trainable: bool = True
    kind: Kind = "weight"

    @property
    def shape(self) -> Shape:
        """Shape as stored."""
        return self.storage.shape


@dataclass(frozen=True, eq=False)
class View:
    """How one layer sees a variable: its own name for it, a transpose and a shape.

    `perm` is applied to the stored array first (None: as stored), then `shape`
    (None: unchanged). So a Keras Dense tied to an embedding of shape (V, H) has
    `View("kernel", embeddings, perm=(1, 0))`, of shape (H, V).
    """

    role: str
    variable: Variable
    perm: tuple[int, ...] | None = None
    reshape: Shape | None = None

    @property
    def shape(self) -> Shape:
        """Shape as the layer sees it."""
        if self.reshape is not None:
            return self.reshape
        stored = self.variable.shape
        return stored if self.perm is None else tuple(stored[axis] for axis in self.perm)

    def load(self) -> Array:
        """The array as the layer sees it."""
        array = self.variable.storage.load()
        if self.perm is not None:
            array = array.transpose(self.perm)
        return array if self.reshape is None else array.reshape(self.reshape)


@dataclass(frozen=True)
class Value:
    """Output number `index` of the call whose id is `call`."""

    call: str
    index: int = 0


@dataclass(frozen=True, eq=False)
class Layer:
    """A layer as its framework names it; `inner` for wrappers, `body` for nested models.

    `name` is unique among its siblings. `config` is the framework's own, in its newest
    dialect. `entry` keeps what the file said beside the config (module, registered name,
    dialect notes), so that an unknown layer can be written back as it was. `separator` stands
    between the levels of its name: "/" in Keras, "." in PyTorch.
    """

    name: str
    op: str
    config: Mapping[str, Any] = field(default_factory=dict)
    views: tuple[View, ...] = ()
    inner: tuple[Layer, ...] = ()
    body: Graph | None = None
    entry: Mapping[str, Any] = field(default_factory=dict)
    separator: str = "/"

    def view(self, role: str) -> View | None:
        """The view of that role, or None."""
        return next((view for view in self.views if view.role == role), None)

    def name_of(self, view: View, path: str) -> str:
        """Full name of what it sees, as people type it: `dense/kernel`, `decoder.weight`."""
        return f"{path}{self.separator}{view.role}" if path else view.role

    def all_views(self) -> Iterator[View]:
        """Views of the layer, of what it wraps and of what it nests."""
        yield from self.views
        for layer in self.inner:
            yield from layer.all_views()
        if self.body is not None:
            for layer in self.body.layers:
                yield from layer.all_views()


@dataclass(frozen=True, eq=False)
class Call:
    """One use of a layer. `args` and `kwargs` are nested lists, tuples and dicts whose
    leaves are `Value`s or constants. `id` is unique within its graph."""

    id: str
    layer: str
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def inputs(self) -> tuple[Value, ...]:
        """All values it consumes, in order."""
        return tuple(values_in((self.args, self.kwargs)))


@dataclass(frozen=True, eq=False)
class Graph:
    """Layers, the calls that connect them (in topological order), and what goes in and out.

    `calls` is empty where the file has no graph (bare weights). `op` is the model class
    ("Functional", "Sequential", ...). `inputs` and `outputs` are `Value`s, or a nested
    list, tuple or dict of them.
    """

    name: str
    op: str
    layers: tuple[Layer, ...]
    calls: tuple[Call, ...] = ()
    inputs: Any = ()
    outputs: Any = ()
    config: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def by_name(self) -> Mapping[str, Layer]:
        """Layers of this level by name."""
        return {layer.name: layer for layer in self.layers}

    @cached_property
    def call_by_id(self) -> Mapping[str, Call]:
        """Calls of this level by id."""
        return {call.id: call for call in self.calls}

    def layer(self, name: str) -> Layer:
        """The layer of that name at this level; KeyError if there is none."""
        return self.by_name[name]

    def calls_of(self, name: str) -> tuple[Call, ...]:
        """Every call of that layer, in order."""
        return tuple(call for call in self.calls if call.layer == name)

    def consumers(self, value: Value) -> tuple[Call, ...]:
        """Calls that take that value."""
        return tuple(call for call in self.calls if value in call.inputs)

    def walk(self) -> Iterator[tuple[str, Layer]]:
        """Every layer with its path: wrapped and nested ones after their owner."""
        for layer in self.layers:
            yield from walk_layer(layer, layer.name)

    def variables(self) -> tuple[Variable, ...]:
        """Each variable once, in order of first use."""
        seen: dict[Variable, None] = {}
        for layer in self.layers:
            for view in layer.all_views():
                seen.setdefault(view.variable)
        return tuple(seen)

    @property
    def is_bare(self) -> bool:
        """True for weights of which the file says no class: a state dict, safetensors.

        Names that share a storage there are one or two variables as the class decides.
        """
        return not any(layer.op for _, layer in self.walk())

    def size(self) -> int:
        """How many parameters and buffers it has, each variable once; of bare weights, each
        storage once."""
        held = [v for v in self.variables() if v.kind in ("weight", "buffer")]
        by_holder = {id(v.storage if self.is_bare else v): v.storage for v in held}
        return sum(storage.size for storage in by_holder.values())

    def with_layers(self, layers: Mapping[str, Layer]) -> Graph:
        """The same graph with some layers of this level replaced."""
        return replace(self, layers=tuple(layers.get(lay.name, lay) for lay in self.layers))


def walk_layer(layer: Layer, path: str) -> Iterator[tuple[str, Layer]]:
    """The layer and all that it wraps or nests, each with its path."""
    yield path, layer
    for inner in layer.inner:
        yield from walk_layer(inner, f"{path}/{inner.name}")
    if layer.body is not None:
        for nested in layer.body.layers:
            yield from walk_layer(nested, f"{path}/{nested.name}")


def values_in(structure: Any) -> Iterator[Value]:
    """The `Value` leaves of nested lists, tuples and dicts, in order."""
    if isinstance(structure, Value):
        yield structure
    elif isinstance(structure, Mapping):
        for item in structure.values():
            yield from values_in(item)
    elif isinstance(structure, (list, tuple)):
        for item in structure:
            yield from values_in(item)


def map_values(structure: Any, change: Callable[[Value], Any]) -> Any:
    """The same structure with every `Value` leaf changed."""
    if isinstance(structure, Value):
        return change(structure)
    if isinstance(structure, Mapping):
        return {key: map_values(item, change) for key, item in structure.items()}
    if isinstance(structure, (list, tuple)):
        return type(structure)(map_values(item, change) for item in structure)
    return structure


def map_views(graph: Graph, change: Callable[[View], View]) -> Graph:
    """The same graph with every view changed, at every level."""
    return replace(graph, layers=tuple(_map_layer(layer, change) for layer in graph.layers))


def _map_layer(layer: Layer, change: Callable[[View], View]) -> Layer:
    return replace(
        layer,
        views=tuple(change(view) for view in layer.views),
        inner=tuple(_map_layer(inner, change) for inner in layer.inner),
        body=None if layer.body is None else map_views(layer.body, change),
    )


def in_memory(key: str, array: Array) -> Storage:
    """A storage over an array that is already here."""
    return Storage(key, tuple(array.shape), array.dtype, lambda: array)
