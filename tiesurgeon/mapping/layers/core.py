"""Dense, Embedding and the layers that hardly compute anything."""

from __future__ import annotations

from typing import Any, ClassVar

from tiesurgeon.graph import Layer, Value
from tiesurgeon.mapping.building import Dims
from tiesurgeon.mapping.layout import TRANSPOSE
from tiesurgeon.mapping.registry import Example, Examples, Pair, WeightPair, layer_pair
from tiesurgeon.mapping.site import Site
from tiesurgeon.mapping.torch_words import Name


@layer_pair(keras="Dense", torch="nn.Linear")
class Dense(Pair):
    """y = x @ kernel + bias  <->  y = x @ weight.T + bias"""

    weights = (WeightPair("kernel", "weight", TRANSPOSE), WeightPair("bias", "bias"))
    options = frozenset(("units", "activation", "use_bias"))
    pointwise = True
    examples = (
        Example(((5,),), {"units": 3}),
        Example(((7, 5),), {"units": 3, "activation": "tanh"}),
        Example(((None, 5),), {"units": 3, "use_bias": False, "activation": "softmax"}),
    )

    def arguments(self, layer: Layer) -> dict[str, Any]:
        return _linear(layer, "kernel")

    def shape(self, layer: Layer, *shapes: Dims) -> Dims:
        return (*shapes[0][:-1], layer.config["units"])

    def forward(self, site: Site, *args: Any, **kwargs: Any) -> Value:
        return site.activate(site.module(args[0]))


@layer_pair(keras="Embedding", torch="nn.Embedding")
class Embedding(Pair):
    """embeddings[ids]  <->  weight[ids]; the mask of mask_zero is made in masks.py"""

    weights = (WeightPair("embeddings", "weight"),)
    options = frozenset(("input_dim", "output_dim", "mask_zero", "input_length"))
    pointwise = True
    examples: ClassVar[Examples] = (
        Example(((7,),), {"input_dim": 11, "output_dim": 3}, ids=11),
        Example(((None,),), {"input_dim": 11, "output_dim": 3, "mask_zero": True}, ids=11),
    )

    def arguments(self, layer: Layer) -> dict[str, Any]:
        return {
            "num_embeddings": layer.config["input_dim"],
            "embedding_dim": layer.config["output_dim"],
        }

    def shape(self, layer: Layer, *shapes: Dims) -> Dims | None:
        return (*shapes[0], layer.config["output_dim"])

    def dtype(self, layer: Layer, *dtypes: str) -> str:
        return "float32"

    def forward(self, site: Site, *args: Any, **kwargs: Any) -> Value:
        return site.module(as_ids(site, args[0]))


@layer_pair(keras="ReversibleEmbedding", torch="nn.Embedding")
class ReversibleEmbedding(Embedding):
    """embeddings[ids], or x @ embeddings.T when called with reverse=True"""

    options = Embedding.options | {"tie_weights", "reverse_dtype", "logit_soft_cap"}
    examples = (Example(((7,),), {"input_dim": 11, "output_dim": 3}, ids=11),)

    def forward(self, site: Site, *args: Any, **kwargs: Any) -> Value:
        reverse = kwargs.get("reverse", len(args) > 1 and args[1])
        if not reverse:
            value = super().forward(site, args[0])
            site.note(value, (*site.fact(args[0]).shape, site.option("output_dim")))
            return value
        if site.option("reverse_dtype") not in (None, "float32"):
            raise site.refuse(f"reverse_dtype={site.option('reverse_dtype')!r}")
        pair = WeightPair("embeddings", "weight")
        if site.option("tie_weights", True) is False:
            pair = WeightPair("reverse_embeddings", "reverse_weight", TRANSPOSE)
        weight = site.parameter(pair)
        logits = site.call("F.linear", args[0], weight)
        cap = site.option("logit_soft_cap")
        if cap is not None:
            scaled = site.call("torch.tanh", site.call("/", logits, cap))
            logits = site.call("*", scaled, cap)
        site.note(logits, (*site.fact(args[0]).shape[:-1], site.option("input_dim")))
        return logits

    def shape(self, layer: Layer, *shapes: Dims) -> None:
        return None


@layer_pair(keras="Identity", torch="")
class Identity(Pair):
    """The input itself, and the layers that only add to the loss."""

    layout = "any"
    pointwise = True
    examples = (Example(((5,),)),)

    def forward(self, site: Site, *args: Any, **kwargs: Any) -> Value:
        value: Value = args[0]
        return value


@layer_pair(keras="ActivityRegularization", torch="")
class ActivityRegularization(Identity):
    """The input itself; what it adds to the loss is training code, not part of the model."""

    options = frozenset(("l1", "l2"))
    examples = (Example(((5,),), {"l1": 0.1}),)


@layer_pair(keras="Masking", torch="*")
class Masking(Pair):
    """Zeros where every feature of a step is mask_value; the mask itself is made in masks.py"""

    options = frozenset(("mask_value",))
    examples = (Example(((7, 3),), {"mask_value": 0.0}, mask=True),)

    def forward(self, site: Site, *args: Any, **kwargs: Any) -> Value:
        differs = site.call("!=", args[0], site.option("mask_value", 0.0), dtype="bool")
        keep = site.call(".any", differs, hint="keep", dim=-1, keepdim=True)
        return site.call("*", args[0], keep)


@layer_pair(keras="Rescaling", torch="*")
class Rescaling(Pair):
    """x * scale + offset"""

    options = frozenset(("scale", "offset"))
    pointwise = True
    examples = (
        Example(((5, 7, 3),), {"scale": 0.5, "offset": -1.0}),
        Example(((5, 7, 3),), {"scale": [1.0, 2.0, 3.0], "offset": [0.0, 1.0, 2.0]}),
    )

    def dtype(self, layer: Layer, *dtypes: str) -> str:
        dtype = layer.config.get("dtype")
        return dtype if isinstance(dtype, str) else "float32"

    def forward(self, site: Site, *args: Any, **kwargs: Any) -> Value:
        dtype = self.dtype(site.layer)
        value = cast_to(site, args[0], dtype)
        for op, option, neutral in (("*", "scale", 1), ("+", "offset", 0)):
            number = site.option(option, neutral)
            if number != neutral:
                value = site.call(op, value, _constant(site, value, number, dtype))
        return value


def as_ids(site: Site, value: Value) -> Value:
    """The value as what nn.Embedding takes: Keras looks floats up as well."""
    if site.fact(value).dtype in ("int32", "int64"):
        return value
    return site.call(".long", value, dtype="int64")


def cast_to(site: Site, value: Value, dtype: str) -> Value:
    """The value as numbers of that dtype, unless it is of that kind already."""
    have = site.fact(value).dtype
    if have == dtype or {have, dtype} <= {"int32", "int64"}:
        return value
    method = {"float32": ".float", "int32": ".int", "int64": ".long", "bool": ".bool"}.get(dtype)
    if method is None:
        return site.call(".to", value, Name(f"torch.{dtype}"), dtype=dtype)
    return site.call(method, value, dtype=dtype)


def _constant(site: Site, value: Value, number: Any, dtype: str) -> Any:
    if isinstance(number, list):
        return site.call(".new_tensor", value, number, shape=(len(number),))
    return int(number) if dtype.startswith("int") else number


def _linear(layer: Layer, kernel: str) -> dict[str, Any]:
    view = layer.view(kernel)
    if view is None:
        raise ValueError(f"layer '{layer.name}' has no {kernel}")
    arguments: dict[str, Any] = {"in_features": view.shape[0], "out_features": view.shape[1]}
    return arguments if layer.view("bias") else {**arguments, "bias": False}
