"""The built-in layers that a tied projection is put together from.

Names say what each is for: `<head>_bias`, `<head>_zero`, and the last one is the head itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from tiesurgeon.errors import TieRefused
from tiesurgeon.graph import Call, Graph, Layer, Value, View
from tiesurgeon.mapping.mask_recognition import recognise
from tiesurgeon.mapping.mask_rules import Mask
from tiesurgeon.rewiring import Rewiring
from tiesurgeon.rooms.keras.masks import Untraceable, mask_of

OPERATIONS = "keras.src.ops.numpy"


def built_in(op: str, name: str, views: tuple[View, ...] = (), **config: Any) -> Layer:
    """A layer of `keras.layers`."""
    entry = {"module": "keras.layers", "registered_name": None}
    return Layer(name, op, {"name": name, "trainable": True, **config}, views, entry=entry)


def operation(op: str, name: str, **config: Any) -> Layer:
    """A `keras.ops` node. Without the module, stock Keras cannot find it again."""
    entry = {"module": OPERATIONS, "registered_name": op}
    return Layer(name, op, {"name": name, **config}, entry=entry)


class Tail:
    """What a Dense does after its product: bias, activation, and keeping the mask.

    `head` is that Dense, under the name its last layer is to have, as losses and
    sub-models refer to it. One Tail serves every call of the head. `graph` is the model
    as it was, `calls` the calls of the head there.
    """

    def __init__(
        self, rewiring: Rewiring, head: Layer, graph: Graph, calls: Sequence[Call]
    ) -> None:
        self.rewiring = rewiring
        self.head = head
        self.masks = {call.id: _mask(graph, call, head) for call in calls}
        ids = {call.id: _same_steps(graph, call.inputs[0]) for call in calls}
        self.ids = None if None in ids.values() else ids
        policy = head.config.get("dtype")
        self.dtype: dict[str, Any] = {"dtype": policy} if policy else {}
        self.zero, self.bias, self.last = self._layers()

    def _layers(self) -> tuple[Layer | None, Layer | None, Layer]:
        head, fresh = self.head, self.rewiring.fresh
        bias = head.view("bias")
        last = self._last(is_added=bias is not None)
        if bias is None:
            return None, None, last
        zero = {"scale": 0.0, "offset": 0.0, **(self.dtype if self.ids is None else _INT32)}
        return (
            built_in("Rescaling", fresh(f"{head.name}_zero"), **zero),
            self._bias(fresh(f"{head.name}_bias"), bias),
            last,
        )

    def _bias(self, name: str, bias: View) -> Layer:
        """One trainable number per output, in layers that stock Keras has.

        Where the model's ids have the steps of the logits, a lookup in a table of one
        row: the quickest. Elsewhere LayerNormalization of zeros, which gives its `beta`.
        """
        prefix = "beta" if self.ids is None else "embeddings"
        config: dict[str, Any] = {
            "trainable": bool(self.head.config.get("trainable", True)),
            f"{prefix}_regularizer": self.head.config.get("bias_regularizer"),
            f"{prefix}_constraint": self.head.config.get("bias_constraint"),
            **self.dtype,
        }
        if self.ids is None:
            views = (View("beta", bias.variable),)
            config |= {"axis": -1, "scale": False, "center": True}
            return built_in("LayerNormalization", name, views, **config)
        units = bias.shape[0]
        views = (View("embeddings", bias.variable, reshape=(1, units)),)
        config |= {"input_dim": 1, "output_dim": units, "embeddings_initializer": "zeros"}
        return built_in("Embedding", name, views, **config)

    def _last(self, *, is_added: bool) -> Layer:
        head, name = self.head, self.head.name
        activation = head.config.get("activation") or "linear"
        regularizer = head.config.get("activity_regularizer")
        extra = {} if regularizer is None else {"activity_regularizer": regularizer}
        if any(self.masks.values()):
            inner = built_in(
                "Activation", f"{name}_activation", activation=activation, **self.dtype
            )
            return _time_distributed(name, inner, {**extra, **self.dtype})
        if activation != "linear" or extra:
            return built_in("Activation", name, activation=activation, **extra, **self.dtype)
        return built_in("Add" if is_added else "Identity", name, **self.dtype)

    def add(self, product: Value, call: Call) -> Value:
        """What comes in the place of `call`, one of the head's, given its product."""
        if self.zero is not None and self.bias is not None:
            zeros = self.rewiring.add(self.zero, product if self.ids is None else self.ids[call.id])
            offset = self.rewiring.add(self.bias, zeros)
            if self.last.op == "Add":
                return self.rewiring.add(self.last, [product, offset])
            logits = built_in("Add", f"{self.head.name}_logits", **self.dtype)
            product = self.rewiring.add(logits, [product, offset])
        mask = self.masks[call.id]
        kwargs = {} if mask is None else {"mask": _mask_tensor(self.rewiring, self.head.name, mask)}
        return self.rewiring.add(self.last, product, kwargs=kwargs)


