"""`keras.ops` nodes: in a Keras graph they stand among the layers, and are none."""

from __future__ import annotations

from tiesurgeon.graph import Layer

_MODULES = ("keras.src.ops", "keras.ops")


def is_operation(layer: Layer) -> bool:
    """True for a `keras.ops` node, which holds no weights and hands on no mask."""
    return str(layer.entry.get("module") or "").startswith(_MODULES)
