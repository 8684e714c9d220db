"""Keras' activation functions in PyTorch's words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tiesurgeon.graph import Layer, Value
from tiesurgeon.mapping.torch_words import Name

if TYPE_CHECKING:
    from tiesurgeon.mapping.site import Site


@dataclass(frozen=True)
class Function:
    """A PyTorch function of one tensor; `over_axis` ones work along the last axis."""

    op: str
    options: Mapping[str, Any] = field(default_factory=dict)
    over_axis: bool = False


FUNCTIONS = {
    "relu": Function("torch.relu"),
    "sigmoid": Function("torch.sigmoid"),
    "tanh": Function("torch.tanh"),
    "softmax": Function(".softmax", over_axis=True),
    "log_softmax": Function(".log_softmax", over_axis=True),
    "softplus": Function("F.softplus"),
    "softsign": Function("F.softsign"),
    "elu": Function("F.elu"),
    "selu": Function("F.selu"),
    "celu": Function("F.celu"),
    "gelu": Function("F.gelu"),
    "silu": Function("F.silu"),
    "swish": Function("F.silu"),
    "mish": Function("F.mish"),
    "exponential": Function("torch.exp"),
    "relu6": Function("F.relu6"),
    "leaky_relu": Function("F.leaky_relu", {"negative_slope": 0.2}),
    "hard_sigmoid": Function("F.hardsigmoid"),
    "hard_silu": Function("F.hardswish"),
    "hard_swish": Function("F.hardswish"),
    "hard_tanh": Function("F.hardtanh"),
    "hard_shrink": Function("F.hardshrink"),
    "soft_shrink": Function("F.softshrink"),
    "tanh_shrink": Function("F.tanhshrink"),
    "log_sigmoid": Function("F.logsigmoid"),
    "glu": Function("F.glu", over_axis=True),
    "squareplus": Function("parts.squareplus"),
    "sparse_plus": Function("parts.sparse_plus"),
    "sparse_sigmoid": Function("parts.sparse_sigmoid"),
    "sparsemax": Function("parts.sparsemax", over_axis=True),
    "threshold": Function("F.threshold", {"threshold": 0.0, "value": 0.0}),
    # Keras 2's, which clips 0.2x + 0.5 where Keras 3 clips x/6 + 0.5.
    "hard_sigmoid of Keras 2": Function("parts.keras2_hard_sigmoid"),
}


def name_of(spec: Any, layer: Layer) -> str | Layer | None:
    """The activation that a config names: a function, an activation layer, or None."""
    if isinstance(spec, Mapping):
        if spec.get("class_name") == "function":
            return name_of(spec.get("config"), layer)
        if "class_name" in spec:
            name = str((spec.get("config") or {}).get("name") or layer.name)
            return Layer(name, spec["class_name"], spec.get("config") or {}, entry=layer.entry)
    if spec in (None, "linear"):
        return None
    if spec == "hard_sigmoid" and (layer.entry.get("dialect") or {}).get("hard_sigmoid"):
        return "hard_sigmoid of Keras 2"
    return str(spec)


def activate(site: Site, spec: Any, value: Value) -> Value:
    """The value after the activation that a config names."""
    name = name_of(spec, site.layer)
    if name is None:
        return value
    if isinstance(name, Layer):
        result = site.inside(name).run(value)
        assert isinstance(result, Value)
        return result
    function = FUNCTIONS.get(name)
    if function is None:
        raise site.refuse(f"activation {name!r}")
    options = dict(function.options)
    if function.over_axis:
        fact = site.fact(value)
        options["dim"] = 1 if fact.channels_first else -1
    return site.call(function.op, value, **options)


def as_argument(site: Site, spec: Any) -> Name:
    """The activation as a function to hand to a module."""
    name = name_of(spec, site.layer)
    if name is None:
        return Name("parts.linear")
    function = None if isinstance(name, Layer) else FUNCTIONS.get(name)
    if function is None or function.options or function.over_axis:
        shown = name.op if isinstance(name, Layer) else name
        raise site.refuse(f"activation {shown!r} inside a recurrent layer")
    return Name(function.op)
