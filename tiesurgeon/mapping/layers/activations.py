"""Activation and the activation layers."""

from __future__ import annotations

from typing import Any

from tiesurgeon.graph import Layer, Value
from tiesurgeon.mapping.registry import Example, Pair, WeightPair, layer_pair
from tiesurgeon.mapping.site import Site


class _Elementwise(Pair):
    """Layers that treat every number alike, however the tensor lies."""

    layout = "any"
    pointwise = True


@layer_pair(keras="Activation", torch="F")
class Activation(_Elementwise):
    """Any function of FUNCTIONS in activation_functions.py"""

    options = frozenset(("activation",))
    examples = tuple(
        Example(((7, 6),), {"activation": name})
        for name in (
            "linear relu sigmoid tanh softmax log_softmax softplus softsign elu selu celu gelu "
            "silu mish exponential relu6 leaky_relu hard_sigmoid hard_silu hard_tanh hard_shrink "
            "soft_shrink tanh_shrink log_sigmoid glu squareplus sparse_plus sparse_sigmoid "
            "sparsemax"
        ).split()
    )

    def shape(self, layer: Layer, *shapes: Any) -> None:
        return None

    def forward(self, site: Site, *args: Any, **kwargs: Any) -> Value:
        value = site.activate(args[0])
        if site.option("activation") == "glu":
            fact = site.fact(value)
            half = fact.shape[-1] // 2 if fact.shape[-1] else None
            site.note(value, (*fact.shape[:-1], half))
        return value


@layer_pair(keras="ReLU", torch="torch.relu")
class ReLU(_Elementwise):
    """min(max_value, x) above threshold, negative_slope * (x - threshold) below"""

    options = frozenset(("max_value", "negative_slope", "threshold"))
    examples = (
        Example(((5,),)),
        Example(((5,),), {"max_value": 6.0}),
        Example(((5,),), {"negative_slope": 0.1}),
        Example(((5,),), {"max_value": 0.7, "negative_slope": 0.1, "threshold": 0.2}),
    )

    def forward(self, site: Site, *args: Any, **kwargs: Any) -> Value:
        value: Value = args[0]
        top = site.option("max_value")
        slope = site.option("negative_slope") or 0.0
        threshold = site.option("threshold") or 0.0
        if threshold:
            return site.call(
                "parts.thresholded_relu",
                value,
                threshold=threshold,
                negative_slope=slope,
                max_value=top,
            )
        if slope:
            value = site.call("F.leaky_relu", value, negative_slope=slope)
            return value if top is None else site.call(".clamp", value, max=top)
        if top is None:
            return site.call("torch.relu", value)
        return site.call("F.relu6", value) if top == 6 else site.call(".clamp", value, 0, top)


@layer_pair(keras="LeakyReLU", torch="F.leaky_relu")
class LeakyReLU(_Elementwise):
    """x above 0, negative_slope * x below; Keras' slope is 0.3, PyTorch's 0.01"""

    options = frozenset(("negative_slope", "alpha"))
    examples = (Example(((5,),)), Example(((5,),), {"negative_slope": 0.2}))

    def forward(self, site: Site, *args: Any, **kwargs: Any) -> Value:
        slope = site.option("negative_slope", site.option("alpha", 0.3))
        return site.call("F.leaky_relu", args[0], negative_slope=slope)


@layer_pair(keras="ELU", torch="F.elu")
class ELU(_Elementwise):
    """x above 0, alpha * (exp(x) - 1) below"""

    options = frozenset(("alpha",))
    examples = (Example(((5,),)), Example(((5,),), {"alpha": 0.5}))

    def forward(self, site: Site, *args: Any, **kwargs: Any) -> Value:
        alpha = site.option("alpha", 1.0)
        return site.call("F.elu", args[0], **({} if alpha == 1 else {"alpha": alpha}))


@layer_pair(keras="Softmax", torch=".softmax")
class Softmax(Pair):
    """exp(x) / sum(exp(x)) over one axis"""

    options = frozenset(("axis",))
    examples = (Example(((7, 5),)), Example(((7, 5),), {"axis": 1}))

    def forward(self, site: Site, *args: Any, **kwargs: Any) -> Value:
        axis = site.option("axis", -1)
        if isinstance(axis, (list, tuple)):
            if len(axis) != 1:
                raise site.refuse(f"axis={axis!r}")
            axis = axis[0]
        if kwargs.get("mask") is not None:
            raise site.refuse("a mask")
        return site.call(".softmax", args[0], dim=axis)


@layer_pair(keras="PReLU", torch="torch.where")
class PReLU(Pair):
    """x above 0, alpha * x below, alpha a weight of the input's shape"""

    weights = (WeightPair("alpha", "alpha"),)
    options = frozenset(("shared_axes",))
    examples = (Example(((7, 5),)), Example(((7, 5),), {"shared_axes": [1]}))

    def forward(self, site: Site, *args: Any, **kwargs: Any) -> Value:
        alpha = site.parameter(self.weights[0])
        negative = site.call("*", alpha, args[0])
        positive = site.call(">", args[0], 0, dtype="bool")
        return site.call("torch.where", positive, args[0], negative)
