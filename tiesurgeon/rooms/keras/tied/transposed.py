"""Dense layers over one matrix without an embedding (autoencoders, shared Dense kernels).

A matrix used as it is and transposed is kept in a ReversibleEmbedding: its `reverse` call is
`x @ W.T`, and looking up all its rows gives `W` itself for `x @ W`. Dense layers that use it
the same way round share one Dense without bias. Each keeps its own bias and activation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tiesurgeon.errors import TieRefused
from tiesurgeon.graph import Graph, Layer, Value, View
from tiesurgeon.rewiring import Rewiring
from tiesurgeon.rooms.keras.tied import head
from tiesurgeon.rooms.keras.tied.parts import Tail, built_in, operation

Uses = Mapping[str, tuple[Layer, View]]


def write(rewiring: Rewiring, uses: Uses) -> None:
    """Replaces Dense layers that see one kernel by layers over one variable.

    Raises TieRefused where the layers want different things of the matrix.
    """
    variables = {view.variable for _, view in uses.values()}
    if any(view.role != "kernel" for _, view in uses.values()) or len(variables) > 1:
        raise TieRefused(f"{', '.join(uses)}: only the kernels of Dense layers can be tied alone")
    graph = rewiring.graph()
    owner = next((name for name, (_, view) in uses.items() if view.perm is None), None)
    is_mixed = len({view.perm is None for _, view in uses.values()}) > 1
    name = owner or next(iter(uses))
    make = _one_table if is_mixed else _one_kernel
    product = make(rewiring, name, uses, _agreed(name, uses))
    for name, (dense, view) in uses.items():
        del rewiring.layers[name]
        calls = [rewiring.calls.pop(call.id) for call in graph.calls_of(name)]
        tail = Tail(rewiring, replace(dense, name=name), graph, graph.calls_of(name))
        for call in calls:
            x = graph.call_by_id[call.id].inputs[0]
            rank = 0 if view.perm is not None or not is_mixed else axes(graph, x)
            result = product(call.inputs[0], view, rank)
            rewiring.redirect(Value(call.id), tail.add(result, call))


def _agreed(owner: str, uses: Uses) -> dict[str, Any]:
    keys = ("trainable", "dtype", "kernel_constraint")
    first = uses[owner][0].config
    for name, (dense, _) in uses.items():
        for key in keys:
            one = head.plain_setting(first.get(key))
            other = head.plain_setting(dense.config.get(key))
            if one != other:
                raise TieRefused(
                    f"{owner!r} and {name!r} would be one variable, but {key} is {one} in the "
                    f"first and {other} in the second; make them agree first"
                )
    regularizer = None
    for name, (dense, _) in uses.items():
        regularizer = head.added(regularizer, dense.config.get("kernel_regularizer"), name)
    agreed = {key: first[key] for key in keys if first.get(key) is not None}
    return {**agreed, **({} if regularizer is None else {"kernel_regularizer": regularizer})}


def _one_kernel(rewiring: Rewiring, owner: str, uses: Uses, rules: dict[str, Any]) -> Any:
    """All use it the same way round: one Dense without bias, called for each."""
    view = uses[owner][1]
    if view.perm is not None:
        raise TieRefused(f"{', '.join(uses)}: all see the matrix transposed, none as it is")
    name = rewiring.fresh(f"{owner}_kernel")
    config = {"units": view.shape[1], "use_bias": False, "activation": "linear", **rules}
    shared = built_in("Dense", name, (View("kernel", view.variable),), **config)

    def product(x: Value, _: View, __: int) -> Value:
        return rewiring.add(shared, x)

    return product


def _one_table(rewiring: Rewiring, owner: str, uses: Uses, rules: dict[str, Any]) -> Any:
    """Some transposed, some not: a ReversibleEmbedding holds the matrix."""
    view = uses[owner][1]
    if rules.pop("kernel_constraint", None):
        raise TieRefused(f"{owner!r} has a kernel_constraint, which sees rows and columns")
    regularizer = rules.pop("kernel_regularizer", None)
    name = rewiring.fresh(f"{owner}_kernel")
    rows, columns = view.variable.shape
    table = built_in(
        "ReversibleEmbedding",
        name,
        (View("embeddings", view.variable),),
        input_dim=rows,
        output_dim=columns,
        embeddings_initializer="glorot_uniform",
        embeddings_regularizer=regularizer,
        mask_zero=False,
        tie_weights=True,
        reverse_dtype=None,
        logit_soft_cap=None,
        **rules,
    )

    def product(x: Value, use: View, rank: int) -> Value:
        if use.perm is not None:
            return rewiring.add(table, x, kwargs={"reverse": True})
        matrix = _matrix(rewiring, table, x, rank)
        return rewiring.add(operation("Matmul", rewiring.fresh(f"{owner}_product")), x, matrix)

    return product


def _matrix(rewiring: Rewiring, table: Layer, x: Value, rank: int) -> Value:
    """All rows of the table, in order. The ids are counted off along one example of `x`,
    because a graph that begins nowhere (a constant) is not saved by Keras."""
    stem = table.name
    one = x
    for _ in range(rank - 1):
        one = rewiring.add(operation("GetItem", rewiring.fresh(f"{stem}_example")), one, 0)
    ones = rewiring.add(operation("OnesLike", rewiring.fresh(f"{stem}_ones"), dtype="int32"), one)
    count = rewiring.add(
        operation("Cumsum", rewiring.fresh(f"{stem}_count"), axis=None, dtype=None), ones
    )
    ids = rewiring.add(operation("Subtract", rewiring.fresh(f"{stem}_rows")), count, 1)
    return rewiring.add(table, ids)


def axes(graph: Graph, x: Value) -> int:
    """How many axes a value has; TieRefused where the graph does not tell."""
    call = graph.call_by_id[x.call]
    layer = graph.layer(call.layer)
    if layer.op == "InputLayer":
        return len(layer.config["batch_shape"])
    if layer.op in ("Flatten", "GlobalAveragePooling1D", "GlobalMaxPooling1D"):
        return 2
    if layer.op == "Embedding":
        return axes(graph, call.inputs[0]) + 1
    if layer.op == "Reshape":
        return 1 + len(layer.config["target_shape"])
    if layer.body is None and call.inputs and layer.op in _KEEP_RANK:
        return axes(graph, call.inputs[0])
    raise TieRefused(f"how many axes {x.call!r} gives cannot be told, so nothing is tied there")


_KEEP_RANK = frozenset(
    {
        "Dense", "Activation", "Dropout", "ReLU", "LeakyReLU", "ELU", "PReLU", "Softmax",
        "BatchNormalization", "LayerNormalization", "GaussianNoise", "GaussianDropout",
        "AlphaDropout", "Identity", "Add", "Multiply", "Average", "Rescaling", "Concatenate",
        "ActivityRegularization", "UnitNormalization", "Normalization", "Maximum", "Minimum",
        "Subtract", "TimeDistributed", "Masking", "RMSNormalization",
        "ReversibleEmbedding", "Matmul",
    }
)  # fmt: skip
