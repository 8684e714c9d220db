"""Masks that a file spells out as `keras.ops` nodes, read back as what they say.

Keras 3 writes the masks that it computed while the model was built into the graph: NotEqual,
Any, LogicalOr, and for Concatenate a longer pattern. Read as `Mask`s they are the same masks
that the rules give, so that each is computed once, in the simplest form.
"""

from __future__ import annotations

from typing import Any

from tiesurgeon.graph import Call, Graph, Layer, Value
from tiesurgeon.mapping.keras_operations import is_operation
from tiesurgeon.mapping.mask_rules import Mask, concatenated, either


def recognise(graph: Graph, value: Value) -> Mask:
    """The mask that a boolean value of the graph is; `given` where it is not one of Keras'."""
    return _Reading(graph).mask(value) or Mask("given", (value,))


class _Reading:
    def __init__(self, graph: Graph) -> None:
        self.graph = graph

    def mask(self, value: Value) -> Mask | None:
        call, layer = self._operation(value)
        if call is None or layer is None:
            return None
        if layer.op == "NotEqual" and _is_value_and(call, 0):
            return Mask("ids", (call.args[0],))
        if layer.op == "ConvertToTensor":
            return self.mask(call.inputs[0])
        if layer.op == "LogicalOr":
            parts = [self.mask(part) for part in call.inputs]
            known = [part for part in parts if part is not None]
            return either(known) if len(known) == 2 else None
        if layer.op == "Any" and _axis(layer) == -1:
            return self._steps(call.inputs[0]) or self._joined(call.inputs[0])
        return None

    def _operation(self, value: Value) -> tuple[Call | None, Layer | None]:
        call = self.graph.call_by_id[value.call]
        layer = self.graph.layer(call.layer)
        return (call, layer) if is_operation(layer) else (None, None)

    def _steps(self, value: Value) -> Mask | None:
        """`any(x != fill, axis=-1)`: what Masking says."""
        call, layer = self._operation(value)
        if call is None or layer is None or layer.op != "NotEqual":
            return None
        steps, fill = call.args if len(call.args) == 2 else (None, None)
        if isinstance(steps, Value) and isinstance(fill, (int, float)):
            return Mask("steps", (steps, fill))
        return None

    def _joined(self, value: Value) -> Mask | None:
        """`any(concatenate(masks spread over their inputs), axis=-1)`: what Concatenate says."""
        call, layer = self._operation(value)
        if call is None or layer is None or layer.op != "Concatenate":
            return None
        spread = [self._spread(part) for part in call.inputs]
        known = [part for part in spread if part is not None]
        if len(known) < len(spread):
            return None
        values, masks = [steps for _, steps in known], [mask for mask, _ in known]
        return concatenated(layer.config.get("axis", -1), values, masks)

    def _spread(self, value: Value) -> tuple[Mask | None, Value] | None:
        """A mask as `mask[..., None] | zeros_like(x)`, and x; None for the mask where it is
        `ones_like(x)`."""
        call, layer = self._operation(value)
        if call is None or layer is None:
            return None
        if layer.op == "OnesLike":
            return None, call.inputs[0]
        if layer.op != "LogicalOr":
            return None
        (expanded, how), (zeros, like) = (self._operation(part) for part in call.inputs)
        if expanded is None or how is None or zeros is None or like is None:
            return None
        if how.op != "ExpandDims" or _axis(how) != -1 or like.op != "ZerosLike":
            return None
        mask = self.mask(expanded.inputs[0])
        return None if mask is None else (mask, zeros.inputs[0])


def _is_value_and(call: Call, number: float) -> bool:
    return len(call.args) == 2 and isinstance(call.args[0], Value) and call.args[1] == number


def _axis(layer: Layer) -> Any:
    axis = layer.config.get("axis")
    return axis[0] if isinstance(axis, (list, tuple)) and len(axis) == 1 else axis
