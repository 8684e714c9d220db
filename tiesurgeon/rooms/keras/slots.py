"""The variables a layer expects, through all that it wraps and nests, in the orders of `.h5`.

Keras writes the weights of each top-level layer as one list: trainable ones first, then the
others (legacy_h5_format.py, `_legacy_weights`). Reader and writer both go by this module.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tiesurgeon.graph import Layer
from tiesurgeon.rooms.keras.variables import Place, is_known, own_places


@dataclass(frozen=True, eq=False)
class Slot:
    """One variable that a layer expects; `layer` is the one that holds it, at `path`.

    `trainable` is what training would do to it, `reloaded` what Keras makes of it after
    loading the config, `by_kind` what it is where nobody froze anything. `shared` is equal
    for two slots over one layer object.
    """

    layer: Layer
    path: str
    place: Place
    trainable: bool
    reloaded: bool
    by_kind: bool
    shared: Any = None

    @property
    def role(self) -> str:
        """The holder's own name for it."""
        return self.place.role


def slots(layer: Layer, path: str) -> list[Slot]:
    """All slots in the order of Keras' `layer.weights`: own ones, then those of sublayers."""
    return list(_slots(layer, path, None))


def _slots(layer: Layer, path: str, anchor: tuple[Any, int] | None) -> Iterator[Slot]:
    shared = layer.entry.get("shared_object_id")
    if isinstance(shared, (int, str)):
        anchor = (shared, len(path))
    if layer.op == "SpectralNormalization" and is_known(layer) and layer.inner:
        yield from _spectral(layer, path, anchor)
        return
    for place in places_of(layer):
        yield _slot(layer, path, place, anchor)
    for inner in layer.inner:
        yield from _slots(inner, f"{path}/{inner.name}", anchor)
    for nested in layer.body.layers if layer.body is not None else ():
        yield from _slots(nested, f"{path}/{nested.name}", anchor)


def places_of(layer: Layer) -> list[Place]:
    """The layer's own places; of a layer that is not known, those that its views were read from."""
    if is_known(layer):
        return own_places(layer)
    return [
        Place(view.role, "", number, view.variable.trainable)
        for number, view in enumerate(layer.views)
    ]


def _slot(layer: Layer, path: str, place: Place, anchor: tuple[Any, int] | None) -> Slot:
    # Keras hands `trainable` down when it is set, so each layer's own word is the true one.
    alive = bool(layer.config.get("trainable", True))
    # Parts are made anew on loading, and made trainable, whatever their owner's config says.
    reloaded = place.trainable and (alive or place.is_of_part)
    key = None if anchor is None else (anchor[0], path[anchor[1] :], place.role)
    return Slot(layer, path, place, place.trainable and alive, reloaded, place.trainable, key)


def _spectral(layer: Layer, path: str, anchor: tuple[Any, int] | None) -> Iterator[Slot]:
    """The wrapper tracks the wrapped matrix as its own, so that one comes first."""
    inner = layer.inner[0]
    wrapped = list(_slots(inner, f"{path}/{inner.name}", anchor))
    matrix = [slot for slot in wrapped if slot.role in ("kernel", "embeddings")][:1]
    yield from matrix
    for place in own_places(layer):
        yield _slot(layer, path, place, anchor)
    yield from (slot for slot in wrapped if slot not in matrix)


def legacy_order(top: Layer, found: list[Slot], *, trained: str = "trainable") -> list[Slot]:
    """The slots of a top-level layer as `_legacy_weights` lists them.

    `trained` names the attribute of `Slot` that says which ones come first.
    """
    own = top.config if top.body is None else top.body.config
    if not own.get("trainable", True):
        return found
    return partition(found, trained)


def partition(found: list[Slot], attribute: str) -> list[Slot]:
    """Those slots first of which the attribute is true."""
    return [s for s in found if getattr(s, attribute)] + [
        s for s in found if not getattr(s, attribute)
    ]
