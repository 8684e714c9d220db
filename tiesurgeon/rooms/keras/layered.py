"""Gives the layers of a skeleton their variables, from a list per layer (`.h5` of any age).

The weights of a top-level layer are one list, in an order that depends on what was frozen
when the file was written (see `slots`). The config may tell otherwise, so names and shapes
decide between the orders that are possible.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tiesurgeon.errors import UnreadableFile
from tiesurgeon.graph import Graph, Kind, Layer, Storage, Variable, View
from tiesurgeon.rooms.keras.layouts import gates_of, joined_gates
from tiesurgeon.rooms.keras.shapes import expected_shape, fits, told
from tiesurgeon.rooms.keras.slots import Slot, legacy_order, partition, slots
from tiesurgeon.rooms.keras.variables import is_built_in, is_known, own_places

Named = tuple[str, Storage]  # the weight's name in the file, and its numbers
Assigned = dict[str, list[View]]  # by layer path

BUFFERS = frozenset(
    {
        "moving_mean", "moving_variance", "moving_stddev", "renorm_mean", "renorm_stddev",
        "mean", "variance", "count", "vector_u",
    }
)  # fmt: skip
_ROLES = BUFFERS | {
    "kernel", "bias", "recurrent_kernel", "embeddings", "reverse_embeddings", "gamma", "beta",
    "alpha", "depthwise_kernel", "pointwise_kernel", "lora_kernel_a", "lora_kernel_b",
    "lora_embeddings_a", "lora_embeddings_b", "kernel_scale", "embeddings_scale",
}  # fmt: skip


def kind_of(role: str) -> Kind:
    """A buffer, which training moves without gradients, or a weight."""
    return "buffer" if role in BUFFERS else "weight"


def attach(graph: Graph, weights: Mapping[str, Sequence[Named]]) -> Graph:
    """The graph with views; `weights` maps top-level layer names to their lists in order.

    Raises UnreadableFile where a list does not fit its layer.
    """
    hand_out = _HandOut()
    wanted = _with_all_keys([slots(layer, layer.name) for layer in graph.layers])
    for layer, expected in zip(graph.layers, wanted, strict=True):
        # Keras 3 refuses "/" in names; the file's own name is kept beside the new one.
        dialect = layer.entry.get("dialect") or {}
        found = list(weights.get(str(dialect.get("name", layer.name)), ()))
        hand_out.fill(layer, expected, found)
    layers = (with_views(lay, lay.name, hand_out.views) for lay in graph.layers)
    return replace(graph, layers=tuple(layers))


@dataclass
class _HandOut:
    views: Assigned = field(default_factory=dict)
    shared: dict[Any, Variable] = field(default_factory=dict)

    def fill(self, layer: Layer, wanted: list[Slot], found: list[Named]) -> None:
        """Hands the list of one top-level layer out to it and to what it holds."""
        found = _gathered(layer, wanted, found)
        unique, repeated = _once_each(wanted)
        if len(wanted) == len(found):  # each copy of a shared layer was written
            unique, repeated = wanted, []
        if len(unique) == len(found):
            for slot, (_, storage) in _matched(layer, unique, found):
                self.give(slot, storage)
            for slot in repeated:
                self.views.setdefault(slot.path, []).append(
                    View(slot.role, self.shared[slot.shared])
                )
        elif not all(_has_list(lay) for lay in _leaves(layer)):
            self.by_name(layer, found)
        else:
            raise UnreadableFile(
                f"layer {layer.name!r} ({layer.op}) has {len(found)} weights in the file, but its "
                f"config asks for {len(unique)}; the file is damaged or of a kind not known here"
            )

    def give(self, slot: Slot, storage: Storage) -> None:
        """Adds the view; one variable for all that see the same layer object."""
        variable = None if slot.shared is None else self.shared.get(slot.shared)
        if variable is None or not _same_numbers(variable.storage, storage):
            name = f"{slot.path}/{slot.role}"
            variable = Variable(name, storage, slot.trainable, kind_of(slot.role))
            if slot.shared is not None:
                self.shared.setdefault(slot.shared, variable)
        self.views.setdefault(slot.path, []).append(View(slot.role, variable))

    def by_name(self, layer: Layer, found: list[Named]) -> None:
        """Custom layers: each weight goes to the deepest layer whose name its name holds."""
        owners = list(_paths(layer, layer.name))
        leaves = [owner.rsplit("/", 1)[-1] for owner in owners]
        parted = [name.split(":")[0].split("/") for name, _ in found]
        owned = [
            max((i for i, leaf in enumerate(leaves) if leaf in parts), default=0)
            for parts in parted
        ]
        first_frozen = _start_of_frozen(owned)
        for number, (name, storage) in enumerate(found):
            owner, leaf = owners[owned[number]], leaves[owned[number]]
            below = parted[number]
            while leaf in below and len(below) > 1:
                below = below[below.index(leaf) + 1 :]
            taken = {view.role for view in self.views.get(owner, [])}
            role = "/".join(below)
            role = name if role in taken else role
            trainable = number < first_frozen and bool(layer.config.get("trainable", True))
            variable = Variable(f"{owner}/{role}", storage, trainable)
            self.views.setdefault(owner, []).append(View(role, variable))


def _start_of_frozen(owned: list[int]) -> int:
    """Where a list "trainable layer by layer, then the others" begins anew."""
    falls = (i for i in range(1, len(owned)) if owned[i] < owned[i - 1])
    return next(falls, len(owned))


def _with_all_keys(wanted: list[list[Slot]]) -> list[list[Slot]]:
    """Slots over one layer object with one key: Keras 2 marks only the later ones."""
    keys = {_kind(slot): slot.shared for found in wanted for slot in found if slot.shared}
    return [
        [replace(slot, shared=slot.shared or keys.get(_kind(slot))) for slot in found]
        for found in wanted
    ]


def _kind(slot: Slot) -> tuple[str, str, str]:
    return slot.layer.name, slot.layer.op, slot.role


def _gathered(layer: Layer, wanted: list[Slot], found: list[Named]) -> list[Named]:
    """The list; the gates of Keras 1 are joined to fit the slots where the file holds each."""
    separate = [slot for slot in wanted for _ in range(gates_of(slot.layer))]
    if len(separate) == len(wanted) or len(separate) != len(found):
        return found
    return joined_gates(legacy_order(layer, wanted), found)


def _once_each(wanted: list[Slot]) -> tuple[list[Slot], list[Slot]]:
    """Slots, the later ones of a shared layer apart: one list names a variable only once."""
    seen: set[Any] = set()
    unique: list[Slot] = []
    repeated: list[Slot] = []
    for slot in wanted:
        (repeated if slot.shared in seen else unique).append(slot)
        if slot.shared is not None:
            seen.add(slot.shared)
    return unique, repeated


def _matched(layer: Layer, wanted: list[Slot], found: list[Named]) -> Iterator[tuple[Slot, Named]]:
    """Each slot with its weight: by the first order in which names and shapes agree."""
    owners = {path.rsplit("/", 1)[-1] for path in _paths(layer, layer.name)}
    orders = [legacy_order(layer, wanted), legacy_order(layer, wanted, trained="reloaded")]
    orders += [partition(wanted, "trainable"), partition(wanted, "by_kind"), wanted]
    for order in orders:
        pairs = list(zip(order, found, strict=True))
        if all(_shape_fits(s, f) and _name_fits(s, f[0], owners) for s, f in pairs):
            return iter(pairs)
    by_name = _by_full_name(wanted, found, owners)
    if by_name is not None:
        return iter(by_name)
    for order in orders:
        pairs = list(zip(order, found, strict=True))
        if all(_shape_fits(slot, item) for slot, item in pairs):
            return iter(pairs)
    raise _misfit(list(zip(orders[0], found, strict=True)))


def _by_full_name(
    wanted: list[Slot], found: list[Named], owners: set[str]
) -> list[tuple[Slot, Named]] | None:
    pairs = []
    for slot in wanted:
        own = [item for item in found if _name_fits(slot, item[0], owners)]
        if len(own) != 1 or not _shape_fits(slot, own[0]):
            return None
        pairs.append((slot, own[0]))
    return pairs if len({name for _, (name, _) in pairs}) == len(found) else None


def _misfit(pairs: list[tuple[Slot, Named]]) -> UnreadableFile:
    slot, (_, storage) = next(pair for pair in pairs if not _shape_fits(*pair))
    expected = told(expected_shape(slot.layer, slot.role))
    return UnreadableFile(
        f"weight {slot.path}/{slot.role} has shape {list(storage.shape)}, but the config of "
        f"{slot.layer.op} {slot.layer.name!r} asks for {expected}; the file is damaged"
    )


def _shape_fits(slot: Slot, item: Named) -> bool:
    if {"cudnn", "keras1"} & set(slot.layer.entry.get("dialect") or {}):
        return True  # of another layout, which `keras1` brings into today's
    return fits(item[1].shape, expected_shape(slot.layer, slot.role))


def _name_fits(slot: Slot, name: str, owners: set[str]) -> bool:
    """False if the weight's name in the file speaks of another role or another layer."""
    *folders, tail = name.split(":")[0].split("/")
    part, _, role = slot.role.rpartition("/")
    tail = re.sub(r"_\d+$", "", tail)  # Keras numbers names that are taken
    if tail in _ROLES and tail != role:
        return False
    # attention's output projection is called attention_output
    if part and len(folders) > 1 and not any(folder.endswith(part) for folder in folders):
        return False
    named = owners.intersection(folders)
    path = slot.path.split("/")
    return not named or path[-1] in named or (len(path) == 1 and path[0] in named)


