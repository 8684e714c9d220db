"""The table of layer pairs: what a pair says of itself, and how one is found."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar

from tiesurgeon.errors import UnmappedLayer
from tiesurgeon.graph import Layer, Value
from tiesurgeon.mapping import layout as arrays
from tiesurgeon.mapping.building import Dims
from tiesurgeon.mapping.keras_operations import is_operation

if TYPE_CHECKING:
    from tiesurgeon.mapping.site import Site


@dataclass(frozen=True)
class WeightPair:
    """One weight under both names; `layout` turns the Keras array into the PyTorch one."""

    keras: str
    torch: str
    layout: arrays.Layout = arrays.IDENTITY


@dataclass(frozen=True)
class Constant:
    """A PyTorch parameter that Keras does not have: that number in the shape of `like`, frozen."""

    torch: str
    like: str
    value: float = 0.0


@dataclass(frozen=True)
class Count:
    """A PyTorch counter that Keras does not have, at zero."""

    torch: str


Weight = WeightPair | Constant | Count


@dataclass(frozen=True)
class Example:
    """A Keras layer to be converted and compared: its arguments and the inputs it is given.

    `inputs` are shapes without the batch, `ids` the range of integer inputs, `call` further
    arguments of the call, `mask` whether a Masking layer stands in front of it.
    `of` is the Keras class where a pair has several.
    """

    inputs: tuple[Dims, ...]
    keras: Mapping[str, Any] = field(default_factory=dict)
    call: Mapping[str, Any] = field(default_factory=dict)
    ids: int | None = None
    mask: bool = False
    of: str = ""


Examples = tuple[Example, ...]
Layout = Literal["keras", "any", "own"]


class Pair:
    """A Keras layer and its PyTorch counterpart. Subclasses fill in what differs.

    `forward` adds PyTorch calls that do what one Keras call does and returns their value (a
    tuple where Keras returns several). The inputs come in Keras' own layout, unless `layout`
    says otherwise: "any" for layers that treat every number alike, "own" for layers that ask
    for channels first themselves. `pointwise` layers act on the last axis alone, so they need
    no folding of time into the batch. `options` are the config entries that `forward` heeds;
    an entry outside of them that is set is refused.
    """

    keras: ClassVar[str]
    torch: ClassVar[str]
    weights: ClassVar[tuple[Weight, ...]] = ()
    options: ClassVar[frozenset[str]] = frozenset()
    layout: ClassVar[Layout] = "keras"
    pointwise: ClassVar[bool] = False
    examples: ClassVar[Examples] = ()

    def weights_of(self, layer: Layer) -> Iterable[Weight]:
        """Its weight pairs; those whose Keras side the layer lacks are left out."""
        return self.weights

    def arguments(self, layer: Layer) -> dict[str, Any]:
        """The PyTorch constructor's arguments."""
        return {}

    def shape(self, layer: Layer, *shapes: Dims) -> Dims | None:
        """The shape of what it returns, in Keras' layout; None where `forward` notes it."""
        return shapes[0]

    def dtype(self, layer: Layer, *dtypes: str) -> str | None:
        """The dtype of what it returns; None where `forward` notes it."""
        return dtypes[0]

    def forward(self, site: Site, *args: Any, **kwargs: Any) -> Value | tuple[Value, ...]:
        """One call in PyTorch."""
        return site.module(args[0])


P = TypeVar("P", bound=type[Pair])
_TABLE: dict[str, Pair] = {}

# Config entries that say nothing of what the layer computes on trained weights.
_NEUTRAL = frozenset(
    """
    name trainable dtype build_config batch_input_shape input_shape input_dtype activity_regularizer
    seed autocast
    """.split()
)
_NEUTRAL_ENDINGS = ("_initializer", "_regularizer", "_constraint")


def layer_pair(*, keras: str, torch: str) -> Callable[[P], P]:
    """Enters a pair into the table under its Keras name (`ops.X` for `keras.ops` nodes).

    Several Keras names that share a counterpart are given with spaces between them.
    """

    def enter(pair: P) -> P:
        for name in keras.split():
            if name in _TABLE:
                raise ValueError(f"{name} is in the table already: {type(_TABLE[name]).__name__}")
            entry = pair()
            type.__setattr__(pair, "torch", torch)
            _TABLE[name] = entry
        type.__setattr__(pair, "keras", keras)
        return pair

    return enter


def pairs() -> Iterator[tuple[str, Pair]]:
    """Every entry with its Keras name."""
    yield from sorted(_TABLE.items())


def key_of(layer: Layer) -> str:
    """The name under which the table has the layer."""
    if layer.body is not None:
        return "Functional"
    return f"ops.{layer.op}" if is_operation(layer) else layer.op


def find(layer: Layer) -> Pair:
    """The layer's pair; UnmappedLayer if it has none or sets an option that the pair ignores."""
    key = key_of(layer)
    pair = _TABLE.get(key)
    if pair is None:
        raise UnmappedLayer(_unmapped(layer, key))
    if layer.body is not None:
        return pair
    policy = layer.config.get("dtype")
    if isinstance(policy, Mapping) and "Quantized" in str(policy.get("class_name")):
        raise refused(layer, "a quantized dtype")
    for option, value in layer.config.items():
        known = option in pair.options or option in _NEUTRAL or option.endswith(_NEUTRAL_ENDINGS)
        if not known and value not in (None, False):
            raise refused(layer, f"{option}={value!r}")
    return pair


def refused(
    layer: Layer, option: str, why: str = "has no PyTorch counterpart yet"
) -> UnmappedLayer:
    """The error for a layer whose class is mapped but not with that option."""
    return UnmappedLayer(
        f"layer '{layer.name}' ({layer.op}): {option} {why}; to add it, extend the "
        f'@layer_pair(keras="{key_of(layer)}") block in tiesurgeon/mapping/layers'
    )


def _unmapped(layer: Layer, key: str) -> str:
    if layer.op == "Lambda":
        return (
            f"layer '{layer.name}' (Lambda) holds Python code, which cannot be translated; "
            f"replace it by a Keras layer or a keras.ops call and save the model again"
        )
    name = layer.entry.get("registered_name") or layer.op
    return (
        f"layer '{layer.name}' ({name}) has no PyTorch counterpart; to add it, write a "
        f'@layer_pair(keras="{key}", torch=...) block in tiesurgeon/mapping/layers'
    )
