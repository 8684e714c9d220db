"""The sets of weights that a pickle holds: modules, state dicts, the state of optimizers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from tiesurgeon.errors import UnreadableFile
from tiesurgeon.graph import Kind
from tiesurgeon.rooms.pytorch.pickles import mappings, modules
from tiesurgeon.rooms.pytorch.pickles.nodes import Record
from tiesurgeon.rooms.pytorch.pickles.recognised import Tensor, tensor_of, unusual
from tiesurgeon.rooms.pytorch.pickles.transposed import is_transposed_linear

_MOST_PLACES = 500_000
# What people call the state dict of the whole model, so never a part of the model.
_WRAPPERS = frozenset(
    "model state_dict model_state_dict module net network weights params ema model_ema "
    "ema_state_dict generator discriminator student teacher".split()
)
_PLAIN = (str, int, float, bool, type(None))

TRANSPOSED = (1, 0)


@dataclass(frozen=True)
class Place:
    """Where the file holds a tensor: `holder[key]`. `name` starts at its weight set."""

    name: str
    holder: Any
    key: Any
    tensor: Tensor
    perm: tuple[int, ...] | None = None  # as its layer sees the tensor
    kind: Kind | None = None  # None: the file does not say
    module: Record | None = None


@dataclass
class Part:
    """A module, or the tensors of a state dict that share a prefix."""

    name: str
    op: str = ""
    config: Any = field(default_factory=dict)
    places: list[Place] = field(default_factory=list)


@dataclass
class WeightSet:
    """Weights that belong together, at `path` in the file. `node` is what holds them all."""

    path: str
    kind: Literal["module", "state dict", "optimizer", "loose"]
    node: Any
    parts: list[Part]

    @property
    def places(self) -> Iterator[Place]:
        """All places, in order."""
        return (place for part in self.parts for place in part.places)


def find_sets(root: Any) -> list[WeightSet]:
    """Every set of weights in the tree of a pickle, in order.

    Raises UnreadableFile where a module holds itself, or there are more names than any model has.
    """
    search = _Search()
    if is_state_dict(root):
        search.add("", "state dict", root, _grouped(search.tensors(root, "")))
    elif tensor_of(root) is not None:
        search.add("", "loose", root, _grouped(search.tensors({"tensor": root}, "")))
    else:
        search.look(root, "")
    return search.found


def is_state_dict(root: Any) -> bool:
    """True for a mapping of tensors, or of mappings of tensors that are parts of one model."""
    if not mappings.is_mapping(root) or _is_optimizer(root):
        return False
    values = mappings.items(root)
    nested = [(key, value) for key, value in values if mappings.is_mapping(value)]
    tensors = [value for _, value in values if _is_tensor(value)]
    plain = [value for _, value in values if type(value) in _PLAIN]
    if len(nested) + len(tensors) + len(plain) < len(values):
        return bool(tensors) and len(tensors) > len(values) / 2 and not nested
    if any(key in _WRAPPERS or _is_optimizer(value) for key, value in nested):
        return False
    inside = [part for _, value in nested for _, part in mappings.items(value)]
    return bool(tensors or inside) and all(_is_tensor(part) for part in inside)


@dataclass
class _Search:
    found: list[WeightSet] = field(default_factory=list)
    seen: set[int] = field(default_factory=set)
    count: int = 0

    def add(self, path: str, kind: Any, node: Any, parts: list[Part]) -> None:
        if (
            parts or kind == "optimizer"
        ):  # plain SGD has no state, and counts parameters all the same
            self.found.append(WeightSet(path, kind, node, parts))

    def look(self, node: Any, path: str) -> None:
        """Looks for sets in whatever holds something, each object once."""
        if type(node) in _PLAIN or id(node) in self.seen:
            return
        self.seen.add(id(node))
        if modules.state_of(node) is not None:
            parts: list[Part] = []
            self._module(node, "", parts, frozenset())
            self.add(path, "module", node, parts)
        elif _is_optimizer(node):
            self.add(path, "optimizer", node, _grouped(self._slots(node)))
        elif mappings.is_mapping(node):
            self._mapping(node, path)
        elif type(node) in (list, tuple):
            self._items(node, path, enumerate(node))
        elif type(node) is Record:
            for step in node.steps:
                for value in step.values:
                    self.look(value, path)

    def _mapping(self, node: Any, path: str) -> None:
        values = mappings.items(node)
        if path and any(_is_weight(value) for _, value in values):
            self.add(path, "state dict", node, _grouped(self.tensors(node, "")))
        else:
            self._items(node, path, iter(values))

    def _items(self, node: Any, path: str, values: Iterator[tuple[Any, Any]]) -> None:
        loose = []
        for key, value in values:
            tensor = tensor_of(value)
            if tensor is not None:
                loose.append(self._place(_join(path, key), node, key, tensor))
            else:
                self.look(value, _join(path, key))
        self.add(path, "loose", node, _grouped(iter(loose)))

    def tensors(self, node: Any, path: str) -> Iterator[Place]:
        """Every tensor in nested mappings and lists, by dotted name."""
        self.seen.add(id(node))
        values = mappings.items(node) if mappings.is_mapping(node) else enumerate(node)
        for key, value in values:
            name = _join(path, key)
            tensor = tensor_of(value)
            if tensor is not None:
                yield self._place(name, node, key, tensor)
            elif id(value) not in self.seen and _holds_items(value):
                yield from self.tensors(value, name)

    def _slots(self, node: Any) -> Iterator[Place]:
        for number, (key, value) in enumerate(mappings.items(mappings.get(node, "state"))):
            shown = number if type(key) is Record else key  # a Parameter itself
            if mappings.is_mapping(value):
                yield from self.tensors(value, f"state.{shown}")

    def _module(self, node: Any, name: str, parts: list[Part], above: frozenset[int]) -> None:
        if id(node) in above:
            raise UnreadableFile(f"its module {name!r} holds itself")
        state = modules.state_of(node)
        if state is None:
            return
        part = Part(name, modules.class_of(node), modules.attributes(state))
        perms = {}
        if is_transposed_linear(node):
            part.op, perms = "Linear", {"weight": TRANSPOSED}
        for key, value in modules.held(state, "_parameters"):
            self._hold(part, state["_parameters"], key, value, "weight", node, perms.get(key))
        for key, value in modules.held(state, "_buffers"):
            if modules.is_persistent(state, key):
                self._hold(part, state["_buffers"], key, value, "buffer", node)
        below = list(modules.held(state, "_modules"))
        if part.places or not below:
            self._count()
            parts.append(part)
        for key, child in below:
            self._module(child, _join(name, key), parts, above | {id(node)})

    def _hold(
        self, part: Part, holder: Any, key: str, value: Any, kind: Kind, module: Record,
        perm: tuple[int, ...] | None = None,
    ) -> None:  # fmt: skip
        tensor = tensor_of(value)
        if tensor is not None:
            name = _join(part.name, key)
            part.places.append(self._place(name, holder, key, tensor, perm, kind, module))

    def _place(self, *arguments: Any) -> Place:
        self._count()
        return Place(*arguments)

    def _count(self) -> None:
        self.count += 1
        if self.count > _MOST_PLACES:
            raise UnreadableFile(f"gives more than {_MOST_PLACES:,} names to its tensors")


def _grouped(places: Iterator[Place]) -> list[Part]:
    parts: dict[str, Part] = {}
    for place in places:
        name = place.name.rpartition(".")[0]
        parts.setdefault(name, Part(name)).places.append(place)
    return list(parts.values())


def _join(path: str, key: Any) -> str:
    text = str(key) if isinstance(key, (str, int, float, bool)) else type(key).__name__
    return f"{path}.{text}" if path else text


def _holds_items(node: Any) -> bool:
    return type(node) in (list, tuple) or mappings.is_mapping(node)


def _is_tensor(node: Any) -> bool:
    return tensor_of(node) is not None or unusual(node) is not None


def _is_weight(node: Any) -> bool:
    """A tensor that is more than a number or the state of a random generator."""
    tensor = tensor_of(node)
    return tensor is not None and bool(tensor.layout.shape) and tensor.layout.dtype.name != "uint8"


def _is_optimizer(node: Any) -> bool:
    """True for what `optimizer.state_dict()` gives, or the state of an optimizer."""
    if not mappings.is_mapping(node):
        return False
    groups = mappings.get(node, "param_groups")
    return type(groups) is list and mappings.is_mapping(mappings.get(node, "state"))
