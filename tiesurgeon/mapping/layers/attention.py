"""Attention layers. Their masks are arguments, put there by masks.py."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from tiesurgeon.graph import Layer, Value, values_in
from tiesurgeon.mapping.building import Dims
from tiesurgeon.mapping.layout import Permute, Reshape, layout
from tiesurgeon.mapping.registry import (
    Example,
    Examples,
    Pair,
    Weight,
    WeightPair,
    layer_pair,
)
from tiesurgeon.mapping.site import Site

MASKS = ("query_mask", "value_mask", "key_mask", "attention_mask")


@layer_pair(keras="MultiHeadAttention", torch="parts.MultiHeadAttention")
class MultiHeadAttention(Pair):
    """Keras keeps a kernel (in, heads, width) per projection, PyTorch a matrix.

    nn.MultiheadAttention would need heads * width to be the input's width and the three
    projections in one parameter, which a tie to one of them does not survive.
    """

    options = frozenset(
        """
        num_heads key_dim value_dim dropout use_bias output_shape attention_axes
        """.split()
    )
    examples = (
        Example(((7, 5), (7, 5)), {"num_heads": 2, "key_dim": 3}),
        Example(((7, 5), (3, 6)), {"num_heads": 2, "key_dim": 3, "value_dim": 4}),
        Example(((7, 5), (3, 6), (3, 2)), {"num_heads": 2, "key_dim": 3, "output_shape": 4}),
        Example(((7, 5), (7, 5)), {"num_heads": 1, "key_dim": 3, "use_bias": False}, mask=True),
        Example(((7, 5), (7, 5)), {"num_heads": 2, "key_dim": 3, "dropout": 0.1}, mask=True),
        Example(((7, 5), (7, 5)), {"num_heads": 2, "key_dim": 3}, {"use_causal_mask": True}),
    )

    def weights_of(self, layer: Layer) -> Iterable[Weight]:
        for role in ("query", "key", "value", "output"):
            view = layer.view(f"{role}/kernel")
            if view is None:
                continue
            shape = view.shape
            first = shape[0] * shape[1] if role == "output" else shape[0]
            matrix = (first, shape[2] if role == "output" else shape[1] * shape[2])
            to_matrix = layout(Reshape(shape, matrix), Permute((1, 0)))
            yield WeightPair(f"{role}/kernel", f"{role}.weight", to_matrix)
            bias = layer.view(f"{role}/bias")
            if bias is not None:
                size = bias.shape[0] * bias.shape[1] if len(bias.shape) == 2 else bias.shape[0]
                flat = layout(Reshape(bias.shape, (size,)))
                yield WeightPair(f"{role}/bias", f"{role}.bias", flat)

    def arguments(self, layer: Layer) -> dict[str, Any]:
        shapes = {role: _kernel(layer, role) for role in ("query", "key", "value", "output")}
        size, heads, key_dim = shapes["query"]
        value_size, _, value_dim = shapes["value"]
        found = {
            "value_dim": (value_dim, key_dim),
            "key_size": (shapes["key"][0], value_size),
            "value_size": (value_size, size),
            "output_size": (shapes["output"][-1], size),
            "bias": (layer.view("query/bias") is not None, True),
            "dropout": (layer.config.get("dropout", 0.0), 0.0),
        }
        different = {name: value for name, (value, default) in found.items() if value != default}
        return {"size": size, "num_heads": heads, "key_dim": key_dim, **different}

    def shape(self, layer: Layer, *shapes: Dims) -> Dims:
        return (*shapes[0][:-1], _kernel(layer, "output")[-1])

    def forward(self, site: Site, *args: Any, **kwargs: Any) -> Value:
        given = dict(zip(("query", "value", "key", *MASKS), args, strict=False)) | kwargs
        axes = site.option("attention_axes")
        if site.fact(given["query"]).rank != 3 or axes not in (None, [1], (1,), 1, [-2]):
            raise site.refuse("attention over other axes than one")
        if kwargs.get("return_attention_scores"):
            raise site.refuse("return_attention_scores=True")
        names = ("query", "value", *(("key",) if isinstance(given.get("key"), Value) else ()))
        options = {name: given[name] for name in MASKS if isinstance(given.get(name), Value)}
        if given.get("use_causal_mask"):
            options["causal"] = True
        return site.module(*(given[name] for name in names), **options)


class _Plain(Pair):
    """Attention without projections."""

    options = frozenset(("use_scale", "score_mode", "dropout"))
    examples: ClassVar[Examples] = (
        Example(((7, 5), (3, 5))),
        Example(((7, 5), (7, 5), (7, 5)), {"use_scale": True}),
        Example(((7, 5), (7, 5)), {"use_scale": True, "dropout": 0.1}, mask=True),
        Example(((7, 5), (7, 5)), {"use_scale": False}, {"use_causal_mask": True}),
    )
    weights = (WeightPair("scale", "scale"),)

    def shape(self, layer: Layer, *shapes: Dims) -> Dims:
        return (*shapes[0][:-1], shapes[1][-1])

    def forward(self, site: Site, *args: Any, **kwargs: Any) -> Value:
        if site.option("score_mode", "dot") != "dot":
            raise site.refuse(f"score_mode={site.option('score_mode')!r}")
        if kwargs.get("return_attention_scores"):
            raise site.refuse("return_attention_scores=True")
        masks = zip(("query_mask", "value_mask"), kwargs.get("mask") or (), strict=False)
        options: dict[str, Any] = {name: mask for name, mask in masks if mask is not None}
        if kwargs.get("use_causal_mask"):
            options["causal"] = True
        return site.module(*values_in(args), **options)


@layer_pair(keras="Attention", torch="parts.Attention")
class Attention(_Plain):
    """softmax(query @ key.T * scale) @ value"""

    def arguments(self, layer: Layer) -> dict[str, Any]:
        dropout = layer.config.get("dropout")
        scaled = {"scaled": True} if layer.view("scale") else {}
        return {**scaled, **({"dropout": dropout} if dropout else {})}


@layer_pair(keras="AdditiveAttention", torch="parts.AdditiveAttention")
class AdditiveAttention(_Plain):
    """softmax(sum(scale * tanh(query + key))) @ value"""

    def arguments(self, layer: Layer) -> dict[str, Any]:
        dropout, scale = layer.config.get("dropout"), layer.view("scale")
        features = {} if scale is None else {"features": scale.shape[0]}
        return {**features, **({"dropout": dropout} if dropout else {})}


def _kernel(layer: Layer, role: str) -> tuple[int, ...]:
    view = layer.view(f"{role}/kernel")
    if view is None:
        raise ValueError(f"layer '{layer.name}' has no {role}/kernel")
    return view.shape
