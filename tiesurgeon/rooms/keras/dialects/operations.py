"""TensorFlow functions that tf.keras recorded as layers (TFOpLambda), as Keras 3 operations."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tiesurgeon.rooms.keras.dialects.catalogue import OPERATIONS, words
from tiesurgeon.rooms.keras.dialects.nodes import Call, constant

LAYERS_OF_FUNCTIONS = ("TFOpLambda", "SlicingOpLambda")


@dataclass(frozen=True)
class Operation:
    """A Keras 3 operation class, its config and how it is called."""

    class_name: str
    config: dict[str, Any]
    calls: list[Call]

    @property
    def module(self) -> str:
        """The module that defines the class."""
        return OPERATIONS[self.class_name]


@dataclass(frozen=True)
class _Row:
    """`tensors`: TensorFlow's names of the tensors after the first; `options`: its option -> ours;
    `only`: options that Keras 3 lacks, with the only value that then means the same;
    `unset`: what TensorFlow takes for an option of ours that is not given."""

    class_name: str
    tensors: tuple[str, ...] = ()
    options: dict[str, str] = field(default_factory=dict)
    only: dict[str, Any] = field(default_factory=dict)
    unset: dict[str, Any] = field(default_factory=dict)


def upgrade_operation(function: str, calls: list[Call]) -> Operation | None:
    """Returns the Keras 3 operation that means `function`, or None when there is none."""
    function = function.removeprefix("tf.").removeprefix("compat.v1.")
    special = _SPECIAL.get(function)
    if special is not None:
        done = [special(call) for call in calls]
    elif function in _ROWS:
        done = [_by_row(_ROWS[function], call) for call in calls]
    else:
        return None
    operations = [operation for operation in done if operation is not None]
    if not operations or len(operations) < len(calls):
        return None
    first = operations[0]
    # One Keras 3 operation has one config: calls that differ in it stay as they are.
    if any((op.class_name, op.config) != (first.class_name, first.config) for op in operations):
        return None
    return Operation(first.class_name, first.config, [op.calls[0] for op in operations])


def _by_row(row: _Row, call: Call) -> Operation | None:
    options = {key: value for key, value in call.kwargs.items() if key != "name"}
    for key, value in row.only.items():
        if options.pop(key, None) not in (None, value):
            return None
    tensors = [options.pop(name, None) for name in row.tensors]
    config = dict(row.unset)
    for key, ours in row.options.items():
        value = options.pop(key, None)
        if value is not None:
            config[ours] = value
    if any(value is not None for value in options.values()) or _has_tensor(config):
        return None
    if any(tensor is None for tensor in tensors):
        return None
    return Operation(row.class_name, config, [Call([*call.args, *map(constant, tensors)], {})])


def _slice(call: Call) -> Operation | None:
    spec = call.kwargs.get("slice_spec")
    if _has_tensor(spec):
        return None
    items = spec if isinstance(spec, list) else [spec]
    key = [_slice_item(item) for item in items]
    return Operation("GetItem", {}, [Call([call.args[0], key], {})])


def _slice_item(item: Any) -> Any:
    if isinstance(item, dict) and {"start", "stop", "step"} <= item.keys():
        config = {name: item[name] for name in ("start", "stop", "step")}
        return {"class_name": "__slice__", "config": config}
    return item


def _matmul(call: Call) -> Operation | None:
    options = {key: value for key, value in call.kwargs.items() if value and key != "name"}
    other = options.pop("b", None)
    left, right = options.pop("transpose_a", False), options.pop("transpose_b", False)
    if other is None or options:
        return None
    args = [call.args[0], constant(other)]
    if not left and not right:
        return Operation("Matmul", {}, [Call(args, {})])
    # keras.ops.matmul has no transpose_b.
    subscripts = f"...{'ji' if left else 'ij'},...{'kj' if right else 'jk'}->...ik"
    return Operation("Einsum", {"subscripts": subscripts}, [Call([args[0], args[1]], {})])


def _split(call: Call) -> Operation | None:
    options = {key: value for key, value in call.kwargs.items() if value is not None}
    sizes, axis = options.pop("num_or_size_splits", None), options.pop("axis", 0)
    if isinstance(sizes, list):  # tf counts sizes, numpy says where to cut
        if not all(isinstance(size, int) and size >= 0 for size in sizes):
            return None
        sizes = [sum(sizes[: i + 1]) for i in range(len(sizes) - 1)]
    if sizes is None or set(options) - {"num", "name"} or _has_tensor([sizes, axis]):
        return None
    return Operation("Split", {"indices_or_sections": sizes, "axis": axis}, [call_of(call)])


def _l2_normalize(call: Call) -> Operation | None:
    axis, epsilon = call.kwargs.get("axis"), call.kwargs.get("epsilon") or 1e-12
    if not isinstance(axis, int) or not isinstance(epsilon, float):
        return None
    # tf: x / sqrt(max(sum(x^2), epsilon)); keras: x / max(norm(x), epsilon).
    config = {"axis": axis, "order": 2, "epsilon": epsilon**0.5}
    return Operation("Normalize", config, [call_of(call)])


def _leaky_relu(call: Call) -> Operation | None:
    slope = call.kwargs.get("alpha")
    config = {"negative_slope": 0.2 if slope is None else slope}
    return None if _has_tensor(config) else Operation("LeakyRelu", config, [call_of(call)])


def _gelu(call: Call) -> Operation | None:
    config = {"approximate": bool(call.kwargs.get("approximate", False))}
    return Operation("Gelu", config, [call_of(call)])


def _softmax(class_name: str) -> Callable[[Call], Operation | None]:
    def upgrade(call: Call) -> Operation | None:
        axis = call.kwargs.get("axis")
        config = {"axis": -1 if axis is None else axis}
        return None if _has_tensor(config) else Operation(class_name, config, [call_of(call)])

    return upgrade


def call_of(call: Call) -> Call:
    """The call with its first argument alone."""
    return Call(call.args[:1], {})


def _has_tensor(value: Any) -> bool:
    if isinstance(value, dict):
        return value.get("class_name") == "__keras_tensor__" or any(
            map(_has_tensor, value.values())
        )
    return isinstance(value, list) and any(map(_has_tensor, value))


def _rows() -> dict[str, _Row]:
    rows = {}
    for function, name in _UNARY.items():
        rows[function] = rows[f"math.{function}"] = rows[f"nn.{function}"] = _Row(name)
    for function, name in _BINARY.items():
        row = _Row(name, tensors=("y",))
        rows[function] = rows[f"math.{function}"] = rows[f"__operators__.{function}"] = row
    for function, name in _REDUCTIONS.items():
        options = {"axis": "axis", "keepdims": "keepdims"}
        rows[f"math.{function}"] = rows[function] = _Row(name, options=options)
    return rows | _OTHERS


_SAME_WORD = """
    abs ceil cos cosh elu erf erfc exp expm1 floor log log1p reciprocal relu relu6 round rsqrt selu
    sigmoid sign silu sin sinh softplus softsign sqrt square tan tanh
