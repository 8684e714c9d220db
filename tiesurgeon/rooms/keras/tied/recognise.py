"""The forms that `realise` writes -> the plain layers they stand for.

`ReversibleEmbedding` becomes an Embedding, and each of its `reverse` calls, with the bias
and activation that follow, a Dense whose kernel is a transposed view of the same variable.
So a tied file reads like the model it came from, whoever wrote it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from tiesurgeon.graph import Call, Graph, Layer, Value, View
from tiesurgeon.mapping.keras_operations import is_operation
from tiesurgeon.rewiring import Rewiring
from tiesurgeon.rooms.keras.order import in_keras_order
from tiesurgeon.rooms.keras.tied.parts import built_in

_TRANSPOSED = (1, 0)


def recognise(graph: Graph) -> Graph:
    """The same model with tied projections as Dense layers; untouched where there are none."""
    bodies = {
        layer.name: replace(layer, body=recognise(layer.body))
        for layer in graph.layers
        if layer.body is not None
    }
    graph = graph.with_layers(bodies)
    tables = [layer for layer in graph.layers if _is_plain_table(layer)]
    if not tables:
        return graph
    rewiring = Rewiring(graph)
    for table in tables:
        _unfold(rewiring, table)
    rewiring.drop_unused()
    return in_keras_order(rewiring.graph())


def _is_plain_table(layer: Layer) -> bool:
    config = layer.config
    return (
        layer.op == "ReversibleEmbedding"
        and not config.get("logit_soft_cap")
        and not config.get("reverse_dtype")
        and layer.view("embeddings") is not None
    )


def _unfold(rewiring: Rewiring, table: Layer) -> None:
    calls = [call for call in rewiring.calls.values() if call.layer == table.name]
    reverse = [call for call in calls if call.kwargs.get("reverse")]
    heads: dict[str, Layer] = {}
    for call in reverse:
        _as_dense(rewiring, table, _follow(rewiring, call), heads)
    for call in calls:
        if not call.kwargs.get("reverse") and call.id in rewiring.calls:
            kernel = _product_with_all_rows(rewiring, call)
            if kernel is not None:
                _as_dense(rewiring, table, _follow(rewiring, kernel, is_direct=True), heads)
    if table.name in rewiring.layers:
        _as_embedding(rewiring, table)


@dataclass
class _Head:
    """A product with the table and what follows it, as one Dense would do it."""

    product: Call
    hidden: Value
    is_direct: bool
    result: Value
    name: str
    bias: View | None = None
    activation: Any = "linear"
    config: dict[str, Any] = field(default_factory=dict)


def _follow(rewiring: Rewiring, product: Call, *, is_direct: bool = False) -> _Head:
    result = Value(product.id)
    suffix = "product" if is_direct else "reverse"
    head = _Head(product, product.inputs[0], is_direct, result, f"{product.layer}_{suffix}")
    _take_bias(rewiring, head)
    _take_activation(rewiring, head)
    return head


def _take_bias(rewiring: Rewiring, head: _Head) -> None:
    for call in rewiring.consumers(head.result):
        layer = rewiring.layers[call.layer]
        if layer.op != "Add" or is_operation(layer):
            continue
        addends = list(call.inputs)
        if len(addends) != 2 or head.result not in addends:
            continue
        addends.remove(head.result)
        offset = rewiring.layers[rewiring.calls[addends[0].call].layer]
        bias = _bias_view(rewiring, addends[0])
        if bias is None or not _only_for(rewiring, head.result, {call.id}):
            continue
        head.bias, head.result, head.name = bias, Value(call.id), layer.name
        head.config |= _bias_rules(offset)
        return


def _bias_view(rewiring: Rewiring, offset: Value) -> View | None:
    """The bias that a lookup in one row, or a normalization of zeros, gives."""
    call = rewiring.calls[offset.call]
    layer = rewiring.layers[call.layer]
    if not call.inputs:
        return None
    zeros = rewiring.layers[rewiring.calls[call.inputs[0].call].layer]
    scale, shift = zeros.config.get("scale"), zeros.config.get("offset", 0.0)
    if zeros.op != "Rescaling" or scale != 0 or shift != 0:
        return None
    if layer.op == "Embedding" and layer.config.get("input_dim") == 1:
        view = layer.view("embeddings")
        return None if view is None else View("bias", view.variable, reshape=(view.shape[-1],))
    if layer.op == "LayerNormalization" and not layer.config.get("scale", True):
        view = layer.view("beta")
        return None if view is None else View("bias", view.variable)
    return None


def _bias_rules(offset: Layer) -> dict[str, Any]:
    prefix = "beta" if offset.op == "LayerNormalization" else "embeddings"
    keys = ("regularizer", "constraint")
    return {f"bias_{key}": offset.config.get(f"{prefix}_{key}") for key in keys}


def _take_activation(rewiring: Rewiring, head: _Head) -> None:
    consumers = rewiring.consumers(head.result)
    if head.bias is not None:
        consumers = [call for call in consumers if call.id != head.result.call]
    zeros = {call.id for call in consumers if _is_zero(rewiring, call)}
    rest = [call for call in consumers if call.id not in zeros]
    if len(rest) != 1 or rewiring.is_output(head.result):
        return
    layer = rewiring.layers[rest[0].layer]
    inner = layer.inner[0] if layer.op == "TimeDistributed" and layer.inner else layer
    if inner.op not in ("Activation", "Identity"):
        return
    head.activation = inner.config.get("activation", "linear")
    head.result, head.name = Value(rest[0].id), layer.name
    if layer.config.get("activity_regularizer"):
        head.config["activity_regularizer"] = layer.config["activity_regularizer"]


def _is_zero(rewiring: Rewiring, call: Call) -> bool:
    layer = rewiring.layers[call.layer]
    return layer.op == "Rescaling" and layer.config.get("scale") == 0


def _only_for(rewiring: Rewiring, value: Value, calls: set[str]) -> bool:
    """True if nothing but those calls, and zeros made from it, takes the value."""
    others = [call for call in rewiring.consumers(value) if call.id not in calls]
    return not rewiring.is_output(value) and all(_is_zero(rewiring, call) for call in others)


def _as_dense(rewiring: Rewiring, table: Layer, head: _Head, heads: dict[str, Layer]) -> None:
    layer = heads.get(head.name) or _dense(table, head)
    heads[head.name] = layer
    rewiring.drop_call(head.result.call)
    if head.result.call != head.product.id:
        rewiring.drop_call(head.product.id)
    new = rewiring.add(layer, head.hidden)
    rewiring.redirect(head.result, new)


def _dense(table: Layer, head: _Head) -> Layer:
    embeddings, reverse = table.view("embeddings"), table.view("reverse_embeddings")
    assert embeddings is not None
    if reverse is not None and not head.is_direct:  # tie_weights=False: a matrix of its own
        kernel = View("kernel", reverse.variable)
    else:
        perm = None if head.is_direct else _TRANSPOSED
        kernel = View("kernel", embeddings.variable, perm=perm)
    views = (kernel,) if head.bias is None else (kernel, head.bias)
    dtype = {"dtype": table.config["dtype"]} if table.config.get("dtype") else {}
    config = {
        "units": kernel.shape[1],
        "activation": head.activation,
        "use_bias": head.bias is not None,
        **head.config,
        **dtype,
    }
    dense = built_in("Dense", head.name, views, **config)
    return replace(dense, config={**dense.config, "trainable": table.config.get("trainable", True)})


def _product_with_all_rows(rewiring: Rewiring, call: Call) -> Call | None:
    """The `matmul(x, table(0, 1, 2, ...))` that follows a lookup of all rows, if it is one."""
    ids = rewiring.layers[rewiring.calls[call.inputs[0].call].layer] if call.inputs else None
    consumers = rewiring.consumers(Value(call.id))
    if ids is None or ids.op != "Subtract" or len(consumers) != 1:
        return None
    product = consumers[0]
    is_product = rewiring.layers[product.layer].op == "Matmul" and len(product.inputs) == 2
    return product if is_product and product.inputs[1] == Value(call.id) else None


def _as_embedding(rewiring: Rewiring, table: Layer) -> None:
    if not any(call.layer == table.name for call in rewiring.calls.values()):
        del rewiring.layers[table.name]
        return
    own = ("tie_weights", "reverse_dtype", "logit_soft_cap", "reverse")
    config = {key: value for key, value in table.config.items() if key not in own}
    views = tuple(view for view in table.views if view.role == "embeddings")
    rewiring.layers[table.name] = replace(table, op="Embedding", config=config, views=views)
    for call in [call for call in rewiring.calls.values() if call.layer == table.name]:
        kwargs = {key: value for key, value in call.kwargs.items() if key != "reverse"}
        rewiring.calls[call.id] = replace(call, kwargs=kwargs)
