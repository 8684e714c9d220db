"""The tied layers that people copy from forums, read as the Dense layers they stand for.

`TiedEmbeddingsTransposed(tied_to=embedding)` (NMT-Keras) and `DenseTied(tied_to=encoder)`
(many autoencoder posts) hold a live layer, which no file can store. What they compute is a
Dense with the other layer's matrix transposed, a bias of their own if any, and an activation.
"""

from __future__ import annotations

import re
from dataclasses import replace

from tiesurgeon.errors import ShapeMismatch, TieRefused
from tiesurgeon.graph import Graph, Layer, Storage, Variable, View
from tiesurgeon.rooms.keras.tied.parts import built_in

_LOOKS_TIED = re.compile(r"tied|transpos", re.IGNORECASE)
_TRANSPOSED = (1, 0)


def is_recipe(layer: Layer) -> bool:
    """True for a custom layer whose class name or config says that it borrows a matrix."""
    if str(layer.entry.get("module") or "").startswith("keras.layers"):
        return False
    names_source = any(key in layer.config for key in ("tied_to", "tied_layer", "tie_to"))
    return names_source or bool(_LOOKS_TIED.search(layer.op))


def as_dense(graph: Graph, path: str, source: Variable) -> Graph:
    """The graph with the custom layer at `path` replaced by a Dense, not tied yet.

    Raises TieRefused if the layer is not of this kind, ShapeMismatch if its own weights do
    not fit the source's, of shape (V, H) or (in, out).
    """
    layers = tuple(_replaced(layer, path, path, source) for layer in graph.layers)
    return replace(graph, layers=layers)


def _replaced(layer: Layer, path: str, full_path: str, source: Variable) -> Layer:
    if path == layer.name:
        return _dense(layer, full_path, source)
    if not path.startswith(f"{layer.name}/"):
        return layer
    rest = path.removeprefix(f"{layer.name}/")
    body = layer.body
    if body is not None:
        nested = (_replaced(lay, rest, full_path, source) for lay in body.layers)
        body = replace(body, layers=tuple(nested))
    inner = tuple(_replaced(lay, rest, full_path, source) for lay in layer.inner)
    changed = replace(layer, body=body, inner=inner)
    if layer.op == "TimeDistributed" and inner and inner[0].op == "Dense":
        wrapped = {
            "module": "keras.layers",
            "class_name": "Dense",
            "config": inner[0].config,
            "registered_name": None,
        }
        changed = replace(changed, config={**layer.config, "layer": wrapped})
    return changed


def _dense(layer: Layer, path: str, source: Variable) -> Layer:
    if not is_recipe(layer):
        raise TieRefused(
            f"{layer.name!r} is a custom layer ({layer.op}), and what it computes is not known; "
            "only those that say tied_to, or have Tied or Transposed in their name, are projections"
        )
    inputs, units = source.shape[1], source.shape[0]
    biases = [view for view in layer.views if view.shape == (units,)]
    views: tuple[View, ...] = (View("kernel", *_kernel(layer, path, source, (inputs, units))),)
    if biases:
        views += (View("bias", biases[0].variable),)
    config = {
        "units": units,
        "activation": layer.config.get("activation") or "linear",
        "use_bias": bool(biases),
        **{key: layer.config[key] for key in ("dtype",) if layer.config.get(key)},
    }
    return built_in("Dense", layer.name, views, **config)


def _kernel(
    layer: Layer, path: str, source: Variable, shape: tuple[int, int]
) -> tuple[Variable, tuple[int, ...] | None]:
    """The layer's own copy of the transposed matrix; made from the source if it has none."""
    own = [view.variable for view in layer.views if len(view.shape) == 2]
    if not own:
        stored = source.storage
        copy = Storage(stored.key, shape, stored.dtype, lambda: stored.load().transpose(1, 0))
        return Variable(f"{path}/kernel", copy, source.trainable), None
    if own[0].shape not in (shape, shape[::-1]):
        raise ShapeMismatch(
            f"{layer.name!r} holds a matrix of shape {own[0].shape}, expected {shape}"
        )
    # Listed as not trainable, since the other layer trains it: that is what a tie means.
    kernel = replace(own[0], trainable=source.trainable)
    return kernel, None if own[0].shape == shape else _TRANSPOSED
