"""An output projection over an embedding: `logits = hidden @ E.T + bias`.

`keras.layers.ReversibleEmbedding` (Keras 3.12) looks up rows when called on ids and
projects onto them when called with `reverse=True`, over one variable that reloads as one.
It has no bias, no activation and loses the mask: `parts.Tail` adds them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tiesurgeon.errors import TieRefused
from tiesurgeon.graph import Layer, Value
from tiesurgeon.rewiring import Rewiring
from tiesurgeon.rooms.keras.tied.parts import Tail

_ADDABLE = frozenset({"L1", "L2", "L1L2"})
_ELEMENTWISE = frozenset({"NonNeg", "NonNegative"})


def write(rewiring: Rewiring, table: str, heads: Mapping[str, Layer]) -> None:
    """Replaces the embedding `table` and the Dense `heads` by one ReversibleEmbedding.

    `heads` maps top-level names to the Dense itself, which may be wrapped there.
    Raises TieRefused where the two sides want different things of the matrix.
    """
    embedding = rewiring.layers[table]
    rules = _agreed(embedding, heads)
    graph = rewiring.graph()
    rewiring.layers[table] = shared = replace(
        embedding,
        op="ReversibleEmbedding",
        config={**_table_config(embedding), **rules},
        entry={"module": "keras.layers", "registered_name": None},
    )
    for name, dense in heads.items():
        del rewiring.layers[name]
        calls = [rewiring.calls.pop(call.id) for call in graph.calls_of(name)]
        tail = Tail(rewiring, replace(dense, name=name), graph, graph.calls_of(name))
        for call in calls:
            product = rewiring.add(shared, call.inputs[0], kwargs={"reverse": True})
            rewiring.redirect(Value(call.id), tail.add(product, call))


def _table_config(embedding: Layer) -> dict[str, Any]:
    kept = (
        "name", "trainable", "dtype", "input_dim", "output_dim", "embeddings_initializer",
        "mask_zero",
    )  # fmt: skip
    config = {key: embedding.config[key] for key in kept if key in embedding.config}
    return {**config, "tie_weights": True, "reverse_dtype": None, "logit_soft_cap": None}


def _agreed(embedding: Layer, heads: Mapping[str, Layer]) -> dict[str, Any]:
    """The regularizer and constraint of the shared matrix, where the sides can be reconciled."""
    regularizer = embedding.config.get("embeddings_regularizer")
    constraint = embedding.config.get("embeddings_constraint")
    if embedding.config.get("activity_regularizer"):
        raise TieRefused(
            f"{embedding.name!r} has an activity_regularizer, which would act on the logits too"
        )
    for name, dense in heads.items():
        _same_setting(embedding, dense, name, "trainable", default=True)
        _same_setting(embedding, dense, name, "dtype", default="float32")
        _no_adapters(embedding, dense, name)
        regularizer = added(regularizer, dense.config.get("kernel_regularizer"), name)
        constraint = _common(constraint, dense.config.get("kernel_constraint"), name)
    return {"embeddings_regularizer": regularizer, "embeddings_constraint": constraint}


def _same_setting(embedding: Layer, dense: Layer, name: str, key: str, *, default: Any) -> None:
    one = plain_setting(embedding.config.get(key, default))
    other = plain_setting(dense.config.get(key, default))
    if one != other:
        raise TieRefused(
            f"{embedding.name!r} and {name!r} would be one variable, but {key} is {one} in the "
            f"embedding and {other} in the projection; make them agree first"
        )


def plain_setting(value: Any) -> Any:
    """A dtype policy by its name; everything else as it is."""
    if isinstance(value, Mapping):
        return value.get("config", {}).get("name", value)
    return value


def _no_adapters(embedding: Layer, dense: Layer, name: str) -> None:
    for layer in (embedding, dense):
        for key in ("lora_rank", "quantization_config"):
            if layer.config.get(key):
                raise TieRefused(
                    f"{layer.name if layer is embedding else name!r} has {key}: merge or remove it "
                    "before tying"
                )


def added(one: Any, other: Any, name: str) -> Any:
    """One regularizer for two: penalties add up, and elementwise ones see no transpose."""
    if other is None:
        return one
    if _class(other) not in _ADDABLE or (one is not None and _class(one) not in _ADDABLE):
        raise TieRefused(
            f"{name!r} has the kernel_regularizer {_class(other)}, which cannot be moved to the "
            "shared matrix without changing it; remove it first"
        )
    l1, l2 = (_coefficient(one, key) + _coefficient(other, key) for key in ("l1", "l2"))
    return {
        "module": "keras.regularizers",
        "class_name": "L1L2",
        "config": {"l1": l1, "l2": l2},
        "registered_name": None,
    }


def _coefficient(rule: Any, key: str) -> float:
    return 0.0 if rule is None else float(rule.get("config", {}).get(key) or 0.0)


def _common(one: Any, other: Any, name: str) -> Any:
    """A constraint that looks at single elements may move; others see rows or columns."""
    if other is None and _class(one) in (*_ELEMENTWISE, None):
        return one
    if _class(other) in _ELEMENTWISE and _class(one) in (*_ELEMENTWISE, None):
        return other
    side = "kernel_constraint" if other is not None else "embeddings_constraint"
    raise TieRefused(
        f"{name!r}: the {side} {_class(other) or _class(one)} would act on both uses of the "
        "shared matrix; remove it first"
    )


def _class(rule: Any) -> str | None:
    if rule is None:
        return None
    return str(rule.get("class_name")) if isinstance(rule, Mapping) else str(rule)