_INT32 = {"dtype": "int32"}


def _mask(graph: Graph, call: Call, head: Layer) -> Mask | None:
    given = call.kwargs.get("mask")
    try:
        if isinstance(given, Value):  # a TimeDistributed may be told its mask
            return _simple(recognise(graph, given), given)
        return mask_of(graph, call.inputs[0])
    except Untraceable as cause:
        raise TieRefused(
            f"{head.name!r}: a mask may reach it through {cause}, and what becomes of it there "
            "cannot be told, so the tied projection could lose it"
        ) from None


def _simple(mask: Mask, value: Value) -> Mask:
    """A mask that is not made anew from ids or steps is taken as the tensor that it is."""
    return mask if mask.kind in ("ids", "steps") else Mask("given", (value,))


def _time_distributed(name: str, inner: Layer, config: Mapping[str, Any]) -> Layer:
    """The one wrapper that takes a mask by hand: ReversibleEmbedding drops it in reverse."""
    wrapped = {
        "module": "keras.layers",
        "class_name": inner.op,
        "config": inner.config,
        "registered_name": None,
    }
    layer = built_in("TimeDistributed", name, layer=wrapped, **config)
    return replace(layer, inner=(inner,))


def _mask_tensor(rewiring: Rewiring, name: str, mask: Mask) -> Value:
    """The mask as a value: given, ids that are not 0, or steps that are not all `fill`."""
    if mask.kind == "given":
        return rewiring.now(mask.parts[0])
    is_set = operation("NotEqual", rewiring.fresh(f"{name}_mask"))
    if mask.kind == "ids":
        return rewiring.add(is_set, rewiring.now(mask.parts[0]), 0)
    values, fill = mask.parts
    differs = rewiring.add(is_set, rewiring.now(values), fill)
    step = operation("Any", rewiring.fresh(f"{name}_step"), axis=-1, keepdims=False)
    return rewiring.add(step, differs)


_KEEP_STEPS = frozenset(
    {
        "Dense", "LSTM", "GRU", "SimpleRNN", "RNN", "Bidirectional", "TimeDistributed", "Dropout",
        "SpatialDropout1D", "GaussianDropout", "GaussianNoise", "AlphaDropout", "Activation",
        "ReLU", "LeakyReLU", "ELU", "PReLU", "Softmax", "LayerNormalization", "Identity",
        "BatchNormalization", "RMSNormalization", "UnitNormalization", "Rescaling", "Masking",
        "MultiHeadAttention", "GroupQueryAttention", "Add", "Concatenate", "Attention",
    }
)  # fmt: skip


def _same_steps(graph: Graph, hidden: Value) -> Value | None:
    """The ids whose (batch, steps) are those of `hidden`; None where that is not certain."""
    call = graph.call_by_id[hidden.call]
    layer = graph.layer(call.layer)
    if layer.op == "Embedding":
        ids = call.inputs[0]
        return ids if graph.layer(graph.call_by_id[ids.call].layer).op == "InputLayer" else None
    if layer.op not in _KEEP_STEPS or hidden.index > 0 or not call.inputs:
        return None
    if layer.op in ("LSTM", "GRU", "SimpleRNN", "RNN", "Bidirectional"):
        config = layer.inner[0].config if layer.op == "Bidirectional" else layer.config
        if not config.get("return_sequences"):
            return None
    if layer.op == "Concatenate" and layer.config.get("axis", -1) != -1:
        return None
    if layer.op == "Add" and len({_same_steps(graph, value) for value in call.inputs}) > 1:
        return None
    return _same_steps(graph, call.inputs[0])
