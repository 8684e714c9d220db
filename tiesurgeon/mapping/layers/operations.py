"""`keras.ops` nodes: what stands in a graph as a bare function."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np

from tiesurgeon.graph import Layer, Value, values_in
from tiesurgeon.mapping.building import Dims, Fact
from tiesurgeon.mapping.layers.core import cast_to
from tiesurgeon.mapping.layers.registry import Pair, layer_pair
from tiesurgeon.mapping.layers.reshaping import permuted, reshaped
from tiesurgeon.mapping.layers.shapes import numpy_broadcast
from tiesurgeon.mapping.parameters import constant
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
    **{"HardSigmoid": "F.hardsigmoid", "Selu": "F.selu", "Mish": "F.mish", "LogicalNot": "~"},
    **{"StopGradient": ".detach", "OnesLike": "torch.ones_like", "ZerosLike": "torch.zeros_like"},
}
REDUCTIONS = {
    **{"Mean": ".mean", "Sum": ".sum", "Max": ".amax", "Min": ".amin", "Amax": ".amax"},
    **{"Amin": ".amin", "Any": ".any", "All": ".all", "Prod": ".prod"},
}


class _Operation(Pair):
    """Its own class per node; the shape is noted by `forward` unless it stays."""

    options = frozenset(("axis", "keepdims", "initial", "newshape", "axes", "dtype", "subscripts"))


class _Binary(_Operation):
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


class _Unary(_Operation):
    """A function of one tensor."""

    pointwise = True

    def forward(self, site: Site, *args: Any, **kwargs: Any) -> Value:
        return site.call(self.torch, args[0])


class _Reduction(_Operation):
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
class Softmax(_Operation):
    """exp(x) / sum(exp(x)) over one axis"""

    def forward(self, site: Site, *args: Any, **kwargs: Any) -> Value:
        return site.call(self.torch, args[0], dim=site.option("axis", -1))


@layer_pair(keras="ops.LogSoftmax", torch=".log_softmax")
class LogSoftmax(Softmax):
    """The logarithm of softmax"""


@layer_pair(keras="ops.Gelu", torch="F.gelu")
class Gelu(_Operation):
    """x times the normal distribution function, or its approximation by tanh"""

    options = frozenset(("approximate",))
    pointwise = True

    def forward(self, site: Site, *args: Any, **kwargs: Any) -> Value:
        options: dict[str, Any] = (
            {"approximate": "tanh"} if site.option("approximate", True) else {}
        )
        return site.call("F.gelu", args[0], **options)


@layer_pair(keras="ops.LeakyRelu", torch="F.leaky_relu")
class LeakyRelu(_Operation):
    """x above 0, negative_slope * x below"""

    options = frozenset(("negative_slope",))
    pointwise = True

    def forward(self, site: Site, *args: Any, **kwargs: Any) -> Value:
        slope = site.option("negative_slope", 0.2)
        return site.call("F.leaky_relu", args[0], negative_slope=slope)


@layer_pair(keras="ops.Clip", torch=".clamp")
class Clip(_Operation):
    """x between two numbers"""

    options = frozenset(("x_min", "x_max"))
    pointwise = True

    def forward(self, site: Site, *args: Any, **kwargs: Any) -> Value:
        return site.call(".clamp", args[0], site.option("x_min"), site.option("x_max"))


@layer_pair(keras="ops.Cast", torch=".to")
class Cast(_Operation):
    """The numbers as another dtype"""

    def dtype(self, layer: Layer, *dtypes: str) -> None:
        return None

    def forward(self, site: Site, *args: Any, **kwargs: Any) -> Value:
        return cast_to(site, args[0], str(site.option("dtype")))


@layer_pair(keras="ops.Reshape", torch=".reshape")
class Reshape(_Operation):
    """The same numbers in another shape, the batch included"""

    def shape(self, layer: Layer, *shapes: Dims) -> None:
        return None

    def forward(self, site: Site, *args: Any, **kwargs: Any) -> Value:
        return reshaped(site, args[0], tuple(site.option("newshape")))


@layer_pair(keras="ops.Transpose", torch=".permute")
class Transpose(_Operation):
    """The axes in another order"""

    def shape(self, layer: Layer, *shapes: Dims) -> None:
        return None

    def forward(self, site: Site, *args: Any, **kwargs: Any) -> Value:
        rank = site.fact(args[0]).rank
        return permuted(site, args[0], site.option("axes") or range(rank)[::-1])


@layer_pair(keras="ops.ExpandDims", torch=".unsqueeze")
class ExpandDims(_Operation):
    """A new axis of size 1"""

    def shape(self, layer: Layer, *shapes: Dims) -> None:
        return None

    def forward(self, site: Site, *args: Any, **kwargs: Any) -> Value:
        axis = site.option("axis")
        if not isinstance(axis, int):
            raise site.refuse(f"axis={axis!r}")
        shape = list(site.fact(args[0]).shape)
        shape.insert(axis % (len(shape) + 1), 1)
        return site.call(".unsqueeze", args[0], axis, shape=tuple(shape))


@layer_pair(keras="ops.Squeeze", torch=".squeeze")
class Squeeze(_Operation):
    """Without some axes of size 1"""

    def shape(self, layer: Layer, *shapes: Dims) -> Dims:
        axes = axes_of(layer, len(shapes[0]))
        chosen = layer.config.get("axis") is not None
        return tuple(s for i, s in enumerate(shapes[0]) if s != 1 or (chosen and i not in axes))

    def forward(self, site: Site, *args: Any, **kwargs: Any) -> Value:
        axis = site.option("axis")
        if axis is None:
            return site.call(".squeeze", args[0])
        return site.call(".squeeze", args[0], axis if isinstance(axis, int) else tuple(axis))


@layer_pair(keras="ops.Concatenate", torch="torch.cat")
class Concatenate(_Operation):
    """The tensors joined along one axis"""

    def shape(self, layer: Layer, *shapes: Dims) -> Dims:
        axis = layer.config.get("axis", 0) % len(shapes[0])
        sizes = [shape[axis] for shape in shapes]
        size = None if None in sizes else sum(size for size in sizes if size)
        return (*shapes[0][:axis], size, *shapes[0][axis + 1 :])

    def forward(self, site: Site, *args: Any, **kwargs: Any) -> Value:
        return site.call("torch.cat", list(args[0]), dim=site.option("axis", 0))


@layer_pair(keras="ops.Stack", torch="torch.stack")
class Stack(_Operation):
    """The tensors side by side along a new axis"""

    def shape(self, layer: Layer, *shapes: Dims) -> Dims:
        shape = list(shapes[0])
        shape.insert(layer.config.get("axis", 0) % (len(shape) + 1), len(shapes))
        return tuple(shape)

    def forward(self, site: Site, *args: Any, **kwargs: Any) -> Value:
        return site.call("torch.stack", list(args[0]), dim=site.option("axis", 0))


@layer_pair(keras="ops.Split", torch=".chunk")
class Split(_Operation):
    """Equal parts, or parts between given places"""

    options = frozenset(("indices_or_sections", "axis"))

    def forward(self, site: Site, *args: Any, **kwargs: Any) -> tuple[Value, ...]:
        value: Value = args[0]
        axis, places = site.option("axis", 0), site.option("indices_or_sections")
        shape = list(site.fact(value).shape)
        at = axis % len(shape)
        size = shape[at]
        if size is None:
            raise site.refuse("an axis of unknown size")
        step = size // places if isinstance(places, int) else 0
        bounds = list(range(0, size + 1, step)) if step else [0, *places, size]
        parts = []
        for start, stop in pairwise(bounds):
            index = (*[slice(None)] * at, slice(start, stop))
            shape[at] = stop - start
            parts.append(site.call("[]", value, index, shape=tuple(shape)))
        return tuple(parts)


@layer_pair(keras="ops.GetItem", torch="[]")
class GetItem(_Operation):
    """x[key]"""

    def shape(self, layer: Layer, *shapes: Dims) -> None:
        return None

    def forward(self, site: Site, *args: Any, **kwargs: Any) -> Value:
        key = args[1] if len(args) > 1 else kwargs["key"]
        index = tuple(_subscript(part) for part in (key if isinstance(key, list) else [key]))
        if any(isinstance(part, slice) and (part.step or 1) < 0 for part in index):
            raise site.refuse("a slice that goes backwards")
        shape = _indexed(site.fact(args[0]).shape, index)
        return site.call("[]", args[0], index[0] if len(index) == 1 else index, shape=shape)


@layer_pair(keras="ops.Where", torch="torch.where")
class Where(_Operation):
    """One tensor where a condition holds, another elsewhere"""

    def shape(self, layer: Layer, *shapes: Dims) -> Dims:
        return numpy_broadcast(shapes)

    def dtype(self, layer: Layer, *dtypes: str) -> str:
        return dtypes[-1]

    def forward(self, site: Site, *args: Any, **kwargs: Any) -> Value:
        condition, *choices = (*args, *kwargs.values())
        return site.call("torch.where", condition, *(tensor(site, c, condition) for c in choices))


@layer_pair(keras="ops.Einsum", torch="torch.einsum")
class Einsum(_Operation):
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


@layer_pair(keras="ops.EveryStep", torch="torch.ones")
class EveryStep(_Operation):
    """A mask that is true at every step; masks.py makes it, Keras has no such node"""

    def shape(self, layer: Layer, *shapes: Dims) -> Dims:
        return shapes[0][:2]

    def dtype(self, layer: Layer, *dtypes: str) -> str:
        return "bool"

    def forward(self, site: Site, *args: Any, **kwargs: Any) -> Value:
        value: Value = args[0]
        if site.fact(value).rank > 2:
            index = (slice(None), slice(None), *[0] * (site.fact(value).rank - 2))
            value = site.call("[]", value, index, shape=site.fact(value).shape[:2])
        return site.call(".bool", site.call("torch.ones_like", value))


def axes_of(layer: Layer, rank: int) -> frozenset[int]:
    """The axes of a reduction, all of them where none is named."""
    axis = layer.config.get("axis")
    axes = range(rank) if axis is None else [axis] if isinstance(axis, int) else axis
    return frozenset(axis % rank for axis in axes)


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
    view = constant(f"{site.body.path}{name}", "", array)
    site.body.layers.setdefault(name, Layer(name, "nn.Parameter", views=(view,)))
    return site.body.call(name, hint=name, fact=Fact(array.shape, str(array.dtype)))


def _subscript(part: Any) -> Any:
    if isinstance(part, Mapping):
        config = part.get("config") or {}
        if part.get("class_name") == "__ellipsis__":
            return ...
        return slice(config.get("start"), config.get("stop"), config.get("step"))
    return part


def _indexed(shape: Dims, index: tuple[Any, ...]) -> Dims:
    """The shape of x[index]."""
    taking = sum(part is not None and part is not ... for part in index)
    rest, result = list(shape), list[int | None]()
    for part in (*index, ...) if ... not in index else index:
        if part is None:
            result.append(1)
        elif part is ...:
            count = len(shape) - taking
            result += rest[:count]
            rest = rest[count:]
        else:
            size = rest.pop(0)
            if isinstance(part, slice):
                result.append(None if size is None else len(range(*part.indices(size))))
    return tuple(result)