"""
_UNARY = {
    **{name: name.capitalize() for name in words(_SAME_WORD)},
    "identity": "Copy",
    "swish": "Silu",
    "negative": "Negative",
    "logical_not": "LogicalNot",
    "stop_gradient": "StopGradient",
    "is_nan": "Isnan",
    "is_finite": "Isfinite",
    "is_inf": "Isinf",
    "log_sigmoid": "LogSigmoid",
}
_BINARY = {
    "add": "Add",
    "subtract": "Subtract",
    "multiply": "Multiply",
    "divide": "Divide",
    "truediv": "TrueDivide",
    "divide_no_nan": "DivideNoNan",
    "pow": "Power",
    "maximum": "Maximum",
    "minimum": "Minimum",
    "floordiv": "FloorDivide",
    "floormod": "Mod",
    "mod": "Mod",
    "equal": "Equal",
    "not_equal": "NotEqual",
    "greater": "Greater",
    "greater_equal": "GreaterEqual",
    "less": "Less",
    "less_equal": "LessEqual",
    "logical_and": "LogicalAnd",
    "logical_or": "LogicalOr",
    "logical_xor": "LogicalXor",
    "atan2": "Arctan2",
}
_REDUCTIONS = {
    "reduce_mean": "Mean",
    "reduce_sum": "Sum",
    "reduce_max": "Max",
    "reduce_min": "Min",
    "reduce_prod": "Prod",
    "reduce_any": "Any",
    "reduce_all": "All",
    "reduce_std": "Std",
    "reduce_variance": "Var",
    "reduce_logsumexp": "Logsumexp",
}
_AXIS = {"axis": "axis"}
_FIRST_AXIS = {"axis": 0}  # keras.ops would flatten
_WHOLE = {"exclusive": False, "reverse": False}
_OTHERS = {
    "reshape": _Row("Reshape", options={"shape": "newshape"}),
    "transpose": _Row("Transpose", options={"perm": "axes"}, only={"conjugate": False}),
    "expand_dims": _Row("ExpandDims", options=_AXIS),
    "squeeze": _Row("Squeeze", options=_AXIS),
    "concat": _Row("Concatenate", options=_AXIS),
    "stack": _Row("Stack", options=_AXIS),
    "unstack": _Row("Unstack", options=_AXIS | {"num": "num"}),
    "tile": _Row("Tile", options={"multiples": "repeats"}),
    "repeat": _Row("Repeat", options=_AXIS | {"repeats": "repeats"}),
    "reverse": _Row("Flip", options=_AXIS),
    "broadcast_to": _Row("BroadcastTo", options={"shape": "shape"}),
    "cast": _Row("Cast", options={"dtype": "dtype"}),
    "clip_by_value": _Row("Clip", options={"clip_value_min": "x_min", "clip_value_max": "x_max"}),
    "gather": _Row("Take", ("indices",), _AXIS, {"batch_dims": 0}, _FIRST_AXIS),
    "one_hot": _Row(
        "OneHot",
        options={"depth": "num_classes", "axis": "axis", "dtype": "dtype"},
        only={"on_value": 1, "off_value": 0},
    ),
    "where": _Row("Where", ("x", "y")),
    "zeros_like": _Row("ZerosLike", only={"dtype": None}),
    "ones_like": _Row("OnesLike", only={"dtype": None}),
    "math.argmax": _Row("Argmax", (), _AXIS, {"output_type": "int64"}, _FIRST_AXIS),
    "math.cumsum": _Row("Cumsum", (), _AXIS, _WHOLE, _FIRST_AXIS),
    "math.cumprod": _Row("Cumprod", (), _AXIS, _WHOLE, _FIRST_AXIS),
    "nn.bias_add": _Row("Add", ("bias",), only={"data_format": "NHWC"}),
}
_ROWS = _rows()

_SPECIAL: dict[str, Callable[[Call], Operation | None]] = {
    "__operators__.getitem": _slice,
    "linalg.matmul": _matmul,
    "matmul": _matmul,
    "split": _split,
    "math.l2_normalize": _l2_normalize,
    "nn.l2_normalize": _l2_normalize,
    "nn.leaky_relu": _leaky_relu,
    "nn.gelu": _gelu,
    "nn.softmax": _softmax("Softmax"),
    "nn.log_softmax": _softmax("LogSoftmax"),
}
