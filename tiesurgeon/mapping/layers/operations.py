"""`keras.ops` nodes: what stands in a graph as a bare function."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tiesurgeon.graph import Layer, Value, values_in
from tiesurgeon.mapping.building import Dims, Fact
from tiesurgeon.mapping.layers.core import cast_to
from tiesurgeon.mapping.layers.operation_shapes import Operation, axes_of
from tiesurgeon.mapping.layers.shapes import numpy_broadcast
from tiesurgeon.mapping.parameters import constant
from tiesurgeon.mapping.registry import Pair, layer_pair
from tiesurgeon.mapping.site import Site

_MOST_INLINE = 8  # numbers of a constant that may be written out in forward()

BINARY = {
    **{"Add": "+", "Subtract": "-", "Multiply": "*", "Divide": "/", "TrueDivide": "/"},
    **{"FloorDivide": "//", "Mod": "%", "Power": "**", "Matmul": "@"},
    **{"Maximum": "torch.maximum", "Minimum": "torch.minimum"},
    **{"Equal": "==", "NotEqual": "!=", "Greater": ">", "GreaterEqual": ">="},
    **{"Less": "<", "LessEqual": "<=", "LogicalAnd": "&", "LogicalOr": "|"},
}
TRUTH = frozenset(("==", "!=", ">", ">=", "<", "<=", "&", "|"))
UNARY = {
    **{"Absolute": "torch.abs", "Abs": "torch.abs", "Negative": "neg", "Exp": "torch.exp"},
    **{"Log": "torch.log", "Sqrt": "torch.sqrt", "Square": "torch.square", "Tanh": "torch.tanh"},
    **{"Rsqrt": "torch.rsqrt", "Sigmoid": "torch.sigmoid", "Relu": "torch.relu"},
    **{"Sin": "torch.sin", "Cos": "torch.cos", "Erf": "torch.erf", "Sign": "torch.sign"},
    **{"Floor": "torch.floor", "Ceil": "torch.ceil", "Log1p": "torch.log1p"},
    **{"Relu6": "F.relu6", "Silu": "F.silu", "Softplus": "F.softplus", "Softsign": "F.softsign"},
    **{"HardSigmoid": "F.hardsigmoid", "Selu": "F.selu", "LogicalNot": "~"},
    **{"StopGradient": ".detach"},
}
REDUCTIONS = {
    **{"Mean": ".mean", "Sum": ".sum", "Max": ".amax", "Min": ".amin", "Amax": ".amax"},
    **{"Amin": ".amin", "Any": ".any", "All": ".all", "Prod": ".prod"},
}


class _Binary(Operation):
    """A function of two tensors, or of a tensor and a number."""

    def shape(self, layer: Layer, *shapes: Dims) -> Dims | None:
        return None if self.torch == "@" else numpy_broadcast(shapes)

    def dtype(self, layer: Layer, *dtypes: str) -> str:
        if self.torch in TRUTH:
            return "bool"
        floats = [dtype for dtype in dtypes if "float" in dtype]
        return floats[0] if floats else dtypes[0]

    def forward(self, site: Site, *args: Any, **kwargs: Any) -> Value:
        values = [*args, *kwargs.values()][:2]
        like = next(values_in(values))
        left, right = (tensor(site, value, like) for value in values)
        if self.torch.startswith("torch."):
            left, right = (
                value if isinstance(value, Value) else site.call(".new_tensor", like, value)
                for value in (left, right)
            )
        shape = None
        if self.torch == "@":
            first, second = site.fact(left).shape, site.fact(right).shape
            shape = (*numpy_broadcast((first[:-2], second[:-2])), first[-2], second[-1])
        return site.call(self.torch, left, right, shape=shape)


class _Unary(Operation):
    """A function of one tensor."""

    pointwise = True

    def forward(self, site: Site, *args: Any, **kwargs: Any) -> Value:
        return site.call(self.torch, args[0])


class _Reduction(Operation):
    """A method that takes dim and keepdim."""

    def shape(self, layer: Layer, *shapes: Dims) -> Dims:
        rank = len(shapes[0])
        axes = axes_of(layer, rank)
        if layer.config.get("keepdims"):
            return tuple(1 if i in axes else size for i, size in enumerate(shapes[0]))
        return tuple(size for i, size in enumerate(shapes[0]) if i not in axes)

    def forward(self, site: Site, *args: Any, **kwargs: Any) -> Value:
        if site.option("initial") is not None:
            raise site.refuse("initial")
        value: Value = args[0]
        axis = site.option("axis")
        axes = [axis] if isinstance(axis, int) else axis
        options: dict[str, Any] = {}
        if axes is not None:
            options["dim"] = axes[0] if len(axes) == 1 else tuple(axes)
        if site.option("keepdims"):
            options.setdefault("dim", tuple(range(site.fact(value).rank)))
            options["keepdim"] = True
        if self.torch == ".mean" and "int" in site.fact(value).dtype:
            value = cast_to(site, value, "float32")
        return site.call(self.torch, value, **options)

    def dtype(self, layer: Layer, *dtypes: str) -> str:
        if self.torch == ".mean" and "int" in dtypes[0]:
            return "float32"
        return "bool" if self.torch in (".any", ".all") else dtypes[0]


def _enter(base: type[Pair], names: Mapping[str, str]) -> None:
    for name, torch in names.items():
        layer_pair(keras=f"ops.{name}", torch=torch)(type(name, (base,), {}))


_enter(_Binary, BINARY)
_enter(_Unary, UNARY)
_enter(_Reduction, REDUCTIONS)


@layer_pair(keras="ops.Softmax", torch=".softmax")
class Softmax(Operation):
    """exp(x) / sum(exp(x)) over one axis"""

    def forward(self, site: Site, *args: Any, **kwargs: Any) -> Value:
        return site.call(self.torch, args[0], dim=site.option("axis", -1))


@layer_pair(keras="ops.LogSoftmax", torch=".log_softmax")
class LogSoftmax(Softmax):
    """The logarithm of softmax"""


@layer_pair(keras="ops.Cumsum", torch=".cumsum")
class Cumsum(Operation):
    """The sum of everything up to each place along an axis"""

    def forward(self, site: Site, *args: Any, **kwargs: Any) -> Value:
        if site.option("axis") is None or site.option("dtype") is not None:
            raise site.refuse("axis=None or a dtype")
        return site.call(".cumsum", args[0], dim=site.option("axis"))


@layer_pair(keras="ops.OnesLike", torch="torch.ones_like")
class OnesLike(Operation):
    """Ones in the shape of x"""

    def dtype(self, layer: Layer, *dtypes: str) -> str:
        return layer.config.get("dtype") or dtypes[0]

    def forward(self, site: Site, *args: Any, **kwargs: Any) -> Value:
        value = site.call(self.torch, args[0])
        return cast_to(site, value, self.dtype(site.layer, site.fact(value).dtype))


@layer_pair(keras="ops.ZerosLike", torch="torch.zeros_like")
class ZerosLike(OnesLike):
    """Zeros in the shape of x"""


@layer_pair(keras="ops.Gelu", torch="F.gelu")
class Gelu(Operation):
    """x times the normal distribution function, or its approximation by tanh"""

    options = frozenset(("approximate",))
    pointwise = True

    def forward(self, site: Site, *args: Any, **kwargs: Any) -> Value:
        options: dict[str, Any] = (
            {"approximate": "tanh"} if site.option("approximate", True) else {}
        )
        return site.call("F.gelu", args[0], **options)


@layer_pair(keras="ops.LeakyRelu", torch="F.leaky_relu")
class LeakyRelu(Operation):
    """x above 0, negative_slope * x below"""

    options = frozenset(("negative_slope",))
    pointwise = True

    def forward(self, site: Site, *args: Any, **kwargs: Any) -> Value:
        slope = site.option("negative_slope", 0.2)
        return site.call("F.leaky_relu", args[0], negative_slope=slope)


@layer_pair(keras="ops.Clip", torch=".clamp")
class Clip(Operation):
    """x between two numbers"""

    options = frozenset(("x_min", "x_max"))
    pointwise = True

    def forward(self, site: Site, *args: Any, **kwargs: Any) -> Value:
        return site.call(".clamp", args[0], site.option("x_min"), site.option("x_max"))


@layer_pair(keras="ops.Cast", torch=".to")
class Cast(Operation):
    """The numbers as another dtype"""

    def dtype(self, layer: Layer, *dtypes: str) -> None:
        return None

    def forward(self, site: Site, *args: Any, **kwargs: Any) -> Value:
        return cast_to(site, args[0], str(site.option("dtype")))


@layer_pair(keras="ops.Where", torch="torch.where")
class Where(Operation):
    """One tensor where a condition holds, another elsewhere"""

    def shape(self, layer: Layer, *shapes: Dims) -> Dims:
        return numpy_broadcast(shapes)

    def dtype(self, layer: Layer, *dtypes: str) -> str:
        return dtypes[-1]

    def forward(self, site: Site, *args: Any, **kwargs: Any) -> Value:
        condition, *choices = (*args, *kwargs.values())
        return site.call("torch.where", condition, *(tensor(site, c, condition) for c in choices))


@layer_pair(keras="ops.Einsum", torch="torch.einsum")
class Einsum(Operation):
    """Sums of products as the subscripts say"""

    def shape(self, layer: Layer, *shapes: Dims) -> Dims:
        inputs, _, output = layer.config["subscripts"].replace(" ", "").partition("->")
        sizes: dict[str, int | None] = {}
        for letters, shape in zip(inputs.split(","), shapes, strict=True):
            sizes.update(zip(letters, shape, strict=True))
        return tuple(sizes[letter] for letter in output)

    def forward(self, site: Site, *args: Any, **kwargs: Any) -> Value:
        subscripts = site.option("subscripts")
        if "..." in subscripts or "->" not in subscripts:
            raise site.refuse(f"subscripts={subscripts!r}")
        return site.call("torch.einsum", subscripts, *values_in(args))


def tensor(site: Site, value: Any, like: Value) -> Any:
    """An operand: a value, a number, or an array that the file holds in the graph."""
    if not isinstance(value, (Mapping, list)):
        return value
    config = value.get("config", {}) if isinstance(value, Mapping) else {"value": value}
    if isinstance(value, Mapping) and value.get("class_name") not in ("__tensor__", "__numpy__"):
        raise site.refuse(f"the operand {value.get('class_name')}")
    array = np.asarray(config["value"], config.get("dtype", "float32"))
    if array.size <= _MOST_INLINE:
        return site.call(".new_tensor", like, array.tolist(), shape=array.shape)
    name = site.body.attribute(site.attribute, "_constant")
    view = constant(f"{site.body.path}{name}", "", array, "buffer")
    site.body.layers.setdefault(name, Layer(name, "nn.Parameter", views=(view,)))
    return site.body.call(name, hint=name, fact=Fact(array.shape, str(array.dtype)))
