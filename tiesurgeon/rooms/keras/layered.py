"""Gives the layers of a skeleton their variables, from a list per layer (`.h5` of any age).

Keras writes the weights of each top-level layer as one list: trainable ones first, then
the others, through wrappers and nested models (legacy_h5_format.py, `_legacy_weights`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tiesurgeon.errors import UnreadableFile
from tiesurgeon.graph import Graph, Layer, Storage, Variable, View
from tiesurgeon.rooms.keras.variables import is_known, own_places

Named = tuple[str, Storage]  # the weight's name in the file, and its numbers
Assigned = dict[str, list[View]]  # by layer path


@dataclass(frozen=True)
class Slot:
    """One variable that a layer expects."""

    path: str
    role: str
    trainable: bool
    shared_id: Any = None


def attach(graph: Graph, weights: Mapping[str, Sequence[Named]]) -> Graph:
    """The graph with views; `weights` maps top-level layer names to their lists in order.

    Raises UnreadableFile where a list does not fit its layer.
    """
    views: Assigned = {}
    shared: dict[Any, Variable] = {}
    for layer in graph.layers:
        # Keras 3 refuses "/" in names; the file's own name is kept beside the new one.
        name = (layer.entry.get("dialect") or {}).get("name", layer.name)
        fill(layer, list(weights.get(name, ())), views, shared)
    return replace(graph, layers=tuple(with_views(lay, lay.name, views) for lay in graph.layers))


def fill(
    layer: Layer, found: list[Named], views: Assigned, shared: dict[Any, Variable]
) -> None:
    """Hands the list of one top-level layer out to it and to what it holds."""
    slots = list(_slots(layer, layer.name, trainable=True))
    if len(slots) == len(found):
        order = _best_order(slots, found)
        for slot, (_, storage) in zip(order, found, strict=True):
            _give(slot, storage, views, shared)
    elif not all(_has_list(lay) for lay in _leaves(layer)):
        _by_name(layer, found, views)
    else:
        raise UnreadableFile(
            f"layer {layer.name!r} ({layer.op}) has {len(found)} weights in the file, but its "
            f"config asks for {len(slots)}; the file is damaged or of a kind not known here"
        )


def _slots(layer: Layer, path: str, *, trainable: bool, shared: Any = None) -> Iterator[Slot]:
    trainable = trainable and bool(layer.config.get("trainable", True))
    shared = layer.entry.get("shared_object_id", shared)
    for place in own_places(layer):
        key = None if shared is None else (shared, path.rsplit("/", 1)[-1], place.role)
        yield Slot(path, place.role, trainable and place.trainable, key)
    for inner in layer.inner:
        yield from _slots(inner, f"{path}/{inner.name}", trainable=trainable)
    if layer.body is not None:
        trainable = trainable and bool(layer.body.config.get("trainable", True))
        for nested in layer.body.layers:
            yield from _slots(nested, f"{path}/{nested.name}", trainable=trainable)


def _best_order(slots: list[Slot], found: list[Named]) -> list[Slot]:
    """Trainable first, as Keras writes them; else layer by layer, if only that fits the names.

    A layer that was frozen when the file was written, and is not so in its config, makes
    the difference.
    """
    legacy = [s for s in slots if s.trainable] + [s for s in slots if not s.trainable]
    natural = [s for s in slots if not s.role.startswith("moving_")]
    natural += [s for s in slots if s.role.startswith("moving_")]
    for order in (legacy, slots, natural):
        if all(_fits(slot.role, name) for slot, (name, _) in zip(order, found, strict=True)):
            return order
    return legacy


def _fits(role: str, name: str) -> bool:
    # "lstm/lstm_cell/kernel:0" fits "kernel"; names of other styles tell nothing.
    tail = name.rsplit("/", 1)[-1].split(":")[0].rstrip("_0123456789")
    return tail.endswith(role.rsplit("/", 1)[-1]) and (
        role.startswith("recurrent") == tail.startswith("recurrent")
    )


def _give(slot: Slot, storage: Storage, views: Assigned, shared: dict[Any, Variable]) -> None:
    variable = shared.get(slot.shared_id) if slot.shared_id is not None else None
    if variable is None:
        kind = "weight" if slot.role not in BUFFERS else "buffer"
        variable = Variable(f"{slot.path}/{slot.role}", storage, slot.trainable, kind)
        if slot.shared_id is not None:
            shared[slot.shared_id] = variable
    views.setdefault(slot.path, []).append(View(slot.role, variable))


BUFFERS = frozenset({"moving_mean", "moving_variance", "mean", "variance", "count"})


def _leaves(layer: Layer) -> Iterator[Layer]:
    if not layer.inner and layer.body is None:
        yield layer
    for inner in layer.inner:
        yield from _leaves(inner)
    if layer.body is not None:
        for nested in layer.body.layers:
            yield from _leaves(nested)


def _has_list(layer: Layer) -> bool:
    # A stock layer that is not in the table holds nothing; a custom one may hold anything.
    stock = str(layer.entry.get("module") or "").startswith("keras")
    return is_known(layer) or (stock and layer.entry.get("registered_name") in (None, layer.op))


def _by_name(layer: Layer, found: list[Named], views: Assigned) -> None:
    """Custom layers: each weight goes to the deepest layer whose name its name holds."""
    owners = list(_paths(layer, layer.name))
    for name, storage in found:
        parts = name.split(":")[0].split("/")
        owner = next((p for p in reversed(owners) if p.rsplit("/", 1)[-1] in parts), layer.name)
        role = parts[-1] if parts[-1] not in {v.role for v in views.get(owner, [])} else name
        variable = Variable(f"{owner}/{role}", storage)
        views.setdefault(owner, []).append(View(role, variable))


def _paths(layer: Layer, path: str) -> Iterator[str]:
    yield path
    for inner in layer.inner:
        yield from _paths(inner, f"{path}/{inner.name}")
    if layer.body is not None:
        for nested in layer.body.layers:
            yield from _paths(nested, f"{path}/{nested.name}")


def with_views(layer: Layer, path: str, views: Mapping[str, list[View]]) -> Layer:
    """The layer, and all it holds, with the views found for their paths."""
    body = layer.body
    if body is not None:
        nested = tuple(with_views(lay, f"{path}/{lay.name}", views) for lay in body.layers)
        body = replace(body, layers=nested)
    return replace(
        layer,
        views=tuple(views.get(path, ())),
        inner=tuple(with_views(lay, f"{path}/{lay.name}", views) for lay in layer.inner),
        body=body,
    )
