"""What each Keras layer makes of a mask: the rules of Keras 3.15.1's `compute_mask`.

A mask that is true everywhere counts as none: no layer tells the two apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tiesurgeon.graph import Call, Layer, Value, values_in
from tiesurgeon.mapping.keras_operations import is_operation

# Layers with supports_masking and the default compute_mask, which hands the mask on.
PASSING = frozenset(
    """
    Activation ActivityRegularization AlphaDropout BatchNormalization Dense Dropout ELU
    GaussianDropout GaussianNoise GroupNormalization GroupQueryAttention Identity
    LayerNormalization LeakyReLU MultiHeadAttention Normalization PReLU ReLU Rescaling Softmax
    SpatialDropout1D SpatialDropout2D SpatialDropout3D TimeDistributed UnitNormalization
    """.split()
)
MERGING = frozenset(("Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum"))
RECURRENT = frozenset(("LSTM", "GRU", "SimpleRNN", "RNN", "Bidirectional"))
ATTENTION = frozenset(("MultiHeadAttention", "GroupQueryAttention"))


@dataclass(frozen=True)
class Mask:
    """How a mask comes about; it becomes calls only when a layer uses it.

    kind and parts: given (value); input (number of the graph's input); ids (value: where it
    is not 0); steps (value, fill: steps that differ anywhere); or (masks); joined (masks, along
    time); ones (value: true for each of its steps); nested (call id, number of the output).
    """

    kind: str
    parts: tuple[Any, ...]


def output_masks(layer: Layer, call: Call, masks: Sequence[Mask | None]) -> list[Mask | None]:
    """The masks of a layer's outputs, given those of its first argument."""
    if is_operation(layer):
        return [None]
    config = layer.config
    values = list(values_in(call.args[:1]))
    first = masks[0] if masks else None
    if layer.op == "Embedding" and config.get("mask_zero"):
        return [Mask("ids", (values[0],))]
    if layer.op == "ReversibleEmbedding":
        forward = config.get("mask_zero") and not _reversed(call)
        return [Mask("ids", (values[0],)) if forward else None]
    if layer.op == "Masking":
        return [Mask("steps", (values[0], config.get("mask_value", 0.0)))]
    if layer.op in PASSING or layer.op in ("Attention", "AdditiveAttention"):
        return [first]
    if layer.op in RECURRENT:
        return _recurrent(layer, first)
    if layer.op in MERGING:
        known = [mask for mask in masks if mask is not None]
        return [either(known) if len(known) == len(masks) else None]
    if layer.op == "Concatenate" and any(masks):
        return [concatenated(config.get("axis", -1), values, masks)]
    return [None]


def uses_of(layer: Layer, call: Call, masks: dict[Value, Mask | None]) -> dict[str, Any]:
    """The mask arguments that Keras fills in for this call: a mask, or a list of them. (Multiply,
    Maximum and Minimum have no such argument: they look at the masks of their inputs.)"""
    if is_operation(layer):
        return {}
    if layer.op in RECURRENT | {"GlobalAveragePooling1D", "Softmax"}:
        # With initial_state among the arguments Keras looks for `sequences_mask`, finds no
        # such parameter, and leaves the mask out.
        if len(call.inputs) > 1:
            return {}
        return _only_masks({"mask": masks.get(call.inputs[0])})
    if layer.op in ("Multiply", "Maximum", "Minimum"):
        found = [masks.get(value) for value in values_in(call.args[:1])]
        return {"mask": found} if any(found) else {}
    if layer.op in ("Attention", "AdditiveAttention") and call.kwargs.get("mask") is None:
        found = [masks.get(value) for value in values_in(call.args[:1])]
        return {"mask": found} if any(found) else {}
    if layer.op in ATTENTION:
        names = ("query", "value", "key")
        given = dict(zip(names, call.args, strict=False)) | dict(call.kwargs)
        found_by_name = {
            f"{name}_mask": masks.get(given[name])
            for name in names
            if isinstance(given.get(name), Value) and given.get(f"{name}_mask") is None
        }
        return _only_masks(found_by_name)
    return {}


def _only_masks(found: dict[str, Mask | None]) -> dict[str, Mask]:
    return {name: mask for name, mask in found.items() if mask is not None}


def _reversed(call: Call) -> bool:
    return bool(call.kwargs.get("reverse") or (len(call.args) > 1 and call.args[1] is True))


def _recurrent(layer: Layer, mask: Mask | None) -> list[Mask | None]:
    config = layer.inner[0].config if layer.op == "Bidirectional" else layer.config
    if not config.get("return_sequences"):
        return []
    two = layer.op == "Bidirectional" and layer.config.get("merge_mode", "concat") is None
    return [mask, mask] if two else [mask]


def either(masks: Sequence[Mask]) -> Mask:
    """True where any of the masks is."""
    distinct = tuple(dict.fromkeys(masks))
    return distinct[0] if len(distinct) == 1 else Mask("or", distinct)


def concatenated(axis: int, values: list[Value], masks: Sequence[Mask | None]) -> Mask | None:
    """Along features a step counts where any part has it; along time the masks are joined."""
    known = [mask for mask in masks if mask is not None]
    if axis in (1, -2):
        pairs = zip(masks, values, strict=True)
        return Mask("joined", tuple(mask or Mask("ones", (value,)) for mask, value in pairs))
    return either(known) if len(known) == len(masks) else None