def _same_numbers(one: Storage, other: Storage) -> bool:
    return (
        one.shape == other.shape
        and one.dtype == other.dtype
        and one.load().tobytes() == other.load().tobytes()
    )


def _leaves(layer: Layer) -> Iterator[Layer]:
    if not layer.inner and layer.body is None:
        yield layer
    for inner in layer.inner:
        yield from _leaves(inner)
    for nested in layer.body.layers if layer.body is not None else ():
        yield from _leaves(nested)


def _has_list(layer: Layer) -> bool:
    # A stock layer that is not in the table holds nothing; a custom one may hold anything.
    return is_known(layer) or (is_built_in(layer) and layer.entry.get("module") is not None)


def _paths(layer: Layer, path: str) -> Iterator[str]:
    yield path
    for inner in layer.inner:
        yield from _paths(inner, f"{path}/{inner.name}")
    for nested in layer.body.layers if layer.body is not None else ():
        yield from _paths(nested, f"{path}/{nested.name}")


def with_views(layer: Layer, path: str, views: Mapping[str, list[View]]) -> Layer:
    """The layer, and all it holds, with the views found for their paths."""
    body = layer.body
    if body is not None:
        nested = tuple(with_views(lay, f"{path}/{lay.name}", views) for lay in body.layers)
        body = replace(body, layers=nested)
    return replace(
        layer,
        views=_in_order(layer, views.get(path, [])),
        inner=tuple(with_views(lay, f"{path}/{lay.name}", views) for lay in layer.inner),
        body=body,
    )


def _in_order(layer: Layer, views: list[View]) -> tuple[View, ...]:
    """Views in the order of the table: a list of trainable ones first may have mixed them."""
    roles = [place.role for place in own_places(layer)]
    return tuple(sorted(views, key=lambda view: roles.index(view.role)) if roles else views)
